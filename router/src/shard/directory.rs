//! Who is connected where: user → connections, each with its device.
//!
//! Every worker keeps all of it, so that a fan-out needs no other thread. The worker of a user's shard
//! also decides which connection is one too many: the older of two of the same device (4009), whichever
//! of the two is heard of first, or the newest past the limit (4029). It only says so; the entry stays until
//! the gateway's `Detach`, because workers may see the connections of two gateway cores in different orders,
//! and a connection that one worker forgot would miss what that worker has for it.
//!
//! A connection costs each worker a seat of 32 bytes (`seats.rs`) and a place of 6 to 12 in a table of seats.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use ringway_protocol::ids::ConnectionId;
use ringway_protocol::user::{DeviceId, UserId};

use super::seats::{Seat, SeatIndex, Seats};
use super::seeded::SeededState;

/// Close code: the same device connected anew.
pub(crate) const CLOSE_SAME_DEVICE: u16 = 4009;
/// Close code: too many connections of one user.
pub(crate) const CLOSE_TOO_MANY: u16 = 4029;

/// Parts of the table. A table that is full moves all it has: with half a million users in one, that would
/// be tens of milliseconds in which the worker does nothing else.
const PARTS: usize = 64;

/// The connections of all users.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Each user's first seat, found by the user in it. By parts of the hash.
    firsts: [HashTable<SeatIndex>; PARTS],
    seats: Seats,
    users: usize,
    hashes: SeededState,
    per_user_max: usize,
}

impl Directory {
    pub(crate) fn new(per_user_max: usize, seed: u64) -> Self {
        Self {
            firsts: [const { HashTable::new() }; PARTS],
            seats: Seats::default(),
            users: 0,
            hashes: SeededState(seed),
            per_user_max,
        }
    }

    /// Adds a connection. Where `decides`, returns what must close because of it.
    pub(crate) fn attach(
        &mut self,
        connection: ConnectionId,
        user: UserId,
        device: DeviceId,
        decides: bool,
    ) -> Option<(ConnectionId, u16)> {
        let first = self.first(&user);
        if self.seats.list(first).any(|(_, seat)| seat.connection == connection) {
            return None;
        }
        let close = if decides { self.decide(connection, first, &device) } else { None };
        let closing = close.is_some_and(|(which, _)| which == connection);
        let last = self.seats.list(first).last().map(|(index, _)| index);
        let hash = self.hashes.hash_one(&user);
        let index = self.seats.insert(Seat { user, device, connection, next: None, closing });
        match last {
            Some(last) => self.seats.get_mut(last).next = Some(index.into()),
            None => {
                let rehash = |index: &SeatIndex| self.hashes.hash_one(&self.seats.get(*index).user);
                self.firsts[part_of(hash)].insert_unique(hash, index, rehash);
                self.users += 1;
            }
        }
        close
    }

    /// Which connection is one too many, now that this one is there.
    fn decide(
        &mut self,
        connection: ConnectionId,
        first: Option<SeatIndex>,
        device: &DeviceId,
    ) -> Option<(ConnectionId, u16)> {
        let counted = || self.seats.list(first).filter(|(_, seat)| !seat.closing);
        let same = counted().find(|(_, seat)| seat.device == *device);
        match same.map(|(index, seat)| (index, seat.connection)) {
            Some((_, other)) if was_overtaken(connection, other) => Some((connection, CLOSE_SAME_DEVICE)),
            Some((index, other)) => {
                self.seats.get_mut(index).closing = true;
                Some((other, CLOSE_SAME_DEVICE))
            }
            None => (counted().count() >= self.per_user_max).then_some((connection, CLOSE_TOO_MANY)),
        }
    }

    /// Forgets a connection.
    pub(crate) fn detach(&mut self, connection: ConnectionId, user: &UserId) {
        let first = self.first(user);
        let mut before = None;
        let found = self.seats.list(first).find(|(index, seat)| {
            let is_it = seat.connection == connection;
            if !is_it {
                before = Some(*index);
            }
            is_it
        });
        let Some((index, seat)) = found else { return };
        let next = seat.next;
        match before {
            Some(before) => self.seats.get_mut(before).next = next,
            None => self.replace_first(user, next.map(SeatIndex::from)),
        }
        self.seats.remove(index);
    }

