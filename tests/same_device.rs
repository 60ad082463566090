//! Two sockets of one device: the one that connected later stays, whichever says `hello` first and whichever
//! cores they are on.

mod support;

use serde_json::json;
use support::{Client, Server};

/// Pairs of sockets for each order: with two cores, nearly sure to meet on one and on two of them.
const PAIRS: usize = 8;

#[test]
fn the_newer_socket_of_a_device_stays_and_the_older_reads_4009() {
    let server = Server::start(&["--gateway.cores", "2"]);
    let token = server.token("alice");
    let hello = |device: &str| json!({"type": "hello", "token": token, "device_id": device});
    for pair in 0..PAIRS {
        let device = format!("phone-{pair}");
        let (mut older, mut newer) = (Client::open(server.ws()), Client::open(server.ws()));
        older.hello_with(hello(&device));
        newer.hello_with(hello(&device));
        assert_eq!(older.read_to_end().code, Some(4009), "the usual order, pair {pair}");
        assert_eq!(newer.rest(), Vec::<serde_json::Value>::new());

        let device = format!("tablet-{pair}");
        let (mut older, mut newer) = (Client::open(server.ws()), Client::open(server.ws()));
        newer.hello_with(hello(&device));
        older.send_frame(&hello(&device));
        assert_eq!(older.read_to_end().code, Some(4009), "the late hello of the older, pair {pair}");
        assert_eq!(newer.rest(), Vec::<serde_json::Value>::new());
    }
}

#[test]
fn hellos_of_one_moment_leave_the_newer_socket() {
    let server = Server::start(&["--gateway.cores", "2"]);
    let token = server.token("alice");
    for pair in 0..PAIRS {
        let hello = json!({"type": "hello", "token": token, "device_id": format!("phone-{pair}")});
        let (mut older, mut newer) = (Client::open(server.ws()), Client::open(server.ws()));
        newer.send_frame(&hello);
        older.send_frame(&hello);
        newer.expect("welcome");
        assert_eq!(older.read_to_end().code, Some(4009), "pair {pair}");
        assert_eq!(newer.rest(), Vec::<serde_json::Value>::new());
    }
}
