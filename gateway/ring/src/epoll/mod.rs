//! The driver that is epoll(7): for kernels and sandboxes without io_uring, and to measure io_uring against.
//!
//! Keeps the promises of `driver.rs` with calls on non-blocking sockets. Operations are carried out by the enter
//! that they were queued for; what cannot be done at once waits for its socket's edge:
//!
//! ```text
//!   enter: queued operations ─▶ epoll_wait ─▶ ready sockets: rest of a send, receives ─▶ listeners: accepts
//! ```
//! Sockets are registered once, edge-triggered, for both directions. So an edge is remembered (`READABLE`,
//! `WRITABLE` in `sockets.rs`) until a call says that there is no more, and whoever is ready is visited for a
//! bounded turn each enter. Unlike direct descriptors these are the process's own: all rings together have to fit
//! the limit on open files. A message costs a call for its receive, one for its send, and its share of a wait.

mod operations;
mod provided;
mod sockets;

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use crate::chunk::Chunk;
use crate::chunks::Chunks;
use crate::driver::{Driver, Operation, RawCompletion, RingError, Wait};
use crate::kernel::KernelSettings;
use crate::probe;
use crate::user_data::{Kind, UserData};

use provided::Provided;
use sockets::{HANGING_UP, QUEUED, READABLE, RECEIVING, SENDING, Sockets, WRITABLE};

/// Receives of one socket in one enter: what it has beyond that waits until the others had their turn. Four
/// buffers are a full TLS record.
const RECEIVES_A_VISIT: usize = 4;

/// Accepts of one listener in one enter, so that a storm of connections leaves time for the established.
const ACCEPTS_A_VISIT: usize = 64;

/// Edges taken out of the kernel by one wait. The rest comes with the next.
const EVENTS_A_WAIT: usize = 1_024;

/// Where a socket's edge has its slot, the event's has this.
const EVENT_NAME: u64 = u64::MAX;
/// A listener's number has this bit set: slots are smaller.
const LISTENER_BIT: u64 = 1 << 32;

/// One epoll instance and its sockets. Made on the thread that uses it.
pub struct EpollDriver {
    epoll: OwnedFd,
    sockets: Sockets,
    buffers: Provided,
    chunks: Chunks,
    /// What the kernel took so far of sends that it did not take whole.
    taken: HashMap<u32, usize>,
    names: HashMap<u32, SocketAddr>,
    listeners: Vec<Listener>,
    event: Option<OwnedFd>,
    event_state: EventState,
    queued: Vec<(UserData, Operation)>,
    /// Sockets to be visited: an edge came, and somebody waits for it.
    ready: VecDeque<u32>,
    done: VecDeque<RawCompletion>,
    events: Vec<epoll::Event>,
    /// The last enter waited for edges.
    looked: bool,
    calls: u64,
    began: Instant,
}

#[derive(Default)]
struct Listener {
    /// `None` once closed.
    socket: Option<TcpListener>,
    registered: bool,
    readable: bool,
    armed: Option<UserData>,
}

#[derive(Default)]
struct EventState {
    registered: bool,
    /// An edge came that no completion has told.
    signalled: bool,
    armed: Option<UserData>,
}

impl EpollDriver {
    /// Sets up an instance for the calling thread. Of the sizes, those of a kernel's queues have no meaning here.
    ///
    /// # Errors
    /// [`RingError::TooFewDescriptors`] if even this ring alone does not fit the limit on open files,
    /// [`RingError::Epoll`] if there is no descriptor for the instance itself.
    pub fn new(settings: KernelSettings) -> Result<Self, RingError> {
        let limit = probe::descriptors_max();
        if u64::from(settings.slots) > limit {
            return Err(RingError::TooFewDescriptors { slots: settings.slots, limit });
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|source| RingError::Epoll { source: source.into() })?;
        Ok(Self {
            epoll,
            sockets: Sockets::new(settings.slots),
            buffers: Provided::new(settings.buffers, settings.buffer_bytes),
            chunks: Chunks::default(),
            taken: HashMap::new(),
            names: HashMap::new(),
            listeners: Vec::new(),
            event: None,
            event_state: EventState::default(),
            queued: Vec::new(),
            ready: VecDeque::new(),
            done: VecDeque::new(),
            events: Vec::with_capacity(EVENTS_A_WAIT),
            looked: false,
            calls: 0,
            began: Instant::now(),
        })
    }

    fn complete(&mut self, user_data: UserData, result: i32) {
        self.done.push_back(RawCompletion { user_data, result, more: false, buffer: None });
    }

