//! Where connections come from.
//!
//! A server bounds the connections of one address, and an address has some ten thousand ports to one
//! destination. To a loopback address any of 127.0.0.0/8 may connect, sixteen million of them, so there
//! connections are spread by themselves; elsewhere the addresses of this machine's interfaces are given.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Values of an octet that are in use: 1 to 254.
const OCTETS: usize = 254;

/// Gives each connection an address to come from.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    addresses: Addresses,
    per_source: usize,
    first: usize,
}

#[derive(Clone, Debug)]
enum Addresses {
    /// The kernel's choice.
    Any,
    /// 127.1.1.1 and up.
    Loopback,
    /// In turn.
    Given(Vec<IpAddr>),
}

impl Sources {
    /// Sources of a worker whose first connection is the run's number `first`.
    pub(super) fn new(given: &[IpAddr], target: SocketAddr, per_source: usize, first: usize) -> Self {
        let addresses = match target.ip() {
            _ if !given.is_empty() => Addresses::Given(given.to_vec()),
            IpAddr::V4(address) if address.is_loopback() => Addresses::Loopback,
            _ => Addresses::Any,
        };
        Self { addresses, per_source: per_source.max(1), first }
    }

    /// Where the connection with this number of the worker comes from; `None` leaves it to the kernel.
    pub(super) fn of(&self, number: usize) -> Option<IpAddr> {
        let group = (self.first + number) / self.per_source;
        match &self.addresses {
            Addresses::Any => None,
            Addresses::Given(addresses) => addresses.get(group % addresses.len()).copied(),
            Addresses::Loopback => {
                let octet = |value: usize| (value % OCTETS) as u8 + 1;
                let (second, third, fourth) = (group / OCTETS / OCTETS, group / OCTETS, group);
                Some(IpAddr::V4(Ipv4Addr::new(127, octet(second), octet(third), octet(fourth))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn loopback_connections_are_spread_and_none_has_too_many() {
        let target = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut count: HashMap<IpAddr, usize> = HashMap::new();
        for worker in 0..27 {
            let sources = Sources::new(&[], target, 900, worker * 18_519);
            for number in 0..18_519 {
                *count.entry(sources.of(number).unwrap()).or_default() += 1;
            }
        }
        assert_eq!(count.values().max(), Some(&900));
        assert_eq!(count.len(), (27 * 18_519usize).div_ceil(900));
        assert!(count.keys().all(IpAddr::is_loopback));
    }

    #[test]
    fn elsewhere_they_come_from_what_is_given() {
        let target = SocketAddr::from(([10, 0, 0, 1], 1));
        assert_eq!(Sources::new(&[], target, 900, 0).of(5), None);
        let given = [IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 3])];
        let sources = Sources::new(&given, target, 2, 1);
        let of: Vec<IpAddr> = (0..4).map(|number| sources.of(number).unwrap()).collect();
        assert_eq!(of, [given[0], given[1], given[1], given[0]]);
    }
}
