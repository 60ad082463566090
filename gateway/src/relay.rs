//! `/relay`, for measurements: the socket plane alone, with no login, no store and no order between senders.
//!
//! A message whose first byte is `U` goes unchanged to the connection that its next seven digits name; one
//! that begins with `R` goes to every connection that asked for `room=1`. What one arrival brings for the
//! same destination is joined in one run of frames, made once: for a room they are shared by all its
//! members, for one connection they are copied to the end of its queue. Who is on another core is reached
//! by that core's inbox. A name that nobody has is no error: what was said to it is dropped.
//!
//! `connection/websocket.rs` posts, `event_loop.rs` delivers when the arrival is read to its end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ringway_protocol::ids::{ConnectionId, EndpointId};
use ringway_protocol::websocket::{Opcode, append_frame};
use ringway_trunk::Outbox;

use crate::clock::Tick;
use crate::context::Context;
use crate::core_message::CoreMessage;
use crate::slots::Slots;

/// Digits of a name.
const NAME_DIGITS: usize = 7;
/// Names there are.
const NAMES: usize = 10_000_000;
/// Names of one page of the directory.
const PAGE_NAMES: usize = 1_024;
/// In the directory: nobody has this name.
const NOBODY: u64 = u64::MAX;

/// A name on the relay, of seven digits at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RelayName(u32);

impl RelayName {
    /// What a URL says, if it is a name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_short = (1..=NAME_DIGITS).contains(&text.len());
        (is_short && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| Self::of_digits(text.as_bytes()))
    }

    fn of_digits(digits: &[u8]) -> Self {
        Self(digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
    }
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To this connection.
    One(ConnectionId),
    /// To all members of the room.
    Room,
}

/// Frames on their way to another core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayedFrames {
    /// Whose they are.
    pub to: Destination,
    /// Whole frames, one after the other.
    pub frames: Bytes,
    /// How many.
    pub count: u32,
}

/// What the relays of all cores share: who has which name, and how another core is reached.
pub struct RelayHub {
    endpoint_base: EndpointId,
    cores: Vec<Outbox<CoreMessage>>,
    /// Connections by name, page by page as names come into use.
    pages: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl RelayHub {
    /// For the cores with these inboxes; the first is the endpoint `endpoint_base`, the others follow.
    pub fn new(endpoint_base: EndpointId, cores: Vec<Outbox<CoreMessage>>) -> Self {
        let pages = (0..NAMES.div_ceil(PAGE_NAMES)).map(|_| OnceLock::new()).collect();
        Self { endpoint_base, cores, pages }
    }

    fn find(&self, name: RelayName) -> Option<ConnectionId> {
        let name = name.0 as usize;
        let page = self.pages.get(name / PAGE_NAMES)?.get()?;
        let connection = page[name % PAGE_NAMES].load(Ordering::Relaxed);
        (connection != NOBODY).then_some(ConnectionId(connection))
    }

    fn entry(&self, name: RelayName) -> Option<&AtomicU64> {
        let name = name.0 as usize;
        let page = self.pages.get(name / PAGE_NAMES)?;
        let page = page.get_or_init(|| (0..PAGE_NAMES).map(|_| AtomicU64::new(NOBODY)).collect());
        Some(&page[name % PAGE_NAMES])
    }
}

/// The relay of one core.
pub(crate) struct Relay {
    hub: Arc<RelayHub>,
    /// A bit for each slot whose connection is in the room: the members in the order of memory.
    room: Vec<u64>,
    posted: Posted,
    /// Cores that got something since the last [`flush_wakes`](Self::flush_wakes).
    to_wake: Vec<bool>,
}

/// What was posted and not yet delivered.
#[derive(Default)]
struct Posted {
    frames: Vec<u8>,
    runs: Vec<Run>,
}

/// Frames for one destination: those from the end of the run before to `end`.
#[derive(Clone, Copy)]
struct Run {
    to: Destination,
    end: usize,
    count: u32,
}

impl Relay {
    /// With nobody in it.
    pub(crate) fn new(hub: Arc<RelayHub>) -> Self {
        let to_wake = vec![false; hub.cores.len()];
        Self { hub, room: Vec::new(), posted: Posted::default(), to_wake }
    }

