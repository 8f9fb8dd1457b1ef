//! The stock store in Redis: one server, the present master of a Sentinel group, or a cluster.
//!
//! Each method is one Lua script; only the hint of a client's hold, which in a cluster is in another slot than the item,
//! is a step of its own. The scripts decide; here their keys and arguments are put together and their answers read.
//!
//! - [`target`]: where Redis is, as an operator says it
//! - [`keys`]: what is stored under which key
//! - [`scripts`]: the scripts, and the rules that all of them share
//! - [`answer`]: what they answer
//! - [`registry`]: which items there are, and what is due
//! - [`wire`]: what carries commands; [`router`] to the right server, [`layout`] of the servers, [`node`] one of them

pub mod answer;
pub mod keys;
pub mod layout;
pub mod node;
pub mod registry;
pub mod router;
pub mod scripts;
pub mod target;
pub mod wire;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use contracts::values::{Epoch, Item, Lease, Quantity, ReservationId, Stamp, Timestamp};
use deadpool_redis::redis::{Value, from_redis_value};
use service::environment::Env;
use uuid::Uuid;

use self::{
    answer::{Answer, exact},
    keys::Spread,
    registry::Registry,
    router::Router,
    scripts::{SCRIPTS, Script},
    target::RedisTarget,
    wire::{Request, Wire},
};
use super::{
    CONFIRMED_MARKER_SECONDS, ConfirmReply, Counts, Found, HINT_GRACE_SECONDS, Hold, Incarnation, LoadReply, Probe,
    RELEASE_MARKER_SECONDS, RESTOCKS_PER_LEASE_MAX, ReleaseReply, ReserveReply, ReserveRequest, RestockReply,
    StockError, StockReply, StockStore,
};

/// A stock store in Redis.
pub struct RedisStock {
    env: Env,
    wire: Arc<dyn Wire>,
    spread: Spread,
    registry: Registry,
}

impl RedisStock {
    /// Connects when it is first asked: Redis need not be there yet.
    pub fn new(target: RedisTarget, env: Env) -> Arc<Self> {
        let spread = match target {
            RedisTarget::Single(_) | RedisTarget::Sentinel { .. } => Spread::OneServer,
            RedisTarget::Cluster(_) => Spread::Cluster,
        };
        Self::over(Arc::new(Router::new(target, env.clone())), spread, env)
    }

    /// Over something else that runs the scripts.
    pub fn over(wire: Arc<dyn Wire>, spread: Spread, env: Env) -> Arc<Self> {
        let registry = Registry::new(Arc::clone(&wire), spread);
        Arc::new(Self { env, wire, spread, registry })
    }

    async fn run(
        &self,
        script: &'static Script,
        (slot, keys): (u16, Vec<String>),
        args: Vec<String>,
    ) -> Result<Answer, StockError> {
        let mut answer = Answer::parse(self.wire.ask(&Request::run(script, slot, keys, args)).await?)?;
        self.note(slot, &mut answer)?;
        Ok(answer)
    }

    /// A server that is no master any more is looked for anew.
    fn note(&self, slot: u16, answer: &mut Answer) -> Result<(), StockError> {
        if answer.word() == "not_open" {
            let why = answer.text()?;
            tracing::debug!(why, "item not open");
            if why == "replica" {
                self.wire.doubt(slot);
            }
        }
        Ok(())
    }

    async fn held(&self, request: &ReserveRequest) -> Result<(ReserveReply, HoldIs), StockError> {
        let ReserveRequest { id, item, quantity, ttl, least_epoch, hint } = request;
        let args = vec![
            id.to_string(),
            quantity.get().to_string(),
            ttl.duration().as_micros().to_string(),
            exact(least_epoch.0),
            u8::from(*hint).to_string(),
        ];
        let mut answer = self.run(&SCRIPTS.reserve, self.spread.item_and_id(item.as_str(), *id), args).await?;
        let there = if matches!(answer.word(), "held" | "overdue") { HoldIs::There } else { HoldIs::Absent };
        let reply = match answer.word() {
            "held" | "confirmed" => {
                let epoch = answer.number()?;
                ReserveReply::Held {
                    stamp: answer.stamp(item, epoch)?,
                    remaining: answer.number()?,
                    deadline: Timestamp(answer.number()?),
                }
            }
            "insufficient" => ReserveReply::Insufficient { remaining: answer.number()? },
            "released" => ReserveReply::Released,
            "mismatch" => ReserveReply::Mismatch,
            "overdue" => ReserveReply::Overdue,
            "not_open" => ReserveReply::NotOpen,
            _ => return answer.unknown(),
        };
        Ok((reply, there))
    }

