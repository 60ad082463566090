//! The ring over each driver of the kernel, io_uring and epoll, and real sockets on loopback: the same stories, so
//! that whoever sits on the ring need not know which it is.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway_ring::{
    Completion, Driver, EpollDriver, KernelDriver, KernelSettings, ListenerId, Ring, RingError, Token, Wait,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A driver that the kernel is behind.
trait OfKernel: Driver + Sized {
    fn make(settings: KernelSettings) -> Result<Self, RingError>;
}

impl OfKernel for KernelDriver {
    fn make(settings: KernelSettings) -> Result<Self, RingError> {
        Self::new(settings)
    }
}

impl OfKernel for EpollDriver {
    fn make(settings: KernelSettings) -> Result<Self, RingError> {
        Self::new(settings)
    }
}

/// Each story over both drivers.
macro_rules! over_both_drivers {
    ($($story:ident)*) => {
        mod over_io_uring {
            $( #[test] fn $story() { super::$story::<super::KernelDriver>(); } )*
        }
        mod over_epoll {
            $( #[test] fn $story() { super::$story::<super::EpollDriver>(); } )*
        }
    };
}

over_both_drivers! {
    a_message_comes_in_and_its_answer_goes_out
    an_address_of_version_six_is_read_whole
    the_ends_of_a_stream_are_told_apart
    an_end_that_came_with_the_last_bytes_is_told
    a_slot_is_free_after_its_close_and_its_next_use_has_another_name
    a_socket_that_is_not_read_says_nothing_until_it_is_again
    more_than_the_buffers_hold_arrives_whole_and_in_order
    a_send_that_the_reader_does_not_take_is_ended_by_the_close
    another_thread_wakes_a_waiting_ring
    a_full_table_ends_the_accept_and_a_freed_slot_lets_it_go_on
    more_submissions_than_the_queue_holds_all_arrive
    a_send_that_the_reader_takes_piece_by_piece_completes_once_and_whole
    both_directions_go_on_while_neither_side_waits_for_the_other
    a_reader_that_vanishes_during_a_send_is_an_error
    a_listener_is_paused_and_goes_on_and_closes
    who_speaks_without_end_leaves_room_for_the_others
}

struct Server<D> {
    ring: Ring<D>,
    listener: ListenerId,
    address: SocketAddr,
}

impl<D: OfKernel> Server<D> {
    fn new(settings: KernelSettings) -> Self {
        let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let mut ring = Ring::new(D::make(settings).unwrap());
        let listener = ring.add_listener(socket);
        ring.start_accepting(listener);
        Self { ring, listener, address }
    }

    fn small() -> Self {
        Self::new(KernelSettings {
            slots: 64,
            submissions: 64,
            completions: 256,
            buffers: 16,
            buffer_bytes: 512,
        })
    }

    /// The next completion, whatever it is.
    fn next(&mut self) -> Completion {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(completion) = self.ring.next_completion() {
                return completion;
            }
            assert!(Instant::now() < until, "nothing happened");
            self.ring.submit_and_wait(Wait::AtMost(Duration::from_millis(100))).unwrap();
        }
    }

    fn accept(&mut self) -> (Token, TcpStream) {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let Completion::Accepted { token, .. } = self.next() else { panic!("an accept") };
        (token, client)
    }

    fn receive(&mut self) -> Vec<u8> {
        let Completion::Received { buffer, .. } = self.next() else { panic!("bytes") };
        let bytes = self.ring.buffer_mut(&buffer).to_vec();
        self.ring.give_back(buffer);
        bytes
    }
}

fn a_message_comes_in_and_its_answer_goes_out<D: OfKernel>() {
    let mut server = Server::<D>::small();
    let (token, mut client) = server.accept();
    server.ring.ask_peer(token, server.listener);
    let Completion::Peer { address, .. } = server.next() else { panic!("an address") };
    assert_eq!(address.unwrap(), client.local_addr().unwrap());

    server.ring.start_receiving(token);
    client.write_all(b"hello").unwrap();
    assert_eq!(server.receive(), b"hello");
    server.ring.send(token, b"hello yourself".to_vec());
    let Completion::Sent { chunk, result, .. } = server.next() else { panic!("a send") };
    result.unwrap();
    assert_eq!(chunk.as_slice(), b"hello yourself");
    let mut answer = [0; 14];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello yourself");
    server.ring.check_invariants();
}

fn an_address_of_version_six_is_read_whole<D: OfKernel>() {
    let Ok(socket) = TcpListener::bind("[::1]:0") else { return };
    let address = socket.local_addr().unwrap();
    let mut server = Server::<D>::small();
    let six = server.ring.add_listener(socket);
    server.ring.start_accepting(six);
    let client = TcpStream::connect(address).unwrap();
    let Completion::Accepted { token, listener } = server.next() else { panic!("an accept") };
    assert_eq!(listener, six);
    server.ring.ask_peer(token, six);
    let Completion::Peer { address, .. } = server.next() else { panic!("an address") };
    assert_eq!(address.unwrap(), client.local_addr().unwrap());
}

fn the_ends_of_a_stream_are_told_apart<D: OfKernel>() {
    let mut server = Server::<D>::small();
    let (orderly, client) = server.accept();
    server.ring.start_receiving(orderly);
    client.shutdown(Shutdown::Write).unwrap();
    let Completion::ReceiveEnded { token, result } = server.next() else { panic!("an end") };
    assert_eq!(token, orderly);
    result.unwrap();

    let (reset, client) = server.accept();
    server.ring.start_receiving(reset);
    server.ring.submit_and_wait(Wait::No).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let Completion::ReceiveEnded { result, .. } = server.next() else { panic!("an end") };
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
    server.ring.check_invariants();
}

fn a_slot_is_free_after_its_close_and_its_next_use_has_another_name<D: OfKernel>() {
    let mut server = Server::<D>::small();
    let (first, mut client) = server.accept();
    server.ring.start_receiving(first);
    server.ring.submit_and_wait(Wait::No).unwrap();
    server.ring.close(first);
    let Completion::Closed { token } = server.next() else { panic!("a close") };
    assert_eq!(token, first);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the client sees the end");
    let (second, _client) = server.accept();
    assert_eq!(second.slot, first.slot);
    assert_ne!(second.generation, first.generation);
    server.ring.check_invariants();
}

fn a_socket_that_is_not_read_says_nothing_until_it_is_again<D: OfKernel>() {
    let mut server = Server::<D>::small();
    let (token, mut client) = server.accept();
    server.ring.start_receiving(token);
    client.write_all(b"one").unwrap();
    assert_eq!(server.receive(), b"one");
    server.ring.stop_receiving(token);
    server.ring.submit_and_wait(Wait::AtMost(Duration::from_millis(100))).unwrap();
    assert!(server.ring.next_completion().is_none());
    client.write_all(b"two").unwrap();
    server.ring.submit_and_wait(Wait::AtMost(Duration::from_millis(50))).unwrap();
    assert!(server.ring.next_completion().is_none(), "nothing is read");
    assert_eq!(server.ring.armed_receives(), 0);
    server.ring.start_receiving(token);
    assert_eq!(server.receive(), b"two");

    // Told to stop and to go on before the kernel could answer: it goes on.
    server.ring.stop_receiving(token);
    server.ring.start_receiving(token);
    client.write_all(b"three").unwrap();
    assert_eq!(server.receive(), b"three");
    client.write_all(b"four").unwrap();
    assert_eq!(server.receive(), b"four");
    assert_eq!(server.ring.armed_receives(), 1);
}

fn more_than_the_buffers_hold_arrives_whole_and_in_order<D: OfKernel>() {
    let mut server = Server::<D>::new(KernelSettings {
        slots: 64,
        submissions: 64,
        completions: 256,
        buffers: 2,
        buffer_bytes: 512,
    });
    let (token, mut client) = server.accept();
    server.ring.start_receiving(token);
    let sent: Vec<u8> = (0..1_000_000u32).map(|index| (index * 7 % 251) as u8).collect();
    let expected = sent.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client
    });
    let mut received = Vec::new();
    while received.len() < expected.len() {
        received.extend(server.receive());
    }
    assert!(received == expected, "the bytes are the ones that were sent");
    // Two buffers of 512 bytes against a megabyte: they ran out, and it went on.
    assert!(server.ring.counters().buffers_exhausted > 0);
    assert_eq!(server.ring.armed_receives(), 1);
    drop(writer.join().unwrap());
}

