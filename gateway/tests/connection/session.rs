//! The session of protocol.md section 1, rule by rule, for both subprotocols where they differ
//! (contract.md S-A1, S-A4, S-L2, S-Z3).

use std::sync::atomic::Ordering;

use ringway_gateway::connection::{Disposition, Phase, TrunkEvent};
use ringway_gateway::context::ConnectionSettings;
use ringway_protocol::client::{ClientFrame, Gap, Hello, Nonce, ServerFrame, Sync};
use ringway_protocol::entry::Body;
use ringway_protocol::ids::{ConversationId, MessageId, Position, Seq, Timestamp};
use ringway_protocol::trunk::{Operation, Outcome, Refusal, Target, ToRouter};
use ringway_protocol::user::DeviceId;

use crate::pair::{
    EPOCH_MS, Gateway, Seen, Setup, Socket, client_message_id, entry, send_frame, text_frame, user,
};

fn hello(gateway: &Gateway, sub: &str) -> Hello {
    Hello { token: Some(gateway.token(sub, 3600)), ..Hello::default() }
}

fn sent(seq: u64, duplicate: bool) -> Outcome {
    Outcome::Sent {
        conversation: ConversationId(7),
        message: MessageId(7_000 + seq),
        seq: Seq(seq),
        server_ts: Timestamp(EPOCH_MS + seq),
        duplicate,
    }
}

/// The session is heard of by every worker that it attached to, once.
fn assert_detached(gateway: &mut Gateway, socket: &mut Socket, workers: usize) {
    for _ in 0..2 {
        socket.connection.release(&mut gateway.context);
    }
    let detached = gateway.script.take();
    assert_eq!(detached.len(), workers, "{detached:?}");
    assert!(detached.iter().all(|(_, message)| matches!(message, ToRouter::Detach { .. })));
}

// ---- hello ----

#[test]
fn welcome_comes_when_every_worker_has_come_to_the_attach() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.upgrade("/ws", "");
    let hello = Hello { device: Some(DeviceId::new("phone").unwrap()), ..hello(&gateway, "alice") };
    socket.send(&mut gateway, &ClientFrame::Hello(hello));

    let told = gateway.script.take();
    assert_eq!(told.len(), 6);
    let mut probes = Vec::new();
    for (index, (worker, message)) in told.into_iter().enumerate() {
        assert_eq!(worker, index / 2);
        match message {
            ToRouter::Attach { connection, user: who, device } => {
                assert_eq!(
                    (connection, who, device.as_str()),
                    (socket.connection.id(), user("alice"), "phone")
                );
                assert_eq!(index % 2, 0, "the Attach goes first");
            }
            ToRouter::Request { request, .. } => probes.push(request),
            other => panic!("{other:?}"),
        }
    }
    gateway.context.flush_wakes();
    assert_eq!(*gateway.script.woken.lock().unwrap(), [0, 1, 2]);
    for request in probes {
        assert!(!socket.connection.has_output(), "a worker has not come to it");
        socket.reply(&mut gateway, request, Err(Refusal::NotFound));
    }
    let welcome = socket.welcome(&mut gateway);
    assert_eq!((welcome.user_id.as_str(), welcome.device_id.as_str()), ("alice", "phone"));
    assert_eq!(welcome.server_ts, gateway.timestamp());
    assert_eq!((welcome.heartbeat_ms, welcome.limits.max_inflight), (30_000, 256));
    assert_eq!(socket.connection.phase(), Phase::Session);
    assert_eq!(gateway.context.metrics().sessions_open.get(), 1);
    assert_detached(&mut gateway, &mut socket, 3);
    assert_eq!(gateway.context.metrics().sessions_open.get(), 0);
}

#[test]
fn the_device_is_the_tokens_or_hellos_or_a_new_one() {
    let mut gateway = Setup::default().start();
    let device_of = |gateway: &mut Gateway, token: String, said: Option<&str>| {
        let mut socket = gateway.upgrade("/ws", "Sec-WebSocket-Protocol: ringway.v1.proto\r\n");
        let device = said.map(|said| DeviceId::new(said).unwrap());
        socket.send(gateway, &ClientFrame::Hello(Hello { token: Some(token), device, ..Hello::default() }));
        if !socket.is_open() {
            return Err(socket.close_code(gateway));
        }
        gateway.answer_probes(&mut socket);
        Ok(socket.welcome(gateway).device_id)
    };
    let (bound, free) = (gateway.token_for_device("alice", "phone"), gateway.token("alice", 3600));
    assert_eq!(device_of(&mut gateway, bound.clone(), None).unwrap(), "phone");
    assert_eq!(device_of(&mut gateway, bound.clone(), Some("phone")).unwrap(), "phone");
    assert_eq!(device_of(&mut gateway, bound, Some("laptop")), Err(4003));
    assert_eq!(device_of(&mut gateway, free.clone(), Some("laptop")).unwrap(), "laptop");
    let one = device_of(&mut gateway, free.clone(), None).unwrap();
    let other = device_of(&mut gateway, free, None).unwrap();
    assert!(one != other && one.len() == 32);
}