    /// A connection has this name from here on; who had it before is no longer found by it.
    pub(crate) fn enter(&mut self, name: RelayName, connection: ConnectionId, in_room: bool) {
        if let Some(entry) = self.hub.entry(name) {
            entry.store(connection.0, Ordering::Relaxed);
        }
        if in_room {
            let (word, bit) = place(connection.slot());
            if self.room.len() <= word {
                self.room.resize(word + 1, 0);
            }
            self.room[word] |= bit;
        }
    }

    /// The connection is gone.
    pub(crate) fn leave(&mut self, name: RelayName, connection: ConnectionId, in_room: bool) {
        if let Some(entry) = self.hub.entry(name) {
            // Unless another connection took the name meanwhile.
            let _ = entry.compare_exchange(connection.0, NOBODY, Ordering::Relaxed, Ordering::Relaxed);
        }
        if in_room
            && let (word, bit) = place(connection.slot())
            && let Some(word) = self.room.get_mut(word)
        {
            *word &= !bit;
        }
    }

    /// Takes a message from a client. False if it begins with no address.
    pub(crate) fn post(&mut self, opcode: Opcode, message: &[u8]) -> bool {
        let to = match message {
            [b'U', rest @ ..] => match rest.first_chunk::<NAME_DIGITS>() {
                Some(digits) if digits.iter().all(u8::is_ascii_digit) => {
                    match self.hub.find(RelayName::of_digits(digits)) {
                        Some(connection) => Destination::One(connection),
                        None => return true,
                    }
                }
                _ => return false,
            },
            [b'R', ..] => Destination::Room,
            _ => return false,
        };
        let posted = &mut self.posted;
        append_frame(&mut posted.frames, opcode, message);
        let end = posted.frames.len();
        match posted.runs.last_mut() {
            Some(last) if last.to == to => {
                last.end = end;
                last.count += 1;
            }
            _ => posted.runs.push(Run { to, end, count: 1 }),
        }
        true
    }

    /// Whether something was posted and not yet delivered.
    pub(crate) fn has_posted(&self) -> bool {
        !self.posted.runs.is_empty()
    }

    /// Wakes the cores that were given something. Once at the end of a pass.
    pub(crate) fn flush_wakes(&mut self) {
        for (core, wake) in self.to_wake.iter_mut().enumerate() {
            if std::mem::take(wake) {
                self.hub.cores[core].wake();
            }
        }
    }

    fn core_of(&self, endpoint: EndpointId) -> usize {
        usize::from(endpoint.0.wrapping_sub(self.hub.endpoint_base.0))
    }

