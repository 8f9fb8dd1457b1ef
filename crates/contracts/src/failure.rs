//! An error on its way to a caller. Every service fails with this type; gRPC carries it whole, so that the edge can say
//! in HTTP what the order service meant.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{reason::Reason, values::Invalid};

/// `google.rpc.ErrorInfo.domain`.
pub const DOMAIN: &str = "devops-order-system";
/// Metadata of [`Reason::InsufficientStock`]: units free.
pub const REMAINING: &str = "remaining";

/// Longest `detail` that gRPC carries, in bytes; longer ones are cut. This and the next ones keep a status, which holds
/// the text as percent-escapes and once more in base64, below the 16 KiB of headers at which clients end the call.
pub const DETAIL_BYTES_MAX: usize = 512;
/// Most bad fields that gRPC carries.
pub const FIELDS_MAX: usize = 32;
/// Longest name of a bad field that gRPC carries, in bytes.
pub const FIELD_NAME_BYTES_MAX: usize = 64;
/// Longest text about a bad field that gRPC carries, in bytes.
pub const FIELD_DETAIL_BYTES_MAX: usize = 192;

/// A bad field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's name as in the request message.
    pub field: String,
    /// What is wrong, for the client.
    pub detail: String,
}

/// Why a request was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.name())]
pub struct Failure {
    /// What programs go by.
    pub reason: Reason,
    /// What people read; says nothing of the inside.
    pub detail: String,
    /// The bad fields, for [`Reason::InvalidRequest`].
    pub fields: Vec<FieldViolation>,
    /// Units free, for [`Reason::InsufficientStock`].
    pub remaining: Option<i64>,
    /// What the operator reads in the log. Never leaves the process.
    pub cause: Option<String>,
}

impl Failure {
    /// With the text for the client.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), fields: Vec::new(), remaining: None, cause: None }
    }

    /// With the reason's own text.
    pub fn of(reason: Reason) -> Self {
        Self::new(reason, reason.meaning())
    }

    /// One bad field.
    pub fn field(field: &str, detail: impl Into<String>) -> Self {
        let violation = FieldViolation { field: field.to_owned(), detail: detail.into() };
        Self { fields: vec![violation], ..Self::of(Reason::InvalidRequest) }
    }

    /// Not enough stock.
    pub fn insufficient(remaining: i64) -> Self {
        let detail = format!("Only {remaining} units are free.");
        Self { remaining: Some(remaining), ..Self::new(Reason::InsufficientStock, detail) }
    }

    /// A part does not answer; the cause is for the operator.
    pub fn unavailable(cause: impl ToString) -> Self {
        Self::of(Reason::Unavailable).because(cause)
    }

    /// A state that cannot be; the cause is for the operator.
    pub fn internal(cause: impl ToString) -> Self {
        Self::of(Reason::Internal).because(cause)
    }

    /// Adds what the operator should read.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "callers hand in an error that they are done with")]
    pub fn because(mut self, cause: impl ToString) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Reads back what [`Status::from`] wrote. A status without our details is judged by its code: a peer that is not
    /// reached is `UNAVAILABLE`, and tonic's `CANCELLED` stands for an expired deadline.
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let Some(reason) = info.and_then(|info| Reason::from_name(&info.reason)) else {
            return Self::of(reason_of(status.code())).because(format!("{:?}: {}", status.code(), status.message()));
        };
        let remaining = info.and_then(|info| info.metadata.get(REMAINING)).and_then(|n| n.parse().ok());
        let fields = details.bad_request().map(|bad| {
            let violations = bad.field_violations.iter();
            violations.map(|v| FieldViolation { field: v.field.clone(), detail: v.description.clone() }).collect()
        });
        Self { reason, detail: status.message().to_owned(), fields: fields.unwrap_or_default(), remaining, cause: None }
    }
}

fn reason_of(code: Code) -> Reason {
    match code {
        Code::Cancelled | Code::DeadlineExceeded => Reason::DeadlineExceeded,
        Code::Unavailable => Reason::Unavailable,
        Code::ResourceExhausted => Reason::Overloaded,
        Code::InvalidArgument => Reason::InvalidRequest,
        Code::Ok
        | Code::Unknown
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => Reason::Internal,
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let metadata: HashMap<_, _> =
            failure.remaining.map(|n| (REMAINING.to_owned(), n.to_string())).into_iter().collect();
        let mut details = ErrorDetails::with_error_info(failure.reason.name(), DOMAIN, metadata);
        for violation in failure.fields.iter().take(FIELDS_MAX) {
            let name = cut(&violation.field, FIELD_NAME_BYTES_MAX);
            details.add_bad_request_violation(name, cut(&violation.detail, FIELD_DETAIL_BYTES_MAX));
        }
        Self::with_error_details(failure.reason.code(), cut(&failure.detail, DETAIL_BYTES_MAX), details)
    }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// The bad fields of one request, all of them.
#[derive(Debug, Default)]
pub struct BadFields(Vec<FieldViolation>);

impl BadFields {
    /// Notes what is wrong with a field; `None` if anything is.
    pub fn check<T>(&mut self, field: &str, value: Result<T, Invalid>) -> Option<T> {
        value.map_err(|e| self.0.push(FieldViolation { field: field.to_owned(), detail: e.0 })).ok()
    }

    /// The refusal that names them.
    pub fn into_failure(self) -> Failure {
        Failure { fields: self.0, ..Failure::of(Reason::InvalidRequest) }
    }
}

/// Parses one field, naming it when it is bad.
pub fn parse<T>(field: &str, value: Result<T, Invalid>) -> Result<T, Failure> {
    value.map_err(|e| Failure::field(field, e.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_crosses_grpc_whole() {
        for reason in Reason::ALL {
            let failure = Failure::of(*reason);
            assert_eq!(Failure::from_status(&Status::from(failure.clone())), failure);
        }
        let short = Failure::insufficient(3);
        assert_eq!(Failure::from_status(&Status::from(short.clone())), short);
        let bad = Failure::field("quantity", "must be 1 to 1000000");
        assert_eq!(Failure::from_status(&Status::from(bad.clone())), bad);
    }

    #[test]
    fn a_failure_that_says_too_much_is_cut_to_what_a_call_can_carry() {
        let long = "\u{20ac}".repeat(1_000);
        let violation = FieldViolation { field: long.clone(), detail: long.clone() };
        let failure = Failure { fields: vec![violation; 100], ..Failure::new(Reason::InvalidRequest, long.clone()) };
        let status = Status::from(failure);
        // As base64, and as percent-escapes.
        assert!(status.details().len() * 4 / 3 + status.message().len() * 3 < 15 * 1024);
        let read = Failure::from_status(&status);
        assert!(read.fields.len() == FIELDS_MAX && long.starts_with(&read.detail) && read.detail.len() > 500);
    }

    #[test]
    fn the_cause_stays_inside() {
        let status = Status::from(Failure::unavailable("connect to 10.0.0.7 failed"));
        assert!(!status.message().contains("10.0.0.7"));
        assert!(!String::from_utf8_lossy(status.details()).contains("10.0.0.7"));
    }

    #[test]
    fn an_expired_deadline_is_never_called_cancelled() {
        assert_eq!(Failure::from_status(&Status::cancelled("Timeout expired")).reason, Reason::DeadlineExceeded);
    }
}