#[test]
fn who_does_not_say_hello_first_or_in_time_is_closed() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.upgrade("/ws", "");
    socket.send(&mut gateway, &send_frame(7, "a", "hi"));
    assert_eq!(socket.close_code(&mut gateway), 4001);

    let mut socket = gateway.upgrade("/ws", "");
    socket.send_text(&mut gateway, r#"{"type":"hello"}"#);
    assert_eq!(socket.close_code(&mut gateway), 4001);

    let mut socket = gateway.upgrade("/ws", "");
    socket.send_text(&mut gateway, r#"{"type":"hello","token":"eyJhbGciOiJub25lIn0.e30."}"#);
    assert_eq!(socket.close_code(&mut gateway), 4001);

    let mut socket = gateway.upgrade("/ws", "");
    gateway.pass(7_999, &mut socket);
    assert!(socket.is_open());
    gateway.pass(1, &mut socket);
    assert_eq!(socket.close_code(&mut gateway), 4108);
    assert_eq!(socket.connection.disposition(), Disposition::ShutdownAfterFlush);
    assert!(gateway.script.take().is_empty(), "nobody attached");

    // The peer does not take leave: it goes anyway.
    gateway.pass(3_000, &mut socket);
    assert_eq!(socket.connection.disposition(), Disposition::Abort);
}

#[test]
fn a_router_that_does_not_keep_up_closes_with_4101() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.upgrade("/ws", "");
    let frame = ClientFrame::Hello(hello(&gateway, "alice"));
    socket.send(&mut gateway, &frame);
    gateway.pass(10_000, &mut socket);
    assert_eq!(socket.close_code(&mut gateway), 4101);
    gateway.script.take();

    let mut socket = gateway.upgrade("/ws", "");
    gateway.script.full.store(true, Ordering::Relaxed);
    socket.send(&mut gateway, &frame);
    assert_eq!(socket.close_code(&mut gateway), 4101);
    assert!(!gateway.context.owes_any(), "nobody heard of it");
}

#[test]
fn the_end_of_a_session_waits_for_a_full_inbox() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    gateway.script.full.store(true, Ordering::Relaxed);
    socket.connection.release(&mut gateway.context);
    gateway.context.flush_wakes();
    assert!(gateway.context.owes_any());
    gateway.script.full.store(false, Ordering::Relaxed);
    gateway.context.flush_wakes();
    assert!(!gateway.context.owes_any());
    assert_eq!(gateway.script.take().len(), 3);
}

// ---- the token ----

#[test]
fn a_token_is_warned_of_refreshed_and_ends() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.upgrade("/ws", "");
    let hello = Hello { token: Some(gateway.token("alice", 100)), ..Hello::default() };
    socket.send(&mut gateway, &ClientFrame::Hello(hello));
    gateway.answer_probes(&mut socket);
    socket.welcome(&mut gateway);
    let beat = |gateway: &mut Gateway, socket: &mut Socket, milliseconds: u64| {
        gateway.pass(milliseconds, socket);
        socket.send(gateway, &ClientFrame::Ping { nonce: None });
        let mut frames = socket.frames(gateway);
        assert!(matches!(frames.pop(), Some(ServerFrame::Pong(_))));
        frames
    };
    assert!(beat(&mut gateway, &mut socket, 39_000).is_empty());
    let warned = beat(&mut gateway, &mut socket, 1_000);
    assert!(matches!(&warned[..], [ServerFrame::Error(error)] if error.code.as_str() == "token_expiring"));

    let other = gateway.token("bob", 3600);
    socket.send(&mut gateway, &ClientFrame::Refresh { token: other });
    assert_eq!(socket.error(&mut gateway).0, "forbidden");
    socket.send(&mut gateway, &ClientFrame::Refresh { token: "nonsense".to_owned() });
    assert_eq!(socket.error(&mut gateway).0, "unauthorized");
    let fresh = gateway.token("alice", 120);
    socket.send(&mut gateway, &ClientFrame::Refresh { token: fresh });
    socket.welcome(&mut gateway);

    assert!(beat(&mut gateway, &mut socket, 40_000).is_empty());
    assert_eq!(beat(&mut gateway, &mut socket, 40_000).len(), 1, "warned anew");
    // Something waits to be sent when the token ends, and something comes then: neither is delivered.
    gateway.fan_out(&entry(7, 1, "bob", "late"), &mut [&mut socket]);
    gateway.pass(40_000, &mut socket);
    gateway.fan_out(&entry(7, 2, "bob", "later"), &mut [&mut socket]);
    let seen = socket.read(&mut gateway);
    assert!(matches!(&seen[..], [Seen::Close(code, _)] if code.0 == 4105), "{seen:?}");
}

#[test]
fn a_frame_that_is_half_sent_when_the_token_ends_is_ended() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    gateway.fan_out(&entry(7, 1, "bob", &"x".repeat(300)), &mut [&mut socket]);
    gateway.fan_out(&entry(7, 2, "bob", "never"), &mut [&mut socket]);
    socket.drain_some(&mut gateway, 100);
    for _ in 0..3600 / 30 {
        gateway.pass(30_000, &mut socket);
        if socket.is_open() {
            // Signs of life that are not answered.
            socket.send_bytes(&mut gateway, &[0x8a, 0x80, 1, 2, 3, 4]);
        }
    }
    let seen = socket.read(&mut gateway);
    let [Seen::Frame(ServerFrame::Message(item)), Seen::Close(code, _)] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!((item.placement.seq, code.0), (Seq(1), 4105));
}