fn a_send_that_the_reader_does_not_take_is_ended_by_the_close<D: OfKernel>() {
    let mut server = Server::<D>::small();
    let (token, client) = server.accept();
    let chunk = vec![9; 32 << 20];
    server.ring.send(token, chunk);
    server.ring.submit_and_wait(Wait::No).unwrap();
    assert!(server.ring.next_completion().is_none(), "32 MiB fit in no socket's buffers");
    assert!(server.ring.is_sending(token));
    server.ring.close(token);
    let Completion::Sent { chunk, result, .. } = server.next() else { panic!("the chunk comes back") };
    assert_eq!(chunk.len(), 32 << 20);
    assert!(result.is_err());
    let Completion::Closed { .. } = server.next() else { panic!("a close") };
    drop(client);
}

fn another_thread_wakes_a_waiting_ring<D: OfKernel>() {
    let mut server = Server::<D>::small();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
    let waker: OwnedFd = event.try_clone().unwrap();
    server.ring.watch_event(event);
    for _ in 0..3 {
        let waker = waker.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            rustix::io::write(&waker, &1u64.to_ne_bytes()).unwrap();
        });
        let Completion::Event = server.next() else { panic!("an event") };
        thread.join().unwrap();
    }
}

fn a_full_table_ends_the_accept_and_a_freed_slot_lets_it_go_on<D: OfKernel>() {
    let mut server = Server::<D>::new(KernelSettings {
        slots: 2,
        submissions: 16,
        completions: 64,
        buffers: 4,
        buffer_bytes: 512,
    });
    let (first, _one) = server.accept();
    let (_second, _two) = server.accept();
    let _three = TcpStream::connect(server.address).unwrap();
    let Completion::AcceptEnded { error, .. } = server.next() else { panic!("no room") };
    assert_eq!(error.raw_os_error(), Some(libc::ENFILE));
    server.ring.close(first);
    let Completion::Closed { .. } = server.next() else { panic!("a close") };
    server.ring.start_accepting(server.listener);
    let (token, _four) = server.accept();
    assert_eq!(token.slot, first.slot);
}

