//! What an idle connection costs in user memory, counted by the allocator and held against the sum in
//! `limits.rs`: what it has on the heap is its WebSocket with its session and two names, to the byte, and
//! traffic adds to that only until the next heartbeat. What the process as a whole takes is measured by
//! `cargo xtask idle`.
#![allow(dead_code, unreachable_pub, reason = "the helpers of another test binary")]

#[path = "support/counting.rs"]
mod counting;
#[path = "connection/pair.rs"]
mod pair;

use counting::LIVE;
use pair::{Gateway, Setup, Socket, entry, send_frame};
use ringway_gateway::connection::Connection;
use ringway_gateway::limits::IdleConnection;
use ringway_protocol::client::{ClientFrame, ServerFrame};
use ringway_protocol::ids::{ConversationId, MessageId, Seq, Timestamp};
use ringway_protocol::trunk::Outcome;

const SESSIONS: usize = 64;
const DEVICE: &str = "0123456789abcdef0123456789abcdef";

fn user_of(index: usize) -> String {
    format!("user-of-usual-length-{index:04}")
}

#[test]
fn an_idle_session_takes_what_the_limits_say_and_traffic_leaves_nothing_behind() {
    let mut gateway = Setup::default().start();
    drop(gateway.login("somebody", "first use of everything"));
    gateway.script.take();

    let idle = IdleConnection::new(user_of(0).len(), DEVICE.len());
    let mut sockets = Vec::with_capacity(SESSIONS);
    let before = LIVE.get();
    for index in 0..SESSIONS {
        let mut socket = gateway.login(&user_of(index), DEVICE);
        socket.received = Vec::new();
        sockets.push(socket);
    }
    assert!(gateway.script.take().is_empty());
    let counted = || (LIVE.get() - before) as usize;
    assert_eq!(counted(), SESSIONS * idle.on_heap(), "{idle:?}");
    assert!(size_of::<Connection>() < idle.entry, "a connection lies in its entry");

    // The first round lets the core's scratch space grow to what it needs; the second shows what it left.
    talk(&mut gateway, &mut sockets);
    rest(&mut gateway, &mut sockets);
    let settled = counted();
    talk(&mut gateway, &mut sockets);
    assert!(counted() > settled, "what is under way stays for the next message");
    rest(&mut gateway, &mut sockets);
    assert_eq!(counted(), settled, "bytes that traffic left behind");
    sockets.clear();
    assert_eq!(settled - counted(), SESSIONS * idle.on_heap(), "a session that talked is as small again");
}

/// Half a minute later each client beats its heart.
fn rest(gateway: &mut Gateway, sockets: &mut [Socket]) {
    gateway.now = gateway.now + 30_000;
    for socket in sockets {
        socket.send(gateway, &ClientFrame::Ping { nonce: None });
        assert!(matches!(socket.frames(gateway)[..], [ServerFrame::Pong(_)]));
        socket.received = Vec::new();
    }
}

/// Each client sends and is acked, and gets a message.
fn talk(gateway: &mut Gateway, sockets: &mut [Socket]) {
    for socket in sockets {
        for index in 0..20 {
            socket.send(gateway, &send_frame(7, &index.to_string(), "hello"));
        }
        for (request, _) in gateway.script.requests() {
            let sent = Outcome::Sent {
                conversation: ConversationId(7),
                message: MessageId(1),
                seq: Seq(1),
                server_ts: Timestamp(1),
                duplicate: false,
            };
            socket.reply(gateway, request, Ok(sent));
        }
        gateway.fan_out(&entry(7, 2, "bob", "hello"), &mut [socket]);
        assert_eq!(socket.frames(gateway).len(), 21);
        socket.received = Vec::new();
    }
}
