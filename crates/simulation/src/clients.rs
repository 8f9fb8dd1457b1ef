//! The callers: they send what [`crate::workload`] has planned, as the edge would, and note what they are told.

use std::{sync::Arc, time::Duration};

use contracts::{
    Failure, Reason,
    inventory::v1::{GetStockRequest, ReleaseRequest, ReserveRequest, RestockRequest, reserve_response::Outcome},
    orders::v1::{CreateOrderRequest, GetOrderRequest, ListOrdersRequest, Order},
    reason::Retry,
    values::{Item, ReservationId},
};
use service::environment::Environment;
use uuid::Uuid;

use crate::{
    history::{Event, History, OrderRequest},
    workload::{Act, Patience, Plan, QUIET, TOO_MANY, Use, millis},
    world::{Client, World},
};

/// Wait before the same is asked again, in milliseconds.
const PAUSE_MS: u64 = 100;
/// For one call of a caller who has no other plans, in milliseconds.
const TIMEOUT_MS: u64 = 2_000;

/// Starts them all.
pub fn start(world: &World, plan: Plan, history: &Arc<History>) {
    for (number, (at, act)) in (0..).zip(plan.acts) {
        let caller = Caller { client: world.client(number), history: history.clone() };
        world.start(Box::pin(async move {
            caller.pause(at).await;
            caller.act(act).await;
        }));
    }
}

/// One of them.
#[derive(Clone)]
pub struct Caller {
    /// To the services.
    pub client: Client,
    /// Where it notes what happens.
    pub history: Arc<History>,
}

/// What became of a POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Ordered,
    Refused,
    Unknown,
}

/// Whether nobody knows if it was done.
fn is_unknown(reason: Reason) -> bool {
    reason.retry() == Retry::Backoff
}

impl Caller {
    /// Waits.
    pub async fn pause(&self, ms: u64) {
        self.env().sleep(millis(ms)).await;
    }

    fn env(&self) -> &dyn Environment {
        &**self.client.env()
    }

    async fn act(&self, act: Act) {
        match act {
            Act::Order(request, patience) => self.order(&request, &patience).await,
            Act::Hold(id, item, quantity, ttl, uses) => self.hold(id, item, quantity, ttl, uses).await,
            Act::Nameless(item, quantity) => {
                let ttl = Some(prost_types::Duration { seconds: 1, nanos: 0 });
                let message = ReserveRequest { item: item.to_string(), quantity, ttl, ..ReserveRequest::default() };
                self.note_failure("reserve", self.client.reserve(millis(TIMEOUT_MS), message).await.err());
            }
            Act::Restock(id, item, quantity, again) => {
                self.restock(id, &item, quantity).await;
                if again {
                    self.pause(PAUSE_MS).await;
                    self.restock(id, &item, quantity).await;
                }
            }
            Act::Read(item) => self.read(&item).await,
            Act::Hopeless(which) => self.hopeless(which).await,
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "nobody needs it afterwards")]
    fn note_failure(&self, what: &'static str, failure: Option<Failure>) {
        let Some(Failure { reason, .. }) = failure else { return };
        self.history.note(if is_unknown(reason) {
            Event::Unknown(what, reason)
        } else {
            Event::Declined(what, reason)
        });
    }

    /// Orders, as often as its patience lasts.
    pub async fn order(&self, request: &Arc<OrderRequest>, patience: &Patience) {
        let mut hang_up = patience.hang_up_micros;
        for attempt in 0..patience.tries {
            if attempt > 0 {
                self.pause(PAUSE_MS << attempt).await;
            }
            let post = self.post(request, patience.timeout_ms);
            let answered = match hang_up.take() {
                Some(micros) => self.env().timeout(Duration::from_micros(micros), post).await.unwrap_or(false),
                None => post.await,
            };
            if answered {
                break;
            }
        }
        if patience.again {
            self.pause(PAUSE_MS).await;
            self.post(request, patience.timeout_ms).await;
        }
    }

    /// One POST with a short time. True if it was answered with an order.
    pub async fn ordered(&self, request: &Arc<OrderRequest>) -> bool {
        self.send(request, 500).await == Sent::Ordered
    }

    /// One POST. True if its answer says what became of it.
    pub async fn post(&self, request: &Arc<OrderRequest>, timeout_ms: u64) -> bool {
        self.send(request, timeout_ms).await != Sent::Unknown
    }

    async fn send(&self, request: &Arc<OrderRequest>, timeout_ms: u64) -> Sent {
        let number = self.history.next();
        self.history.note(Event::Asked(request.clone(), number));
        let answer = self.client.create_order(millis(timeout_ms), request.message()).await;
        let event = match answer {
            Ok(answer) => match answer.order.as_ref().and_then(parsed) {
                Some(id) => {
                    let order = answer.order.unwrap_or_default();
                    Event::Ordered(request.clone(), id, order.item, order.quantity)
                }
                None => Event::Malformed(format!("{answer:?}")),
            },
            Err(failure) if is_unknown(failure.reason) => Event::Unknown("order", failure.reason),
            Err(failure) => Event::Refused(request.clone(), failure.reason, number),
        };
        let sent = match event {
            Event::Ordered(..) => Sent::Ordered,
            Event::Unknown(..) => Sent::Unknown,
            _ => Sent::Refused,
        };
        self.history.note(event);
        sent
    }

