//! The same conversation however its bytes are cut, and wherever in it the connection is frozen and goes
//! on elsewhere: the same output, byte for byte.

use proptest::prelude::*;
use ringway_gateway::connection::{Connection, Disposition, ThawError, Transport, TrunkEvent};
use ringway_gateway::context::ConnectionSettings;
use ringway_protocol::client::{ClientFrame, Encoding, Hello, Nonce, Sync};
use ringway_protocol::ids::{ConversationId, MessageId, Position, RequestId, Seq, Timestamp};
use ringway_protocol::trunk::{Operation, Outcome, Refusal};
use ringway_protocol::user::DeviceId;
use ringway_protocol::websocket::{Opcode, append_masked_frame};

use crate::pair::{EPOCH_MS, Gateway, MASK, Setup, Socket, client_frame, entry, send_frame, upgrade_request};

/// All that a client says in one connection: the upgrade with frames right behind it, fragments with a
/// ping between them, malformed ones, a sync.
fn conversation(gateway: &Gateway, encoding: Encoding) -> Vec<u8> {
    let mut bytes =
        upgrade_request("/ws", &format!("Sec-WebSocket-Protocol: {}\r\n", encoding.subprotocol()));
    let mut say = |frame: &ClientFrame| bytes.extend(client_frame(encoding, frame));
    say(&ClientFrame::Hello(Hello {
        token: Some(gateway.token("alice", 3600)),
        device: Some(DeviceId::new("phone").unwrap()),
        resume: Some("no cursor".to_owned()),
        ..Hello::default()
    }));
    say(&send_frame(7, "one", "grüße"));
    say(&ClientFrame::Ping { nonce: Some(Nonce::Text("n".to_owned())) });
    let last_seen = vec![(ConversationId(7), Seq(1)), (ConversationId(8), Seq(2))];
    say(&ClientFrame::Sync(Sync { last_seen, limit: Some(3) }));
    for index in 0..5 {
        say(&send_frame(8, &format!("many {index}"), &"é".repeat(90)));
    }

    let mut payload = Vec::new();
    ringway_protocol::client::encode_client(encoding, &send_frame(9, "cut", "in three, é"), &mut payload);
    let opcode = encoding.opcode().bits();
    let third = payload.len() / 3;
    for (first, part) in [
        (opcode, &payload[..third]),
        (0x89, &b"between"[..]),
        (0x00, &payload[third..2 * third]),
        (0x80, &payload[2 * third..]),
    ] {
        let start = bytes.len();
        append_masked_frame(&mut bytes, Opcode::Binary, part, MASK);
        bytes[start] = first;
    }
    let start = bytes.len();
    append_masked_frame(&mut bytes, Opcode::Binary, b"\x08nonsense", MASK);
    bytes[start] = 0x80 | opcode;
    bytes
}

/// A router that answers by fixed rules. Answers come when asked for, not at once.
fn answer(request: RequestId, operation: Operation) -> (RequestId, Result<Outcome, Refusal>) {
    let outcome = match operation {
        Operation::Send { client_message_id, .. } if client_message_id.as_str() == "many 3" => {
            Err(Refusal::NotFound)
        }
        Operation::Send { .. } => Ok(Outcome::Sent {
            conversation: ConversationId(7),
            message: MessageId(request.0),
            seq: Seq(request.0),
            server_ts: Timestamp(EPOCH_MS),
            duplicate: false,
        }),
        Operation::SyncPage { conversation, after, .. } => Ok(Outcome::Page {
            conversation,
            entries: vec![entry(conversation.0, after.0 + 1, "bob", "missed").encode()],
            more: after < Seq(3),
        }),
        Operation::Heads { .. } => {
            Ok(Outcome::Heads { heads: vec![(ConversationId(7), Seq(4))], recovered: true })
        }
        _ => Ok(Outcome::Done),
    };
    (request, outcome)
}

fn settings() -> ConnectionSettings {
    // A small window, so that reading pauses with frames held.
    ConnectionSettings { inflight_max: 2, ..ConnectionSettings::default() }
}

/// Runs the conversation, cut at `cuts`; `between` may replace the connection after each piece.
///
/// The router answers only once all is said, in the order of the requests, so that the output does not
/// depend on when a piece came; what waits for an answer is said again then.
fn run(
    encoding: Encoding,
    cuts: &[usize],
    mut between: impl FnMut(&mut Gateway, &mut Socket),
) -> (Vec<u8>, Disposition) {
    let mut gateway = Setup { settings: settings(), ..Setup::default() }.start();
    for worker in 0..3 {
        gateway.context.handle_watermark(worker, Position(3));
    }
    let bytes = conversation(&gateway, encoding);
    let mut socket = gateway.accept(Transport::Plain);
    let mut start = 0;
    for end in cuts.iter().map(|cut| cut % bytes.len()).chain([bytes.len()]) {
        if end > start {
            socket.send_bytes(&mut gateway, &bytes[start..end]);
            start = end;
            between(&mut gateway, &mut socket);
        }
    }
    loop {
        let requests = gateway.script.requests();
        if requests.is_empty() {
            break;
        }
        for (request, operation) in requests {
            let (request, outcome) = answer(request, operation);
            socket.trunk(&mut gateway, TrunkEvent::Reply { request, outcome });
            between(&mut gateway, &mut socket);
        }
    }
    let mut leave = Vec::new();
    append_masked_frame(&mut leave, Opcode::Close, b"\x03\xe8", MASK);
    socket.send_bytes(&mut gateway, &leave);
    between(&mut gateway, &mut socket);
    socket.drain(&mut gateway);
    (socket.received, socket.connection.disposition())
}

