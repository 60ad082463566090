//! A kernel for tests: in-memory sockets, a clock of its own, and bad manners on a seed.
//!
//! It does what io_uring may do and a quiet machine seldom does: completions come late and in another
//! order (those of one operation keep theirs), sends are cut short, a multishot operation ends after a
//! good completion, buffers run out, a cancelled operation completes long after, an enter returns empty.
//! And it traps what would corrupt memory or cross connections in a real kernel: an operation on a free
//! slot or of an old generation, a close with operations in flight, a buffer given back twice, a chunk
//! touched during its send.
//!
//! [`FakeNetwork`] is the other end: tests connect, write and read there. One thread, no real sockets.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::driver::{Driver, Operation, RawCompletion, RingError, Wait};
use crate::user_data::{Kind, UserData};

/// How badly the fake kernel behaves. Chances are in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Enters that a completion may be late, at most.
    pub delay_max: u64,
    /// A send takes less than there is.
    pub short_send: u8,
    /// A multishot operation ends after a completion that was good.
    pub multishot_ends: u8,
    /// A cancel comes too late: the target goes on for a while and then ends.
    pub late_cancel: u8,
    /// An enter returns with nothing, as after a signal.
    pub empty_enter: u8,
}

impl Faults {
    /// A well-behaved kernel.
    pub const NONE: Faults =
        Faults { delay_max: 0, short_send: 0, multishot_ends: 0, late_cancel: 0, empty_enter: 0 };

    /// All of it, often.
    pub const ALL: Faults =
        Faults { delay_max: 5, short_send: 30, multishot_ends: 20, late_cancel: 40, empty_enter: 10 };
}

/// Sizes of the fake ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FakeSettings {
    /// Slots of the table.
    pub slots: u32,
    /// Provided buffers.
    pub buffers: u16,
    /// Bytes of each.
    pub buffer_bytes: usize,
    /// How badly it behaves.
    pub faults: Faults,
    /// What decides each time.
    pub seed: u64,
}

/// The clients' end of a [`FakeDriver`].
#[derive(Clone)]
pub struct FakeNetwork {
    world: Rc<RefCell<World>>,
}

/// A client, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub usize);

/// The driver that is no kernel.
pub struct FakeDriver {
    world: Rc<RefCell<World>>,
    settings: FakeSettings,
    memory: Vec<Vec<u8>>,
    enters: u64,
}

struct World {
    settings: FakeSettings,
    random: u64,
    /// Enters so far: the unit of lateness.
    pass: u64,
    now: u64,
    queued: Vec<(UserData, Operation)>,
    listeners: Vec<Listener>,
    sockets: Vec<Option<Socket>>,
    /// The generation that uses a slot, once an operation named it, to trap the use of an old name.
    generations: Vec<Option<u32>>,
    /// The generation that used it before.
    last_generations: Vec<Option<u32>>,
    peers: Vec<Peer>,
    /// Completions on their way, by operation.
    due: BTreeMap<u64, VecDeque<Due>>,
    chunks: BTreeMap<u32, Chunk>,
    names: BTreeMap<u32, SocketAddr>,
    buffers: Vec<BufferOwner>,
    free_buffers: VecDeque<u16>,
    event: Option<OwnedFd>,
    event_armed: bool,
}

