//! What the tables and keys say by themselves.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    Case, Found,
    evidence::{Name, Verdict},
    stock_told,
};
use crate::history::Op;

/// Reads the keys of every item that is open, and the units that clients were told or refused for. An item that is not
/// open has no numbers: it is lent anew by whoever wants it next.
pub(super) fn i1_every_unit_is_somewhere(case: &Case<'_>, found: &mut Found) {
    for (item, keys) in case.evidence.stock.items.iter().filter(|(_, keys)| keys.open) {
        let whole = keys.received == keys.available + keys.held + keys.sold;
        let none_negative = keys.available >= 0 && keys.held >= 0 && keys.sold >= 0;
        let counted = keys.holds == keys.entries && keys.holds == keys.deadlines && keys.units == keys.held;
        found.expect(whole && none_negative && counted, || format!("{item}: {keys:?}"));
    }
    stock_told::no_more_than_came_in(case, found);
    stock_told::refused_only_when_short(case, found);
}

/// Reads leases, restocks, the answers to restocks, and the keys of open items at the ledger's epoch.
pub(super) fn i2_received_is_initial_and_restocks(case: &Case<'_>, found: &mut Found) {
    let evidence = case.evidence;
    for (item, lease) in &evidence.ledger.leases {
        found.expect(lease.initial == evidence.setup.initial, || {
            format!("{item}: {} units at first in the ledger, and not {}", lease.initial, evidence.setup.initial)
        });
        if let Some(keys) = evidence.stock.items.get(item).filter(|keys| keys.open && keys.epoch == lease.epoch) {
            let received = case.received(item);
            found.expect(keys.received == received, || {
                format!("{item}: {} received in the stock store, {received} in the ledger", keys.received)
            });
        }
    }
    let mut journalled = HashMap::new();
    for restock in &evidence.ledger.restocks {
        let earlier = journalled.insert(restock.id, restock);
        found.expect(earlier.is_none(), || format!("restock {} is journalled twice", restock.id));
    }
    for call in case.calls(Op::Restock).filter(|call| call.is_ok()) {
        let row = call.id.and_then(|id| journalled.get(&id));
        let fits = row.is_some_and(|row| call.item.as_ref() == Some(&row.item) && call.quantity == row.quantity);
        found.expect(fits, || {
            format!(
                "line {}: a restock of {} {:?} was answered, and journalled is {row:?}",
                call.line, call.quantity, call.item
            )
        });
    }
}

/// Reads orders and restocks in the order of `created_at`: an order's is later than its hold, and a restock's earlier
/// than its units are free; so at no moment more may be sold than is received by then.
pub(super) fn i3_never_oversold(case: &Case<'_>, found: &mut Found) {
    let ledger = &case.evidence.ledger;
    // At the same microsecond what comes in is first.
    let mut moments: Vec<(i64, i64, &Name, String)> = Vec::new();
    for restock in &ledger.restocks {
        moments.push((restock.created_at, restock.quantity, &restock.item, String::new()));
    }
    for order in ledger.verdicts.iter().filter(|verdict| verdict.confirmed) {
        moments.push((order.created_at, -order.quantity, &order.item, order.id.to_string()));
    }
    moments.sort_by_key(|(at, units, ..)| (*at, -units));
    let mut free: HashMap<&str, i64> = HashMap::new();
    for (at, units, item, order) in moments {
        let free = free.entry(item).or_insert(case.evidence.setup.initial);
        *free += units;
        found.expect(*free >= 0 || units > 0, || {
            format!("{item}: order {order} of {} units, made at {at}, sells {} more than there are", -units, -*free)
        });
    }
}

/// Reads orders and leases, and the holds that clients were told: every order has a stamp of its own, of a lease that was
/// granted, and its hold's item and units. Orders of older leases are made before those of newer ones: a commit is fenced
/// from the moment on in which the next lease is granted.
pub(super) fn i4_every_order_had_its_hold(case: &Case<'_>, found: &mut Found) {
    let mut stamps = HashSet::new();
    let mut newest: HashMap<&str, &Verdict> = HashMap::new();
    let mut orders: Vec<&Verdict> = case.confirmed.values().copied().collect();
    orders.sort_by_key(|order| (order.created_at, order.epoch));
    for order in orders {
        let Verdict { id, item, epoch, number, .. } = order;
        found.expect(stamps.insert((item, epoch, number)), || {
            format!("order {id} has the hold of another: number {number} of epoch {epoch} of {item}")
        });
        let lent = case.evidence.ledger.leases.get(item).map_or(0, |lease| lease.epoch);
        found.expect((1..=lent).contains(epoch) && *number >= 1, || {
            format!("order {id} has hold {number} of epoch {epoch} of {item}, which was lent up to epoch {lent}")
        });
        let before = newest.entry(item).or_insert(order);
        found.expect(before.epoch <= *epoch, || {
            format!(
                "order {id} of epoch {epoch} of {item} was made at {}, after order {} of epoch {}",
                order.created_at, before.id, before.epoch
            )
        });
        if before.epoch < *epoch {
            *before = order;
        }
    }
    for call in case.calls(Op::Reserve).filter(|call| call.is_ok()) {
        if let Some(order) = call.told_id().and_then(|hold| case.confirmed.get(&hold)) {
            found.expect(call.orders(order), || {
                format!(
                    "line {}: {} units of {:?} were held as {}, which is an order of {} of {}",
                    call.line, call.quantity, call.item, order.id, order.quantity, order.item
                )
            });
        }
    }
}

/// Reads orders, `settled`, the outbox, and `sold` of open items: in each place every order is counted once. At the
/// ledger's epoch, that is: an older lease knows nothing of later ones.
pub(super) fn i7_every_order_is_sold_once(case: &Case<'_>, found: &mut Found) {
    let ledger = &case.evidence.ledger;
    let mut waiting: BTreeMap<&str, i64> = BTreeMap::new();
    for event in &ledger.outbox {
        *waiting.entry(&*event.item).or_insert(0) += event.quantity;
        let order = case.confirmed.get(&event.order);
        let fits = order.is_some_and(|order| order.item == event.item && order.quantity == event.quantity);
        found.expect(fits, || format!("{event:?} is the event of {order:?}"));
    }
    for (item, lease) in &ledger.leases {
        let (sold, outbox) = (case.sold(item), waiting.get(&**item).copied().unwrap_or(0));
        found.expect(lease.settled + outbox == sold, || {
            format!("{item}: {} settled and {outbox} in the outbox, of {sold} in orders", lease.settled)
        });
        if let Some(keys) = case.evidence.stock.items.get(item).filter(|keys| keys.open && keys.epoch == lease.epoch) {
            found.expect(keys.sold == sold, || {
                format!("{item}: {} sold in the stock store, {sold} in orders", keys.sold)
            });
        }
    }
    for (item, sold) in &case.sold {
        found.expect(ledger.leases.contains_key(*item), || format!("{item}: {sold} in orders, and never lent"));
    }
}