    fn queue_visit(&mut self, slot: u32) {
        let socket = self.sockets.get_mut(slot).expect("who is ready is open");
        if !socket.is(QUEUED) {
            socket.set(QUEUED);
            self.ready.push_back(slot);
        }
    }

    /// Waits for edges, and does what they make possible.
    fn look(&mut self, wait: Wait) -> Result<(), RingError> {
        let accepting = |listener: &Listener| listener.readable && listener.armed.is_some();
        let busy = !self.done.is_empty() || !self.ready.is_empty() || self.listeners.iter().any(accepting);
        let timeout = match wait {
            _ if busy => Some(Timespec::default()),
            Wait::No => Some(Timespec::default()),
            // A duration beyond the kernel's range is as good as for ever.
            Wait::AtMost(duration) => Timespec::try_from(duration).ok(),
            Wait::Forever => None,
        };
        self.calls += 1;
        self.events.clear();
        let edges = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, edges, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(RingError::Enter(error.into())),
        }
        let events = std::mem::take(&mut self.events);
        for event in &events {
            self.note(event.data.u64(), event.flags);
        }
        self.events = events;
        for _ in 0..self.ready.len() {
            let Some(slot) = self.ready.pop_front() else { break };
            self.visit(slot);
        }
        for index in 0..self.listeners.len() {
            self.continue_accept(index);
        }
        Ok(())
    }

    /// Remembers an edge.
    fn note(&mut self, name: u64, flags: epoll::EventFlags) {
        if name == EVENT_NAME {
            self.event_state.signalled = true;
            return self.tell_event();
        }
        if name & LISTENER_BIT != 0 {
            self.listeners[(name & !LISTENER_BIT) as usize].readable = true;
            return;
        }
        let slot = name as u32;
        // Closing a descriptor takes its edges out of the kernel, and nothing was closed since they were taken.
        let Some(socket) = self.sockets.get_mut(slot) else { return };
        let ends = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        if flags.intersects(ends) {
            socket.set(HANGING_UP | READABLE | WRITABLE);
        }
        if flags.contains(epoll::EventFlags::IN) {
            socket.set(READABLE);
        }
        if flags.contains(epoll::EventFlags::OUT) {
            socket.set(WRITABLE);
        }
        if socket.has_work() {
            self.queue_visit(slot);
        }
    }

    fn visit(&mut self, slot: u32) {
        // Closed since it was queued; its place may be another's by now, which then has a visit for nothing.
        let Some(socket) = self.sockets.get_mut(slot) else { return };
        socket.clear(QUEUED);
        if socket.is(SENDING) && socket.is(WRITABLE) {
            self.continue_send(slot);
        }
        self.continue_receive(slot);
        if self.sockets.get_mut(slot).is_some_and(|socket| socket.has_work()) {
            self.queue_visit(slot);
        }
    }

    /// Sends what is left, as far as the kernel takes it. It completes when all is taken or nothing can be, as with
    /// MSG_WAITALL.
    fn continue_send(&mut self, slot: u32) {
        let Some(socket) = self.sockets.get_mut(slot) else { return };
        let before = if self.taken.is_empty() { 0 } else { self.taken.get(&slot).copied().unwrap_or(0) };
        let rest = &self.chunks.started(slot)[before..];
        self.calls += 1;
        match rustix::net::send(&socket.descriptor, rest, SendFlags::NOSIGNAL) {
            Ok(count) if count == rest.len() => {
                self.taken.remove(&slot);
                self.end_send(slot, (before + count) as i32);
            }
            // A short count says that the socket's buffer is full: an edge comes when it is not.
            Ok(count) => {
                socket.clear(WRITABLE);
                self.taken.insert(slot, before + count);
            }
            Err(Errno::AGAIN) => socket.clear(WRITABLE),
            Err(error) => self.end_send(slot, refusal(error)),
        }
    }

    fn continue_receive(&mut self, slot: u32) {
        for _ in 0..RECEIVES_A_VISIT {
            let Some(socket) = self.sockets.get_mut(slot) else { return };
            if !(socket.is(RECEIVING) && socket.is(READABLE)) {
                return;
            }
            let Some(buffer) = self.buffers.next() else {
                return self.end_receive(slot, refusal(Errno::NOBUFS));
            };
            let memory = self.buffers.memory_mut(buffer);
            let room = memory.len();
            self.calls += 1;
            match rustix::net::recv(&socket.descriptor, memory, RecvFlags::empty()) {
                Ok((0, _)) => return self.end_receive(slot, 0),
                Ok((count, _)) => {
                    // Less than there was room for: no more is there now, unless an end was announced.
                    if count < room && !socket.is(HANGING_UP) {
                        socket.clear(READABLE);
                    }
                    let user_data = socket.user_data(Kind::Receive, slot);
                    self.buffers.take(buffer);
                    let (result, buffer) = (count as i32, Some(buffer));
                    self.done.push_back(RawCompletion { user_data, result, more: true, buffer });
                }
                Err(Errno::AGAIN) => return socket.clear(READABLE),
                Err(Errno::INTR) => {}
                Err(error) => return self.end_receive(slot, refusal(error)),
            }
        }
    }

    fn continue_accept(&mut self, index: usize) {
        for _ in 0..ACCEPTS_A_VISIT {
            let listener = &mut self.listeners[index];
            let (Some(user_data), true, Some(socket)) =
                (listener.armed, listener.readable, listener.socket.as_ref())
            else {
                return;
            };
            // Unlike io_uring, whose accept takes the connection out of the backlog to close it, nobody is lost.
            let Some(slot) = self.sockets.lowest_free() else {
                return self.end_accept(index, refusal(Errno::NFILE));
            };
            self.calls += 1;
            match rustix::net::accept_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(descriptor) => match self.register(slot, &descriptor) {
                    Ok(()) => {
                        self.sockets.occupy(slot, descriptor);
                        let result = slot as i32;
                        self.done.push_back(RawCompletion { user_data, result, more: true, buffer: None });
                    }
                    Err(error) => return self.end_accept(index, refusal(error)),
                },
                Err(Errno::AGAIN) => listener.readable = false,
                // The trouble of one connection that is gone already.
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                Err(error) => return self.end_accept(index, refusal(error)),
            }
        }
    }

    fn register(&mut self, slot: u32, descriptor: &OwnedFd) -> Result<(), Errno> {
        self.calls += 1;
        let edges =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&self.epoll, descriptor, epoll::EventData::new_u64(u64::from(slot)), edges)
    }
}

