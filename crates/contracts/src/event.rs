//! The message on queue `order_created`.

use serde::{Deserialize, Serialize};

use crate::values::{Epoch, Invalid, Item, Quantity, ReservationId, Stamp, Timestamp};

/// The queue, and its routing key.
pub const ORDER_CREATED: &str = "order_created";

/// An order was committed: its hold is sold. Delivered at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderCreated {
    /// The order, which is also the message id.
    pub id: ReservationId,
    /// The hold that became the order; holds the item.
    pub stamp: Stamp,
    /// Units sold.
    pub quantity: Quantity,
    /// When the order was made.
    pub created_at: Timestamp,
}

/// The JSON. `id`, `item` and `quantity` are for everyone; readers ignore what they do not know.
#[derive(Serialize, Deserialize)]
struct Body {
    id: String,
    item: String,
    quantity: i64,
    epoch: i64,
    number: i64,
    created_at: String,
}

impl OrderCreated {
    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let body = Body {
            id: self.id.to_string(),
            item: self.stamp.item.to_string(),
            quantity: self.quantity.get(),
            epoch: self.stamp.epoch.0,
            number: self.stamp.number,
            created_at: self.created_at.to_string(),
        };
        serde_json::to_vec(&body).expect("strings and numbers become JSON")
    }

    /// From JSON; unknown members are ignored.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Invalid> {
        // Said here, because serde checks no text that it ignores, and takes an array of the values for the object.
        let text = std::str::from_utf8(bytes).map_err(|_| Invalid("must be UTF-8".into()))?;
        if !text.trim_ascii_start().starts_with('{') {
            return Err(Invalid("must be a JSON object".into()));
        }
        let body: Body = serde_json::from_str(text).map_err(|e| Invalid(e.to_string()))?;
        if body.epoch < 1 || body.number < 1 {
            return Err(Invalid("epoch and number start at 1".into()));
        }
        Ok(Self {
            id: ReservationId::parse(&body.id)?,
            stamp: Stamp { item: Item::parse(&body.item)?, epoch: Epoch(body.epoch), number: body.number },
            quantity: Quantity::parse(body.quantity)?,
            created_at: body.created_at.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_written_and_new_members_are_ignored() {
        let event = OrderCreated {
            id: ReservationId(uuid::Uuid::new_v8([3; 16])),
            stamp: Stamp { item: Item::parse("widget").expect("valid"), epoch: Epoch(2), number: 9 },
            quantity: Quantity::parse(4).expect("valid"),
            created_at: Timestamp(1_795_000_000_123_456),
        };
        let mut json: serde_json::Value = serde_json::from_slice(&event.to_json()).expect("JSON");
        assert_eq!((json["item"].as_str(), json["quantity"].as_i64()), (Some("widget"), Some(4)));
        json["new_member"] = true.into();
        assert_eq!(OrderCreated::from_json(json.to_string().as_bytes()), Ok(event));
    }

    #[test]
    fn a_malformed_event_is_refused() {
        for bad in ["", "[]", "{}", r#"{"id":"x","item":"a","quantity":1,"epoch":1,"number":1,"created_at":"x"}"#] {
            assert!(OrderCreated::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
        let values = br#"["0f8fad5b-d9cb-869f-a165-70867728950e","a",1,1,1,"2026-11-22T10:00:00Z"]"#;
        assert_eq!(OrderCreated::from_json(values), Err(Invalid("must be a JSON object".into())));
    }
}
