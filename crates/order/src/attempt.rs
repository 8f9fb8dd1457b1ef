//! Which reservation id a request uses. Derived from what the client sent, so that every repeat of the request, through
//! whichever proxy and order service, meets the same hold; and numbered, because a fenced or aborted id is dead.

use contracts::values::{IdempotencyKey, Item, Quantity, ReservationId, Token};
use service::planted::{self, Bug};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::ledger::{Fingerprint, RequestKey};

/// What makes two requests the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The client's Idempotency-Key.
    Key(IdempotencyKey),
    /// No key: the id of this attempt, which a proxy repeats when it repeats the request.
    Attempt(Token),
}

impl Identity {
    /// What the ledger knows the request by. The same attempt id with other content is another request: ids of attempts
    /// are made by machines, which do not mistake one for another.
    pub fn request_key(&self, fingerprint: &Fingerprint) -> RequestKey {
        match self {
            Self::Key(key) => RequestKey::of_key(key),
            Self::Attempt(_) => RequestKey::of_attempt(reservation_id(self, fingerprint, 0)),
        }
    }
}

/// A digest of what is ordered: a key stands for this and nothing else.
pub fn fingerprint(item: &Item, quantity: Quantity, reservation: Option<ReservationId>) -> Fingerprint {
    let reservation = reservation.map(|id| id.0);
    digest(&[
        b"order content 1",
        item.as_str().as_bytes(),
        &quantity.get().to_be_bytes(),
        reservation.as_ref().map_or(&[][..], |id| id.as_bytes()),
    ])
}

/// The id of the `number`th hold of a request: UUIDv8, so that it meets none that a client made (v4). The fingerprint is
/// part of it: the same key with another quantity must not find the first one's hold.
pub fn reservation_id(identity: &Identity, fingerprint: &Fingerprint, number: u32) -> ReservationId {
    let (kind, name): (&[u8], &str) = match identity {
        Identity::Key(key) => (b"key", key.as_str()),
        Identity::Attempt(attempt) => (b"attempt", attempt.as_str()),
    };
    let content: &[u8] = if planted::is(Bug::IdWithoutContent) { &[] } else { fingerprint };
    let hash = digest(&[b"reservation id 1", kind, name.as_bytes(), content, &number.to_be_bytes()]);
    let first: [u8; 16] = hash[..16].try_into().expect("half of 32 bytes");
    ReservationId(Uuid::new_v8(first))
}

/// Fields are prefixed with their length: no two lists of fields give the same bytes.
fn digest(fields: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for field in fields {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn item(text: &str) -> Item {
        Item::parse(text).expect("valid")
    }

    fn units(n: i64) -> Quantity {
        Quantity::parse(n).expect("valid")
    }

    #[test]
    fn every_part_of_a_request_makes_another_id() {
        let key = |text| Identity::Key(IdempotencyKey::parse(text).expect("valid"));
        let attempt = |text| Identity::Attempt(Token::parse(text).expect("valid"));
        let hold = ReservationId(Uuid::from_u128(7));
        let content = |text, n| fingerprint(&item(text), units(n), None);
        let ids = [
            reservation_id(&key("k"), &content("widget", 1), 0),
            reservation_id(&key("k"), &content("widget", 1), 1),
            reservation_id(&key("k"), &content("widget", 2), 0),
            reservation_id(&key("k"), &content("widge", 1), 0),
            reservation_id(&key("k"), &fingerprint(&item("widget"), units(1), Some(hold)), 0),
            reservation_id(&key("kk"), &content("widget", 1), 0),
            reservation_id(&attempt("k"), &content("widget", 1), 0),
        ];
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        assert_eq!(ids[0], reservation_id(&key("k"), &content("widget", 1), 0));
        assert!(ids.iter().all(|id| !id.is_client() && id.0.get_version_num() == 8));
    }

    /// The id is kept in stores and may be derived by an older or newer version during a rolling update.
    #[test]
    fn derived_ids_never_change() {
        let key = Identity::Key(IdempotencyKey::parse("order-1").expect("valid"));
        let id = reservation_id(&key, &fingerprint(&item("widget"), units(1), None), 0);
        assert_eq!(id.to_string(), "d22bffda-763f-833d-85bf-202deaf4821c");
    }
}
