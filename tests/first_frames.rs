//! What the author of a client meets first, on the real binary: frames that are wrong, and what they are told.
//!
//! The readers' own tests are in `protocol/`; here it is what a wrong frame does to the socket.

mod support;

use serde_json::{Value, json};
use support::{Client, Server};

/// The answer to one frame.
fn answer(client: &mut Client, frame: &Value) -> Value {
    client.send_frame(frame);
    client.expect("error")
}

#[test]
fn an_outbox_of_sends_that_make_no_sense_does_not_cost_the_socket() {
    let server = Server::start(&[]);
    let mut alice = server.connect("alice");
    for number in 0..30 {
        let id = format!("empty-{number}");
        let error =
            answer(&mut alice, &json!({"type": "send", "to": "bob", "client_msg_id": id, "text": ""}));
        assert_eq!((&error["code"], &error["client_msg_id"]), (&json!("invalid"), &json!(id)), "{error}");
    }
    alice.say_to_user("bob", "this one does");
    for _ in 0..9 {
        assert_eq!(answer(&mut alice, &json!({"type": "typing", "active": true}))["code"], "bad_frame");
    }
    alice.send_frame(&json!({"type": "typing", "active": true}));
    assert_eq!(alice.read_to_end().code, Some(4000), "ten that are no frames of ours in a row");
}

#[test]
fn wrong_frames_cost_their_rate_too() {
    let server = Server::start(&[]);
    let mut alice = server.connect("alice");
    let mut refused = false;
    // Each good one forgives the nine before it; past 200 in a burst they are refused for their number.
    for _ in 0..60 {
        for _ in 0..9 {
            refused |= answer(&mut alice, &json!({"type": "typing"}))["code"] == "rate_limited";
        }
        if refused {
            break;
        }
        alice.rest();
    }
    assert!(refused, "540 wrong frames in a row of their own were all answered");
}

#[test]
fn whatever_is_not_a_good_hello_ends_a_socket_that_said_none() {
    let server = Server::start(&[]);
    for first in [
        json!({"type": "ping"}),
        json!({"type": "typing", "active": true}),
        json!({"type": "send", "to": "bob"}),
        json!({"type": "hello", "token": 7}),
        json!({"type": "hello", "token": server.token("alice"), "device_id": ""}),
    ] {
        let mut client = Client::open(server.ws());
        client.send_frame(&first);
        assert_eq!(client.read_to_end().code, Some(4001), "{first}");
    }
    let mut client = Client::open(server.ws());
    client.send_text("{");
    assert_eq!(client.expect("error")["code"], "bad_frame", "what is no frame is told");
    client.hello(&server.token("alice"));
}