    /// The hint goes first: a hold that cannot be found by its id would be worse than a hint to nothing. It is taken back
    /// when no hold came of it.
    async fn held_with_hint(&self, request: &ReserveRequest) -> Result<ReserveReply, StockError> {
        let (slot, key) = self.spread.hint(request.id);
        let writer = self.env.uuid().to_string();
        let life = request.ttl.duration() + Duration::from_secs(HINT_GRACE_SECONDS);
        let args = vec![request.item.as_str().to_owned(), writer.clone(), life.as_millis().to_string()];
        let answer = self.run(&SCRIPTS.hint_put, (slot, vec![key.clone()]), args).await?;
        match answer.word() {
            "created" | "kept" => {}
            "elsewhere" => {
                let open = self.open(&request.item, request.least_epoch).await?;
                return Ok(if open.is_some() { ReserveReply::Mismatch } else { ReserveReply::NotOpen });
            }
            _ => return answer.unknown(),
        }
        let (reply, there) = self.held(request).await?;
        if there == HoldIs::Absent && answer.word() == "created" {
            self.run(&SCRIPTS.hint_drop, (slot, vec![key]), vec![writer]).await?;
        }
        Ok(reply)
    }

    /// Units available of an item that is open at `least` or above.
    async fn open(&self, item: &Item, least: Epoch) -> Result<Option<i64>, StockError> {
        let mut answer = self.run(&SCRIPTS.open, self.spread.item(item.as_str()), vec![exact(least.0)]).await?;
        match answer.word() {
            "open" => {
                answer.number()?;
                answer.number().map(Some)
            }
            "not_open" => Ok(None),
            _ => answer.unknown(),
        }
    }
}

/// Whether a hold of the id is there after a reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HoldIs {
    There,
    Absent,
}

#[async_trait]
impl StockStore for RedisStock {
    async fn reserve(&self, request: &ReserveRequest) -> Result<ReserveReply, StockError> {
        if request.hint { self.held_with_hint(request).await } else { Ok(self.held(request).await?.0) }
    }

    async fn confirm(&self, id: ReservationId, stamp: &Stamp) -> Result<ConfirmReply, StockError> {
        let marker_ms = CONFIRMED_MARKER_SECONDS * 1_000;
        let args = vec![id.to_string(), exact(stamp.epoch.0), exact(stamp.number), marker_ms.to_string()];
        let answer = self.run(&SCRIPTS.confirm, self.spread.item_and_id(stamp.item.as_str(), id), args).await?;
        match answer.word() {
            "confirmed" => Ok(ConfirmReply::Confirmed),
            "already_done" => Ok(ConfirmReply::AlreadyDone),
            "superseded" => Ok(ConfirmReply::Superseded),
            "not_open" => Ok(ConfirmReply::NotOpen),
            _ => answer.unknown(),
        }
    }

    async fn release(&self, id: ReservationId, stamp: &Stamp, marker: bool) -> Result<ReleaseReply, StockError> {
        let marker_ms = if marker { RELEASE_MARKER_SECONDS * 1_000 } else { 0 };
        let args = vec![id.to_string(), exact(stamp.epoch.0), exact(stamp.number), marker_ms.to_string()];
        let answer = self.run(&SCRIPTS.release, self.spread.item_and_id(stamp.item.as_str(), id), args).await?;
        match answer.word() {
            "released" => Ok(ReleaseReply::Released),
            "absent" => Ok(ReleaseReply::Absent),
            "superseded" => Ok(ReleaseReply::Superseded),
            "not_open" => Ok(ReleaseReply::NotOpen),
            _ => answer.unknown(),
        }
    }

