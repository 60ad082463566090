//! A client's decrypted bytes, handed for the life of its connection to the HTTP server.
//!
//! The socket, its TLS and its deadlines stay with the core; hyper, on a tokio thread, sees an ordinary
//! byte stream. Between them are two bounded queues, and a reader that stops stops the socket:
//!
//! ```text
//!   core thread                                   tokio task
//!   HttpPipe::push_received ──▶ 64 KiB ──▶ HttpStream (AsyncRead)
//!   HttpPipe::take_output   ◀── 64 KiB ◀── HttpStream (AsyncWrite)
//! ```
//! The queues sit behind one short lock a connection: a copy of at most 64 KiB is done under it, and no
//! chat connection ever takes it. Towards the core, a stream puts its connection in the ready list (at most
//! once, until the core has looked) and wakes the core like any other message.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crossbeam::queue::SegQueue;
use ringway_protocol::ids::ConnectionId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::{HTTP_INPUT_BYTES_MAX, HTTP_OUTPUT_BYTES_MAX};

/// Who answers the HTTP requests that are not an upgrade of ours.
pub trait HttpServer: Send + Sync {
    /// Takes a connection for its life. Called on a core's thread: hand it to another thread and return.
    fn serve(&self, stream: HttpStream, peer: SocketAddr, secure: bool);
}

/// Wakes a core's thread after its ready list got an entry.
pub type WakeCore = Arc<dyn Fn() + Send + Sync>;

/// A core's way to hand connections to the HTTP server, and the list of those that have news for it.
#[derive(Clone)]
pub struct HttpDoor {
    server: Option<Arc<dyn HttpServer>>,
    /// Unbounded by type, bounded by use: a live stream has at most one entry.
    ready: Arc<SegQueue<ConnectionId>>,
    wake: WakeCore,
}

impl HttpDoor {
    /// A door to `server`; without one, [`open`](Self::open) says `None` and the answer is 404.
    pub fn new(server: Option<Arc<dyn HttpServer>>, wake: WakeCore) -> Self {
        Self { server, ready: Arc::new(SegQueue::new()), wake }
    }

    /// Whether there is a server behind it.
    pub fn is_served(&self) -> bool {
        self.server.is_some()
    }

    /// Hands the connection over and returns the core's end.
    pub fn open(&self, connection: ConnectionId, peer: SocketAddr, secure: bool) -> Option<HttpPipe> {
        let server = self.server.as_ref()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            listed: AtomicBool::new(false),
            connection,
            ready: Arc::clone(&self.ready),
            wake: Arc::clone(&self.wake),
        });
        server.serve(HttpStream { shared: Arc::clone(&shared) }, peer, secure);
        Some(HttpPipe { shared })
    }

    /// A connection whose stream has news: call its `handle_http`.
    pub fn next_ready(&self) -> Option<ConnectionId> {
        self.ready.pop()
    }

    /// How many have, about.
    pub fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// Whether none has. Looked at before the core sleeps.
    pub fn is_quiet(&self) -> bool {
        self.ready.is_empty()
    }
}

/// The core's end: plain calls that never wait.
pub struct HttpPipe {
    shared: Arc<Shared>,
}

/// The HTTP server's end. Dropping it ends the connection once what it wrote is sent.
pub struct HttpStream {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The connection is in the ready list and the core has not looked yet.
    listed: AtomicBool,
    connection: ConnectionId,
    ready: Arc<SegQueue<ConnectionId>>,
    wake: WakeCore,
}

#[derive(Default)]
struct State {
    /// From the client, not yet read by the server.
    input: VecDeque<u8>,
    /// The client sends no more.
    input_ended: bool,
    /// The connection is gone without an orderly end.
    broken: bool,
    /// The core saw `input` full and waits for room.
    core_waits_for_room: bool,
    /// From the server, not yet taken by the core.
    output: VecDeque<u8>,
    /// The server writes no more.
    output_ended: bool,
    /// The server dropped its end: it reads no more either.
    dropped: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves whole bytes in whole queues.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the core that this connection has news.
    fn notify_core(&self) {
        if !self.listed.swap(true, Ordering::AcqRel) {
            self.ready.push(self.connection);
            (self.wake)();
        }
    }
}