// ---- frames ----

#[test]
fn malformed_frames_are_answered_and_ten_in_a_row_close() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    for round in 0..2 {
        for _ in 0..9 {
            socket.send_text(&mut gateway, "{nonsense");
            assert_eq!(socket.error(&mut gateway).0, "bad_frame");
        }
        if round == 0 {
            socket.send_text(&mut gateway, r#"{"type":"ping","some_new_field":[1,{}]}"#);
            assert!(matches!(socket.frame(&mut gateway), ServerFrame::Pong(_)));
        }
    }
    socket.send_text(&mut gateway, r#"{"type":"typing","conversation_id":"7","active":true}"#);
    assert_eq!(socket.close_code(&mut gateway), 4000);
}

#[test]
fn an_unknown_type_is_a_bad_frame_and_the_other_kind_of_message_is_1003() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    socket.send_text(&mut gateway, r#"{"type":"typing","conversation_id":"7","active":true}"#);
    assert_eq!(socket.error(&mut gateway).0, "bad_frame");
    socket.send_text(&mut gateway, "{\"type\":\"ping\"}\n{\"type\":\"ping\"}");
    assert_eq!(socket.error(&mut gateway).0, "bad_frame", "no batch was asked for");
    let mut binary = text_frame("{}");
    binary[0] = 0x82;
    socket.send_bytes(&mut gateway, &binary);
    assert_eq!(socket.close_code(&mut gateway), 1003);
}

#[test]
fn a_batch_has_an_object_a_line_if_hello_asked_for_it() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.upgrade("/ws", "");
    let hello = Hello { batch: true, ..hello(&gateway, "alice") };
    socket.send(&mut gateway, &ClientFrame::Hello(hello));
    gateway.answer_probes(&mut socket);
    socket.welcome(&mut gateway);
    socket
        .send_text(&mut gateway, "{\"type\":\"ping\",\"nonce\":1}\n\n{\"type\":\"ping\",\"nonce\":\"b\"}\n");
    let nonces: Vec<_> = socket
        .frames(&mut gateway)
        .into_iter()
        .map(|frame| match frame {
            ServerFrame::Pong(pong) => pong.nonce.unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(nonces, [Nonce::Number(1), Nonce::Text("b".to_owned())]);
}

// ---- send ----

#[test]
fn a_send_goes_to_the_owner_and_its_ack_comes_back() {
    let mut gateway = Setup::default().start();
    for headers in ["", "Sec-WebSocket-Protocol: ringway.v1.proto\r\n"] {
        let mut socket = gateway.upgrade("/ws", headers);
        let hello = ClientFrame::Hello(hello(&gateway, "alice"));
        socket.send(&mut gateway, &hello);
        gateway.answer_probes(&mut socket);
        socket.welcome(&mut gateway);
        socket.send(&mut gateway, &send_frame(7, "one", "hi"));
        let (worker, message) = gateway.script.take().remove(0);
        assert_eq!(worker, ConversationId(7).shard().worker(3));
        let ToRouter::Request { request, user: who, operation, .. } = message else { panic!() };
        assert_eq!(who, user("alice"));
        let Operation::Send { target, client_message_id: id, message } = operation else { panic!() };
        assert_eq!((target, id.as_str()), (Target::Conversation(ConversationId(7)), "one"));
        assert_eq!(message.body, Body::Text("hi".into()));
        socket.reply(&mut gateway, request, Ok(sent(5, true)));
        let ServerFrame::Ack(ack) = socket.frame(&mut gateway) else { panic!() };
        assert_eq!((ack.client_message_id.as_str(), ack.seq, ack.duplicate), ("one", Seq(5), true));
        socket.reply(&mut gateway, request, Ok(sent(5, true)));
        assert!(!socket.connection.has_output(), "a second answer is none");
    }
}

#[test]
fn what_the_server_decides_is_not_the_clients_to_say() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    socket.send_text(
        &mut gateway,
        r#"{"type":"send","to":"bob","client_msg_id":"x","text":"hi","from":"carol","sender_id":"carol",
            "seq":99,"server_ts":1,"role":"owner","tenant":"other"}"#,
    );
    let told = gateway.script.take();
    let [(_, ToRouter::Request { user: who, operation: Operation::Send { target, .. }, .. })] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!((who, target), (&user("alice"), &Target::User(user("bob"))));
}

#[test]
fn a_refusal_says_its_code_and_which_send() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    for (refusal, code) in [
        (Refusal::NotFound, "not_found"),
        (Refusal::Forbidden, "forbidden"),
        (Refusal::DuplicateConflict, "duplicate_conflict"),
        (Refusal::ConversationFull, "conversation_full"),
        (Refusal::Invalid("no"), "invalid"),
        (Refusal::Unavailable, "unavailable"),
    ] {
        socket.send(&mut gateway, &send_frame(7, code, "hi"));
        let (request, _) = gateway.script.request();
        socket.reply(&mut gateway, request, Err(refusal));
        assert_eq!(socket.error(&mut gateway), (code, Some(code.to_owned())));
    }
}