    async fn restock(
        &self,
        id: Uuid,
        item: &Item,
        quantity: Quantity,
        epoch: Epoch,
    ) -> Result<RestockReply, StockError> {
        let most = RESTOCKS_PER_LEASE_MAX.to_string();
        let args = vec![id.to_string(), quantity.get().to_string(), exact(epoch.0), most];
        let mut answer = self.run(&SCRIPTS.restock, self.spread.item(item.as_str()), args).await?;
        match answer.word() {
            "counted" => Ok(RestockReply::Counted { available: answer.number()? }),
            "not_open" => Ok(RestockReply::NotOpen),
            _ => answer.unknown(),
        }
    }

    async fn available(&self, item: &Item) -> Result<StockReply, StockError> {
        let available = self.open(item, Epoch::NONE).await?;
        Ok(available.map_or(StockReply::NotOpen, StockReply::Available))
    }

    async fn find(&self, id: ReservationId) -> Result<Option<Found>, StockError> {
        let (slot, key) = self.spread.hint(id);
        let mut hints = self.wire.ask_all(&[Request::command_of(slot, ["HGET", &key, "item"])]).await;
        let hint = hints.pop().unwrap_or(Ok(Value::Nil))?;
        // What a hand has put there is no hint.
        let name: Option<String> = from_redis_value(hint).unwrap_or_default();
        let Some(item) = name.and_then(|name| Item::parse(&name).ok()) else { return Ok(None) };
        let hold = self.hold(&item, id).await?;
        Ok(Some(Found { item, hold }))
    }

    async fn hold(&self, item: &Item, id: ReservationId) -> Result<Option<Hold>, StockError> {
        let mut answer = self.run(&SCRIPTS.hold, self.spread.item(item.as_str()), vec![id.to_string()]).await?;
        match answer.word() {
            "hold" => {
                let epoch = answer.number()?;
                answer.hold(item, id, epoch).map(Some)
            }
            "absent" | "not_open" => Ok(None),
            _ => answer.unknown(),
        }
    }

    async fn probe(&self, item: &Item) -> Result<Probe, StockError> {
        let mut answer = self.run(&SCRIPTS.probe, self.spread.item(item.as_str()), vec![]).await?;
        match answer.word() {
            "probed" => Ok(Probe {
                incarnation: Incarnation(answer.text()?),
                stored: Epoch(answer.number()?),
                open: answer.number()? == 1,
            }),
            "not_open" => Err(StockError("Redis is no master any more".into())),
            _ => answer.unknown(),
        }
    }

    async fn load(&self, lease: &Lease, incarnation: &Incarnation) -> Result<LoadReply, StockError> {
        let (slot, keys) = self.spread.item(lease.item.as_str());
        let args = vec![incarnation.0.clone(), exact(lease.epoch.0), exact(lease.received), exact(lease.sold)];
        let answer = Answer::parse(self.wire.ask_once(&Request::run(&SCRIPTS.load, slot, keys, args)).await?)?;
        match answer.word() {
            "loaded" => Ok(LoadReply::Loaded),
            "refused" => Ok(LoadReply::Refused),
            _ => answer.unknown(),
        }
    }

    async fn due(&self) -> Result<Vec<Hold>, StockError> {
        self.registry.due().await
    }

    async fn open_items(&self, after: Option<&Item>) -> Result<Vec<(Item, Epoch)>, StockError> {
        self.registry.open_items(after).await
    }

    async fn counts(&self, item: &Item) -> Result<Option<Counts>, StockError> {
        let mut answer = self.run(&SCRIPTS.counts, self.spread.item(item.as_str()), vec![]).await?;
        match answer.word() {
            "counts" => Ok(Some(Counts {
                epoch: Epoch(answer.number()?),
                received: answer.number()?,
                available: answer.number()?,
                held: answer.number()?,
                sold: answer.number()?,
                // Negative by hand only.
                holds: u64::try_from(answer.number()?).unwrap_or(0),
            })),
            "absent" => Ok(None),
            _ => answer.unknown(),
        }
    }

    async fn ping(&self) -> Result<(), StockError> {
        self.wire.check().await
    }
}
