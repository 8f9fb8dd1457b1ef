//! Every reason for which a caller can be refused, in one table: what gRPC and HTTP call it, and whether repeating helps.

use tonic::Code;

/// Whether and how a caller may repeat a refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not as it is: the request itself has to change.
    Never,
    /// As it is, after the world has changed (stock came in, a hold expired).
    AfterChange,
    /// As it is and at once, with backoff: an Idempotency-Key makes it safe for orders.
    Backoff,
}

impl Retry {
    /// The advice, for people.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Never => "Repeating the same request gives the same answer; change it first.",
            Self::AfterChange => "Safe to repeat, but the answer stays the same until the state it speaks of changes.",
            Self::Backoff => {
                "Safe to repeat with backoff. For POST /orders send the same Idempotency-Key: if the first attempt did \
                 succeed, its order is answered."
            }
        }
    }
}

macro_rules! reasons {
    (
        $($variant:ident $name:literal $code:ident $http:literal $retry:ident $title:literal $meaning:literal
            $remedy:literal;)*
    ) => {
        /// Why a caller was refused. The name is `google.rpc.ErrorInfo.reason` and the problem's `reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $meaning] $variant,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in `UPPER_SNAKE_CASE`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The gRPC status code.
            pub fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }

            /// What gRPC's documentation calls the code, as in `NOT_FOUND`.
            pub fn code_name(self) -> String {
                let name = match self { $(Self::$variant => stringify!($code),)* };
                let mut snake = String::new();
                for (at, letter) in name.char_indices() {
                    if at > 0 && letter.is_ascii_uppercase() {
                        snake.push('_');
                    }
                    snake.push(letter.to_ascii_uppercase());
                }
                snake
            }

            /// The HTTP status.
            pub fn http_status(self) -> u16 {
                match self { $(Self::$variant => $http,)* }
            }

            /// Whether repeating helps.
            pub fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)* }
            }

            /// The problem's `title`.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What it means, for people.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// What the caller should do, for people.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }

            /// The reason of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    InvalidRequest "INVALID_REQUEST" InvalidArgument 400 Never "Invalid request"
        "The request is malformed or a value is out of range; each bad field is named."
        "Mend the values that `errors` names: `pointer` is in the body, `parameter` in the URL, `header` in the head.";
    RouteNotFound "ROUTE_NOT_FOUND" Unimplemented 404 Never "No such resource"
        "Nothing is served at this path."
        "Compare method and path with the document at /openapi.json or the page at /docs.";
    OrderNotFound "ORDER_NOT_FOUND" NotFound 404 AfterChange "No such order"
        "No confirmed order has this id."
        "Check the id. If an answer with it was lost, send the order again with its Idempotency-Key.";
    ReservationNotFound "RESERVATION_NOT_FOUND" NotFound 404 AfterChange "No such reservation"
        "Neither the stock store nor the ledger knows this reservation: it never was, the stock store has lost it, or it \
         ended more than a day ago."
        "Check the id. There is nothing to release: what a hold that ended had set aside is back on sale.";
    MethodNotAllowed "METHOD_NOT_ALLOWED" Unimplemented 405 Never "Method not allowed"
        "The resource does not take this method; the Allow header lists those that it takes."
        "Use one of the methods in Allow.";
    RequestTimeout "REQUEST_TIMEOUT" Aborted 408 Backoff "Request incomplete"
        "The request's body did not arrive in time. Nothing was done."
        "Send the request again, its body without pauses; look for what slows the connection.";
    InsufficientStock "INSUFFICIENT_STOCK" FailedPrecondition 409 AfterChange "Not enough stock"
        "There are fewer units free than were asked for; `remaining` says how many."
        "Order at most `remaining` units, or wait until stock comes in or a hold ends.";
    ReservationMismatch "RESERVATION_MISMATCH" AlreadyExists 409 Never "Reservation is of something else"
        "The reservation id is in use for another item or quantity."
        "Send the item and quantity of the hold, or take a new reservation id.";
    ReservationReleased "RESERVATION_RELEASED" FailedPrecondition 409 Never "Reservation has ended"
        "The hold was released or expired, and can no longer become an order. Reserve under a new id."
        "Reserve under a new id, and order that hold before its `expires_at`.";
    ReservationConfirmed "RESERVATION_CONFIRMED" FailedPrecondition 409 Never "Reservation is an order"
        "The hold has become an order: it can be neither released nor held again, nor ordered under another \
         Idempotency-Key."
        "Nothing, if the order is wanted: it has the reservation's id. Else reserve under a new id.";
    RestockMismatch "RESTOCK_MISMATCH" AlreadyExists 409 Never "Restock is of something else"
        "The restock id was used before for another item or quantity."
        "Take a new id for a new restock. A repeat has to have the item and quantity of the first.";
    BodyTooLarge "BODY_TOO_LARGE" OutOfRange 413 Never "Body too large"
        "The body is larger than 16 KiB."
        "Send less: no request needs that much.";
    UnsupportedMediaType "UNSUPPORTED_MEDIA_TYPE" InvalidArgument 415 Never "Unsupported media type"
        "The body must be sent as application/json."
        "Send JSON, with `Content-Type: application/json` and no `Content-Encoding`.";
    IdempotencyKeyReused "IDEMPOTENCY_KEY_REUSED" AlreadyExists 422 Never "Idempotency key reused"
        "The Idempotency-Key belongs to an order with other content. Use a new key for a new order."
        "Take a new key for a new order. A repeat has to have the content of the first.";
    Internal "INTERNAL" Internal 500 Backoff "Internal error"
        "The service met a state that it does not understand. The operator's log has the request id."
        "Try again. If it goes on, tell the operator the id in `instance`.";
    Overloaded "OVERLOADED" ResourceExhausted 503 Backoff "Too much work"
        "More is under way than the service takes on. Nothing was done."
        "Wait as long as Retry-After says, then longer with each try, and send fewer requests at a time.";
    Unavailable "UNAVAILABLE" Unavailable 503 Backoff "Temporarily unavailable"
        "A part that the request needs does not answer. Whether it was done is not known."
        "Wait as long as Retry-After says, then longer with each try. /readyz says when orders can be placed.";
    DeadlineExceeded "DEADLINE_EXCEEDED" DeadlineExceeded 504 Backoff "Deadline exceeded"
        "The request took longer than its deadline. Whether it was done is not known."
        "Try again after a moment, then later with each try.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_well_formed() {
        for reason in Reason::ALL {
            let name = reason.name();
            assert_eq!(Reason::from_name(name), Some(*reason));
            assert!(name.len() <= 63 && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{name}");
            assert!((400..600).contains(&reason.http_status()), "{name}");
            assert_ne!(reason.code(), Code::Ok, "{name}");
            assert_eq!(reason.code_name().replace('_', ""), format!("{:?}", reason.code()).to_uppercase(), "{name}");
        }
    }

    #[test]
    fn a_server_s_fault_may_be_repeated_and_a_client_s_fault_may_not_at_once() {
        for reason in Reason::ALL {
            let backoff = reason.http_status() >= 500 || reason.http_status() == 408;
            assert_eq!(reason.retry() == Retry::Backoff, backoff, "{}", reason.name());
        }
    }
}
