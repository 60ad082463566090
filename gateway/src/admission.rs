//! Who may come in: a bound on all connections and one on those of one address, over all cores.
//!
//! Asked once at each accept and told once at each close, so a short lock on one of sixteen parts of the
//! table is no burden; no message ever passes here. An address is an IPv4 address or the /64 of an IPv6 one,
//! because a /64 is what one customer is given.
//!
//! Every accept gets its number here too, so that of two connections of one device it is known which is the
//! newer one, whichever cores they are on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

const PARTS: usize = 16;

/// Counts connections.
pub struct Admission {
    open: AtomicU32,
    arrivals: AtomicU32,
    connections_max: u32,
    connections_per_address: u32,
    parts: [Mutex<HashMap<AddressKey, u32>>; PARTS],
}

/// What is counted as one address. Never 0, so that a slot without one needs no room to say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AddressKey(NonZeroU64);

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        let bits = match address {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            // The upper half. No /64 in use has its upper 32 bits zero, so it meets no IPv4 address.
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        // One more than the bits: the last of all /64s is of multicast addresses, which connect to nobody.
        AddressKey(NonZeroU64::MIN.saturating_add(bits))
    }
}

impl Admission {
    /// At most so many in all, and so many of one address.
    pub fn new(connections_max: u32, connections_per_address: u32) -> Self {
        Self {
            open: AtomicU32::new(0),
            arrivals: AtomicU32::new(0),
            connections_max,
            connections_per_address,
            parts: std::array::from_fn(|_| Mutex::new(HashMap::new())),
        }
    }

    /// The number of a connection among all that this process accepts, on whichever core: a later one has a
    /// higher number. It wraps.
    pub(crate) fn next_arrival(&self) -> u32 {
        self.arrivals.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a connection in. False, and nothing is counted, if there are too many.
    pub(crate) fn enter(&self, address: AddressKey) -> bool {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.connections_max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let mut part = self.part(address).lock().unwrap_or_else(PoisonError::into_inner);
        let count = part.entry(address).or_insert(0);
        if *count >= self.connections_per_address {
            drop(part);
            self.open.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        *count += 1;
        true
    }

    /// Counts out a connection that was counted in.
    pub(crate) fn leave(&self, address: AddressKey) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        let mut part = self.part(address).lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = part.entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
                // A storm from many addresses must not hold its memory for ever.
                if part.len() < part.capacity() / 8 {
                    part.shrink_to_fit();
                }
            }
        }
    }

    fn part(&self, address: AddressKey) -> &Mutex<HashMap<AddressKey, u32>> {
        &self.parts[ringway_protocol::ids::mix(address.0.get()) as usize % PARTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn one_address_has_its_bound_and_all_together_theirs() {
        let admission = Admission::new(3, 2);
        let one = AddressKey::from(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        let other = AddressKey::from(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
        assert!(admission.enter(one));
        assert!(admission.enter(one));
        assert!(!admission.enter(one), "two of one address");
        assert!(admission.enter(other));
        assert!(!admission.enter(other), "three in all");
        admission.leave(one);
        assert!(admission.enter(other));
        admission.leave(one);
        assert!(admission.parts.iter().all(|part| !part.lock().unwrap().contains_key(&one)));
    }

    #[test]
    fn a_whole_64_of_version_six_is_one_address() {
        let key = |text: &str| AddressKey::from(IpAddr::V6(text.parse::<Ipv6Addr>().unwrap()));
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:1:ffff::2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
    }
}