/// An error as a completion says it.
fn refusal(error: Errno) -> i32 {
    -error.raw_os_error()
}

impl Driver for EpollDriver {
    fn slots(&self) -> u32 {
        self.sockets.slots()
    }

    fn buffer_count(&self) -> u16 {
        self.buffers.count()
    }

    fn now_milliseconds(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn add_listener(&mut self, listener: TcpListener) -> u8 {
        listener.set_nonblocking(true).expect("an open socket can be told not to block");
        self.listeners.push(Listener { socket: Some(listener), ..Listener::default() });
        u8::try_from(self.listeners.len() - 1).expect("a ring has a handful of listeners")
    }

    fn close_listener(&mut self, listener: u8) {
        self.listeners[usize::from(listener)] = Listener::default();
    }

    fn set_event(&mut self, event: OwnedFd) {
        self.event = Some(event);
    }

    fn push(&mut self, user_data: UserData, operation: Operation) {
        self.queued.push((user_data, operation));
    }

    fn enter(&mut self, wait: Wait, completions: &mut VecDeque<RawCompletion>) -> Result<(), RingError> {
        let mut queued = std::mem::take(&mut self.queued);
        let carried =
            queued.drain(..).try_for_each(|(user_data, operation)| self.carry_out(user_data, operation));
        self.queued = queued;
        carried?;
        // What was carried out is news already, and looking for more costs a call: every other time is enough.
        self.looked = self.done.is_empty() || !self.looked;
        let outcome = if self.looked { self.look(wait) } else { Ok(()) };
        completions.append(&mut self.done);
        outcome
    }

    fn peer_name(&mut self, slot: u32) -> Option<SocketAddr> {
        self.names.remove(&slot)
    }

    fn put_chunk(&mut self, slot: u32, chunk: Chunk) {
        self.chunks.put(slot, chunk);
    }

    fn advance_chunk(&mut self, slot: u32, count: usize) -> usize {
        self.chunks.advance(slot, count)
    }

    fn take_chunk(&mut self, slot: u32) -> Chunk {
        self.chunks.take(slot)
    }

    fn buffer_mut(&mut self, buffer: u16, length: usize) -> &mut [u8] {
        self.buffers.bytes_mut(buffer, length)
    }

    fn give_back(&mut self, buffer: u16) {
        self.buffers.give_back(buffer);
    }

    fn buffers_out(&self) -> u16 {
        self.buffers.out_count()
    }

    fn enters(&self) -> u64 {
        self.calls
    }

    fn overflows(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;
    use crate::user_data::Token;

    const SMALL: KernelSettings =
        KernelSettings { slots: 8, submissions: 8, completions: 32, buffers: 64, buffer_bytes: 16 };

    fn of(kind: Kind) -> UserData {
        UserData::new(kind, Token { slot: 0, generation: 7 })
    }

    /// A driver with one socket in slot 0, and its other end.
    fn connected() -> (EpollDriver, TcpStream) {
        let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        let mut driver = EpollDriver::new(SMALL).unwrap();
        driver.add_listener(socket);
        driver.push(of(Kind::Accept), Operation::Accept { listener: 0 });
        let accepted = entered(&mut driver, 1);
        assert_eq!((accepted[0].result, accepted[0].more), (0, true));
        (driver, client)
    }

    /// Enters until so many completions came.
    fn entered(driver: &mut EpollDriver, count: usize) -> Vec<RawCompletion> {
        let mut completions = VecDeque::new();
        let until = Instant::now() + Duration::from_secs(10);
        while completions.len() < count {
            assert!(Instant::now() < until, "only {completions:?}");
            driver.enter(Wait::AtMost(Duration::from_millis(100)), &mut completions).unwrap();
        }
        completions.into()
    }

    #[test]
    fn one_enter_reads_a_bounded_part_and_the_next_goes_on() {
        let (mut driver, mut client) = connected();
        client.write_all(&[1; 16 * (RECEIVES_A_VISIT + 2)]).unwrap();
        driver.push(of(Kind::Receive), Operation::Receive { slot: 0 });
        assert_eq!(entered(&mut driver, 1).len(), RECEIVES_A_VISIT);
        // Without a new edge.
        let rest = entered(&mut driver, 1);
        assert_eq!(rest.len(), 2);
        assert!(rest.iter().all(|completion| completion.more && completion.user_data == of(Kind::Receive)));
    }

    #[test]
    fn a_cancelled_send_says_what_was_taken_and_a_cancelled_receive_that_it_is_over() {
        let (mut driver, mut client) = connected();
        let bytes = vec![5; 32 << 20];
        driver.push(of(Kind::Receive), Operation::Receive { slot: 0 });
        driver.put_chunk(0, bytes.into());
        driver.push(of(Kind::Send), Operation::Send { slot: 0 });
        let mut completions = VecDeque::new();
        driver.enter(Wait::No, &mut completions).unwrap();
        assert!(completions.is_empty(), "{completions:?}");
        driver.push(of(Kind::Cancel), Operation::CancelAll { slot: 0 });
        let over = entered(&mut driver, 3);
        let result = |kind| over.iter().find(|completion| completion.user_data == of(kind)).unwrap().result;
        assert_eq!(result(Kind::Receive), -libc::ECANCELED);
        assert_eq!(result(Kind::Cancel), 2);
        let taken = usize::try_from(result(Kind::Send)).unwrap();
        assert!(taken > 0);
        assert_eq!(driver.advance_chunk(0, taken), (32 << 20) - taken);
        drop(driver.take_chunk(0));

        driver.push(of(Kind::Cancel), Operation::Cancel { target: of(Kind::Receive) });
        assert_eq!(entered(&mut driver, 1)[0].result, -libc::ENOENT, "it is over already");
        driver.push(of(Kind::Close), Operation::Close { slot: 0 });
        assert_eq!(entered(&mut driver, 1)[0].result, 0);
        let mut received = Vec::new();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), taken, "no more and no less than was said");
    }

    #[test]
    fn a_ring_of_more_sockets_than_open_files_is_refused() {
        let settings = KernelSettings { slots: u32::MAX, ..SMALL };
        assert!(matches!(EpollDriver::new(settings), Err(RingError::TooFewDescriptors { .. })));
    }

    #[test]
    fn what_was_carried_out_keeps_nobody_from_looking_for_more_than_one_enter() {
        let (mut driver, mut client) = connected();
        driver.push(of(Kind::Receive), Operation::Receive { slot: 0 });
        driver.enter(Wait::No, &mut VecDeque::new()).unwrap();
        client.write_all(b"here").unwrap();
        let mut completions = VecDeque::new();
        for _ in 0..2 {
            driver.push(of(Kind::Shutdown), Operation::Shutdown { slot: 0 });
            driver.enter(Wait::No, &mut completions).unwrap();
        }
        let received = |completion: &RawCompletion| completion.user_data == of(Kind::Receive);
        assert!(completions.iter().any(received), "{completions:?}");
    }
}