/// The connection moves to another core, and to one more: frozen, thawed, and frozen the same again.
fn move_it(gateway: &mut Gateway, socket: &mut Socket) {
    let frozen = socket.freeze(gateway);
    socket.connection = Connection::thaw(&mut gateway.context, gateway.now, &frozen).unwrap();
    assert_eq!(socket.freeze(gateway), frozen, "the same again");
    socket.connection = Connection::thaw(&mut gateway.context, gateway.now, &frozen).unwrap();
}

#[test]
fn the_conversation_ends_as_it_should() {
    for encoding in Encoding::ALL {
        let (output, disposition) = run(encoding, &[], |_, _| {});
        assert_eq!(disposition, Disposition::CloseAfterFlush);
        assert!(output.ends_with(&[0x88, 2, 3, 0xe8]), "its leave is answered last");
        let count = |text: &str| output.windows(text.len()).filter(|part| *part == text.as_bytes()).count();
        assert_eq!((count("many"), count("missed"), count("between")), (5, 5, 1));
        // The window of two is passed three times.
        assert!(count("max_inflight:") >= 2);
    }
}

#[test]
fn one_byte_at_a_time_is_the_same() {
    for encoding in Encoding::ALL {
        let every: Vec<usize> = (1..20_000).collect();
        let len = {
            let gateway = Setup::default().start();
            conversation(&gateway, encoding).len()
        };
        assert_eq!(run(encoding, &every[..len - 1], |_, _| {}), run(encoding, &[], |_, _| {}));
    }
}

#[test]
fn frozen_at_every_byte_is_the_same() {
    for encoding in Encoding::ALL {
        let expected = run(encoding, &[], |_, _| {});
        let len = {
            let gateway = Setup::default().start();
            conversation(&gateway, encoding).len()
        };
        let every: Vec<usize> = (1..len).collect();
        assert_eq!(run(encoding, &every, move_it), expected, "frozen after each byte");
        for cut in every {
            assert_eq!(run(encoding, &[cut], move_it), expected, "frozen after byte {cut}");
        }
    }
}

#[test]
fn frozen_with_output_that_is_half_sent_is_the_same() {
    let (expected, _) = run(Encoding::Json, &[], |_, _| {});
    let mut turn = 0;
    let (output, _) = run(Encoding::Json, &[400, 700, 900, 1_100, 1_300], |gateway, socket| {
        turn += 1;
        socket.drain_some(gateway, 37 * turn);
        move_it(gateway, socket);
    });
    assert_eq!(output, expected);
}

#[test]
fn frozen_bytes_that_are_damaged_are_refused_or_harmless() {
    let mut frozen = Vec::new();
    run(Encoding::Json, &[1_200], |gateway, socket| {
        frozen.push(socket.freeze(gateway));
        socket.connection = Connection::thaw(&mut gateway.context, gateway.now, &frozen[0]).unwrap();
    });
    let mut gateway = Setup { settings: settings(), ..Setup::default() }.start();
    for bytes in frozen {
        for cut in 0..bytes.len() {
            assert!(Connection::thaw(&mut gateway.context, gateway.now, &bytes[..cut]).is_err());
        }
        for place in 0..bytes.len() {
            for bit in [1, 0x80] {
                let mut damaged = bytes.clone();
                damaged[place] ^= bit;
                if let Ok(mut connection) = Connection::thaw(&mut gateway.context, gateway.now, &damaged) {
                    connection.handle_received(
                        &mut gateway.context,
                        gateway.now,
                        &mut [0x89, 0x80, 0, 0, 0, 0],
                    );
                    connection.handle_timeout(&mut gateway.context, gateway.now + 100_000);
                    let request = RequestId(4);
                    let reply = TrunkEvent::Reply { request, outcome: Ok(Outcome::Done) };
                    connection.handle_trunk(&mut gateway.context, gateway.now, reply);
                    let mut chunk = Vec::new();
                    connection.poll_transmit(&mut gateway.context, gateway.now, &mut chunk, 1 << 20);
                    connection.release(&mut gateway.context);
                }
            }
        }
    }
    gateway.script.take();
}

#[test]
fn what_cannot_move_says_so() {
    let mut gateway = Setup { workers: 5, ..Setup::default() }.start();
    let mut socket = gateway.login("alice", "phone");
    let frozen = socket.freeze(&mut gateway);
    assert_eq!(gateway.context.metrics().sessions_open.get(), 0);
    let mut other = Setup { workers: 3, ..Setup::default() }.start();
    let refused = Connection::thaw(&mut other.context, other.now, &frozen);
    assert_eq!(refused.err(), Some(ThawError::Workers { attached: 3 }));
    let mut versioned = frozen.clone();
    versioned[0] = 99;
    let refused = Connection::thaw(&mut gateway.context, gateway.now, &versioned);
    assert_eq!(refused.err(), Some(ThawError::Version(99)));
}

#[test]
fn a_moved_session_keeps_its_deadlines_on_another_clock() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    gateway.pass(40_000, &mut socket);
    let frozen = socket.freeze(&mut gateway);
    let mut other = Setup::default().start();
    other.now = other.now + 5_000_000;
    socket.connection = Connection::thaw(&mut other.context, other.now, &frozen).unwrap();
    other.pass(4_999, &mut socket);
    assert!(socket.is_open());
    other.pass(1, &mut socket);
    assert_eq!(socket.close_code(&mut other), 4103);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_cut_is_the_same(mut cuts in proptest::collection::vec(0usize..4_000, 0..12), protobuf: bool) {
        let encoding = if protobuf { Encoding::Protobuf } else { Encoding::Json };
        cuts.sort_unstable();
        prop_assert_eq!(run(encoding, &cuts, |_, _| {}), run(encoding, &[], |_, _| {}));
        prop_assert_eq!(run(encoding, &cuts, move_it), run(encoding, &[], |_, _| {}));
    }
}
