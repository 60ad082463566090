//! The ring over the kernel's io_uring and real sockets on loopback.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ringway_ring::{Completion, KernelDriver, KernelSettings, ListenerId, Ring, Token, Wait};

const PATIENCE: Duration = Duration::from_secs(10);

struct Server {
    ring: Ring<KernelDriver>,
    listener: ListenerId,
    address: SocketAddr,
}

impl Server {
    fn new(settings: KernelSettings) -> Self {
        let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let mut ring = Ring::new(KernelDriver::new(settings).unwrap());
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

#[test]
fn a_message_comes_in_and_its_answer_goes_out() {
    let mut server = Server::small();
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
    assert_eq!(chunk, b"hello yourself");
    let mut answer = [0; 14];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello yourself");
    server.ring.check_invariants();
}

#[test]
fn an_address_of_version_six_is_read_whole() {
    let Ok(socket) = TcpListener::bind("[::1]:0") else { return };
    let address = socket.local_addr().unwrap();
    let mut server = Server::small();
    let six = server.ring.add_listener(socket);
    server.ring.start_accepting(six);
    let client = TcpStream::connect(address).unwrap();
    let Completion::Accepted { token, listener } = server.next() else { panic!("an accept") };
    assert_eq!(listener, six);
    server.ring.ask_peer(token, six);
    let Completion::Peer { address, .. } = server.next() else { panic!("an address") };
    assert_eq!(address.unwrap(), client.local_addr().unwrap());
}

#[test]
fn the_ends_of_a_stream_are_told_apart() {
    let mut server = Server::small();
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

#[test]
fn a_slot_is_free_after_its_close_and_its_next_use_has_another_name() {
    let mut server = Server::small();
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

#[test]
fn a_socket_that_is_not_read_says_nothing_until_it_is_again() {
    let mut server = Server::small();
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

#[test]
fn more_than_the_buffers_hold_arrives_whole_and_in_order() {
    let mut server = Server::small();
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
    // Sixteen buffers of 512 bytes against a megabyte: they ran out, and it went on.
    assert!(server.ring.counters().buffers_exhausted > 0);
    assert_eq!(server.ring.armed_receives(), 1);
    drop(writer.join().unwrap());
}

#[test]
fn a_send_that_the_reader_does_not_take_is_ended_by_the_close() {
    let mut server = Server::small();
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

#[test]
fn another_thread_wakes_a_waiting_ring() {
    let mut server = Server::small();
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

#[test]
fn a_full_table_ends_the_accept_and_a_freed_slot_lets_it_go_on() {
    let mut server = Server::new(KernelSettings {
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

#[test]
fn more_submissions_than_the_queue_holds_all_arrive() {
    let mut server = Server::new(KernelSettings {
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