struct Due {
    at: u64,
    raw: RawCompletion,
    /// Bytes for the buffer, copied in when the completion is taken.
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Listener {
    armed: Option<UserData>,
    backlog: VecDeque<PeerId>,
}

struct Socket {
    peer: PeerId,
    receive: Option<UserData>,
    send: Option<Sending>,
    /// Operations whose last completion was not taken.
    in_flight: u32,
    /// The peer's end or reset was told.
    told_end: bool,
}

struct Sending {
    user_data: UserData,
    progress: usize,
}

struct Chunk {
    bytes: crate::Chunk,
    sent: usize,
    in_flight: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BufferOwner {
    Kernel,
    Completion,
    Caller,
}

struct Peer {
    address: SocketAddr,
    to_server: VecDeque<u8>,
    from_server: Vec<u8>,
    /// Bytes more that it takes.
    window: usize,
    ended: bool,
    reset: bool,
    server_ended: bool,
    server_closed: bool,
}

impl FakeNetwork {
    /// A network without anybody, and the driver of its server.
    pub fn new(settings: FakeSettings) -> (FakeNetwork, FakeDriver) {
        let world = World {
            settings,
            random: settings.seed,
            pass: 0,
            now: 0,
            queued: Vec::new(),
            listeners: Vec::new(),
            sockets: (0..settings.slots).map(|_| None).collect(),
            generations: vec![None; settings.slots as usize],
            last_generations: vec![None; settings.slots as usize],
            peers: Vec::new(),
            due: BTreeMap::new(),
            chunks: BTreeMap::new(),
            names: BTreeMap::new(),
            buffers: vec![BufferOwner::Kernel; usize::from(settings.buffers)],
            free_buffers: (0..settings.buffers).collect(),
            event: None,
            event_armed: false,
        };
        let world = Rc::new(RefCell::new(world));
        let memory = vec![vec![0; settings.buffer_bytes]; usize::from(settings.buffers)];
        let driver = FakeDriver { world: Rc::clone(&world), settings, memory, enters: 0 };
        (FakeNetwork { world }, driver)
    }

    /// A new client, in a listener's backlog.
    pub fn connect(&self, listener: u8) -> PeerId {
        let mut world = self.world();
        let peer = PeerId(world.peers.len());
        let host = 1 + (peer.0 / 50_000) as u8;
        let port = 1_024 + (peer.0 % 50_000) as u16;
        world.peers.push(Peer {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), port),
            to_server: VecDeque::new(),
            from_server: Vec::new(),
            window: usize::MAX,
            ended: false,
            reset: false,
            server_ended: false,
            server_closed: false,
        });
        world.listeners[usize::from(listener)].backlog.push_back(peer);
        peer
    }

    /// The client sends bytes.
    pub fn write(&self, peer: PeerId, bytes: &[u8]) {
        self.world().peers[peer.0].to_server.extend(bytes);
    }

    /// Bytes on their way to the server that it did not read.
    pub fn unread(&self, peer: PeerId) -> usize {
        self.world().peers[peer.0].to_server.len()
    }

    /// Takes what arrived from the server.
    pub fn read(&self, peer: PeerId) -> Vec<u8> {
        std::mem::take(&mut self.world().peers[peer.0].from_server)
    }

    /// The client ends its direction.
    pub fn end(&self, peer: PeerId) {
        self.world().peers[peer.0].ended = true;
    }

    /// The client vanishes with a reset.
    pub fn reset(&self, peer: PeerId) {
        self.world().peers[peer.0].reset = true;
    }

    /// The client, and the buffers between, take so many bytes more.
    pub fn set_window(&self, peer: PeerId, window: usize) {
        self.world().peers[peer.0].window = window;
    }

    /// Whether the server ended its direction or closed.
    pub fn server_ended(&self, peer: PeerId) -> bool {
        let world = self.world();
        world.peers[peer.0].server_ended || world.peers[peer.0].server_closed
    }

    /// Whether the server closed.
    pub fn server_closed(&self, peer: PeerId) -> bool {
        self.world().peers[peer.0].server_closed
    }

    /// Lets time pass.
    pub fn advance(&self, milliseconds: u64) {
        self.world().now += milliseconds;
    }

    /// Sockets that are open in the server's table.
    pub fn open_sockets(&self) -> usize {
        self.world().sockets.iter().flatten().count()
    }

    /// Of them, those with a receive armed.
    pub fn armed_receives(&self) -> usize {
        self.world().sockets.iter().flatten().filter(|socket| socket.receive.is_some()).count()
    }

    /// From now on the kernel behaves.
    pub fn calm(&self) {
        self.world().settings.faults = Faults::NONE;
    }

