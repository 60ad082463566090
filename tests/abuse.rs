//! Clients that behave badly, each beside a pair that goes on chatting: the pair misses nothing, the bad
//! client's sockets end as they must, and its memory and its slots come back.
//!
//! How slow the pair becomes is no matter for a test on a machine that does other things meanwhile:
//! `cargo xtask abuse` measures it. The clients are `ringway_loadgen::abuse`.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway_loadgen::abuse::client::Client as BadClient;
use ringway_loadgen::abuse::{Abuse, HUGE_LENGTHS, RESETS, Report, STALLED_HANDSHAKES, Target};
use ringway_protocol::websocket::{Event, Opcode};
use serde_json::{Value, json};
use support::{PATIENCE, Server, wait_for, wait_for_within};

/// Memory that a chat of a minute may leave behind, in bytes: tables of the store, free chunks, and what the
/// allocator keeps. A queue without a bound would hold more.
const ROOM: u64 = 32 << 20;

/// Messages that the pair exchanges at least, each way.
const MESSAGES_MIN: u64 = 20;

/// Between two messages of one of the pair: within the rate that every client may have.
const MESSAGE_EVERY: Duration = Duration::from_millis(25);

/// Longest segment that the kernel makes for a socket on loopback.
const LOOPBACK_SEGMENT_BYTES: u64 = 65_536;

/// From the silence of a peer to the end of its socket: 45 s, 3 s for the closing, and a busy machine.
const SILENCE_PATIENCE: Duration = Duration::from_secs(90);

/// A server, and what it was like before anybody behaved badly.
struct Stage {
    server: Server,
    connections: f64,
    resident_bytes: u64,
}

impl Stage {
    /// Starts a server and lets the pair chat a little, so that what it needs once is not counted.
    fn set(flags: &[&str]) -> Self {
        let server = Server::start(flags);
        let connections = server.metric("ringway_gateway_connections");
        chat(&server, &AtomicBool::new(true));
        let stage = Self { connections, resident_bytes: server.resident_bytes(), server };
        stage.wait_for_base_connections(PATIENCE);
        stage
    }

    fn target(&self, user: &str) -> Target {
        Target { ws: self.server.ws(), wss: self.server.wss(), token: self.server.token(user) }
    }

    /// Lets a bad client run beside the pair. The server stays within its memory meanwhile.
    fn beside_a_chat<T: Send>(&self, abuse: impl FnOnce() -> T + Send) -> T {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let pair = scope.spawn(|| chat(&self.server, &stop));
            let abuse = scope.spawn(abuse);
            let mut highest = 0;
            while !abuse.is_finished() && !pair.is_finished() {
                highest = highest.max(self.server.resident_bytes());
                std::thread::sleep(Duration::from_millis(10));
            }
            stop.store(true, Ordering::Relaxed);
            pair.join().expect("the pair misses nothing");
            assert!(
                highest < self.resident_bytes + 2 * ROOM,
                "{} MiB grew to {} MiB",
                self.resident_bytes >> 20,
                highest >> 20
            );
            abuse.join().expect("the bad client could do what it does")
        })
    }

    /// Runs a kind for as long as it takes, and holds its end against the contract.
    fn run(&self, kind: Abuse) -> Report {
        let patience = kind.ends_within();
        let report = kind.run(&self.target("mallory"), patience).unwrap();
        kind.verdict(&report, patience).unwrap_or_else(|complaint| panic!("{complaint}"));
        report
    }

    /// Waits until nothing is left of the bad clients: no slot, no session, no memory.
    fn settles(&self) {
        self.wait_for_base_connections(PATIENCE);
        wait_for("the end of every session", || {
            (self.server.metric("ringway_gateway_sessions_open") == 0.0).then_some(())
        });
        wait_for("the memory to come back", || {
            (self.server.resident_bytes() <= self.resident_bytes + ROOM).then_some(())
        });
    }

    fn wait_for_base_connections(&self, patience: Duration) {
        wait_for_within(patience, "every slot to come back", || {
            (self.server.metric("ringway_gateway_connections") <= self.connections).then_some(())
        });
    }
}

/// Two people, one over wss and one over ws, who answer each other until `stop`. Each message comes, as it
/// was sent, and the next seq.
fn chat(server: &Server, stop: &AtomicBool) -> u64 {
    let mut alice = server.connect_tls("alice");
    let mut bob = server.connect("bob");
    let first = alice.say_to_user("bob", "here I am");
    let conversation = first["conversation_id"].as_str().unwrap().to_owned();
    let mut seq = bob.expect("message")["seq"].as_u64().unwrap();
    let mut rounds = 0;
    while rounds < MESSAGES_MIN || !stop.load(Ordering::Relaxed) {
        rounds += 1;
        for (from, to) in [(true, false), (false, true)] {
            let text = format!("{rounds} from alice: {from}");
            let (sender, reader) = if from { (&mut alice, &mut bob) } else { (&mut bob, &mut alice) };
            let ack = sender.say(&conversation, &text);
            let message = reader.expect("message");
            seq += 1;
            assert_eq!((&message["seq"], &message["text"]), (&json!(seq), &json!(text)), "to alice: {to}");
            assert_eq!(ack["seq"], seq);
        }
        std::thread::sleep(MESSAGE_EVERY);
    }
    rounds
}