fn more_submissions_than_the_queue_holds_all_arrive<D: OfKernel>() {
    let mut server = Server::<D>::new(KernelSettings {
        slots: 256,
        submissions: 8,
        completions: 64,
        buffers: 16,
        buffer_bytes: 512,
    });
    let mut clients = Vec::new();
    for _ in 0..200 {
        let (token, client) = server.accept();
        server.ring.start_receiving(token);
        clients.push((token, client));
    }
    for (token, _) in &clients {
        server.ring.send(*token, b"all of you".to_vec());
    }
    let mut sent = 0;
    while sent < clients.len() {
        if let Completion::Sent { result, .. } = server.next() {
            result.unwrap();
            sent += 1;
        }
    }
    for (_, client) in &mut clients {
        let mut got = [0; 10];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"all of you");
    }
    server.ring.check_invariants();
    assert_eq!(server.ring.armed_receives(), clients.len());
}

fn a_send_that_the_reader_takes_piece_by_piece_completes_once_and_whole<D: OfKernel>() {
    let mut server = Server::<D>::small();
    let (token, mut client) = server.accept();
    let sent: Vec<u8> = (0..16_000_000u32).map(|index| (index * 13 % 241) as u8).collect();
    server.ring.send(token, sent.clone());
    server.ring.submit_and_wait(Wait::No).unwrap();
    assert!(server.ring.next_completion().is_none(), "16 MB fit in no socket's buffers");
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; 16_000_000];
        client.read_exact(&mut received).unwrap();
        received
    });
    let Completion::Sent { chunk, result, .. } = server.next() else { panic!("a send") };
    result.unwrap();
    assert_eq!(chunk.len(), sent.len());
    assert!(reader.join().unwrap() == sent, "the bytes are the ones that were sent");
    server.ring.check_invariants();
}