    fn world(&self) -> RefMut<'_, World> {
        self.world.borrow_mut()
    }
}

impl World {
    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.random;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn chance(&mut self, percent: u8) -> bool {
        percent > 0 && self.random() % 100 < u64::from(percent)
    }

    /// A number from 1 to `max`.
    fn some_of(&mut self, max: usize) -> usize {
        1 + (self.random() % max as u64) as usize
    }

    fn complete(&mut self, raw: RawCompletion, bytes: Vec<u8>) {
        let delay_max = self.settings.faults.delay_max;
        let late = if delay_max == 0 { 0 } else { self.random() % (delay_max + 1) };
        let queue = self.due.entry(raw.user_data.bits()).or_default();
        let at = (self.pass + late).max(queue.back().map_or(0, |last| last.at));
        queue.push_back(Due { at, raw, bytes });
    }

    fn result(&mut self, user_data: UserData, result: i32) {
        self.complete(RawCompletion { user_data, result, more: false, buffer: None }, Vec::new());
    }

    fn socket(&mut self, user_data: UserData, slot: u32) -> &mut Socket {
        let token = user_data.token();
        assert_eq!(token.slot, slot, "an operation is named after its slot");
        let known = &mut self.generations[slot as usize];
        match *known {
            Some(generation) => assert_eq!(generation, token.generation, "{token:?} is an old name"),
            None => {
                let last = self.last_generations[slot as usize];
                assert_ne!(last, Some(token.generation), "{token:?} is the name of the last user");
                *known = Some(token.generation);
            }
        }
        let socket = self.sockets[slot as usize].as_mut();
        socket.unwrap_or_else(|| panic!("{:?} on the free slot {slot}", user_data.kind()))
    }

    fn issue(&mut self, user_data: UserData, operation: Operation) {
        match operation {
            Operation::Accept { listener } => {
                let armed = &mut self.listeners[usize::from(listener)].armed;
                assert!(armed.is_none(), "one accept a listener");
                *armed = Some(user_data);
            }
            Operation::PeerName { slot, .. } => {
                let socket = self.socket(user_data, slot);
                socket.in_flight += 1;
                let peer = socket.peer;
                let (address, reset) = (self.peers[peer.0].address, self.peers[peer.0].reset);
                self.names.insert(slot, address);
                self.result(user_data, if reset { -libc::ENOTCONN } else { 0 });
            }
            Operation::Receive { slot } => {
                let socket = self.socket(user_data, slot);
                assert!(socket.receive.is_none(), "slot {slot} has a receive armed already");
                socket.receive = Some(user_data);
                socket.in_flight += 1;
            }
            Operation::Send { slot } => {
                let socket = self.socket(user_data, slot);
                assert!(socket.send.is_none(), "slot {slot} has a send in flight already");
                socket.send = Some(Sending { user_data, progress: 0 });
                socket.in_flight += 1;
                self.chunks.get_mut(&slot).expect("a send has a chunk").in_flight = true;
            }
            Operation::Cancel { target } => self.cancel(user_data, target),
            Operation::CancelAll { slot } => {
                let socket = self.socket(user_data, slot);
                socket.in_flight += 1;
                let receive = socket.receive;
                let send = socket.send.as_ref().map(|send| send.user_data);
                let mut cancelled = 0;
                for target in [receive, send].into_iter().flatten() {
                    cancelled += i32::from(self.end_operation(target));
                }
                self.result(user_data, if cancelled > 0 { cancelled } else { -libc::ENOENT });
            }
            Operation::Shutdown { slot } => {
                let socket = self.socket(user_data, slot);
                socket.in_flight += 1;
                let peer = socket.peer;
                self.peers[peer.0].server_ended = true;
                self.result(user_data, 0);
            }
            Operation::Close { slot } => {
                let socket = self.socket(user_data, slot);
                assert_eq!(socket.in_flight, 0, "slot {slot} is closed with operations in flight");
                socket.in_flight += 1;
                let peer = socket.peer;
                self.peers[peer.0].server_closed = true;
                self.result(user_data, 0);
            }
            Operation::Event => self.event_armed = true,
        }
    }