/// Somebody who writes long messages to `user` while `run` runs.
fn fed<T>(server: &Server, user: &str, run: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut speaker = server.connect("speaker");
            while !stop.load(Ordering::Relaxed) {
                speaker.say_to_user(user, &"blah ".repeat(1_600));
                std::thread::sleep(MESSAGE_EVERY);
            }
        });
        let result = run();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

fn send(client: &mut BadClient, frame: &Value) {
    client.send(Opcode::Text, frame.to_string().as_bytes()).expect("the socket is open");
}

#[test]
fn a_reader_that_stops_is_closed_when_its_queue_is_full() {
    let stage = Stage::set(&["--limits.max_queue_bytes", "131072"]);
    let report = stage.beside_a_chat(|| fed(&stage.server, "mallory", || stage.run(Abuse::SlowReader)));
    assert_eq!(report.open, 0, "{report:?}");
    assert_eq!(stage.server.metric("ringway_gateway_slow_readers_total"), 1.0);
    stage.settles();
}

#[test]
fn the_kernel_holds_no_more_of_a_reader_that_never_reads_than_is_set() {
    // What is set, doubled, and the segment that is begun when there is still a byte of room.
    let bound = 2 * 65_536 + LOOPBACK_SEGMENT_BYTES;
    let bounded = highest_in_kernel(65_536);
    assert!((1..=bound).contains(&bounded), "{bounded} bytes waited in the kernel");
    let unbounded = highest_in_kernel(0);
    assert!(unbounded > 2 * bound, "{unbounded} bytes: nothing shows that the bound is what holds");
}

/// Bytes that the kernel held at most for a reader that never reads, under this setting.
fn highest_in_kernel(socket_send_buffer_bytes: u64) -> u64 {
    let stage = Stage::set(&["--limits.socket_send_buffer_bytes", &socket_send_buffer_bytes.to_string()]);
    let target = stage.target("mallory");
    let highest = stage.beside_a_chat(|| {
        let client = BadClient::log_in(&target, "phone").unwrap();
        let mut speaker = stage.server.connect("speaker");
        let sent = (0..200).map(|_| {
            speaker.say_to_user("mallory", &"blah ".repeat(3_200));
            unsent_bytes(target.ws)
        });
        let highest = sent.max().unwrap();
        drop(client);
        highest
    });
    stage.settles();
    highest
}

/// Bytes that wait in the kernel for the slowest reader of this port: `tx_queue` of proc_pid_net(5).
fn unsent_bytes(port_of: std::net::SocketAddr) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux shows its sockets");
    let local = format!(":{:04X}", port_of.port());
    let queued = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (queue, _) = fields.get(4)?.split_once(':')?;
        (fields[1].ends_with(&local) && fields[3] == "01").then(|| u64::from_str_radix(queue, 16).ok())?
    });
    queued.max().unwrap_or_default()
}

#[test]
fn a_reader_of_no_acks_reads_in_the_end_why_it_was_closed() {
    let stage = Stage::set(&["--limits.max_queue_bytes", "131072"]);
    let target = stage.target("mallory");
    let (code, gaps) = stage.beside_a_chat(|| {
        fed(&stage.server, "mallory", || {
            let mut client = BadClient::open_with_small_buffers(target.ws).unwrap();
            client = client.welcome(&target, "phone").unwrap();
            let deadline = Instant::now() + PATIENCE;
            for number in 0.. {
                if stage.server.metric("ringway_gateway_slow_readers_total") > 0.0 {
                    break;
                }
                assert!(Instant::now() < deadline, "the queue has a bound");
                let id = number.to_string();
                send(&mut client, &json!({"type": "send", "to": "eve", "client_msg_id": id, "text": "?"}));
                std::thread::sleep(Duration::from_millis(22));
            }
            let code = client.read_to_end(Instant::now() + PATIENCE).unwrap();
            (code, client.gaps())
        })
    });
    assert_eq!(code, Some(4102));
    assert_eq!(gaps, 0, "what was queued is dropped for the Close frame");
    stage.settles();
}