    /// A user's connections, in the order in which they came.
    pub(crate) fn connections(&self, user: &UserId) -> impl Iterator<Item = ConnectionId> + '_ {
        self.seats.list(self.first(user)).map(|(_, seat)| seat.connection)
    }

    /// Users with a connection.
    pub(crate) fn users(&self) -> usize {
        self.users
    }

    fn first(&self, user: &UserId) -> Option<SeatIndex> {
        let hash = self.hashes.hash_one(user);
        self.firsts[part_of(hash)].find(hash, |index| self.seats.get(*index).user == *user).copied()
    }

    /// A user's first seat goes: the next one is the first, or there is none and the user goes too.
    fn replace_first(&mut self, user: &UserId, first: Option<SeatIndex>) {
        let hash = self.hashes.hash_one(user);
        let is_it = |index: &SeatIndex| self.seats.get(*index).user == *user;
        let Ok(mut entry) = self.firsts[part_of(hash)].find_entry(hash, is_it) else { return };
        match first {
            Some(first) => *entry.get_mut() = first,
            None => {
                entry.remove();
                self.users -= 1;
            }
        }
    }
}

/// By bits of the hash that the table itself does not look at.
fn part_of(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

/// Whether a connection that is heard of now was accepted before one that was heard of already. Two gateway
/// cores tell of their connections at the same moment in any order, and one may be long at its handshake. The
/// gateway takes the generations of all its cores from one counter, which wraps: so only what was accepted
/// within the next million counts as an overtaking, and a socket that lives on while the counter goes round
/// does not keep its device's next one out. Equal generations (of endpoints that do not count) are in the
/// order in which they are heard of.
fn was_overtaken(now: ConnectionId, before: ConnectionId) -> bool {
    const GENERATIONS: u32 = 1 << 28;
    const OVERTAKING_MAX: u32 = 1 << 20;
    let ahead = before.generation().wrapping_sub(now.generation()) % GENERATIONS;
    (1..OVERTAKING_MAX).contains(&ahead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringway_protocol::ids::EndpointId;
    use std::collections::BTreeMap;

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId::new(EndpointId(0), slot, 0)
    }

    #[test]
    fn the_same_device_replaces_itself_and_the_newest_past_the_limit_goes() {
        let mut directory = Directory::new(2, 1);
        let alice = UserId::new("", "alice").unwrap();
        let mut attach = |slot, device: &str| {
            directory.attach(connection(slot), alice.clone(), DeviceId::new(device).unwrap(), true)
        };
        assert_eq!(attach(1, "phone"), None);
        assert_eq!(attach(2, "phone"), Some((connection(1), CLOSE_SAME_DEVICE)));
        assert_eq!(attach(3, "laptop"), None);
        assert_eq!(attach(4, "tablet"), Some((connection(4), CLOSE_TOO_MANY)));
        assert_eq!(attach(5, "laptop"), Some((connection(3), CLOSE_SAME_DEVICE)));
        directory.detach(connection(1), &alice);
        let left: Vec<_> = directory.connections(&alice).collect();
        assert_eq!(left, [2, 3, 4, 5].map(connection));
    }

    #[test]
    fn the_newer_of_one_device_stays_in_whatever_order_they_are_heard_of() {
        let alice = UserId::new("", "alice").unwrap();
        let phone = DeviceId::new("phone").unwrap();
        // Accepted in this order, on three cores, also where the numbers wrap.
        for first in [5, (1 << 28) - 2] {
            let [oldest, older, newest] =
                [0, 1, 2].map(|later| ConnectionId::new(EndpointId(2 - later as u16), 9, first + later));
            for heard in [
                [oldest, older, newest],
                [oldest, newest, older],
                [older, oldest, newest],
                [older, newest, oldest],
                [newest, oldest, older],
                [newest, older, oldest],
            ] {
                let mut directory = Directory::new(1, 1);
                let mut closed: Vec<_> = heard
                    .iter()
                    .filter_map(|id| directory.attach(*id, alice.clone(), phone.clone(), true))
                    .collect();
                closed.sort_by_key(|(id, _)| *id != oldest);
                let expected = [(oldest, CLOSE_SAME_DEVICE), (older, CLOSE_SAME_DEVICE)];
                assert_eq!(closed, expected, "{heard:?}");
            }
        }
    }

    #[test]
    fn a_socket_that_outlives_the_counter_does_not_keep_the_next_one_out() {
        let alice = UserId::new("", "alice").unwrap();
        for accepted_since in [1 << 20, 1 << 27, (1 << 28) - (1 << 20)] {
            let mut directory = Directory::new(1, 1);
            let phone = DeviceId::new("phone").unwrap();
            let [old, new] = [7, 7 + accepted_since].map(|count| ConnectionId::new(EndpointId(0), 9, count));
            assert_eq!(directory.attach(old, alice.clone(), phone.clone(), true), None);
            let closed = directory.attach(new, alice.clone(), phone, true);
            assert_eq!(closed, Some((old, CLOSE_SAME_DEVICE)), "after {accepted_since} others");
        }
    }

    proptest! {
        /// Against plain lists: the same connections in the same order, and the same decisions.
        #[test]
        fn it_does_what_lists_do(
            steps in proptest::collection::vec((0..6u32, 0..3usize, 0..40u32, any::<bool>()), 1..300)
        ) {
            const DEVICES: [&str; 3] = ["phone", "laptop", "tablet"];
            let mut directory = Directory::new(3, 1);
            // By user: slot, device, whether it closes.
            let mut lists: BTreeMap<u32, Vec<(u32, usize, bool)>> = BTreeMap::new();
            for (name, device, slot, attaches) in steps {
                let user = UserId::new("", &name.to_string()).unwrap();
                let list = lists.entry(name).or_default();
                if !attaches {
                    directory.detach(connection(slot), &user);
                    list.retain(|seat| seat.0 != slot);
                } else {
                    let known = list.iter().any(|seat| seat.0 == slot);
                    let counted = list.iter().filter(|seat| !seat.2).count();
                    let same = list.iter_mut().find(|seat| seat.1 == device && !seat.2);
                    let expected = match same {
                        _ if known => None,
                        Some(seat) => {
                            seat.2 = true;
                            Some((connection(seat.0), CLOSE_SAME_DEVICE))
                        }
                        None => (counted >= 3).then_some((connection(slot), CLOSE_TOO_MANY)),
                    };
                    if !known {
                        list.push((slot, device, expected.is_some_and(|close| close.0 == connection(slot))));
                    }
                    let device = DeviceId::new(DEVICES[device]).unwrap();
                    prop_assert_eq!(directory.attach(connection(slot), user.clone(), device, true), expected);
                }
                let seated: Vec<_> = directory.connections(&user).collect();
                let list: Vec<_> = lists[&name].iter().map(|seat| connection(seat.0)).collect();
                prop_assert_eq!(seated, list);
            }
            prop_assert_eq!(directory.users(), lists.values().filter(|list| !list.is_empty()).count());
        }
    }

    #[test]
    fn a_crowd_comes_and_goes_and_its_seats_are_used_again() {
        let mut directory = Directory::new(1, 1);
        let user = |name: u32| UserId::new("", &format!("user {name}")).unwrap();
        let phone = DeviceId::new("phone").unwrap();
        for _ in 0..2 {
            for name in 0..5_000 {
                directory.attach(connection(name), user(name), phone.clone(), true);
            }
            assert_eq!(directory.users(), 5_000);
            assert!((0..5_000).all(|name| directory.connections(&user(name)).eq([connection(name)])));
            for name in 0..5_000 {
                directory.detach(connection(name), &user(name));
            }
            assert_eq!((directory.users(), directory.connections(&user(0)).count()), (0, 0));
        }
        assert_eq!(directory.seats.places(), 5_000);
    }

    #[test]
    fn only_the_users_own_worker_decides() {
        let mut directory = Directory::new(1, 1);
        let alice = UserId::new("", "alice").unwrap();
        for slot in 0..3 {
            let device = DeviceId::new("phone").unwrap();
            assert_eq!(directory.attach(connection(slot), alice.clone(), device, false), None);
        }
        for slot in 0..3 {
            directory.detach(connection(slot), &alice);
        }
        assert_eq!(directory.users(), 0);
    }
}