    fn cancel(&mut self, user_data: UserData, target: UserData) {
        if target.kind() == Kind::Accept {
            let listener = &mut self.listeners[target.token().slot as usize];
            let found = listener.armed.take();
            if let Some(accept) = found {
                self.result(accept, -libc::ECANCELED);
            }
            self.result(user_data, if found.is_some() { 0 } else { -libc::ENOENT });
            return;
        }
        let slot = target.token().slot;
        self.socket(user_data, slot).in_flight += 1;
        let late = self.settings.faults.late_cancel;
        if self.chance(late) {
            // The target was just running: it may bring something yet, and ends by itself.
            self.progress_receive(slot);
            self.end_operation(target);
            self.result(user_data, -libc::EALREADY);
        } else {
            let found = self.end_operation(target);
            self.result(user_data, if found { 0 } else { -libc::ENOENT });
        }
    }

    /// Ends an operation with what it has, or as cancelled. False if it is over already.
    fn end_operation(&mut self, target: UserData) -> bool {
        let Some(socket) = self.sockets[target.token().slot as usize].as_mut() else { return false };
        match target.kind() {
            Kind::Receive if socket.receive == Some(target) => {
                socket.receive = None;
                self.result(target, -libc::ECANCELED);
                true
            }
            Kind::Send if socket.send.as_ref().is_some_and(|send| send.user_data == target) => {
                let progress = socket.send.take().map_or(0, |send| send.progress);
                self.result(target, if progress > 0 { progress as i32 } else { -libc::ECANCELED });
                true
            }
            _ => false,
        }
    }

    fn progress(&mut self) {
        for index in 0..self.listeners.len() {
            self.progress_accept(index);
        }
        for slot in 0..self.sockets.len() as u32 {
            self.progress_receive(slot);
            self.progress_send(slot);
        }
        if self.event_armed {
            let event = self.event.as_ref().expect("an event was set");
            if rustix::io::read(event, &mut [0u8; 8]).is_ok() {
                self.event_armed = false;
                let token = crate::user_data::Token { slot: 0, generation: 0 };
                self.result(UserData::new(Kind::Event, token), 8);
            }
        }
    }

    fn progress_accept(&mut self, index: usize) {
        while let Some(user_data) = self.listeners[index].armed {
            let Some(peer) = self.listeners[index].backlog.pop_front() else { return };
            let Some(slot) = self.sockets.iter().position(Option::is_none) else {
                // As the kernel: the connection was taken and finds no place.
                self.peers[peer.0].server_closed = true;
                self.listeners[index].armed = None;
                self.result(user_data, -libc::ENFILE);
                return;
            };
            self.sockets[slot] =
                Some(Socket { peer, receive: None, send: None, in_flight: 0, told_end: false });
            self.last_generations[slot] = self.generations[slot].take();
            let ends = self.settings.faults.multishot_ends;
            let more = !self.chance(ends);
            if !more {
                self.listeners[index].armed = None;
            }
            self.complete(RawCompletion { user_data, result: slot as i32, more, buffer: None }, Vec::new());
        }
    }

    fn progress_receive(&mut self, slot: u32) {
        loop {
            let Some(socket) = self.sockets[slot as usize].as_mut() else { return };
            let Some(user_data) = socket.receive else { return };
            let peer = &mut self.peers[socket.peer.0];
            if peer.reset || (peer.to_server.is_empty() && peer.ended) {
                socket.receive = None;
                socket.told_end = true;
                let result = if peer.reset { -libc::ECONNRESET } else { 0 };
                self.result(user_data, result);
                return;
            }
            if peer.to_server.is_empty() {
                return;
            }
            let Some(buffer) = self.free_buffers.pop_front() else {
                socket.receive = None;
                self.result(user_data, -libc::ENOBUFS);
                return;
            };
            self.buffers[usize::from(buffer)] = BufferOwner::Completion;
            let most = peer.to_server.len().min(self.settings.buffer_bytes);
            let peer = socket.peer;
            let count = if self.settings.faults.short_send > 0 { self.some_of(most) } else { most };
            let bytes: Vec<u8> = self.peers[peer.0].to_server.drain(..count).collect();
            let ends = self.settings.faults.multishot_ends;
            let more = !self.chance(ends);
            if !more && let Some(socket) = self.sockets[slot as usize].as_mut() {
                socket.receive = None;
            }
            self.complete(
                RawCompletion { user_data, result: count as i32, more, buffer: Some(buffer) },
                bytes,
            );
        }
    }

