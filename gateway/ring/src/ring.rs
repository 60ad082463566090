//! The ring as the event loop sees it: sockets by [`Token`], completions that mean one thing each.
//!
//! Here are the rules of io_uring that are easy to get wrong, once, over whichever driver:
//!
//! - a slot is free only after the last completion of everything that was asked of it, and then a close;
//! - a completion without `more` ends a multishot operation, whatever its result says;
//! - a receive that ended for lack of buffers is armed again when buffers were given back, never at once;
//! - a cancelled operation completes by itself, before or after the cancelling does, and its result counts;
//! - a short send goes on where it stopped.
//!
//! Completions leave the kernel's queue in [`Ring::submit_and_wait`] and are handled after, one by one, so
//! that a handler queues and never recurses.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use crate::chunk::Chunk;
use crate::driver::{Driver, Operation, RawCompletion, RingError, Wait};
use crate::user_data::{Kind, Token, UserData};

/// Sockets, listeners and one event on one kernel ring. Stays on the thread that made it.
pub struct Ring<D> {
    driver: D,
    slots: Vec<Slot>,
    listeners: Vec<Listener>,
    /// Receives that ended for lack of buffers and are still wanted.
    starved: VecDeque<Token>,
    completions: VecDeque<RawCompletion>,
    open: u32,
    counters: RingCounters,
}

/// A listening socket of a ring, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// Bytes that arrived, in a buffer of the ring. Give it back ([`Ring::give_back`]) in the same pass: the
/// kernel has nowhere to put what comes next.
#[must_use = "a provided buffer must be given back to the ring"]
#[derive(Debug)]
pub struct ReceivedBuffer {
    buffer: u16,
    length: u32,
}

/// What happened.
#[derive(Debug)]
pub enum Completion {
    /// A socket was accepted. Nothing is asked of it yet.
    Accepted {
        /// By whom.
        listener: ListenerId,
        /// Its name until it is closed.
        token: Token,
    },
    /// The listener stopped by itself; `start_accepting` when there is reason to hope.
    AcceptEnded {
        /// Which.
        listener: ListenerId,
        /// ENFILE: the table is full. Others: the machine's trouble.
        error: io::Error,
    },
    /// The answer to [`Ring::ask_peer`].
    Peer {
        /// Whose.
        token: Token,
        /// An error means that the peer is gone already.
        address: io::Result<SocketAddr>,
    },
    /// Bytes arrived.
    Received {
        /// From.
        token: Token,
        /// Look with [`Ring::buffer_mut`], then [`Ring::give_back`].
        buffer: ReceivedBuffer,
    },
    /// No more will arrive.
    ReceiveEnded {
        /// From.
        token: Token,
        /// `Ok` is an orderly end of the stream.
        result: io::Result<()>,
    },
    /// A send is over; the chunk comes back.
    Sent {
        /// To.
        token: Token,
        /// What was given to [`Ring::send`].
        chunk: Chunk,
        /// Whether all of it was taken.
        result: io::Result<()>,
    },
    /// Another thread woke this one.
    Event,
    /// The slot is free; the token names nothing any more.
    Closed {
        /// Who it was.
        token: Token,
    },
}

/// What the ring counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// System calls.
    pub enters: u64,
    /// Enters that found the completion queue overflown.
    pub overflows: u64,
    /// Receives that ended for lack of buffers.
    pub buffers_exhausted: u64,
    /// Sends that were cut short and continued.
    pub sends_short: u64,
    /// Completions of tokens that were gone: always 0, unless a rule above is broken.
    pub stray: u64,
}

/// What one slot is doing, in 8 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    generation: u32,
    flags: u16,
    /// Operations whose last completion has not come.
    in_flight: u8,
}

const OPEN: u16 = 1;
const NAMING: u16 = 1 << 1;
/// A receive is armed.
const RECEIVING: u16 = 1 << 2;
/// The event loop wants to read.
const WANTED: u16 = 1 << 3;
/// The armed receive is being cancelled.
const STOPPING: u16 = 1 << 4;
/// In the starved list.
const STARVED: u16 = 1 << 5;
/// The peer's direction is over.
const ENDED: u16 = 1 << 6;
const SENDING: u16 = 1 << 7;
/// The event loop wants it closed.
const CLOSING: u16 = 1 << 8;
/// The close itself is asked for.
const CLOSED: u16 = 1 << 9;