#[test]
fn every_send_ends_within_ten_seconds() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    socket.send(&mut gateway, &send_frame(7, "lost", "hi"));
    let (request, _) = gateway.script.request();
    gateway.pass(9_999, &mut socket);
    assert!(!socket.connection.has_output());
    gateway.pass(1, &mut socket);
    assert_eq!(socket.error(&mut gateway), ("unavailable", Some("lost".to_owned())));
    socket.reply(&mut gateway, request, Ok(sent(1, false)));
    assert!(!socket.connection.has_output(), "it was told already");

    gateway.script.full.store(true, Ordering::Relaxed);
    socket.send(&mut gateway, &send_frame(7, "full", "hi"));
    let ServerFrame::Error(error) = socket.frame(&mut gateway) else { panic!() };
    assert_eq!((error.code.as_str(), error.temporary), ("unavailable", true));
    assert!(error.retry_after_ms.is_some());
}

#[test]
fn a_full_window_stops_the_reading_until_half_is_acked() {
    let settings = ConnectionSettings { inflight_max: 4, ..ConnectionSettings::default() };
    let mut gateway = Setup { settings, ..Setup::default() }.start();
    let mut socket = gateway.login("alice", "phone");
    // All in one burst: what lies behind the one that is refused is not read.
    let mut burst = Vec::new();
    for index in 0..8 {
        burst.extend(crate::pair::client_frame(socket.encoding, &send_frame(7, &index.to_string(), "hi")));
    }
    socket.send_bytes(&mut gateway, &burst);
    let mut requests = gateway.script.requests();
    assert_eq!(requests.len(), 4);
    assert_eq!(socket.error(&mut gateway), ("window_full", Some("4".to_owned())), "once");
    assert!(!socket.connection.wants_read());

    // The silence clock stands still; the sends' own clock does not.
    gateway.pass(9_000, &mut socket);
    socket.reply(&mut gateway, requests.remove(0).0, Ok(sent(1, false)));
    assert!(!socket.connection.wants_read(), "three of four are out");
    socket.reply(&mut gateway, requests.remove(0).0, Ok(sent(2, false)));
    let next = gateway.script.requests();
    assert_eq!(next.len(), 2, "5 and 6 fill the window");
    let frames = socket.frames(&mut gateway);
    assert!(matches!(&frames[..], [ServerFrame::Ack(_), ServerFrame::Ack(_), ServerFrame::Error(_)]));
    assert!(!socket.connection.wants_read());
    for (request, _) in requests.into_iter().chain(next) {
        socket.reply(&mut gateway, request, Ok(sent(3, false)));
    }
    assert!(socket.connection.wants_read());
    gateway.pass(44_000, &mut socket);
    assert!(socket.is_open(), "45 s count from when it was heard again");
}

#[test]
fn sends_over_the_rate_are_refused_and_in_the_end_closed() {
    let settings =
        ConnectionSettings { sends_per_second: 10, send_burst: 3, ..ConnectionSettings::default() };
    let mut gateway = Setup { settings, ..Setup::default() }.start();
    let mut socket = gateway.login("alice", "phone");
    for index in 0..3 {
        socket.send(&mut gateway, &send_frame(7, &index.to_string(), "hi"));
    }
    assert_eq!(gateway.script.requests().len(), 3);
    socket.send(&mut gateway, &send_frame(7, "over", "hi"));
    let ServerFrame::Error(error) = socket.frame(&mut gateway) else { panic!() };
    assert_eq!((error.code.as_str(), error.retry_after_ms), ("rate_limited", Some(100)));
    assert_eq!(error.client_message_id.as_deref(), Some("over"));
    gateway.now = gateway.now + 100;
    socket.send(&mut gateway, &send_frame(7, "over", "hi"));
    assert_eq!(gateway.script.requests().len(), 1);
    for _ in 0..200 {
        socket.send(&mut gateway, &send_frame(7, "again", "hi"));
    }
    assert_eq!(socket.close_code(&mut gateway), 4104);
}

// ---- signs of life ----

#[test]
fn pings_of_both_kinds_are_answered_and_silence_is_4103() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    for _ in 0..3 {
        gateway.pass(44_000, &mut socket);
        socket.send_bytes(&mut gateway, &[0x89, 0x82, 0, 0, 0, 0, b'h', b'i']);
        assert_eq!(socket.read(&mut gateway), [Seen::Pong(b"hi".to_vec())]);
        gateway.pass(44_000, &mut socket);
        socket.send(&mut gateway, &ClientFrame::Ping { nonce: Some(Nonce::Text("n".to_owned())) });
        let ServerFrame::Pong(pong) = socket.frame(&mut gateway) else { panic!() };
        assert_eq!((pong.nonce, pong.server_ts), (Some(Nonce::Text("n".to_owned())), gateway.timestamp()));
    }
    // A byte now and then is no frame, but a message may take its time.
    let frame = crate::pair::client_frame(socket.encoding, &send_frame(7, "slow", "hi"));
    for byte in &frame[..2] {
        gateway.pass(25_000, &mut socket);
        socket.send_bytes(&mut gateway, &[*byte]);
    }
    assert!(socket.is_open());
    gateway.pass(45_000, &mut socket);
    assert_eq!(socket.close_code(&mut gateway), 4103);
}