    fn progress_send(&mut self, slot: u32) {
        let Some(socket) = self.sockets[slot as usize].as_mut() else { return };
        let Some(sending) = socket.send.as_mut() else { return };
        let (user_data, progress, peer) = (sending.user_data, sending.progress, socket.peer);
        if self.peers[peer.0].reset {
            socket.send = None;
            self.result(user_data, if progress > 0 { progress as i32 } else { -libc::EPIPE });
            return;
        }
        let chunk = &self.chunks[&slot];
        let rest = chunk.bytes.as_slice()[chunk.sent + progress..].to_vec();
        let mut count = rest.len().min(self.peers[peer.0].window);
        if count == 0 {
            return;
        }
        let short = self.settings.faults.short_send;
        let cut = self.chance(short);
        if cut {
            count = self.some_of(count);
        }
        let peer = &mut self.peers[peer.0];
        peer.from_server.extend_from_slice(&rest[..count]);
        peer.window -= count;
        let progress = progress + count;
        let over = cut || count == rest.len();
        if let Some(socket) = self.sockets[slot as usize].as_mut() {
            socket.send = (!over).then_some(Sending { user_data, progress });
        }
        if over {
            self.result(user_data, progress as i32);
        }
    }

    /// Takes one completion that is due, of an operation chosen at random.
    fn take_due(&mut self) -> Option<Due> {
        let ready: Vec<u64> = self
            .due
            .iter()
            .filter(|(_, queue)| queue.front().is_some_and(|due| due.at <= self.pass))
            .map(|(key, _)| *key)
            .collect();
        if ready.is_empty() {
            return None;
        }
        let key = if self.settings.faults == Faults::NONE {
            ready[0]
        } else {
            ready[(self.random() % ready.len() as u64) as usize]
        };
        let queue = self.due.get_mut(&key)?;
        let due = queue.pop_front()?;
        if queue.is_empty() {
            self.due.remove(&key);
        }
        self.on_taken(&due.raw);
        Some(due)
    }

    fn on_taken(&mut self, raw: &RawCompletion) {
        if let Some(buffer) = raw.buffer {
            self.buffers[usize::from(buffer)] = BufferOwner::Caller;
        }
        let token = raw.user_data.token();
        match raw.user_data.kind() {
            Kind::Accept | Kind::Event => return,
            Kind::Cancel if token.generation == u32::MAX => return,
            Kind::Close => {
                self.sockets[token.slot as usize] = None;
                assert!(!self.chunks.contains_key(&token.slot), "a chunk is left on a closed slot");
                return;
            }
            Kind::Send => {
                if let Some(chunk) = self.chunks.get_mut(&token.slot) {
                    chunk.in_flight = false;
                }
            }
            Kind::PeerName | Kind::Receive | Kind::Cancel | Kind::Shutdown => {}
        }
        if !raw.more
            && let Some(socket) = self.sockets[token.slot as usize].as_mut()
        {
            socket.in_flight -= 1;
        }
    }
}

impl FakeDriver {
    fn world(&self) -> RefMut<'_, World> {
        self.world.borrow_mut()
    }
}

impl Driver for FakeDriver {
    fn slots(&self) -> u32 {
        self.settings.slots
    }

    fn buffer_count(&self) -> u16 {
        self.settings.buffers
    }

