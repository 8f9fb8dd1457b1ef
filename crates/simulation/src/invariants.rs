//! I1 to I12, each as a function of that name, and what else callers rely on. Each says what it saw when it does not hold.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use contracts::values::{Epoch, Item, Lease, ReservationId, Stamp};

use crate::{
    books::{Booked, Books, Shelf},
    history::OrderRequest,
    workload::QUIET,
};

/// What does not hold, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// As in `I3`; or a word for what callers rely on beside them.
    pub invariant: &'static str,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.seen)
    }
}

/// Whether it holds.
pub type Holds = Result<(), Violation>;

/// A violation.
pub fn broken(invariant: &'static str, seen: impl Into<String>) -> Holds {
    Err(Violation { invariant, seen: seen.into() })
}

/// Which hold.
pub type HoldKey = (ReservationId, Stamp);

/// Per item, at every instant: received = available + held + sold, none negative. What a fault has just done to the numbers
/// is no script's doing: there it counts that the item is not open any more.
pub fn i1(item: &Item, before: Option<&Shelf>, now: &Shelf, by_fault: bool) -> Holds {
    if now.adds_up() {
        return Ok(());
    }
    if now.open {
        return broken("I1", format!("{item} is open with numbers that do not add up: {now:?}"));
    }
    let was_well = before.is_none_or(Shelf::adds_up);
    if was_well && !by_fault { broken("I1", format!("{item} went from {before:?} to {now:?}")) } else { Ok(()) }
}

/// Received = initial stock and all restocks, wherever an item is open at rest.
pub fn i2(item: &Item, shelf: &Shelf, books: &Books) -> Holds {
    let received = books.received(item);
    if received == Some(shelf.received) {
        return Ok(());
    }
    broken("I2", format!("{item} has received {} in the stock store, {received:?} in the ledger", shelf.received))
}

/// No stock server ever counts more in, or more sold, than the ledger: it has that from a lease, from events and restocks.
pub fn never_ahead(item: &Item, shelf: &Shelf, books: &Books) -> Holds {
    let (received, sold) = (books.received(item).unwrap_or(0), books.sold(item));
    if shelf.received > received {
        return broken(
            "I2",
            format!("{item} has received {} in the stock store, {received} in the ledger", shelf.received),
        );
    }
    if shelf.sold > sold {
        return broken("I7", format!("{} {item} are sold in the stock store, {sold} in the ledger", shelf.sold));
    }
    Ok(())
}

/// Confirmed quantities are never more than what was received.
pub fn i3(books: &Books) -> Holds {
    let mut sold: BTreeMap<&Item, i64> = BTreeMap::new();
    for order in books.orders.values() {
        *sold.entry(&order.stamp.item).or_default() += order.quantity;
    }
    for (item, sold) in sold {
        let received = books.received(item).unwrap_or(0);
        if sold > received {
            return broken("I3", format!("{sold} of {received} {item} are sold"));
        }
    }
    Ok(())
}

/// A confirmed order had a hold of its stamp, id, item and quantity before.
pub(crate) fn i4(id: ReservationId, order: &Booked, held: &HashMap<HoldKey, i64>) -> Holds {
    match held.get(&(id, order.stamp.clone())) {
        Some(quantity) if *quantity == order.quantity => Ok(()),
        found => broken("I4", format!("order {id} of {order:?} has the hold {found:?}")),
    }
}

/// Under its item's newest lease.
pub fn i4_newest(id: ReservationId, order: &Booked, before: &Books, now: &Books) -> Holds {
    let (item, epoch) = (&order.stamp.item, order.stamp.epoch);
    if [before, now].iter().any(|books| books.epoch(item) == epoch) {
        return Ok(());
    }
    broken("I4", format!("order {id} is of {:?}, when the newest lease is {}", order.stamp, now.epoch(item)))
}

/// No two holds have one stamp.
pub fn i4_stamp(id: ReservationId, stamp: &Stamp, other: Option<&ReservationId>) -> Holds {
    match other {
        Some(other) if *other != id => broken("I4", format!("{other} and {id} are both holds of {stamp:?}")),
        _ => Ok(()),
    }
}