#[test]
fn a_flood_of_pings_is_slowed_and_then_closed() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    let ping = |index: u16| {
        let [high, low] = index.to_be_bytes();
        [0x89, 0x82, 0, 0, 0, 0, high, low]
    };
    let flood: Vec<u8> = (0..300).flat_map(ping).collect();
    socket.send_bytes(&mut gateway, &flood);
    assert_eq!(socket.read(&mut gateway).len(), 200, "the burst");
    gateway.pass(50, &mut socket);
    let last = Seen::Pong(299u16.to_be_bytes().to_vec());
    assert_eq!(socket.read(&mut gateway), [last], "the newest is answered when the rate allows");
    let flood: Vec<u8> = (0..300).flat_map(ping).collect();
    socket.send_bytes(&mut gateway, &flood);
    assert_eq!(socket.close_code(&mut gateway), 4104);
}

// ---- live ----

#[test]
fn an_entry_is_encoded_once_and_the_senders_other_devices_get_its_client_id() {
    let mut gateway = Setup::default().start();
    let mut own = gateway.login("alice", "laptop");
    let mut bob = gateway.login("bob", "phone");
    gateway.fan_out(&entry(7, 1, "alice", "hi"), &mut [&mut own, &mut bob]);
    let (ServerFrame::Message(own), ServerFrame::Message(bob)) =
        (own.frame(&mut gateway), bob.frame(&mut gateway))
    else {
        panic!()
    };
    assert_eq!(own.client_message_id, Some(client_message_id("c1")));
    assert_eq!(bob.client_message_id, None);
    assert_eq!((own.placement.seq, own.placement.from.sub()), (Seq(1), "alice"));
}

#[test]
fn nothing_is_delivered_before_welcome() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.upgrade("/ws", "");
    let hello = ClientFrame::Hello(hello(&gateway, "alice"));
    socket.send(&mut gateway, &hello);
    gateway.fan_out(&entry(7, 1, "bob", "early"), &mut [&mut socket]);
    assert!(!socket.connection.has_output());
    gateway.answer_probes(&mut socket);
    socket.welcome(&mut gateway);
    gateway.fan_out(&entry(7, 2, "bob", "in time"), &mut [&mut socket]);
    assert!(matches!(socket.frame(&mut gateway), ServerFrame::Message(_)));
}

#[test]
fn a_close_of_the_router_names_its_code() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    socket.trunk(&mut gateway, TrunkEvent::Close { code: 4009 });
    assert_eq!(socket.close_code(&mut gateway), 4009);
    assert_eq!(gateway.script.take().len(), 3, "detached at once");
    // Its own leave ends it.
    socket.send_bytes(&mut gateway, &[0x88, 0x82, 0, 0, 0, 0, 0x0f, 0xa9]);
    assert_eq!(socket.connection.disposition(), Disposition::CloseAfterFlush);
    assert!(!socket.connection.has_output(), "one Close frame");
    socket.connection.release(&mut gateway.context);
    assert!(gateway.script.take().is_empty(), "once");
}

#[test]
fn lost_deliveries_are_a_gap_without_an_id_and_hello_again_mends_it() {
    let mut gateway = Setup::default().start();
    for worker in 0..3 {
        gateway.context.handle_watermark(worker, Position(40));
    }
    let mut socket = gateway.login("alice", "phone");
    let resume_at = |gateway: &mut Gateway, socket: &mut Socket| {
        socket.send(gateway, &ClientFrame::Ping { nonce: None });
        let ServerFrame::Pong(pong) = socket.frame(gateway) else { panic!() };
        pong.resume
    };
    let before = resume_at(&mut gateway, &mut socket);
    socket.trunk(&mut gateway, TrunkEvent::Lost);
    let ServerFrame::Gap(Gap { conversation: None, after_ms: Some(_), .. }) = socket.frame(&mut gateway)
    else {
        panic!()
    };
    for worker in 0..3 {
        gateway.context.handle_watermark(worker, Position(50));
    }
    assert_eq!(resume_at(&mut gateway, &mut socket), before, "the cursor waits for the client");

    let again = Hello { resume: Some(before.clone()), ..Hello::default() };
    socket.send(&mut gateway, &ClientFrame::Hello(again));
    assert_eq!(socket.welcome(&mut gateway).resume, before);
    let (request, operation) = gateway.script.request();
    assert_eq!(operation, Operation::Heads { since: Some(Position(40)) });
    let heads = vec![(ConversationId(7), Seq(3))];
    socket.reply(&mut gateway, request, Ok(Outcome::Heads { heads: heads.clone(), recovered: true }));
    let ServerFrame::Heads(got) = socket.frame(&mut gateway) else { panic!() };
    assert_eq!((got.conversations, got.recovered, got.more), (heads, true, false));
    assert_ne!(got.resume, before);
    assert_eq!(resume_at(&mut gateway, &mut socket), got.resume);
}

