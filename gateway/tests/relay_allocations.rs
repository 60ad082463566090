//! A core that has found its stride allocates nothing for a message: counted by the allocator, on the core's own
//! thread, over real sockets. For a message to a room it is one frame, however many hear it.

#[path = "support/counting.rs"]
mod counting;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ringway_gateway::connection::Transport;
use ringway_gateway::context::{ConnectionSettings, Context, ContextParts};
use ringway_gateway::http_stream::HttpDoor;
use ringway_gateway::metrics::CoreMetrics;
use ringway_gateway::{Admission, Command, CoreMessage, EventLoop, EventLoopParts, RelayHub};
use ringway_protocol::ids::EndpointId;
use ringway_ring::{KernelDriver, KernelSettings, Ring};
use ringway_trunk::{Outbox, inbox};

use counting::ALLOCATIONS;
use support::{TestWorkers, client_frame, keys, take_head, upgrade};

/// A core on a thread of its own, which says how much it has allocated.
struct Core {
    address: SocketAddr,
    outbox: Outbox<CoreMessage>,
    ask: Sender<()>,
    answers: Receiver<u64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Core {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (inbox, outbox) = inbox(64).unwrap();
        let (ask, asked) = channel::<()>();
        let (answer, answers) = channel();
        let thread = std::thread::spawn(move || {
            let driver =
                KernelDriver::new(KernelSettings { slots: 64, ..KernelSettings::default() }).unwrap();
            let context = Context::new(ContextParts {
                settings: Arc::new(ConnectionSettings { relay: true, ..ConnectionSettings::default() }),
                keys: keys(),
                tls: None,
                workers: Arc::new(TestWorkers::default()),
                metrics: Arc::new(CoreMetrics::default()),
                http: HttpDoor::new(None, Arc::new(|| {})),
                relay: Some(Arc::new(RelayHub::new(EndpointId(0), Vec::new()))),
                epoch_ms: 0,
                seed: 1,
            });
            let mut event_loop = EventLoop::new(EventLoopParts {
                endpoint: EndpointId(0),
                ring: Ring::new(driver),
                listeners: vec![(listener, Transport::Plain)],
                inbox,
                context,
                admission: Arc::new(Admission::new(64, 64)),
                follow_wall_clock: true,
            })
            .unwrap();
            while !event_loop.is_over() {
                event_loop.pass().unwrap();
                let count = ALLOCATIONS.get();
                if asked.try_recv().is_ok() {
                    answer.send(count).unwrap();
                }
            }
        });
        Self { address, outbox, ask, answers, thread: Some(thread) }
    }

    /// What the core has allocated by now. `stir` makes it take a pass.
    fn allocations(&self, mut stir: impl FnMut()) -> u64 {
        self.ask.send(()).unwrap();
        stir();
        self.answers.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn join(&self, id: usize, room: u8) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(&upgrade(&format!("/relay?id={id}&room={room}"))).unwrap();
        let mut received = Vec::new();
        while take_head(&mut received).is_none() {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            received.push(byte[0]);
        }
        stream
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        assert!(self.outbox.send(CoreMessage::Command(Command::Stop)).is_ok());
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

/// A message of 128 bytes to that address, and the bytes it comes out as.
fn message(address: &str) -> (Vec<u8>, usize) {
    let payload: Vec<u8> = address.bytes().chain(std::iter::repeat(b'x')).take(128).collect();
    (client_frame(1, &payload), 4 + payload.len())
}

#[test]
fn a_relayed_message_allocates_nothing_and_one_to_a_room_a_frame() {
    const ROUNDS: u64 = 500;
    let core = Core::start();
    let mut alice = core.join(1, 0);
    let mut bob = core.join(2, 0);
    // The channel that answers allocates with its first answer.
    core.allocations(|| drop(core.join(3, 0)));
    let (to_bob, length) = message("U0000002");
    let mut received = vec![0; 64 * 1024];
    for window in [1, 8, 32] {
        let frames = to_bob.repeat(window);
        let mut say = || {
            alice.write_all(&frames).unwrap();
            bob.read_exact(&mut received[..window * length]).unwrap();
        };
        (0..50).for_each(|_| say());
        let before = core.allocations(&mut say);
        (0..ROUNDS).for_each(|_| say());
        assert_eq!(core.allocations(&mut say) - before, 0, "allocations of {ROUNDS} windows of {window}");
    }

    let mut members: Vec<TcpStream> = (10..26).map(|id| core.join(id, 1)).collect();
    let (to_room, length) = message("R");
    let mut say = || {
        alice.write_all(&to_room).unwrap();
        for member in &mut members {
            member.read_exact(&mut received[..length]).unwrap();
        }
    };
    (0..50).for_each(|_| say());
    let before = core.allocations(&mut say);
    (0..ROUNDS).for_each(|_| say());
    let allocated = core.allocations(&mut say) - before;
    // A frame is its bytes and the count of who holds it.
    assert!(allocated <= 2 * (ROUNDS + 2), "{allocated} allocations for {ROUNDS} messages to sixteen");
}