    /// Several at once, each at its time.
    async fn hold(&self, id: ReservationId, item: Item, quantity: i64, ttl: u64, uses: Vec<(u64, Use)>) {
        for (at, what) in uses {
            let (this, item) = (self.clone(), item.clone());
            self.env().start(Box::pin(async move {
                this.pause(at).await;
                match what {
                    Use::Order(request, patience) => this.order(&request, &patience).await,
                    Use::Release(named) => this.release(id, named.then_some(&item)).await,
                    Use::Again => this.reserve(id, &item, quantity, ttl).await,
                    Use::Other(item, quantity) => this.reserve(id, &item, quantity, ttl).await,
                }
            }));
        }
        self.reserve(id, &item, quantity, ttl).await;
    }

    async fn reserve(&self, id: ReservationId, item: &Item, quantity: i64, ttl: u64) {
        let message = ReserveRequest {
            reservation_id: Some(id.to_string()),
            item: item.to_string(),
            quantity,
            ttl: Some(prost_types::Duration { seconds: i64::try_from(ttl).expect("small"), nanos: 0 }),
            ..ReserveRequest::default()
        };
        match self.client.reserve(millis(TIMEOUT_MS), message).await {
            Ok(answer) => match answer.outcome {
                Some(Outcome::Held(_)) => self.history.note(Event::Held(id, item.clone(), quantity)),
                Some(Outcome::Insufficient(_)) => {
                    self.history.note(Event::Declined("reserve", Reason::InsufficientStock));
                }
                None => self.history.note(Event::Malformed("a reserve without an outcome".into())),
            },
            Err(failure) => self.note_failure("reserve", Some(failure)),
        }
    }

    async fn release(&self, id: ReservationId, item: Option<&Item>) {
        let item = item.map(Item::to_string).unwrap_or_default();
        let message = ReleaseRequest { reservation_id: id.to_string(), item };
        self.note_failure("release", self.client.release(millis(TIMEOUT_MS), message).await.err());
    }

    /// Counts in, until it is answered.
    pub async fn restock(&self, id: Uuid, item: &Item, quantity: i64) {
        loop {
            let message = RestockRequest { id: id.to_string(), item: item.to_string(), quantity };
            match self.client.restock(millis(TIMEOUT_MS), message).await {
                Ok(_) => return self.history.note(Event::Restocked(id, item.clone(), quantity)),
                Err(failure) => self.note_failure("restock", Some(failure)),
            }
            self.pause(PAUSE_MS).await;
        }
    }

    async fn read(&self, item: &Item) {
        match self.client.get_stock(millis(TIMEOUT_MS), GetStockRequest { item: item.to_string() }).await {
            Ok(answer) => self.history.note(Event::Stock(item.clone(), answer.stock)),
            Err(failure) => self.note_failure("read", Some(failure)),
        }
        let list = ListOrdersRequest { item: item.to_string(), ..ListOrdersRequest::default() };
        let newest = match self.client.list_orders(millis(TIMEOUT_MS), list).await {
            Ok(answer) => answer.orders.first().and_then(parsed),
            Err(failure) => return self.note_failure("read", Some(failure)),
        };
        let Some(id) = newest else { return };
        let number = self.history.next();
        match self.client.get_order(millis(TIMEOUT_MS), GetOrderRequest { id: id.to_string() }).await {
            Ok(_) => self.history.note(Event::Found(id, true, number)),
            Err(failure) if failure.reason == Reason::OrderNotFound => {
                self.history.note(Event::Found(id, false, number));
            }
            Err(failure) => self.note_failure("read", Some(failure)),
        }
    }

    /// What has to be refused, and leave nothing behind.
    async fn hopeless(&self, which: u64) {
        let (item, timeout) = (QUIET.to_owned(), millis(TIMEOUT_MS));
        let order = |quantity, key: Option<&str>| CreateOrderRequest {
            item: item.clone(),
            quantity,
            idempotency_key: key.map(str::to_owned),
            reservation_id: None,
            attempt_id: Some(self.env().uuid().to_string()),
        };
        let reserve = |quantity| ReserveRequest { item: item.clone(), quantity, ..ReserveRequest::default() };
        let failure = match which {
            0 => self.client.create_order(timeout, order(TOO_MANY, Some("hopeless"))).await.map(drop),
            1 => self.client.create_order(timeout, order(TOO_MANY, None)).await.map(drop),
            2 => self.client.create_order(timeout, order(-1, None)).await.map(drop),
            3 => {
                let answer = self.client.reserve(timeout, reserve(TOO_MANY)).await;
                answer.map(|answer| match answer.outcome {
                    Some(Outcome::Insufficient(_)) => {}
                    other => self.history.note(Event::Malformed(format!("{TOO_MANY} {QUIET}: {other:?}"))),
                })
            }
            4 => self.client.reserve(timeout, reserve(-2)).await.map(drop),
            _ => self.client.get_stock(timeout, GetStockRequest { item }).await.map(drop),
        };
        let must_fail = matches!(which, 0 | 1 | 2 | 4);
        if must_fail && failure.is_ok() {
            self.history.note(Event::Malformed(format!("hopeless request {which} was granted")));
        }
        self.note_failure("hopeless", failure.err());
    }
}

fn parsed(order: &Order) -> Option<ReservationId> {
    ReservationId::parse(&order.id).ok()
}