#[test]
fn a_reader_that_stops_for_a_while_is_told_of_the_gap_and_catches_up() {
    let stage = Stage::set(&[]);
    let target = stage.target("mallory");
    stage.beside_a_chat(|| {
        let mut client = BadClient::open_with_small_buffers(target.ws).unwrap();
        client = client.welcome(&target, "phone").unwrap();
        let mut speaker = stage.server.connect("speaker");
        let mut last = Value::Null;
        for _ in 0..100 {
            last = speaker.say_to_user("mallory", &"blah ".repeat(1_600));
        }
        send(&mut client, &json!({"type": "ping", "nonce": "awake"}));
        let live = frames_until(&mut client, |frame| frame["nonce"] == "awake");
        let complete_until = first_gap(&live);

        let conversation = last["conversation_id"].as_str().unwrap();
        send(&mut client, &json!({"type": "sync", "last_seen": {conversation: complete_until}}));
        let synced = frames_until(&mut client, |frame| frame["type"] == "sync_done");
        let mut seqs: Vec<u64> = synced
            .iter()
            .flat_map(|frame| frame["messages"].as_array().map_or(vec![frame], |page| page.iter().collect()))
            .filter_map(|message| message["seq"].as_u64())
            .collect();
        seqs.dedup();
        assert_eq!(seqs, (complete_until + 1..=last["seq"].as_u64().unwrap()).collect::<Vec<_>>());
    });
    stage.settles();
}

/// Holds live frames of one conversation against the protocol: each seq follows the last one, or a `gap`
/// that says so comes first. The last seq before the first gap.
fn first_gap(frames: &[Value]) -> u64 {
    let (mut last, mut first) = (None, None);
    for frame in frames {
        let seq = frame["seq"].as_u64();
        if frame["type"] == "gap" {
            let after = frame["after_seq"].as_u64().expect("a gap of the conversation");
            assert!(last.is_none_or(|last| last == after), "{after} is not {last:?}");
            first = first.or(Some(after));
            last = None;
        } else if seq.is_some() {
            assert!(last.is_none() || seq == last.map(|last| last + 1), "{seq:?} after {last:?}");
            last = seq;
        }
    }
    first.expect("some messages were left out")
}

/// The text frames up to the first that fits.
fn frames_until(client: &mut BadClient, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut frames = Vec::new();
    let mut found = false;
    let end = client.read_while(Instant::now() + PATIENCE, |event| {
        if let Event::Text(text) = event {
            let frame = serde_json::from_str(text).expect("frames are JSON");
            found |= fits(&frame);
            frames.push(frame);
        }
        !found
    });
    assert!(found, "{end:?} before it came");
    frames
}

#[test]
fn a_peer_that_is_gone_without_a_word_loses_its_socket() {
    let stage = Stage::set(&[]);
    let full = stage.target("full");
    stage.beside_a_chat(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| stage.run(Abuse::HalfOpen));
            // Worse: its buffers are full, so that not even the Close frame finds room.
            let _gone = fed(&stage.server, "full", || {
                let client = BadClient::open_with_small_buffers(full.ws).unwrap();
                let client = client.welcome(&full, "phone").unwrap();
                std::thread::sleep(Duration::from_secs(3));
                client
            });
            // The pair's two stay.
            wait_for_within(SILENCE_PATIENCE, "the slots to come back", || {
                (stage.server.metric("ringway_gateway_connections") <= stage.connections + 2.0).then_some(())
            });
        });
    });
    stage.settles();
}

#[test]
fn a_flood_of_pings_is_answered_or_ended() {
    let stage = Stage::set(&[]);
    let report = stage.beside_a_chat(|| stage.run(Abuse::PingFlood));
    assert!(report.pongs > 0, "{report:?}");
    stage.settles();
}

#[test]
fn who_sends_one_byte_at_a_time_is_understood() {
    let stage = Stage::set(&[]);
    stage.beside_a_chat(|| stage.run(Abuse::ByteAtATime));
    stage.settles();
}

#[test]
fn resets_in_the_middle_of_frames_leak_no_slot() {
    let stage = Stage::set(&[]);
    stage.beside_a_chat(|| stage.run(Abuse::ResetMidFrame));
    stage.settles();
    assert!(stage.server.metric("ringway_gateway_closed_total") >= RESETS as f64);
}

#[test]
fn a_huge_length_is_refused_before_anything_is_allocated() {
    let stage = Stage::set(&[]);
    let report = stage.beside_a_chat(|| stage.run(Abuse::HugeLength));
    assert_eq!(report.ended.values().sum::<usize>(), HUGE_LENGTHS.len());
    stage.settles();
}

#[test]
fn stalled_handshakes_end_and_keep_nobody_out() {
    let stage = Stage::set(&[]);
    let report = stage.beside_a_chat(|| {
        std::thread::scope(|scope| {
            let stalled = scope.spawn(|| stage.run(Abuse::StalledHandshakes));
            wait_for("all of them", || {
                let open = stage.server.metric("ringway_gateway_connections");
                (open >= STALLED_HANDSHAKES as f64).then_some(())
            });
            stage.server.connect("late").say_to_user("dan", "is there a place?");
            stage.server.connect_tls("later").say_to_user("dan", "and over TLS?");
            stalled.join().unwrap()
        })
    });
    assert_eq!(report.open, 0);
    assert!(report.ended[&4108] > 0, "{report:?}");
    assert!(stage.server.metric("ringway_gateway_tls_handshakes_failed_total") > 0.0);
    stage.settles();
}
