//! The table of everything served: who handles it, and what it is called, takes and answers in the OpenAPI document. What it
//! leaves out is 404, gRPC paths among it: from outside, only this is reached.

use axum::routing::{MethodFilter, MethodRouter, on};
use contracts::Reason::{
    self, BodyTooLarge, DeadlineExceeded, IdempotencyKeyReused, InsufficientStock, Internal, InvalidRequest,
    MethodNotAllowed, OrderNotFound, Overloaded, RequestTimeout, ReservationConfirmed, ReservationMismatch,
    ReservationNotFound, ReservationReleased, RestockMismatch, RouteNotFound, Unavailable, UnsupportedMediaType,
};
use http::Method;

use crate::{
    docs, health, inventory, orders, problem_pages,
    routes::{HEALTHZ, READYZ, Shared},
};

/// A method of a path. Components are those of `openapi::components`.
pub struct Operation {
    pub method: Method,
    pub path: &'static str,
    pub handler: fn(MethodFilter) -> MethodRouter<Shared>,
    /// Generated clients call their functions so.
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    pub description: &'static str,
    /// Components.
    pub parameters: &'static [&'static str],
    /// The component of the body, where there is one.
    pub body: Option<&'static str>,
    /// Status and component.
    pub success: (u16, &'static str),
    /// What it alone is refused for; see [`Operation::reasons`].
    pub reasons: &'static [Reason],
}

impl Operation {
    /// Everything that it can be refused for.
    pub fn reasons(&self) -> Vec<Reason> {
        let always = [InvalidRequest, Internal, Overloaded, Unavailable, DeadlineExceeded];
        let with_body = [RequestTimeout, BodyTooLarge, UnsupportedMediaType];
        let with_body = if self.body.is_some() { &with_body[..] } else { &[] };
        [&always, with_body, self.reasons].concat()
    }
}

/// All of them.
pub static OPERATIONS: [Operation; 14] = [
    Operation {
        method: Method::POST,
        path: "/orders",
        handler: |method| on(method, orders::create),
        id: "createOrder",
        tag: "orders",
        summary: "Place an order",
        description: "With an `Idempotency-Key` it is one order however often it is sent, and every answer names it. Without \
                      one, an order whose answer was lost may have been placed.",
        parameters: &["IdempotencyKey"],
        body: Some("NewOrder"),
        success: (201, "OrderPlaced"),
        reasons: &[
            InsufficientStock,
            ReservationMismatch,
            ReservationReleased,
            ReservationConfirmed,
            IdempotencyKeyReused,
        ],
    },
    Operation {
        method: Method::GET,
        path: "/orders",
        handler: |method| on(method, orders::list),
        id: "listOrders",
        tag: "orders",
        summary: "List orders",
        description: "The newest first, of all items or of one, page by page.",
        parameters: &["ItemWanted", "Limit", "PageToken"],
        body: None,
        success: (200, "OrderPage"),
        reasons: &[],
    },
    Operation {
        method: Method::GET,
        path: "/orders/{id}",
        handler: |method| on(method, orders::read),
        id: "getOrder",
        tag: "orders",
        summary: "Read an order",
        description: "What is no UUID names no order.",
        parameters: &["OrderId"],
        body: None,
        success: (200, "Order"),
        reasons: &[OrderNotFound],
    },
    Operation {
        method: Method::POST,
        path: "/reserve",
        handler: |method| on(method, inventory::reserve),
        id: "reserve",
        tag: "stock",
        summary: "Set stock aside",
        description: "Not enough stock is an outcome, not a problem. With a `reservation_id` it is one hold however often it \
                      is sent, and a repeat may lengthen its time.",
        parameters: &[],
        body: Some("NewReservation"),
        success: (200, "Reservation"),
        reasons: &[ReservationMismatch, ReservationReleased, ReservationConfirmed],
    },
    Operation {
        method: Method::DELETE,
        path: "/reservations/{id}",
        handler: |method| on(method, inventory::release),
        id: "releaseReservation",
        tag: "stock",
        summary: "Release a hold",
        description: "The stock is back on sale; so it is when the time of the hold is over. What is no UUID names no reservation.",
        parameters: &["ReservationId"],
        body: None,
        success: (204, "Released"),
        reasons: &[ReservationNotFound, ReservationConfirmed],
    },
    Operation {
        method: Method::GET,
        path: "/inventory/{item}",
        handler: |method| on(method, inventory::read),
        id: "getStock",
        tag: "stock",
        summary: "Read an item's stock",
        description: "An item that was never sold has the stock that items start with.",
        parameters: &["Item"],
        body: None,
        success: (200, "Stock"),
        reasons: &[],
    },
    Operation {
        method: Method::POST,
        path: "/inventory/{item}/restocks",
        handler: |method| on(method, inventory::restock),
        id: "restock",
        tag: "stock",
        summary: "Add stock",
        description: "Once for each id, however often it is sent. Not for everybody: the gateway refuses it.",
        parameters: &["Item"],
        body: Some("NewRestock"),
        success: (200, "Stock"),
        reasons: &[MethodNotAllowed, RestockMismatch],
    },
    Operation {
        method: Method::GET,
        path: HEALTHZ,
        handler: |method| on(method, health::live),
        id: "isAlive",
        tag: "health",
        summary: "Ask whether the process lives",
        description: "It says nothing of what the process depends on.",
        parameters: &[],
        body: None,
        success: (200, "Alive"),
        reasons: &[],
    },
    Operation {
        method: Method::GET,
        path: READYZ,
        handler: |method| on(method, health::ready),
        id: "isReady",
        tag: "health",
        summary: "Ask whether an order can be placed",
        description: "503 only when none can be.",
        parameters: &[],
        body: None,
        success: (200, "Ready"),
        reasons: &[],
    },
    Operation {
        method: Method::GET,
        path: "/openapi.json",
        handler: |method| on(method, docs::document),
        id: "getOpenApi",
        tag: "documentation",
        summary: "Read this document",
        description: "For programs; `/docs` shows it to people.",
        parameters: &[],
        body: None,
        success: (200, "OpenApi"),
        reasons: &[],
    },
    Operation {
        method: Method::GET,
        path: "/docs",
        handler: |method| on(method, docs::page),
        id: "getDocs",
        tag: "documentation",
        summary: "See this document as a page",
        description: "Requests can be tried out there.",
        parameters: &[],
        body: None,
        success: (200, "Docs"),
        reasons: &[],
    },
    Operation {
        method: Method::GET,
        path: "/docs/{file}",
        handler: |method| on(method, docs::file),
        id: "getDocsFile",
        tag: "documentation",
        summary: "Load a file of a page",
        description: "Pages load nothing from elsewhere.",
        parameters: &["DocsFile"],
        body: None,
        success: (200, "DocsFile"),
        reasons: &[RouteNotFound],
    },
    Operation {
        method: Method::GET,
        path: "/problems",
        handler: |method| on(method, problem_pages::list),
        id: "listProblems",
        tag: "documentation",
        summary: "List every reason for a refusal",
        description: "HTML for who prefers it to JSON.",
        parameters: &[],
        body: None,
        success: (200, "ProblemPages"),
        reasons: &[],
    },
    Operation {
        method: Method::GET,
        path: "/problems/{reason}",
        handler: |method| on(method, problem_pages::read),
        id: "getProblem",
        tag: "documentation",
        summary: "Read what a reason means and what to do",
        description: "The page behind a problem's `type`, in HTML for who prefers it to JSON.",
        parameters: &["Reason"],
        body: None,
        success: (200, "ProblemPage"),
        reasons: &[RouteNotFound],
    },
];
