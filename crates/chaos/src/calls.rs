//! One call over HTTP, from the line that says that it is about to be sent to the line that says what came of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::history::{Answer, Event, Invoke, Op};
use crate::record::Recorder;
use crate::tally::{Asked, Tally};

/// A call without an answer is given up. Gateway and edge answer sooner, whatever hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What a client was told.
#[derive(Debug)]
pub struct Told {
    /// The status, or why there is none.
    status: Result<u16, String>,
    is_replayed: bool,
    body: Value,
}

impl Told {
    /// It succeeded.
    pub fn is_ok(&self) -> bool {
        matches!(self.status, Ok(200..=299))
    }

    /// It may have been done, or not.
    pub fn is_unknown(&self) -> bool {
        !matches!(self.status, Ok(200..=299 | 400 | 404 | 409 | 422))
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.body[name].as_i64()
    }

    fn id(&self, name: &str) -> Option<Uuid> {
        self.body[name].as_str().and_then(|text| text.parse().ok())
    }

    /// The order that it was answered with.
    pub fn order(&self) -> Option<Uuid> {
        self.id("id").filter(|_| self.is_ok())
    }

    /// It set units aside.
    pub fn is_held(&self) -> bool {
        self.is_ok() && self.body["success"] == true
    }

    fn event(&self, at: u64, op: Op, call: u64) -> Event {
        let mut answer = Answer { at, call, status: self.status.as_ref().ok().copied(), ..Answer::default() };
        let reason = self.body["reason"].as_str().map(str::to_owned);
        answer.reason = self.status.as_ref().err().cloned().or(reason);
        answer.remaining = self.number("remaining");
        if self.is_ok() {
            answer.item = self.body["item"].as_str().map(str::to_owned);
            match op {
                Op::Order | Op::Read => {
                    answer.order = self.order();
                    answer.quantity = self.number("quantity");
                    answer.replayed = (op == Op::Order).then_some(self.is_replayed);
                }
                Op::Reserve => answer.hold = self.id("reservation_id"),
                Op::Restock => answer.remaining = self.number("stock"),
                Op::Stock => answer.stock = self.number("stock"),
                Op::Release => {}
            }
        }
        match (self.is_ok(), self.is_unknown()) {
            (true, _) => Event::Ok(answer),
            (_, true) => Event::Unknown(answer),
            (false, false) => Event::Refused(answer),
        }
    }
}

/// Who calls, and writes down what comes of it.
#[derive(Clone)]
pub struct Caller {
    /// The gateway.
    pub http: SocketAddr,
    /// The edges, for what the gateway refuses.
    pub edges: [SocketAddr; 2],
    /// The history.
    pub recorder: Arc<Recorder>,
    /// What was told so far.
    pub tally: Arc<Tally>,
    pool: Client<HttpConnector, Full<Bytes>>,
}

impl Caller {
    /// Of this system.
    pub fn new(http: SocketAddr, edges: [SocketAddr; 2], recorder: Arc<Recorder>) -> Self {
        let pool = Client::builder(TokioExecutor::new()).build_http();
        Self { http, edges, recorder, tally: Arc::default(), pool }
    }

    /// Makes the call that the line describes.
    pub async fn call(&self, client: u32, invoke: Invoke) -> Told {
        let call = self.recorder.next_call();
        let op = invoke.op;
        let request = self.request(client, call, &invoke);
        let sent = Instant::now();
        let item = invoke.item.clone();
        self.recorder.write(|at| Event::Invoke(Invoke { at, client, call, ..invoke }));
        let told = self.send(request).await;
        self.recorder.write(|at| told.event(at, op, call));
        self.tally.note(Asked {
            op,
            sent,
            answered: Instant::now(),
            status: told.status.as_ref().ok().copied(),
            is_placed: op == Op::Order && told.is_ok() && !told.is_replayed,
            item: Tally::number(item.as_deref()),
        });
        told
    }

    fn request(&self, client: u32, call: u64, invoke: &Invoke) -> Request<Full<Bytes>> {
        let item = invoke.item.as_deref().unwrap_or_default();
        let (method, path, body) = match invoke.op {
            Op::Order => {
                let mut body = json!({ "item": item, "quantity": invoke.quantity });
                if let Some(hold) = invoke.hold {
                    body["reservation_id"] = json!(hold);
                }
                (Method::POST, "/orders".to_owned(), Some(body))
            }
            Op::Reserve => {
                let body = json!({ "item": item, "quantity": invoke.quantity, "reservation_id": invoke.hold,
                    "ttl_seconds": crate::load::HOLD_SECONDS });
                (Method::POST, "/reserve".to_owned(), Some(body))
            }
            Op::Release => (Method::DELETE, format!("/reservations/{}", invoke.hold.unwrap_or_default()), None),
            Op::Restock => {
                let body = json!({ "id": invoke.restock, "quantity": invoke.quantity });
                (Method::POST, format!("/inventory/{item}/restocks"), Some(body))
            }
            Op::Stock => (Method::GET, format!("/inventory/{item}"), None),
            Op::Read => (Method::GET, format!("/orders/{}", invoke.order.unwrap_or_default()), None),
        };
        let addr = if invoke.op == Op::Restock { self.edges[usize::from(call % 2 == 1)] } else { self.http };
        let mut request = Request::builder().method(method).uri(format!("http://{addr}{path}"));
        // By it a call of the history is found in the services' logs.
        request = request.header("x-request-id", format!("{client}-{call}"));
        if let Some(key) = &invoke.key {
            request = request.header("idempotency-key", key);
        }
        let body = body.map_or_else(String::new, |body| body.to_string());
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body.into())).expect("all parts are sane")
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Told {
        let work = async {
            let (head, body) = self.pool.request(request).await.map_err(|error| format!("{error:?}"))?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
            Ok((head, body.to_bytes()))
        };
        let answered = timeout(ANSWER_LIMIT, work).await.unwrap_or_else(|_| Err("no answer".to_owned()));
        match answered {
            Ok((head, body)) => Told {
                status: Ok(head.status.as_u16()),
                is_replayed: head.headers.get("idempotent-replayed").is_some_and(|value| value == "true"),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            },
            Err(why) => Told { status: Err(why), is_replayed: false, body: Value::Null },
        }
    }
}