/// Generations keep 28 bits, as many as a connection's name has room for.
const GENERATION_MAX: u32 = (1 << 28) - 1;
/// Where a socket has its generation, the cancelling of an accept has this.
const OF_LISTENER: u32 = u32::MAX;

/// Bytes that a slot takes here and in its driver's table of sends, whatever its socket does.
pub const SLOT_BYTES: usize = size_of::<Slot>() + crate::chunks::SLOT_BYTES;

impl Slot {
    fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flag: u16) {
        self.flags |= flag;
    }

    fn clear(&mut self, flag: u16) {
        self.flags &= !flag;
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Listener {
    armed: bool,
    wanted: bool,
    stopping: bool,
    /// To be closed when its accept is over.
    closing: bool,
}

impl<D: Driver> Ring<D> {
    /// The logic over a driver.
    pub fn new(driver: D) -> Self {
        let slots = vec![Slot::default(); driver.slots() as usize];
        Self {
            driver,
            slots,
            listeners: Vec::new(),
            starved: VecDeque::new(),
            completions: VecDeque::new(),
            open: 0,
            counters: RingCounters::default(),
        }
    }

    /// Slots in the table.
    pub fn slots(&self) -> u32 {
        self.driver.slots()
    }

    /// Slots in use: from the accept to [`Completion::Closed`].
    pub fn open_slots(&self) -> u32 {
        self.open
    }

    /// The clock that waits are measured by, in milliseconds.
    pub fn now_milliseconds(&self) -> u64 {
        self.driver.now_milliseconds()
    }

    /// What was counted.
    pub fn counters(&self) -> RingCounters {
        RingCounters { enters: self.driver.enters(), overflows: self.driver.overflows(), ..self.counters }
    }

    /// Takes a listening socket. It accepts from [`start_accepting`](Self::start_accepting) on.
    pub fn add_listener(&mut self, listener: TcpListener) -> ListenerId {
        let number = self.driver.add_listener(listener);
        assert_eq!(usize::from(number), self.listeners.len(), "listeners are numbered in order");
        self.listeners.push(Listener::default());
        ListenerId(number)
    }

    /// Accepts until told otherwise.
    pub fn start_accepting(&mut self, listener: ListenerId) {
        let state = &mut self.listeners[usize::from(listener.0)];
        assert!(!state.closing, "a closed listener accepts no more");
        state.wanted = true;
        if !state.armed {
            state.armed = true;
            self.driver.push(accept_data(listener), Operation::Accept { listener: listener.0 });
        }
    }

    /// Accepts no more; what the kernel accepted already still comes.
    pub fn stop_accepting(&mut self, listener: ListenerId) {
        let state = &mut self.listeners[usize::from(listener.0)];
        state.wanted = false;
        if state.armed && !state.stopping {
            state.stopping = true;
            let name = Token { slot: u32::from(listener.0), generation: OF_LISTENER };
            let target = accept_data(listener);
            self.driver.push(UserData::new(Kind::Cancel, name), Operation::Cancel { target });
        }
    }

    /// Accepts no more and closes the listening socket: who waits in its backlog is reset and may try
    /// another listener of the port.
    pub fn close_listener(&mut self, listener: ListenerId) {
        self.stop_accepting(listener);
        let state = &mut self.listeners[usize::from(listener.0)];
        state.closing = true;
        if !state.armed {
            self.driver.close_listener(listener.0);
        }
    }

    /// Reads this event (eventfd(2)) from now on; each time it was written, [`Completion::Event`].
    pub fn watch_event(&mut self, event: OwnedFd) {
        self.driver.set_event(event);
        self.driver.push(event_data(), Operation::Event);
    }

    /// Asks for the address of the other end.
    pub fn ask_peer(&mut self, token: Token, listener: ListenerId) {
        self.slot(token).set(NAMING);
        self.push(Kind::PeerName, token, Operation::PeerName { slot: token.slot, listener: listener.0 });
    }

    /// Reads from the socket until told otherwise.
    pub fn start_receiving(&mut self, token: Token) {
        self.slot(token).set(WANTED);
        self.arm_receive(token);
    }

    /// Reads no more; what the kernel read already still comes.
    pub fn stop_receiving(&mut self, token: Token) {
        let slot = self.slot(token);
        slot.clear(WANTED);
        if slot.is(RECEIVING) && !slot.is(STOPPING) {
            slot.set(STOPPING);
            let target = UserData::new(Kind::Receive, token);
            self.push(Kind::Cancel, token, Operation::Cancel { target });
        }
    }

    /// Sends all of `chunk`, which comes back with [`Completion::Sent`].
    ///
    /// # Panics
    /// When the last send of this socket is not over: one is in flight at a time, so that bytes keep
    /// their order.
    pub fn send(&mut self, token: Token, chunk: impl Into<Chunk>) {
        let chunk = chunk.into();
        assert!(!chunk.is_empty(), "a send has something to send");
        let slot = self.slot(token);
        assert!(!slot.is(SENDING), "one send a socket is in flight");
        slot.set(SENDING);
        self.driver.put_chunk(token.slot, chunk);
        self.push(Kind::Send, token, Operation::Send { slot: token.slot });
    }

    /// Whether a send is in flight.
    pub fn is_sending(&mut self, token: Token) -> bool {
        self.slot(token).is(SENDING)
    }

    /// Ends our direction: the peer reads an end of stream after what was sent.
    pub fn shutdown(&mut self, token: Token) {
        self.slot(token);
        self.push(Kind::Shutdown, token, Operation::Shutdown { slot: token.slot });
    }

    /// Cancels what is in flight, waits for it to be over, closes, and then says
    /// [`Completion::Closed`]. A send in flight still says [`Completion::Sent`]; nothing else comes.
    pub fn close(&mut self, token: Token) {
        let slot = self.slot(token);
        slot.set(CLOSING);
        slot.clear(WANTED);
        if slot.is(RECEIVING | SENDING | NAMING) {
            self.push(Kind::Cancel, token, Operation::CancelAll { slot: token.slot });
        }
        self.close_if_quiet(token);
    }

    /// The only system call of a pass: submits what was queued, waits, and takes all completions out.
    ///
    /// # Errors
    /// The ring is lost; see [`RingError`].
    pub fn submit_and_wait(&mut self, wait: Wait) -> Result<(), RingError> {
        self.feed_starved();
        // Those that are still starved wait for no completion that is sure to come: look again soon.
        let wait = if self.starved.is_empty() && self.completions.is_empty() { wait } else { Wait::No };
        self.driver.enter(wait, &mut self.completions)
    }

    /// Completions that wait to be handled.
    pub fn completions_waiting(&self) -> usize {
        self.completions.len()
    }

    /// The slot that the completion after so many others is about, for who would have its memory at hand.
    pub fn upcoming(&self, after: usize) -> Option<u32> {
        let raw = self.completions.get(after)?;
        matches!(raw.user_data.kind(), Kind::Receive | Kind::Send).then(|| raw.user_data.token().slot)
    }

    /// The next thing that happened.
    pub fn next_completion(&mut self) -> Option<Completion> {
        while let Some(raw) = self.completions.pop_front() {
            let completion = self.interpret(raw);
            if completion.is_some() {
                return completion;
            }
        }
        None
    }

    /// The bytes that arrived.
    pub fn buffer_mut(&mut self, buffer: &ReceivedBuffer) -> &mut [u8] {
        self.driver.buffer_mut(buffer.buffer, buffer.length as usize)
    }

    /// Lets the kernel use the buffer again.
    pub fn give_back(&mut self, buffer: ReceivedBuffer) {
        self.driver.give_back(buffer.buffer);
    }

    /// The driver, for what only it knows.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// Checks what holds between passes; for tests, as it looks at every slot.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn check_invariants(&self) {
        let open = self.slots.iter().filter(|slot| slot.is(OPEN)).count();
        assert_eq!(open, self.open as usize, "slots in use are counted");
        assert_eq!(self.counters.stray, 0, "no completion came for a socket that was gone");
        for (index, slot) in self.slots.iter().enumerate() {
            let needs = slot.is(WANTED) && !slot.is(ENDED | CLOSING | STARVED);
            assert!(
                !needs || slot.is(RECEIVING),
                "slot {index} wants to read and nothing is armed: {slot:?}"
            );
            assert!(slot.is(OPEN) || slot.flags == 0, "slot {index} is free and yet busy: {slot:?}");
        }
        if self.completions.is_empty() {
            assert_eq!(self.driver.buffers_out(), 0, "all buffers were given back");
        }
    }

    /// Receives that are armed now; for tests.
    pub fn armed_receives(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is(RECEIVING)).count()
    }

    fn slot(&mut self, token: Token) -> &mut Slot {
        let slot = &mut self.slots[token.slot as usize];
        assert!(slot.is(OPEN) && slot.generation == token.generation, "{token:?} is gone: {slot:?}");
        assert!(!slot.is(CLOSED), "{token:?} is being closed");
        slot
    }

    fn push(&mut self, kind: Kind, token: Token, operation: Operation) {
        self.slots[token.slot as usize].in_flight += 1;
        self.driver.push(UserData::new(kind, token), operation);
    }

    fn arm_receive(&mut self, token: Token) {
        let slot = self.slot(token);
        if slot.is(WANTED) && !slot.is(RECEIVING | STARVED | ENDED | CLOSING) {
            slot.set(RECEIVING);
            self.push(Kind::Receive, token, Operation::Receive { slot: token.slot });
        }
    }

    /// The refill path: as many starved receives as there are buffers, the longest hungry first.
    fn feed_starved(&mut self) {
        let free = self.driver.buffer_count() - self.driver.buffers_out();
        for _ in 0..free {
            let Some(token) = self.starved.pop_front() else { break };
            let slot = &mut self.slots[token.slot as usize];
            if slot.generation == token.generation && slot.is(STARVED) {
                slot.clear(STARVED);
                if !slot.is(CLOSED) {
                    self.arm_receive(token);
                }
            }
        }
    }

    fn close_if_quiet(&mut self, token: Token) {
        let slot = &mut self.slots[token.slot as usize];
        if slot.is(CLOSING) && !slot.is(CLOSED) && slot.in_flight == 0 {
            slot.set(CLOSED);
            self.push(Kind::Close, token, Operation::Close { slot: token.slot });
        }
    }

    fn interpret(&mut self, raw: RawCompletion) -> Option<Completion> {
        let token = raw.user_data.token();
        match raw.user_data.kind() {
            Kind::Event => {
                self.driver.push(event_data(), Operation::Event);
                return Some(Completion::Event);
            }
            Kind::Accept => return self.on_accept(ListenerId(token.slot as u8), raw),
            // The cancelling of an accept: the accept's own completion says the rest.
            Kind::Cancel if token.generation == OF_LISTENER => return None,
            _ => {}
        }
        let slot = &mut self.slots[token.slot as usize];
        if !slot.is(OPEN) || slot.generation != token.generation {
            self.counters.stray += 1;
            debug_assert!(false, "{raw:?} for {slot:?}");
            return None;
        }
        if !raw.more {
            slot.in_flight -= 1;
        }
        let completion = match raw.user_data.kind() {
            Kind::PeerName => self.on_peer(token, raw),
            Kind::Receive => self.on_receive(token, raw),
            Kind::Send => self.on_send(token, raw),
            Kind::Close => return Some(self.on_close(token)),
            Kind::Cancel | Kind::Shutdown | Kind::Accept | Kind::Event => None,
        };
        self.close_if_quiet(token);
        completion
    }

    fn on_accept(&mut self, listener: ListenerId, raw: RawCompletion) -> Option<Completion> {
        let state = &mut self.listeners[usize::from(listener.0)];
        let error = (raw.result < 0).then_some(-raw.result);
        if !raw.more {
            *state = Listener { armed: false, stopping: false, ..*state };
            let passing = matches!(error, None | Some(ECANCELED | ECONNABORTED | EINTR | EAGAIN));
            if state.closing {
                self.driver.close_listener(listener.0);
            } else if passing && state.wanted {
                self.start_accepting(listener);
            }
        }
        match error {
            None => {
                let index = raw.result as u32;
                let slot = &mut self.slots[index as usize];
                assert!(!slot.is(OPEN), "the kernel used slot {index} twice: {slot:?}");
                slot.flags = OPEN;
                self.open += 1;
                let token = Token { slot: index, generation: slot.generation };
                Some(Completion::Accepted { listener, token })
            }
            Some(ECANCELED | ECONNABORTED | EINTR | EAGAIN) => None,
            Some(error) => {
                let error = io::Error::from_raw_os_error(error);
                Some(Completion::AcceptEnded { listener, error })
            }
        }
    }

    fn on_peer(&mut self, token: Token, raw: RawCompletion) -> Option<Completion> {
        let address = self.driver.peer_name(token.slot);
        let slot = &mut self.slots[token.slot as usize];
        slot.clear(NAMING);
        if slot.is(CLOSING) {
            return None;
        }
        let address = match address {
            _ if raw.result < 0 => Err(io::Error::from_raw_os_error(-raw.result)),
            Some(address) => Ok(address),
            None => Err(io::Error::from(io::ErrorKind::Unsupported)),
        };
        Some(Completion::Peer { token, address })
    }

    fn on_receive(&mut self, token: Token, raw: RawCompletion) -> Option<Completion> {
        let slot = &mut self.slots[token.slot as usize];
        if !raw.more {
            slot.clear(RECEIVING | STOPPING);
        }
        let closing = slot.is(CLOSING);
        let completion = match raw.result {
            length @ 1.. => {
                let buffer = raw.buffer.expect("bytes of a buffer-select receive are in a buffer");
                if closing {
                    self.driver.give_back(buffer);
                    None
                } else {
                    let buffer = ReceivedBuffer { buffer, length: length as u32 };
                    Some(Completion::Received { token, buffer })
                }
            }
            result => {
                if let Some(buffer) = raw.buffer {
                    self.driver.give_back(buffer);
                }
                match -result {
                    ENOBUFS => {
                        self.counters.buffers_exhausted += 1;
                        if slot.is(WANTED) && !closing && !raw.more {
                            slot.set(STARVED);
                            self.starved.push_back(token);
                        }
                        None
                    }
                    ECANCELED | EINTR | EAGAIN => None,
                    error => {
                        slot.set(ENDED);
                        let result =
                            if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) };
                        (!closing).then_some(Completion::ReceiveEnded { token, result })
                    }
                }
            }
        };
        // Ended without being told to, or told to and told otherwise meanwhile: once more.
        if !raw.more && !closing {
            self.arm_receive(token);
        }
        completion
    }

    fn on_send(&mut self, token: Token, raw: RawCompletion) -> Option<Completion> {
        let slot = &mut self.slots[token.slot as usize];
        let closing = slot.is(CLOSING);
        let result = match raw.result {
            count @ 1.. => {
                let left = self.driver.advance_chunk(token.slot, count as usize);
                if left > 0 && !closing {
                    self.counters.sends_short += 1;
                    self.push(Kind::Send, token, Operation::Send { slot: token.slot });
                    return None;
                }
                if left == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(ECANCELED)) }
            }
            0 => Err(io::Error::from_raw_os_error(EPIPE)),
            error if matches!(-error, EINTR | EAGAIN) && !closing => {
                self.push(Kind::Send, token, Operation::Send { slot: token.slot });
                return None;
            }
            error => Err(io::Error::from_raw_os_error(-error)),
        };
        slot.clear(SENDING);
        Some(Completion::Sent { token, chunk: self.driver.take_chunk(token.slot), result })
    }

    fn on_close(&mut self, token: Token) -> Completion {
        let slot = &mut self.slots[token.slot as usize];
        assert_eq!(slot.in_flight, 0, "a slot is freed after its last completion");
        *slot = Slot { generation: (slot.generation + 1) & GENERATION_MAX, ..Slot::default() };
        self.open -= 1;
        Completion::Closed { token }
    }
}

fn accept_data(listener: ListenerId) -> UserData {
    UserData::new(Kind::Accept, Token { slot: u32::from(listener.0), generation: 0 })
}

fn event_data() -> UserData {
    UserData::new(Kind::Event, Token { slot: 0, generation: 0 })
}

const EPIPE: i32 = libc::EPIPE;
const EINTR: i32 = libc::EINTR;
const EAGAIN: i32 = libc::EAGAIN;
const ENOBUFS: i32 = libc::ENOBUFS;
const ECANCELED: i32 = libc::ECANCELED;
const ECONNABORTED: i32 = libc::ECONNABORTED;