/// A lease has counted exactly what came before it.
pub fn i7_lease(lease: &Lease, books: &Books) -> Holds {
    let (received, sold) = books.before(&lease.item, lease.epoch);
    if (lease.received, lease.sold) == (received, sold) {
        return Ok(());
    }
    broken("I7", format!("{lease:?} was lent, and before it {received} were received and {sold} sold"))
}

/// A lease is loaded once.
pub(crate) fn i7_loaded(item: &Item, shelf: &Shelf, before: Option<&Shelf>, used: &HashSet<(Item, Epoch)>) -> Holds {
    let is_load = before.is_none_or(|before| before.epoch != shelf.epoch);
    if is_load && used.contains(&(item.clone(), shelf.epoch)) {
        return broken("I7", format!("lease {} of {item} was loaded again, after holds were made of it", shelf.epoch));
    }
    Ok(())
}

/// No order that stands is fenced.
pub fn i6_fenced(id: ReservationId, stamp: &Stamp, books: &Books) -> Holds {
    match books.orders.get(&id) {
        Some(order) if order.stamp == *stamp => broken("I6", format!("order {id} stands, and its commit was fenced")),
        _ => Ok(()),
    }
}

/// An id gets at most one verdict, and an order stays as it is. A verdict is forgotten only once no hold of that id can be
/// committed any more.
pub fn i5_one_verdict(before: &Books, now: &Books) -> Holds {
    for (id, (item, epoch)) in before.tombstones.iter().filter(|(id, _)| !now.tombstones.contains_key(id)) {
        let newest = now.epoch(item);
        if newest <= *epoch {
            return broken("I5", format!("the tombstone of {id}, {item} {epoch}, is gone at epoch {newest}"));
        }
    }
    for id in now.tombstones.keys() {
        if now.orders.contains_key(id) || before.orders.contains_key(id) {
            return broken("I5", format!("{id} is an order and aborted"));
        }
    }
    Ok(())
}

/// Only the stamp that is confirmed is sold.
pub fn i5_sold(id: ReservationId, stamp: &Stamp, books: &Books) -> Holds {
    match books.orders.get(&id) {
        Some(order) if order.stamp == *stamp => Ok(()),
        order => broken("I5", format!("hold {id} of {stamp:?} was sold, and the ledger has {order:?}")),
    }
}

/// Only what is aborted, or confirmed under another stamp, is given back.
pub(crate) fn i5_released(id: ReservationId, stamp: &Stamp, books: &Books, aborted: &HashSet<ReservationId>) -> Holds {
    let elsewhere = books.orders.get(&id).is_some_and(|order| order.stamp != *stamp);
    if elsewhere || aborted.contains(&id) {
        return Ok(());
    }
    let order = books.orders.get(&id);
    broken("I5", format!("hold {id} of {stamp:?} was given back without a verdict; the ledger has {order:?}"))
}

/// A hold of which a caller was told that it is no order never becomes one.
pub fn i5_refused(id: ReservationId, books: &Books) -> Holds {
    match books.orders.get(&id) {
        None => Ok(()),
        Some(order) => broken("I5", format!("{id} was told to be released, and is the order {order:?}")),
    }
}

/// One key, or one attempt id, has at most one order, which is of its content.
pub(crate) fn i6_orders(
    id: ReservationId,
    order: &Booked,
    orders: &HashMap<String, ReservationId>,
    requests: &HashMap<String, Vec<Arc<OrderRequest>>>,
) -> Holds {
    let Some((key, fingerprint)) = &order.key else { return broken("I6", format!("order {id} has no key")) };
    if let Some(other) = orders.get(key)
        && *other != id
    {
        return broken("I6", format!("{key} has the orders {other} and {id}"));
    }
    let Some(asked) = requests.get(key) else {
        return broken("I6", format!("order {id} has {key}, under which nobody asked for anything"));
    };
    let meant = |request: &&Arc<OrderRequest>| {
        request.item == order.stamp.item
            && request.quantity.get() == order.quantity
            && request.fingerprint() == *fingerprint
            && request.hold.is_none_or(|hold| hold == id)
    };
    match asked.iter().find(meant) {
        Some(_) => Ok(()),
        None => broken("I6", format!("order {id} of {order:?}: nobody asked for that under {key}")),
    }
}