impl HttpPipe {
    /// Call when the connection came out of the ready list, before looking at anything else here.
    pub fn acknowledge(&self) {
        self.shared.listed.store(false, Ordering::Release);
        // The swap in `notify_core` and this store are on one atomic; the lock of the calls that follow
        // orders the queues.
    }

    /// Gives bytes from the client to the server. All are taken: what exceeds the bound is what was
    /// already delivered when the socket stopped being read ([`has_room`](Self::has_room)).
    pub fn push_received(&self, bytes: &[u8]) {
        let mut state = self.shared.lock();
        if !state.dropped {
            state.input.extend(bytes);
        }
        let waker = state.reader.take();
        drop(state);
        wake(waker);
    }

    /// Whether more may be read from the client's socket. After a `false`, the ready list tells when.
    pub fn has_room(&self) -> bool {
        let mut state = self.shared.lock();
        let room = state.dropped || state.input.len() < HTTP_INPUT_BYTES_MAX;
        state.core_waits_for_room = !room;
        room
    }

    /// The client sends no more: the server reads an end after what is queued.
    pub fn end_input(&self) {
        let mut state = self.shared.lock();
        state.input_ended = true;
        let waker = state.reader.take();
        drop(state);
        wake(waker);
    }

    /// Appends at most `limit` bytes of the server's answer to `chunk`; returns how many.
    pub fn take_output(&self, chunk: &mut Vec<u8>, limit: usize) -> usize {
        let mut state = self.shared.lock();
        let count = limit.min(state.output.len());
        let (front, back) = state.output.as_slices();
        let in_front = count.min(front.len());
        chunk.extend_from_slice(&front[..in_front]);
        chunk.extend_from_slice(&back[..count - in_front]);
        state.output.drain(..count);
        if state.output.is_empty() && state.output.capacity() > HTTP_OUTPUT_BYTES_MAX {
            state.output = VecDeque::new();
        }
        let waker = if count > 0 { state.writer.take() } else { None };
        drop(state);
        wake(waker);
        count
    }

    /// Whether the server has bytes for the client now.
    pub fn has_output(&self) -> bool {
        !self.shared.lock().output.is_empty()
    }

    /// Whether the server wrote its last byte and all are taken: close after sending.
    pub fn is_finished(&self) -> bool {
        let state = self.shared.lock();
        state.output_ended && state.output.is_empty()
    }
}

