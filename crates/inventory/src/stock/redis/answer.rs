//! What scripts answer: a word, then what belongs to it.

use contracts::values::{Epoch, Item, Quantity, ReservationId, Stamp, Timestamp};
use deadpool_redis::redis::{Value, from_redis_value};

use crate::stock::{Hold, StockError};

/// The largest number that Lua has exactly. No stored number is as large, so cutting to it keeps what is below apart from
/// what is above.
pub const EXACT_MAX: i64 = (1 << 53) - 1;

/// A number as an argument of a script.
pub fn exact(number: i64) -> String {
    number.clamp(-EXACT_MAX, EXACT_MAX).to_string()
}

/// An answer of a script, read from its front.
#[derive(Debug)]
pub struct Answer {
    word: String,
    rest: std::vec::IntoIter<Value>,
}

impl Answer {
    /// Takes it apart; an error of the server is one here.
    pub fn parse(value: Value) -> Result<Self, StockError> {
        let Value::Array(parts) = value.extract_error().map_err(|e| StockError(Box::new(e)))? else {
            return Err(nonsense("no list"));
        };
        let mut rest = parts.into_iter();
        let word = rest.next().ok_or_else(|| nonsense("an empty list"))?;
        Ok(Self { word: text(word)?, rest })
    }

    /// What became of it.
    pub fn word(&self) -> &str {
        &self.word
    }

    /// The next part, a number.
    pub fn number(&mut self) -> Result<i64, StockError> {
        match self.rest.next() {
            Some(Value::Int(number)) => Ok(number),
            other => Err(nonsense(&format!("{other:?} in place of a number"))),
        }
    }

    /// The next part, a text.
    pub fn text(&mut self) -> Result<String, StockError> {
        text(self.rest.next().unwrap_or_default())
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.rest.len() == 0
    }

    /// An error: the word is none of those that the script may answer.
    pub fn unknown<T>(&self) -> Result<T, StockError> {
        Err(nonsense(&self.word))
    }

    /// The stamp of a hold: its number comes next.
    pub fn stamp(&mut self, item: &Item, epoch: i64) -> Result<Stamp, StockError> {
        Ok(Stamp { item: item.clone(), epoch: Epoch(epoch), number: self.number()? })
    }

    /// A hold: number, quantity and deadline come next.
    pub fn hold(&mut self, item: &Item, id: ReservationId, epoch: i64) -> Result<Hold, StockError> {
        let stamp = self.stamp(item, epoch)?;
        let quantity = Quantity::parse(self.number()?).map_err(|e| nonsense(&e.0))?;
        Ok(Hold { id, stamp, quantity, deadline: Timestamp(self.number()?) })
    }
}

fn text(value: Value) -> Result<String, StockError> {
    from_redis_value(value).map_err(|_| nonsense("no text"))
}

/// The server and this program do not speak of the same thing.
pub fn nonsense(what: &str) -> StockError {
    StockError(format!("Redis answered nonsense: {what}").into())
}