/// An answer names the key's order, of the content asked for, and it is in the ledger.
pub fn i6_answer(request: &OrderRequest, id: ReservationId, item: &str, quantity: i64, books: &Books) -> Holds {
    if item != request.item.as_str() || quantity != request.quantity.get() {
        return broken("I6", format!("{quantity} {item} were answered to {request:?}"));
    }
    let Some(order) = books.orders.get(&id) else {
        return broken("I9", format!("{id} was answered to {request:?} and is not in the ledger"));
    };
    let same = order.stamp.item == request.item && order.quantity == quantity;
    let named = match request.hold {
        // Without a key the hold names the order, whoever made it.
        Some(hold) if !request.is_keyed() => hold == id,
        _ => order.key.as_ref().is_some_and(|(key, _)| *key == request.key().as_str()),
    };
    if same && named { Ok(()) } else { broken("I6", format!("{id}, {order:?}, was answered to {request:?}")) }
}

/// Every confirmed order is in sold exactly once.
pub fn i7(item: &Item, shelf: &Shelf, books: &Books) -> Holds {
    let sold = books.sold(item);
    if shelf.sold == sold {
        return Ok(());
    }
    broken("I7", format!("{} {item} are sold in the stock store, {sold} in the ledger", shelf.sold))
}

/// Every confirmed order has at least one handled event.
pub(crate) fn i8(books: &Books, handled: &HashSet<ReservationId>) -> Holds {
    match books.orders.keys().find(|id| !handled.contains(id)) {
        None => Ok(()),
        Some(id) => broken("I8", format!("no event of order {id} was ever handled")),
    }
}

/// An event is acknowledged after its effect.
pub fn i8_handled(id: ReservationId, stamp: &Stamp, had_effect: bool) -> Holds {
    if had_effect {
        return Ok(());
    }
    broken("I8", format!("the event of order {id}, {stamp:?}, was acknowledged without having had its effect"))
}

/// An order that stands stays as it is for ever.
pub fn i9(before: &Books, now: &Books) -> Holds {
    for (id, order) in &before.orders {
        if now.orders.get(id) != Some(order) {
            return broken("I9", format!("order {id} was {order:?} and is {:?}", now.orders.get(id)));
        }
    }
    Ok(())
}

/// At rest the outbox and the dead letters are empty.
pub fn i10_events(books: &Books, dead_letters: usize) -> Holds {
    if books.outbox.is_empty() && dead_letters == 0 {
        return Ok(());
    }
    broken("I10", format!("at rest {} events wait in the outbox, {dead_letters} are dead letters", books.outbox.len()))
}

/// At rest nothing is held, and every open item is of the ledger's epoch.
pub fn i10_item(item: &Item, shelf: &Shelf, books: &Books) -> Holds {
    let epoch = books.epoch(item);
    if shelf.held == 0 && shelf.epoch == epoch {
        return Ok(());
    }
    broken("I10", format!("at rest {item} is {shelf:?}, and the ledger's epoch is {epoch}"))
}

/// Settled and the outbox make what is sold.
pub fn i10_settled(item: &Item, books: &Books) -> Holds {
    let Some(lent) = books.leases.get(item) else { return Ok(()) };
    let waiting: i64 = books.outbox.values().filter(|(of, _)| of == item).map(|(_, quantity)| quantity).sum();
    let sold = books.sold(item);
    if lent.settled + waiting == sold {
        return Ok(());
    }
    broken("I7", format!("of {sold} sold {item} {} are settled and {waiting} wait in the outbox", lent.settled))
}

/// Reads and refused requests leave no rows of an item behind that nobody could have.
pub fn i12_books(books: &Books) -> Holds {
    let lent = books.leases.keys().any(|item| item.as_str() == QUIET);
    let sold = books.orders.values().any(|order| order.stamp.item.as_str() == QUIET);
    if lent || sold {
        return broken("I12", format!("the ledger has rows of {QUIET}, of which nothing could be had"));
    }
    Ok(())
}

/// Nor keys in the stock store.
pub fn i12_keys<'a>(mut keys: impl Iterator<Item = &'a str>) -> Holds {
    match keys.find(|key| key.contains(QUIET)) {
        None => Ok(()),
        Some(key) => broken("I12", format!("the stock store has {key}, of which nothing could be had")),
    }
}
