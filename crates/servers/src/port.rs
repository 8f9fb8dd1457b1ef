use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below Linux's ephemeral ports (32768 and up), so that no outgoing connection takes the port of a server that is down.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A TCP port of 127.0.0.1 that is free for the server of whoever holds this value.
///
/// The claim is the UDP port of the same number, which none of the servers uses: two tests never get the same port, and
/// a test that kills a server finds its port still free when it starts it again.
#[derive(Debug)]
pub struct Port {
    number: u16,
    // A fixed port has none: whoever chose it has seen to it.
    _claim: Option<UdpSocket>,
}

impl Port {
    /// Claims a port that nobody listens on.
    pub fn claim() -> Self {
        // Each process begins elsewhere, or all would try the same claimed ports first.
        let begin = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT)).expect("below COUNT");
        Self::claim_from(begin + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT)
    }

    fn claim_from(begin: u16) -> Self {
        let free = |step| Self::claim_number(FIRST + (begin + step) % COUNT);
        (0..COUNT).find_map(free).unwrap_or_else(|| panic!("no free port from {FIRST} on"))
    }

    fn claim_number(number: u16) -> Option<Self> {
        let claim = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { number, _claim: Some(claim) })
    }

    /// Claims ports in a row that nobody listens on.
    pub fn claim_row(length: u16) -> Vec<Self> {
        let row = |first| (first..first + length).map(Self::claim_number).collect::<Option<Vec<_>>>();
        let mut firsts = (FIRST..=FIRST + COUNT - length).rev().step_by(usize::from(length));
        firsts.find_map(row).unwrap_or_else(|| panic!("no {length} free ports in a row from {FIRST} on"))
    }

    /// A port that the caller has chosen.
    pub(crate) fn fixed(number: u16) -> Self {
        Self { number, _claim: None }
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_claimed_once_and_not_while_somebody_listens() {
        let one = Port::claim_from(7);
        let other = Port::claim_from(7);
        assert_ne!(one.number(), other.number());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, other.number())).unwrap();
        let number = other.number();
        drop(other);
        assert_ne!(Port::claim_from(number - FIRST).number(), number);
        drop(listener);
    }
}
