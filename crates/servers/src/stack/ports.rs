use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;

/// The ports of 127.0.0.1 that the stack listens at.
#[derive(Debug)]
pub struct Ports {
    /// All of them in a row from here on, instead of the usual ones.
    first: Option<u16>,
}

/// Who listens, and where it usually does. A service has a second port for operators.
const USUAL: [(&str, u16); COUNT] = [
    ("NGINX", 8080),
    ("edge-1", 8081),
    ("edge-2", 8082),
    ("order-service-1", 50051),
    ("order-service-2", 50061),
    ("inventory-service-1", 50052),
    ("inventory-service-2", 50062),
    ("edge-1 admin", 9465),
    ("edge-2 admin", 9475),
    ("order-service-1 admin", 9466),
    ("order-service-2 admin", 9476),
    ("inventory-service-1 admin", 9467),
    ("inventory-service-2 admin", 9477),
    ("Postgres", 55432),
    ("Redis", 56379),
    ("RabbitMQ", 55672),
    ("RabbitMQ nodes", 55673),
    ("RabbitMQ names", 55674),
];
/// How many ports the stack needs.
const COUNT: usize = 18;
/// Where a row of them may begin: any user may listen there, and the last one is still a port.
const FIRST: RangeInclusive<u16> = 1024..=u16::MAX - 17;

impl Ports {
    /// `STACK_PORTS_FROM`; empty for the usual ones.
    pub fn read(first: &str) -> Result<Self, String> {
        if first.is_empty() {
            return Ok(Self { first: None });
        }
        match first.parse() {
            Ok(number) if FIRST.contains(&number) => Ok(Self { first: Some(number) }),
            _ => Err(format!("STACK_PORTS_FROM must be {} to {}", FIRST.start(), FIRST.end())),
        }
    }

    pub fn of(&self, name: &str) -> u16 {
        let place = USUAL.iter().position(|(listener, _)| *listener == name);
        let place = place.unwrap_or_else(|| panic!("{name} does not listen"));
        self.at(place)
    }

    fn at(&self, place: usize) -> u16 {
        self.first.map_or(USUAL[place].1, |first| first + u16::try_from(place).expect("below COUNT"))
    }

    /// Says who would lack its port, because something else has it.
    pub fn check_free(&self) -> Result<(), String> {
        let taken = |place: usize| {
            let (name, port) = (USUAL[place].0, self.at(place));
            let error = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).err()?;
            Some(format!("  127.0.0.1:{port}, for {name}: {error}"))
        };
        let taken: Vec<String> = (0..COUNT).filter_map(taken).collect();
        if taken.is_empty() {
            return Ok(());
        }
        let taken = taken.join("\n");
        Err(format!("these ports are in use; free them, or set STACK_PORTS_FROM for {COUNT} others in a row:\n{taken}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_begins_where_all_of_it_fits() {
        for (first, good) in [("1024", true), ("65518", true), ("1023", false), ("65519", false), ("x", false)] {
            assert_eq!(Ports::read(first).is_ok(), good, "{first}");
        }
        let ports = Ports::read("65518").unwrap();
        assert_eq!((ports.of("NGINX"), ports.of("RabbitMQ names")), (65518, 65535));
        assert_eq!(Ports::read("").unwrap().of("NGINX"), 8080);
    }

    #[test]
    fn no_two_listen_at_the_same_port() {
        let mut ports = USUAL.map(|(_, port)| port);
        ports.sort_unstable();
        assert!(ports.windows(2).all(|two| two[0] < two[1]), "{ports:?}");
    }
}
