//! A reader that does not keep up: bodies are left out and told of, then it is closed, and its cursor
//! never runs ahead of what it was told (protocol.md `gap`, 4102; contract.md G4).

use ringway_gateway::connection::{Disposition, TrunkEvent};
use ringway_gateway::context::ConnectionSettings;
use ringway_protocol::client::{ClientFrame, Gap, ServerFrame, Sync};
use ringway_protocol::ids::{ConversationId, MessageId, Position, Seq, Timestamp};
use ringway_protocol::trunk::{Outcome, Refusal};

use crate::pair::{Gateway, Seen, Setup, Socket, client_frame, entry, send_frame};

const QUEUE: usize = 20_000;

fn start() -> Gateway {
    let settings = ConnectionSettings { queue_bytes_max: QUEUE, ..ConnectionSettings::default() };
    Setup { settings, ..Setup::default() }.start()
}

/// A kilobyte of message.
fn deliver(gateway: &mut Gateway, socket: &mut Socket, conversation: u64, seq: u64) {
    gateway.fan_out(&entry(conversation, seq, "bob", &"x".repeat(900)), &mut [socket]);
}

/// What a client makes of live frames: each seq follows the last one, or a gap comes first.
fn check_order(frames: &[ServerFrame]) -> usize {
    let mut next = std::collections::HashMap::new();
    let mut messages = 0;
    for frame in frames {
        match frame {
            ServerFrame::Message(item) => {
                let placement = &item.placement;
                let expected = next.insert(placement.conversation, placement.seq.next());
                assert!(expected.is_none_or(|expected| expected == placement.seq), "a hole without a gap");
                messages += 1;
            }
            ServerFrame::Gap(Gap { conversation: Some(conversation), after_seq: Some(after), .. }) => {
                let expected = next.remove(conversation);
                assert!(expected.is_none_or(|expected| expected == after.next()), "a gap from elsewhere");
            }
            ServerFrame::Gap(_) => next.clear(),
            _ => {}
        }
    }
    messages
}

#[test]
fn bodies_that_do_not_fit_become_gaps() {
    let mut gateway = start();
    let mut socket = gateway.login("alice", "phone");
    for seq in 1..=30 {
        deliver(&mut gateway, &mut socket, 7, seq);
        deliver(&mut gateway, &mut socket, 8, seq);
    }
    assert!(socket.is_open(), "bodies alone never close");
    // It reads a little: what comes then is told of as incomplete first.
    socket.drain_some(&mut gateway, 8_000);
    deliver(&mut gateway, &mut socket, 7, 31);
    deliver(&mut gateway, &mut socket, 9, 1);
    let frames = socket.frames(&mut gateway);
    let messages = check_order(&frames);
    assert!((10..25).contains(&messages), "{messages} of 62");
    let gaps: Vec<_> = frames.iter().filter(|frame| matches!(frame, ServerFrame::Gap(_))).collect();
    assert_eq!(gaps.len(), 2, "one a conversation: {gaps:?}");
    deliver(&mut gateway, &mut socket, 8, 31);
    assert!(matches!(socket.frame(&mut gateway), ServerFrame::Message(_)));
}

#[test]
fn the_cursor_waits_until_the_client_has_caught_up() {
    let mut gateway = start();
    let mut socket = gateway.login("alice", "phone");
    let advance = |gateway: &mut Gateway, position| {
        for worker in 0..3 {
            gateway.context.handle_watermark(worker, Position(position));
        }
    };
    let resume = |gateway: &mut Gateway, socket: &mut Socket| {
        socket.send(gateway, &ClientFrame::Ping { nonce: None });
        match socket.frames(gateway).pop() {
            Some(ServerFrame::Pong(pong)) => pong.resume,
            other => panic!("{other:?}"),
        }
    };
    advance(&mut gateway, 5);
    let before = resume(&mut gateway, &mut socket);
    for seq in 1..=30 {
        deliver(&mut gateway, &mut socket, 7, seq);
    }
    advance(&mut gateway, 6);
    assert_eq!(resume(&mut gateway, &mut socket), before);

    let last_seen = vec![(ConversationId(7), Seq(9))];
    socket.send(&mut gateway, &ClientFrame::Sync(Sync { last_seen, limit: None }));
    let (request, _) = gateway.script.request();
    assert_eq!(resume(&mut gateway, &mut socket), before, "not yet");
    let entries = vec![entry(7, 10, "bob", "x").encode()];
    let page = Outcome::Page { conversation: ConversationId(7), entries, more: false };
    socket.reply(&mut gateway, request, Ok(page));
    assert_ne!(resume(&mut gateway, &mut socket), before);
}