fn both_directions_go_on_while_neither_side_waits_for_the_other<D: OfKernel>() {
    const BYTES: usize = 4_000_000;
    let mut server = Server::<D>::small();
    let (token, client) = server.accept();
    server.ring.start_receiving(token);
    let (mut writing, mut reading) = (client.try_clone().unwrap(), client);
    let expected: Vec<u8> = (0..BYTES).map(|index| (index % 239) as u8).collect();
    let sent = expected.clone();
    let writer = std::thread::spawn(move || writing.write_all(&sent).unwrap());
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; BYTES];
        reading.read_exact(&mut received).unwrap();
        received
    });
    let (mut waiting, mut echoed) = (Vec::new(), 0);
    while echoed < BYTES {
        match server.next() {
            Completion::Received { buffer, .. } => {
                waiting.extend_from_slice(server.ring.buffer_mut(&buffer));
                server.ring.give_back(buffer);
            }
            Completion::Sent { chunk, result, .. } => {
                result.unwrap();
                echoed += chunk.len();
            }
            other => panic!("{other:?}"),
        }
        if !waiting.is_empty() && !server.ring.is_sending(token) {
            server.ring.send(token, std::mem::take(&mut waiting));
        }
    }
    writer.join().unwrap();
    assert!(reader.join().unwrap() == expected, "every byte comes back, in order");
    server.ring.check_invariants();
}

fn a_reader_that_vanishes_during_a_send_is_an_error<D: OfKernel>() {
    let mut server = Server::<D>::small();
    let (token, client) = server.accept();
    server.ring.send(token, vec![9; 32 << 20]);
    server.ring.submit_and_wait(Wait::No).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let Completion::Sent { result, .. } = server.next() else { panic!("the chunk comes back") };
    assert!(result.is_err());
    server.ring.close(token);
    let Completion::Closed { .. } = server.next() else { panic!("a close") };
    assert_eq!(server.ring.open_slots(), 0);
}

fn a_listener_is_paused_and_goes_on_and_closes<D: OfKernel>() {
    let mut server = Server::<D>::small();
    let (_first, _one) = server.accept();
    server.ring.stop_accepting(server.listener);
    server.ring.submit_and_wait(Wait::AtMost(Duration::from_millis(50))).unwrap();
    assert!(server.ring.next_completion().is_none());
    let _two = TcpStream::connect(server.address).unwrap();
    server.ring.submit_and_wait(Wait::AtMost(Duration::from_millis(50))).unwrap();
    assert!(server.ring.next_completion().is_none(), "it waits in the backlog");
    server.ring.start_accepting(server.listener);
    let Completion::Accepted { .. } = server.next() else { panic!("an accept") };
    server.ring.close_listener(server.listener);
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(server.address).is_ok() {
        assert!(Instant::now() < until, "it listens still");
        server.ring.submit_and_wait(Wait::AtMost(Duration::from_millis(10))).unwrap();
        while server.ring.next_completion().is_some() {}
    }
}

/// Who speaks without end is not read without end: the other is answered meanwhile.
fn who_speaks_without_end_leaves_room_for_the_others<D: OfKernel>() {
    let mut server = Server::<D>::small();
    let (loud, mut shouting) = server.accept();
    let (quiet, mut whispering) = server.accept();
    server.ring.start_receiving(loud);
    server.ring.start_receiving(quiet);
    shouting.set_write_timeout(Some(PATIENCE)).unwrap();
    let until = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&until);
    let shouter = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) && shouting.write_all(&[1; 65_536]).is_ok() {}
    });
    for _ in 0..5 {
        whispering.write_all(b"me too").unwrap();
        let (mut heard, mut between) = (0, 0);
        while heard < 6 {
            let Completion::Received { token, buffer } = server.next() else { panic!("bytes") };
            if token == quiet {
                heard += server.ring.buffer_mut(&buffer).len();
            } else {
                between += 1;
            }
            server.ring.give_back(buffer);
        }
        assert!(between < 10_000, "{between} buffers of the other came first");
    }
    until.store(true, Ordering::Relaxed);
    server.ring.close(loud);
    loop {
        match server.next() {
            Completion::Closed { token } if token == loud => break,
            Completion::Received { buffer, .. } => server.ring.give_back(buffer),
            _ => {}
        }
    }
    shouter.join().unwrap();
}

fn an_end_that_came_with_the_last_bytes_is_told<D: OfKernel>() {
    let mut server = Server::<D>::small();
    let (token, mut client) = server.accept();
    client.write_all(b"goodbye").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    // Both are there before anybody reads, so that nothing more happens to the socket.
    server.ring.submit_and_wait(Wait::AtMost(Duration::from_millis(50))).unwrap();
    server.ring.start_receiving(token);
    assert_eq!(server.receive(), b"goodbye");
    let Completion::ReceiveEnded { result, .. } = server.next() else { panic!("an end") };
    result.unwrap();
}