// ---- resume, heads, sync ----

#[test]
fn heads_follow_welcome_in_pages_and_the_cursor_moves_with_the_last() {
    let mut gateway = Setup::default().start();
    for worker in 0..3 {
        gateway.context.handle_watermark(worker, Position(9 + u64::from(worker)));
    }
    let mut first = gateway.login("alice", "phone");
    first.send(&mut gateway, &ClientFrame::Ping { nonce: None });
    let ServerFrame::Pong(pong) = first.frame(&mut gateway) else { panic!() };

    let mut socket = gateway.upgrade("/ws", "");
    let hello = Hello { resume: Some(pong.resume.clone()), ..hello(&gateway, "alice") };
    socket.send(&mut gateway, &ClientFrame::Hello(hello));
    gateway.answer_probes(&mut socket);
    assert_eq!(socket.welcome(&mut gateway).resume, pong.resume);
    let (request, operation) = gateway.script.request();
    assert_eq!(operation, Operation::Heads { since: Some(Position(9)) }, "the least of the workers");
    gateway.context.handle_watermark(0, Position(10));
    let heads: Vec<_> = (1..=2_500).map(|id| (ConversationId(id), Seq(id))).collect();
    socket.reply(&mut gateway, request, Ok(Outcome::Heads { heads: heads.clone(), recovered: true }));
    let mut got = Vec::new();
    let frames = socket.frames(&mut gateway);
    assert_eq!(frames.len(), 3);
    for (index, frame) in frames.into_iter().enumerate() {
        let ServerFrame::Heads(page) = frame else { panic!() };
        assert_eq!(page.more, index < 2);
        assert_eq!(page.resume == pong.resume, page.more, "only with the last page");
        got.extend(page.conversations);
    }
    assert_eq!(got, heads);
}

#[test]
fn a_cursor_that_is_not_this_users_recovers_nothing() {
    let mut gateway = Setup::default().start();
    let mut bob = gateway.login("bob", "phone");
    bob.send(&mut gateway, &ClientFrame::Ping { nonce: None });
    let ServerFrame::Pong(pong) = bob.frame(&mut gateway) else { panic!() };
    for resume in [pong.resume, "nonsense".to_owned(), String::new()] {
        let mut socket = gateway.upgrade("/ws", "");
        let hello = Hello { resume: Some(resume), ..hello(&gateway, "alice") };
        socket.send(&mut gateway, &ClientFrame::Hello(hello));
        gateway.answer_probes(&mut socket);
        socket.welcome(&mut gateway);
        let (request, operation) = gateway.script.request();
        assert_eq!(operation, Operation::Heads { since: None });
        socket.reply(&mut gateway, request, Ok(Outcome::Heads { heads: Vec::new(), recovered: true }));
        let ServerFrame::Heads(page) = socket.frame(&mut gateway) else { panic!() };
        assert!(!page.recovered && page.conversations.is_empty());
    }
}

fn page(conversation: u64, seqs: impl IntoIterator<Item = u64>, more: bool) -> Outcome {
    Outcome::Page {
        conversation: ConversationId(conversation),
        entries: seqs.into_iter().map(|seq| entry(conversation, seq, "bob", "hi").encode()).collect(),
        more,
    }
}

fn sync(conversations: &[(u64, u64)], limit: Option<u32>) -> ClientFrame {
    let last_seen = conversations.iter().map(|(id, seq)| (ConversationId(*id), Seq(*seq))).collect();
    ClientFrame::Sync(Sync { last_seen, limit })
}

#[test]
fn a_sync_goes_page_by_page_through_its_conversations() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    socket.send(&mut gateway, &sync(&[(7, 2), (8, 5), (9, 0)], None));
    let ask = |after, limit| Operation::SyncPage { conversation: ConversationId(7), after, limit };
    let (request, operation) = gateway.script.request();
    assert_eq!(operation, ask(Seq(2), 200));
    socket.reply(&mut gateway, request, Ok(page(7, 3..=4, true)));
    let (request, operation) = gateway.script.request();
    assert_eq!(operation, ask(Seq(4), 200));
    socket.reply(&mut gateway, request, Ok(page(7, 5..=5, false)));
    // 8 is not behind, 9 is not alice's.
    let (request, _) = gateway.script.request();
    socket.reply(&mut gateway, request, Ok(page(8, [], false)));
    let (request, _) = gateway.script.request();
    socket.reply(&mut gateway, request, Err(Refusal::NotFound));

    let frames = socket.frames(&mut gateway);
    let [
        ServerFrame::Messages(one),
        ServerFrame::Messages(two),
        ServerFrame::Error(error),
        ServerFrame::SyncDone,
    ] = &frames[..]
    else {
        panic!("{frames:?}");
    };
    assert_eq!((one.items.len(), one.more, two.items.len(), two.more), (2, true, 1, false));
    assert_eq!(error.code.as_str(), "not_found");
    assert!(error.message.contains('9'), "{}", error.message);
}