    fn now_milliseconds(&self) -> u64 {
        self.world().now
    }

    fn add_listener(&mut self, _: TcpListener) -> u8 {
        let mut world = self.world();
        world.listeners.push(Listener::default());
        world.listeners.len() as u8 - 1
    }

    fn close_listener(&mut self, listener: u8) {
        let mut world = self.world();
        let listener = &mut world.listeners[usize::from(listener)];
        assert!(listener.armed.is_none(), "a listener is closed while its accept is armed");
        for peer in std::mem::take(&mut listener.backlog) {
            world.peers[peer.0].server_closed = true;
        }
    }

    fn set_event(&mut self, event: OwnedFd) {
        self.world().event = Some(event);
    }

    fn push(&mut self, user_data: UserData, operation: Operation) {
        self.world().queued.push((user_data, operation));
    }

    fn enter(&mut self, wait: Wait, completions: &mut VecDeque<RawCompletion>) -> Result<(), RingError> {
        self.enters += 1;
        let mut world = self.world.borrow_mut();
        world.pass += 1;
        world.now += 1;
        for (user_data, operation) in std::mem::take(&mut world.queued) {
            world.issue(user_data, operation);
        }
        world.progress();
        let empty = world.settings.faults.empty_enter;
        if world.chance(empty) {
            return Ok(());
        }
        if let Some(next) = world.due.values().filter_map(|queue| queue.front()).map(|due| due.at).min() {
            if wait != Wait::No {
                world.pass = world.pass.max(next);
            }
        } else if let Wait::AtMost(duration) = wait {
            world.now += u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        }
        while let Some(due) = world.take_due() {
            if let Some(buffer) = due.raw.buffer {
                self.memory[usize::from(buffer)][..due.bytes.len()].copy_from_slice(&due.bytes);
            }
            completions.push_back(due.raw);
        }
        Ok(())
    }

    fn peer_name(&mut self, slot: u32) -> Option<SocketAddr> {
        self.world().names.remove(&slot)
    }

    fn put_chunk(&mut self, slot: u32, chunk: crate::Chunk) {
        let chunk = Chunk { bytes: chunk, sent: 0, in_flight: false };
        let before = self.world().chunks.insert(slot, chunk);
        assert!(before.is_none(), "slot {slot} has a chunk already");
    }

    fn advance_chunk(&mut self, slot: u32, count: usize) -> usize {
        let mut world = self.world();
        let chunk = world.chunks.get_mut(&slot).expect("a chunk");
        assert!(!chunk.in_flight, "a send in flight has no count yet");
        chunk.sent += count;
        chunk.bytes.len().checked_sub(chunk.sent).expect("no more is sent than there is")
    }

    fn take_chunk(&mut self, slot: u32) -> crate::Chunk {
        let chunk = self.world().chunks.remove(&slot).expect("a chunk");
        assert!(!chunk.in_flight, "the kernel may still read the chunk of slot {slot}");
        chunk.bytes
    }

    fn buffer_mut(&mut self, buffer: u16, length: usize) -> &mut [u8] {
        let owner = self.world().buffers[usize::from(buffer)];
        assert_eq!(owner, BufferOwner::Caller, "buffer {buffer} is not the caller's");
        &mut self.memory[usize::from(buffer)][..length]
    }

    fn give_back(&mut self, buffer: u16) {
        // What is read after it was given back is nobody's bytes.
        self.memory[usize::from(buffer)].fill(0xee);
        let mut world = self.world();
        let owner = &mut world.buffers[usize::from(buffer)];
        assert_eq!(*owner, BufferOwner::Caller, "buffer {buffer} is given back twice");
        *owner = BufferOwner::Kernel;
        world.free_buffers.push_back(buffer);
    }

    fn buffers_out(&self) -> u16 {
        self.world().buffers.iter().filter(|owner| **owner == BufferOwner::Caller).count() as u16
    }

    fn enters(&self) -> u64 {
        self.enters
    }

    fn overflows(&self) -> u64 {
        0
    }
}