    fn send(&mut self, core: usize, frames: RelayedFrames) {
        // A full inbox loses them: a relay promises nothing.
        if let Some(outbox) = self.hub.cores.get(core)
            && outbox.push(CoreMessage::Relayed(frames)).is_ok()
        {
            self.to_wake[core] = true;
        }
    }
}

/// Gives what was posted to its destinations. `here` is the core that we are.
pub(crate) fn deliver_posted(slots: &mut Slots, context: &mut Context, now: Tick, here: EndpointId) {
    let Some(relay) = &mut context.relay else { return };
    let mut posted = std::mem::take(&mut relay.posted);
    let mut start = 0;
    for run in posted.runs.drain(..) {
        let frames = &posted.frames[start..run.end];
        start = run.end;
        match run.to {
            Destination::One(connection) if connection.endpoint() == here => {
                deliver_to_one(slots, context, now, connection, frames, run.count);
            }
            Destination::One(connection) => {
                let frames = Bytes::copy_from_slice(frames);
                if let Some(relay) = &mut context.relay {
                    let core = relay.core_of(connection.endpoint());
                    relay.send(core, RelayedFrames { to: run.to, frames, count: run.count });
                }
            }
            Destination::Room => {
                let frames = Bytes::copy_from_slice(frames);
                if let Some(relay) = &mut context.relay {
                    let us = relay.core_of(here);
                    for core in (0..relay.to_wake.len()).filter(|core| *core != us) {
                        let frames = frames.clone();
                        relay.send(core, RelayedFrames { to: run.to, frames, count: run.count });
                    }
                }
                deliver_to_room(slots, context, now, &frames, run.count);
            }
        }
    }
    posted.frames.clear();
    if let Some(relay) = &mut context.relay {
        relay.posted = posted;
    }
}

/// Gives frames of another core to their destinations here. Returns how many connections it concerned.
pub(crate) fn deliver_relayed(
    slots: &mut Slots,
    context: &mut Context,
    now: Tick,
    relayed: &RelayedFrames,
) -> usize {
    match relayed.to {
        Destination::One(connection) => {
            deliver_to_one(slots, context, now, connection, &relayed.frames, relayed.count);
            1
        }
        Destination::Room => deliver_to_room(slots, context, now, &relayed.frames, relayed.count),
    }
}

fn deliver_to_one(
    slots: &mut Slots,
    context: &mut Context,
    now: Tick,
    to: ConnectionId,
    frames: &[u8],
    count: u32,
) {
    if let Some((slot, connection)) = slots.find(to) {
        context.metrics.frames_out.add_alone(u64::from(count));
        connection.relay(context, now, frames);
        slots.touch(slot);
    }
}

fn deliver_to_room(slots: &mut Slots, context: &mut Context, now: Tick, frames: &Bytes, count: u32) -> usize {
    let words = context.relay.as_ref().map_or(0, |relay| relay.room.len());
    let mut members = 0;
    for word in 0..words {
        let mut bits = context.relay.as_ref().map_or(0, |relay| relay.room[word]);
        while bits != 0 {
            let slot = word as u32 * u64::BITS + bits.trailing_zeros();
            bits &= bits - 1;
            slots.prefetch(Some(slot + 4), false);
            slots.prefetch(Some(slot + 2), true);
            if let Some(connection) = slots.open(slot) {
                connection.relay_shared(context, now, frames);
                slots.touch(slot);
                members += 1;
            }
        }
    }
    context.metrics.frames_out.add(members as u64 * u64::from(count));
    members
}

/// The word of a slot in the room's bits, and its bit.
fn place(slot: u32) -> (usize, u64) {
    ((slot / u64::BITS) as usize, 1 << (slot % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId::new(EndpointId(0), slot, 7)
    }

    fn relay() -> Relay {
        Relay::new(Arc::new(RelayHub::new(EndpointId(0), Vec::new())))
    }

    #[test]
    fn messages_of_one_arrival_for_the_same_destination_are_one_run() {
        let mut relay = relay();
        relay.enter(RelayName(1), connection(1), false);
        relay.enter(RelayName(9_999_999), connection(2), false);
        for message in ["U0000001a", "U0000001b", "Rc", "U9999999d", "U0000002to nobody"] {
            assert!(relay.post(Opcode::Text, message.as_bytes()), "{message}");
        }
        let runs: Vec<_> = relay.posted.runs.iter().map(|run| (run.to, run.count)).collect();
        let one = |slot| Destination::One(connection(slot));
        assert_eq!(runs, [(one(1), 2), (Destination::Room, 1), (one(2), 1)]);
    }

    #[test]
    fn what_begins_with_no_address_is_refused() {
        let mut relay = relay();
        for message in ["", "u0000001", "U", "U123456", "U12345x7", "U-000001"] {
            assert!(!relay.post(Opcode::Text, message.as_bytes()), "{message}");
        }
        for name in ["", "12345678", "-1", "1 "] {
            assert_eq!(RelayName::parse(name), None, "{name}");
        }
        assert_eq!(RelayName::parse("0000042"), Some(RelayName(42)));
    }

    #[test]
    fn a_name_belongs_to_who_took_it_last() {
        let mut relay = relay();
        relay.enter(RelayName(5), connection(1), false);
        relay.enter(RelayName(5), connection(2), true);
        relay.leave(RelayName(5), connection(1), false);
        assert_eq!(relay.hub.find(RelayName(5)), Some(connection(2)));
        relay.leave(RelayName(5), connection(2), true);
        assert_eq!(relay.hub.find(RelayName(5)), None);
        assert!(relay.room.iter().all(|word| *word == 0));
    }
}