#[test]
fn a_sync_waits_for_a_reader_that_does_not_take_its_pages() {
    let settings = ConnectionSettings { queue_bytes_max: 40_000, ..ConnectionSettings::default() };
    let mut gateway = Setup { settings, ..Setup::default() }.start();
    let mut socket = gateway.login("alice", "phone");
    socket.send(&mut gateway, &sync(&[(7, 0)], None));
    let (request, _) = gateway.script.request();
    // About 30 KB: more than a quarter of the queue.
    socket.reply(&mut gateway, request, Ok(page(7, 1..=200, true)));
    assert!(gateway.script.requests().is_empty(), "the next page is not asked for");
    while gateway.script.requests().is_empty() {
        assert!(socket.connection.has_output());
        socket.drain_some(&mut gateway, 1_000);
    }
    assert!(socket.is_open());
}

#[test]
fn a_sync_that_is_cut_short_says_from_where() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    socket.send(&mut gateway, &sync(&[(7, 0)], Some(2)));
    let (request, operation) = gateway.script.request();
    assert!(matches!(operation, Operation::SyncPage { limit: 2, .. }));
    socket.reply(&mut gateway, request, Ok(page(7, 1..=2, true)));
    let (_, operation) = gateway.script.request();
    assert_eq!(operation, Operation::SyncEnd { conversation: ConversationId(7) });
    let frames = socket.frames(&mut gateway);
    let [ServerFrame::Messages(page), ServerFrame::Gap(gap), ServerFrame::SyncDone] = &frames[..] else {
        panic!("{frames:?}");
    };
    assert!(page.more);
    assert_eq!((gap.conversation, gap.after_seq), (Some(ConversationId(7)), Some(Seq(2))));
}

#[test]
fn an_empty_page_with_more_behind_it_is_asked_for_again() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    socket.send(&mut gateway, &sync(&[(7, 4)], Some(1)));
    let ask = Operation::SyncPage { conversation: ConversationId(7), after: Seq(4), limit: 1 };
    // An entry came live while the page was read, and is held back.
    let (request, operation) = gateway.script.request();
    assert_eq!(operation, ask);
    socket.reply(&mut gateway, request, Ok(page(7, [], true)));
    assert!(!socket.connection.has_output(), "nothing to tell: no gap, no page");
    let (request, operation) = gateway.script.request();
    assert_eq!(operation, ask, "the client's limit is untouched");
    socket.reply(&mut gateway, request, Ok(page(7, [5], false)));
    let frames = socket.frames(&mut gateway);
    assert!(
        matches!(&frames[..], [ServerFrame::Messages(page), ServerFrame::SyncDone] if page.items.len() == 1),
        "{frames:?}"
    );
}

#[test]
fn a_worker_that_has_only_empty_pages_ends_a_sync_with_a_gap() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    socket.send(&mut gateway, &sync(&[(7, 4)], None));
    for _ in 0..10_000 {
        let (request, operation) = gateway.script.request();
        assert!(matches!(operation, Operation::SyncPage { .. }), "{operation:?}");
        socket.reply(&mut gateway, request, Ok(page(7, [], true)));
    }
    assert!(matches!(gateway.script.request().1, Operation::SyncEnd { .. }));
    let frames = socket.frames(&mut gateway);
    let [ServerFrame::Messages(_), ServerFrame::Gap(gap), ServerFrame::SyncDone] = &frames[..] else {
        panic!("{frames:?}");
    };
    assert_eq!(gap.after_seq, Some(Seq(4)));
}

#[test]
fn ten_thousand_entries_end_a_sync_and_the_rest_is_named() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    socket.send(&mut gateway, &sync(&[(7, 0), (8, 3)], None));
    let mut after = 0;
    let mut frames = Vec::new();
    loop {
        let (request, operation) = gateway.script.requests().pop().expect("a request");
        match operation {
            Operation::SyncPage { .. } => {
                socket.reply(&mut gateway, request, Ok(page(7, after + 1..=after + 200, true)));
                after += 200;
            }
            Operation::SyncEnd { .. } => break,
            other => panic!("{other:?}"),
        }
        frames.extend(socket.frames(&mut gateway));
    }
    assert_eq!(after, 10_000);
    let [.., ServerFrame::Gap(gap), ServerFrame::Messages(rest), ServerFrame::SyncDone] = &frames[..] else {
        panic!("{:?}", frames.last());
    };
    assert_eq!(gap.after_seq, Some(Seq(10_000)));
    assert_eq!((rest.conversation, rest.items.len(), rest.more), (ConversationId(8), 0, true));
}

#[test]
fn a_page_that_does_not_come_is_a_gap_and_the_sync_ends() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    socket.send(&mut gateway, &sync(&[(7, 4)], None));
    let (request, _) = gateway.script.request();
    gateway.pass(10_000, &mut socket);
    let frames = socket.frames(&mut gateway);
    let [ServerFrame::Error(error), ServerFrame::Gap(gap), ServerFrame::SyncDone] = &frames[..] else {
        panic!("{frames:?}");
    };
    assert_eq!((error.code.as_str(), gap.after_seq), ("unavailable", Some(Seq(4))));
    assert!(matches!(gateway.script.request().1, Operation::SyncEnd { .. }));
    socket.reply(&mut gateway, request, Ok(page(7, 5..=9, false)));
    assert!(!socket.connection.has_output(), "too late: the gap brings it");
}

