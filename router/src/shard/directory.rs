//! Who is connected where: user → connections, each with its device.
//!
//! Every worker keeps all of it, so that a fan-out needs no other thread. The worker of a user's shard
//! also decides which connection is one too many: the older of two of the same device (4009), whichever
//! of the two is heard of first, or the newest past the limit (4029). It only says so; the entry stays until
//! the gateway's `Detach`, because workers may see the connections of two gateway cores in different orders,
//! and a connection that one worker forgot would miss what that worker has for it.

use std::collections::HashMap;

use ringway_protocol::ids::ConnectionId;
use ringway_protocol::user::{DeviceId, UserId};

use super::seeded::SeededState;

/// Close code: the same device connected anew.
pub(crate) const CLOSE_SAME_DEVICE: u16 = 4009;
/// Close code: too many connections of one user.
pub(crate) const CLOSE_TOO_MANY: u16 = 4029;

/// The connections of all users.
#[derive(Debug)]
pub(crate) struct Directory {
    users: HashMap<UserId, Vec<Seat>, SeededState>,
    per_user_max: usize,
}

/// One connection of a user.
#[derive(Debug)]
struct Seat {
    connection: ConnectionId,
    device: DeviceId,
    /// It was told to close, and is no longer counted.
    closing: bool,
}

impl Directory {
    pub(crate) fn new(per_user_max: usize, seed: u64) -> Self {
        Self { users: HashMap::with_hasher(SeededState(seed)), per_user_max }
    }

    /// Adds a connection. Where `decides`, returns what must close because of it.
    pub(crate) fn attach(
        &mut self,
        connection: ConnectionId,
        user: UserId,
        device: DeviceId,
        decides: bool,
    ) -> Option<(ConnectionId, u16)> {
        let seats = self.users.entry(user).or_default();
        if seats.iter().any(|seat| seat.connection == connection) {
            return None;
        }
        let mut close = None;
        if decides {
            if let Some(other) = seats.iter_mut().find(|seat| seat.device == device && !seat.closing) {
                let older =
                    if was_overtaken(connection, other.connection) { connection } else { other.connection };
                other.closing = older == other.connection;
                close = Some((older, CLOSE_SAME_DEVICE));
            } else if seats.iter().filter(|seat| !seat.closing).count() >= self.per_user_max {
                close = Some((connection, CLOSE_TOO_MANY));
            }
        }
        let closing = close.is_some_and(|(which, _)| which == connection);
        seats.push(Seat { connection, device, closing });
        close
    }

    /// Forgets a connection.
    pub(crate) fn detach(&mut self, connection: ConnectionId, user: &UserId) {
        if let Some(seats) = self.users.get_mut(user) {
            seats.retain(|seat| seat.connection != connection);
            if seats.is_empty() {
                self.users.remove(user);
            }
        }
    }

    /// A user's connections, in the order in which they came.
    pub(crate) fn connections(&self, user: &UserId) -> impl Iterator<Item = ConnectionId> + '_ {
        self.users.get(user).into_iter().flatten().map(|seat| seat.connection)
    }

    /// Users with a connection.
    pub(crate) fn users(&self) -> usize {
        self.users.len()
    }
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
    use ringway_protocol::ids::EndpointId;

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