#[test]
fn an_ack_does_not_overtake_the_gap_before_it() {
    let mut gateway = start();
    let mut socket = gateway.login("alice", "phone");
    for seq in 1..=29 {
        deliver(&mut gateway, &mut socket, 7, seq);
    }
    socket.send(&mut gateway, &send_frame(7, "mine", "hi"));
    let (request, _) = gateway.script.request();
    let sent = Outcome::Sent {
        conversation: ConversationId(7),
        message: MessageId(30),
        seq: Seq(30),
        server_ts: Timestamp(30),
        duplicate: false,
    };
    socket.reply(&mut gateway, request, Ok(sent));
    let frames = socket.frames(&mut gateway);
    let place = |wanted: fn(&ServerFrame) -> bool| frames.iter().position(wanted).expect("it came");
    let gap = place(|frame| matches!(frame, ServerFrame::Gap(_)));
    let ack = place(|frame| matches!(frame, ServerFrame::Ack(_)));
    assert!(gap < ack, "the ack of 30 came before it was said that 29 is missing");
}

#[test]
fn a_reader_of_too_many_conversations_gets_one_gap() {
    let mut gateway = start();
    let mut socket = gateway.login("alice", "phone");
    for seq in 1..=20 {
        deliver(&mut gateway, &mut socket, 1_000, seq);
    }
    for conversation in 1..=100 {
        deliver(&mut gateway, &mut socket, conversation, 1);
    }
    let frames = socket.frames(&mut gateway);
    let gaps: Vec<_> = frames.iter().filter(|frame| matches!(frame, ServerFrame::Gap(_))).collect();
    let [ServerFrame::Gap(Gap { conversation: None, after_seq: None, after_ms: Some(_) })] = &gaps[..] else {
        panic!("{gaps:?}");
    };
}

#[test]
fn answers_that_nobody_reads_close_with_4102_and_nothing_half_is_sent() {
    let mut gateway = start();
    let mut socket = gateway.login("alice", "phone");
    deliver(&mut gateway, &mut socket, 7, 1);
    socket.drain_some(&mut gateway, 500);
    for index in 0..250 {
        socket.send(&mut gateway, &send_frame(7, &index.to_string(), "hi"));
        let (request, _) = gateway.script.request();
        socket.reply(&mut gateway, request, Err(Refusal::NotFound));
        if !socket.is_open() {
            break;
        }
    }
    let seen = socket.read(&mut gateway);
    assert!(
        matches!(&seen[..], [Seen::Frame(ServerFrame::Message(_)), Seen::Close(code, _)] if code.0 == 4102),
        "{seen:?}"
    );
    assert_eq!(gateway.context.metrics().slow_readers.get(), 1);
    gateway.pass(3_000, &mut socket);
    assert_eq!(socket.connection.disposition(), Disposition::Abort);
}

#[test]
fn pongs_count_in_the_queue_too() {
    let settings = ConnectionSettings { queue_bytes_max: 4_000, ..ConnectionSettings::default() };
    let mut gateway = Setup { settings, ..Setup::default() }.start();
    let mut socket = gateway.login("alice", "phone");
    let mut ping = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
    ping.extend([b'p'; 125]);
    for _ in 0..40 {
        socket.send_bytes(&mut gateway, &ping);
    }
    assert_eq!(socket.close_code(&mut gateway), 4102);
}

#[test]
fn lost_deliveries_before_welcome_concern_nobody() {
    let mut gateway = start();
    let mut socket = gateway.upgrade("/ws", "");
    socket.trunk(&mut gateway, TrunkEvent::Lost);
    assert!(!socket.connection.has_output());
}

#[test]
fn messages_in_part_have_a_budget_a_core() {
    let settings = ConnectionSettings { partial_bytes_max: 100_000, ..ConnectionSettings::default() };
    let mut gateway = Setup { settings, ..Setup::default() }.start();
    let frame = client_frame(Default::default(), &send_frame(7, "big", &"x".repeat(60_000)));
    let mut sockets: Vec<_> = (0..3).map(|index| gateway.login("alice", &index.to_string())).collect();
    for socket in &mut sockets {
        socket.send_bytes(&mut gateway, &frame[..frame.len() - 1]);
    }
    let open = sockets.iter().filter(|socket| socket.is_open()).count();
    assert!(open < 3, "the budget holds one and a half");
    let last = sockets.iter_mut().find(|socket| !socket.is_open()).unwrap();
    assert_eq!(last.close_code(&mut gateway), 4101);
    // What is finished or gone is given back.
    for socket in &mut sockets {
        socket.connection.release(&mut gateway.context);
    }
    let mut socket = gateway.upgrade("/ws", "");
    socket.send_bytes(&mut gateway, &frame[..frame.len() - 1]);
    assert!(socket.is_open());
}