/// The cursor of a pong, with the store at this position everywhere.
fn cursor_at(gateway: &mut Gateway, socket: &mut Socket, position: u64) -> String {
    for worker in 0..3 {
        gateway.context.handle_watermark(worker, Position(position));
    }
    socket.send(gateway, &ClientFrame::Ping { nonce: None });
    match socket.frames(gateway).pop() {
        Some(ServerFrame::Pong(pong)) => pong.resume,
        other => panic!("{other:?}"),
    }
}

#[test]
fn while_a_sync_holds_live_entries_back_the_cursor_does_not_count_them() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    let before = cursor_at(&mut gateway, &mut socket, 5);
    socket.send(&mut gateway, &sync(&[(7, 4)], None));
    let (request, _) = gateway.script.request();
    // Entry 9 is stored at position 6; its worker holds it back from this socket until a page brings it.
    assert_eq!(cursor_at(&mut gateway, &mut socket, 6), before);
    socket.reply(&mut gateway, request, Ok(page(7, 5..=8, true)));
    let (request, _) = gateway.script.request();
    assert_eq!(cursor_at(&mut gateway, &mut socket, 6), before, "the next heads must name 7");
    socket.reply(&mut gateway, request, Ok(page(7, 9..=9, false)));
    assert_ne!(cursor_at(&mut gateway, &mut socket, 6), before, "all of it was queued");
}

#[test]
fn a_sync_that_does_not_bring_all_keeps_the_cursor_back_until_one_does() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    let before = cursor_at(&mut gateway, &mut socket, 5);
    for (id, outcome) in [(7, Err(Refusal::Unavailable)), (8, Ok(page(8, 1..=2, true)))] {
        socket.send(&mut gateway, &sync(&[(id, 0)], Some(2)));
        let (request, _) = gateway.script.request();
        socket.reply(&mut gateway, request, outcome);
        gateway.script.take();
    }
    assert_eq!(cursor_at(&mut gateway, &mut socket, 6), before, "it was told of two gaps");
    for (id, after) in [(7, 0), (8, 2)] {
        assert_eq!(cursor_at(&mut gateway, &mut socket, 6), before);
        socket.send(&mut gateway, &sync(&[(id, after)], None));
        let (request, _) = gateway.script.request();
        socket.reply(&mut gateway, request, Ok(page(id, after + 1..=9, false)));
    }
    assert_ne!(cursor_at(&mut gateway, &mut socket, 6), before);
}

#[test]
fn a_full_inbox_delays_a_sync_and_does_not_end_it() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    gateway.script.full.store(true, Ordering::Relaxed);
    socket.send(&mut gateway, &sync(&[(7, 4)], None));
    gateway.pass(2_000, &mut socket);
    gateway.script.full.store(false, Ordering::Relaxed);
    gateway.pass(500, &mut socket);
    assert!(matches!(gateway.script.request().1, Operation::SyncPage { after: Seq(4), .. }));
}

#[test]
fn too_many_syncs_are_refused() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    for _ in 0..8 {
        socket.send(&mut gateway, &sync(&[(7, 4)], None));
    }
    assert!(!socket.connection.has_output());
    socket.send(&mut gateway, &sync(&[(7, 4)], None));
    assert_eq!(socket.error(&mut gateway).0, "rate_limited");
}

// ---- drain ----

#[test]
fn a_drain_asks_to_reconnect_waits_for_acks_and_closes_with_4200() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    socket.connection.begin_drain(&mut gateway.context, gateway.now, 1_000, 4_000);
    let ServerFrame::Reconnect(reconnect) = socket.frame(&mut gateway) else { panic!() };
    assert_eq!((reconnect.after_ms, reconnect.within_ms), (1_000, 4_000));
    gateway.pass(4_900, &mut socket);
    socket.send(&mut gateway, &send_frame(7, "last", "hi"));
    let (request, _) = gateway.script.request();
    gateway.pass(100, &mut socket);
    assert!(socket.is_open() && !socket.connection.wants_read(), "one ack is due");
    gateway.pass(500, &mut socket);
    socket.reply(&mut gateway, request, Ok(sent(1, false)));
    let seen = socket.read(&mut gateway);
    assert!(matches!(&seen[..], [Seen::Frame(ServerFrame::Ack(_)), Seen::Close(code, _)] if code.0 == 4200));

    let mut socket = gateway.upgrade("/ws", "");
    socket.connection.begin_drain(&mut gateway.context, gateway.now, 1_000, 4_000);
    assert_eq!(socket.close_code(&mut gateway), 4200, "no session yet");
}

#[test]
fn a_peer_that_is_gone_is_told_nothing_more() {
    let mut gateway = Setup::default().start();
    let mut socket = gateway.login("alice", "phone");
    socket.connection.handle_peer_closed(&mut gateway.context, gateway.now);
    assert_eq!(socket.connection.disposition(), Disposition::CloseAfterFlush);
    gateway.fan_out(&entry(7, 1, "bob", "hi"), &mut [&mut socket]);
    assert!(!socket.connection.has_output());
    assert_eq!(gateway.script.take().len(), 3, "detached");
}