impl Drop for HttpPipe {
    /// The connection is gone: the server's reads end, its writes fail.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.broken = !state.input_ended || !state.output_ended;
        state.input_ended = true;
        let (reader, writer) = (state.reader.take(), state.writer.take());
        drop(state);
        wake(reader);
        wake(writer);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl AsyncRead for HttpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        if state.input.is_empty() {
            if state.input_ended {
                return Poll::Ready(Ok(()));
            }
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = buffer.remaining().min(state.input.len());
        let (front, back) = state.input.as_slices();
        let in_front = count.min(front.len());
        buffer.put_slice(&front[..in_front]);
        buffer.put_slice(&back[..count - in_front]);
        state.input.drain(..count);
        // Half empty, not one byte: so that a bulk upload is not one wake-up a read.
        let tell = state.core_waits_for_room && state.input.len() <= HTTP_INPUT_BYTES_MAX / 2;
        if tell {
            state.core_waits_for_room = false;
        }
        drop(state);
        if tell {
            self.shared.notify_core();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HttpStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        if state.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = HTTP_OUTPUT_BYTES_MAX.saturating_sub(state.output.len());
        if room == 0 {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = room.min(bytes.len());
        state.output.extend(&bytes[..count]);
        drop(state);
        self.shared.notify_core();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        state.output_ended = true;
        drop(state);
        self.shared.notify_core();
        Poll::Ready(Ok(()))
    }
}

impl Drop for HttpStream {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.output_ended = true;
        state.dropped = true;
        state.input = VecDeque::new();
        drop(state);
        self.shared.notify_core();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_protocol::ids::EndpointId;
    use std::sync::atomic::AtomicUsize;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Keeper(Mutex<Option<HttpStream>>);

    impl HttpServer for Keeper {
        fn serve(&self, stream: HttpStream, _: SocketAddr, _: bool) {
            *self.0.lock().unwrap() = Some(stream);
        }
    }

    fn open() -> (HttpDoor, HttpPipe, HttpStream, Arc<AtomicUsize>) {
        let keeper = Arc::new(Keeper(Mutex::new(None)));
        let wakes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&wakes);
        let wake: WakeCore = Arc::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let door = HttpDoor::new(Some(Arc::clone(&keeper) as Arc<dyn HttpServer>), wake);
        let id = ConnectionId::new(EndpointId(0), 7, 1);
        let pipe = door.open(id, SocketAddr::from(([127, 0, 0, 1], 1)), true).unwrap();
        let stream = keeper.0.lock().unwrap().take().unwrap();
        (door, pipe, stream, wakes)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap()
    }

    #[test]
    fn bytes_flow_both_ways_and_the_end_of_each_is_seen() {
        let (door, pipe, mut stream, wakes) = open();
        pipe.push_received(b"GET / HTTP/1.1\r\n\r\n");
        pipe.end_input();
        runtime().block_on(async {
            let mut request = Vec::new();
            stream.read_to_end(&mut request).await.unwrap();
            assert_eq!(request, b"GET / HTTP/1.1\r\n\r\n");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
        });
        assert_eq!(wakes.load(Ordering::SeqCst), 1, "two notices before the core looked are one");
        assert_eq!(door.next_ready(), Some(ConnectionId::new(EndpointId(0), 7, 1)));
        assert_eq!(door.next_ready(), None);
        pipe.acknowledge();
        let mut chunk = Vec::new();
        assert_eq!(pipe.take_output(&mut chunk, 8), 8);
        assert!(!pipe.is_finished());
        pipe.take_output(&mut chunk, 1 << 20);
        assert_eq!(chunk, b"HTTP/1.1 200 OK\r\n\r\n");
        assert!(pipe.is_finished());
    }

    #[test]
    fn a_reader_that_stops_stops_the_socket_and_starts_it_again() {
        let (door, pipe, mut stream, _) = open();
        pipe.push_received(&vec![1; HTTP_INPUT_BYTES_MAX]);
        assert!(!pipe.has_room());
        runtime().block_on(async {
            let mut half = vec![0; HTTP_INPUT_BYTES_MAX / 2];
            stream.read_exact(&mut half).await.unwrap();
        });
        assert!(door.next_ready().is_some(), "the core hears of the room");
        assert!(pipe.has_room());
    }

    #[test]
    fn a_writer_waits_while_the_queue_is_full() {
        let (_, pipe, mut stream, _) = open();
        let runtime = runtime();
        let writing = runtime.spawn(async move {
            stream.write_all(&vec![2; HTTP_OUTPUT_BYTES_MAX * 3]).await.unwrap();
        });
        let mut got = Vec::new();
        while !pipe.is_finished() {
            let before = got.len();
            pipe.take_output(&mut got, 1 << 20);
            assert!(got.len() - before <= HTTP_OUTPUT_BYTES_MAX);
            std::thread::yield_now();
        }
        runtime.block_on(writing).unwrap();
        assert_eq!(got.len(), HTTP_OUTPUT_BYTES_MAX * 3);
    }

    #[test]
    fn a_gone_connection_fails_writes() {
        let (_, pipe, mut stream, _) = open();
        drop(pipe);
        runtime().block_on(async {
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
            assert!(stream.write_all(b"x").await.is_err());
        });
    }
}
