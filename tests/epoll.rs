//! The real binary on epoll: a chat over wss and ws, HTTP both ways, a drain; what is said of it at the start, by
//! `ringway check` and on the metrics page; and what does not fit the limit on open files.

mod support;

use serde_json::json;
use support::{Server, run_in, wait_for};

/// A text as long as a message may be with room for its escapes: several reads and sends of a socket.
const LONG: usize = 48 * 1024;

#[test]
fn a_service_on_epoll_chats_takes_uploads_and_drains() {
    let mut server = Server::start(&["--gateway.io", "epoll", "--drain.within_s", "2"]);
    let printed = wait_for("what serve prints", || {
        let printed = server.stdout();
        printed.contains("Tokens for other clients").then_some(printed)
    });
    let kernel = printed.lines().find(|line| line.trim_start().starts_with("kernel")).expect("a line");
    assert!(kernel.contains("epoll") && kernel.contains("open files at most"), "{kernel}");
    assert!(!server.stderr().contains("WARN"), "who chose it is not warned: {}", server.stderr());
    assert!(server.metrics().contains("ringway_gateway_io_info{io=\"epoll\"} 1\n"), "{}", server.metrics());

    let mut alice = server.connect_tls("alice");
    let mut bob = server.connect("bob");
    let first = alice.say_to_user("bob", "over wss");
    assert_eq!(bob.expect("message")["text"], "over wss");
    let conversation = first["conversation_id"].as_str().unwrap().to_owned();
    for round in 0..50 {
        bob.say(&conversation, &format!("over ws {round}"));
        assert_eq!(
            alice.take("bob's word", |frame| frame["from"] == "bob")["text"],
            format!("over ws {round}")
        );
    }

    let long = "x".repeat(LONG);
    for (http, key) in [(server.http(), "plain"), (server.https(), "tls")] {
        let body = json!({"conversation_id": conversation, "client_msg_id": key, "text": long});
        http.post("/api/v1/messages", &server.token("carol"), &body).expect(404);
        http.post("/api/v1/messages", &server.token("alice"), &body).expect(200);
        assert_eq!(bob.take("the long one", |frame| frame["text"] == long)["from"], "alice");
    }
    let path = format!("/api/v1/conversations/{conversation}/messages?limit=1");
    for http in [server.http(), server.https()] {
        let newest = http.get(&path, Some(&server.token("bob"))).expect(200).json();
        assert!(newest["messages"][0]["text"] == long, "it is read back: {newest}");
    }

    server.signal("TERM");
    for client in [&mut alice, &mut bob] {
        client.expect("reconnect");
        assert_eq!(client.read_to_end().code, Some(4200));
    }
    let ended = server.wait_ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("drained"), "{ended:?}");
}

#[test]
fn check_says_what_will_carry_the_sockets() {
    let folder = tempfile::tempdir().unwrap();
    for (flag, said) in [("epoll", "epoll"), ("auto", "io_uring"), ("io_uring", "io_uring")] {
        let checked = run_in(folder.path(), &["check", "--io", flag]);
        assert_eq!(checked.code, Some(0), "{checked:?}");
        let kernel = checked.stdout.lines().find(|line| line.starts_with("# kernel: ")).expect("a line");
        assert!(kernel.contains(said), "{flag}: {kernel}");
        assert!(checked.stdout.contains(&format!("io = \"{flag}\" ")), "{}", checked.stdout);
    }
    let checked = run_in(folder.path(), &["check", "--io", "kqueue"]);
    assert_eq!(checked.code, Some(2), "{checked:?}");
    assert!(checked.stderr.contains("\"epoll\""), "it says what there is: {checked:?}");
}

#[test]
fn more_connections_than_open_files_are_refused_with_the_limit_that_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let many = ["--gateway.io", "epoll", "--gateway.connections_max", "3000000"];
    for ended in
        [run_in(folder.path(), &[&["check"], &many[..]].concat()), Server::fail_in(folder.path(), &many)]
    {
        assert_eq!(ended.code, Some(5), "{ended:?}");
        assert!(ended.stderr.contains("ulimit -n"), "{ended:?}");
    }
}
