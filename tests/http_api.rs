//! The HTTP API of the real binary, as stories: sends without a socket, history by cursor, conversations,
//! the older spelling, and what nobody may see.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use support::{Answer, Http, Server};

/// A user who calls the API.
struct Caller {
    http: Http,
    token: String,
}

impl Caller {
    fn of(server: &Server, user: &str) -> Self {
        Self { http: server.http(), token: server.token(user) }
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.http.call(method, &format!("/api/v1{path}"), Some(&self.token), body.as_ref())
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        self.call("GET", path, None).expect(200).json()
    }

    #[track_caller]
    fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(body))
    }

    /// Makes a group and gives its id.
    #[track_caller]
    fn group(&self, members: &[&str]) -> String {
        let made = self.post("/conversations", json!({"type": "group", "name": "g", "member_ids": members}));
        made.expect(201).json()["conversation_id"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn say(&self, conversation: &str, key: &str, text: &str) -> Value {
        self.post("/messages", json!({"conversation_id": conversation, "client_msg_id": key, "text": text}))
            .expect(200)
            .json()
    }
}

fn texts(page: &Value) -> Vec<&str> {
    page["messages"].as_array().unwrap().iter().filter_map(|item| item["text"].as_str()).collect()
}

fn is_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let body = answer.json();
    assert_eq!((&body["code"], &body["status"]), (&json!(code), &json!(status)), "{body}");
    assert!(!body["detail"].as_str().unwrap().is_empty());
}

#[test]
fn a_send_without_a_socket_reaches_a_socket_and_history() {
    let server = Server::start(&[]);
    let mut bob = server.connect("bob");
    let alice = Caller::of(&server, "alice");
    let sent =
        alice.post("/messages", json!({"to": "bob", "client_msg_id": "c1", "text": "hi"})).expect(200).json();
    assert_eq!(sent["duplicate"], false);
    let live = bob.expect("message");
    for field in ["conversation_id", "message_id", "seq", "server_ts"] {
        assert_eq!(live[field], sent[field], "{field}");
    }
    assert_eq!((&live["from"], &live["text"]), (&json!("alice"), &json!("hi")));

    let again =
        alice.post("/messages", json!({"to": "bob", "client_msg_id": "c1", "text": "hi"})).expect(200).json();
    assert_eq!((&again["message_id"], &again["duplicate"]), (&sent["message_id"], &json!(true)));
    let other = alice.post("/messages", json!({"to": "bob", "client_msg_id": "c1", "text": "other"}));
    is_problem(&other, 409, "duplicate_conflict");

    let path = format!("/conversations/{}/messages", sent["conversation_id"].as_str().unwrap());
    assert_eq!(texts(&alice.get(&path)), ["hi"], "read your writes");
    assert_eq!(texts(&Caller::of(&server, "bob").get(&path)), ["hi"]);
}

#[test]
fn history_is_paged_by_cursor_in_both_directions() {
    let server = Server::start(&[]);
    let alice = Caller::of(&server, "alice");
    let group = alice.group(&["bob"]);
    for number in 1..=7 {
        alice.say(&group, &format!("c{number}"), &format!("m{number}"));
    }
    let path = format!("/conversations/{group}/messages");
    let newest = alice.get(&format!("{path}?limit=3"));
    assert_eq!(texts(&newest), ["m7", "m6", "m5"]);
    let cursor = newest["next_cursor"].as_str().unwrap();
    let older = alice.get(&format!("{path}?limit=3&before={cursor}"));
    assert_eq!(texts(&older), ["m4", "m3", "m2"]);
    let cursor = older["next_cursor"].as_str().unwrap();
    let oldest = alice.get(&format!("{path}?limit=3&before={cursor}"));
    assert_eq!(texts(&oldest), ["m1"]);
    assert_eq!(oldest["messages"][1]["kind"], "created");
    assert_eq!(oldest["next_cursor"], Value::Null);

    let mut seen = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let page = alice.get(&format!("{path}?limit=2&after={after}"));
        seen.extend(page["messages"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()));
        match page["next_cursor"].as_str() {
            Some(cursor) => after = cursor.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, (1..=8).collect::<Vec<u64>>(), "every seq once, ascending");

    let bob = Caller::of(&server, "bob");
    let cursor = newest["next_cursor"].as_str().unwrap();
    is_problem(&bob.call("GET", &format!("{path}?before={cursor}"), None), 400, "invalid");
    for bad in ["limit=0", "limit=201", "before=x", "before=1&after=1", "after=cAAAA"] {
        is_problem(&alice.call("GET", &format!("{path}?{bad}"), None), 400, "invalid");
    }
}

#[test]
fn a_conversation_is_made_listed_renamed_and_closed() {
    let server = Server::start(&[]);
    let alice = Caller::of(&server, "alice");
    let made = alice.post("/conversations", json!({"type": "group", "name": "Tea", "member_ids": ["bob"]}));
    let made = made.expect(201).json();
    assert_eq!(
        (&made["name"], &made["type"], &made["role"]),
        (&json!("Tea"), &json!("group"), &json!("owner"))
    );
    assert_eq!(made["member_count"], 2);
    let id = made["conversation_id"].as_str().unwrap();
    let renamed = alice.call("PATCH", &format!("/conversations/{id}"), Some(json!({"name": "Coffee"})));
    assert_eq!(renamed.expect(200).json()["seq"], 2);
    let sent = alice.say(id, "c1", "hello");
    let seen = Caller::of(&server, "bob").get(&format!("/conversations/{id}"));
    assert_eq!((&seen["name"], &seen["last_seq"]), (&json!("Coffee"), &sent["seq"]));
    assert_eq!(seen["last_message"]["text"], "hello");
    let list = alice.get("/conversations");
    assert_eq!(list["conversations"][0]["conversation_id"], id);

    let closed = alice.call("DELETE", &format!("/conversations/{id}"), None).expect(200).json();
    assert_eq!(closed["seq"], 4);
    let late = alice.post("/messages", json!({"conversation_id": id, "client_msg_id": "c2", "text": "x"}));
    assert!((400..500).contains(&late.status), "{}", late.text());
    assert!(alice.get("/conversations")["conversations"].as_array().unwrap().is_empty());
}

#[test]
fn the_list_is_paged() {
    let server = Server::start(&[]);
    let alice = Caller::of(&server, "alice");
    let mut made: Vec<String> = (0..5).map(|_| alice.group(&[])).collect();
    made.sort_by_key(|id| std::cmp::Reverse(id.parse::<u64>().unwrap()));
    let mut listed = Vec::new();
    let mut path = "/conversations?limit=2".to_owned();
    loop {
        let page = alice.get(&path);
        let conversations = page["conversations"].as_array().unwrap();
        assert!(conversations.len() <= 2);
        listed.extend(conversations.iter().map(|one| one["conversation_id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/conversations?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(listed, made);
}

#[test]
fn a_direct_conversation_is_one_for_its_pair_whoever_makes_it() {
    let server = Server::start(&[]);
    let (alice, bob) = (Caller::of(&server, "alice"), Caller::of(&server, "bob"));
    let made =
        alice.post("/conversations", json!({"type": "direct", "member_ids": ["bob"]})).expect(201).json();
    let again =
        bob.post("/conversations", json!({"type": "direct", "member_ids": ["alice"]})).expect(200).json();
    assert_eq!(made["conversation_id"], again["conversation_id"]);
    let sent =
        bob.post("/messages", json!({"to": "alice", "client_msg_id": "c", "text": "hi"})).expect(200).json();
    assert_eq!(sent["conversation_id"], made["conversation_id"]);
}

#[test]
fn an_idempotency_key_makes_one_conversation() {
    let server = Server::start(&[]);
    let (http, alice, bob) = (server.http(), server.token("alice"), server.token("bob"));
    let body = json!({"name": "once", "member_ids": []}).to_string();
    let make = |token: &str, key: &str| {
        let headers = [("idempotency-key", key)];
        http.call_with("POST", "/api/v1/conversations", Some(token), &headers, &body)
    };
    let first = make(&alice, "k1").expect(201).json();
    let again = make(&alice, "k1").expect(200).json();
    assert_eq!(first["conversation_id"], again["conversation_id"]);
    assert_ne!(make(&alice, "k2").json()["conversation_id"], first["conversation_id"]);
    assert_ne!(
        make(&bob, "k1").json()["conversation_id"],
        first["conversation_id"],
        "keys are each user's own"
    );
    is_problem(&make(&alice, &"k".repeat(65)), 400, "invalid");
}

#[test]
fn an_idempotency_key_with_another_body_is_a_conflict() {
    let server = Server::start(&[]);
    let (http, alice) = (server.http(), server.token("alice"));
    let make_at = |path: &str, body: Value| {
        let headers = [("idempotency-key", "k1")];
        http.call_with("POST", &format!("/api/v1{path}"), Some(&alice), &headers, &body.to_string())
    };
    let make = |name: &str, members: &[&str]| {
        make_at("/conversations", json!({"name": name, "member_ids": members}))
    };
    let first = make("tea", &["bob", "carol"]).expect(201).json();
    let id = first["conversation_id"].as_str().unwrap();
    for (name, members) in
        [("coffee", &["bob", "carol"][..]), ("tea", &["bob"]), ("tea", &["bob", "dora"]), ("tea", &[])]
    {
        is_problem(&make(name, members), 409, "duplicate_conflict");
    }
    is_problem(&make_at("/chats", json!({"name": "x", "memberIds": ["bob"]})), 409, "duplicate_conflict");
    let same = |answer: Answer| assert_eq!(answer.expect(200).json()["conversation_id"], id);
    same(make("tea", &["carol", "bob", "bob", "alice"]));
    same(make_at("/chats", json!({"name": "tea", "memberIds": ["bob", "carol"]})));

    // What the group became since is not what its key was used for.
    let caller = Caller::of(&server, "alice");
    caller.call("PATCH", &format!("/conversations/{id}"), Some(json!({"name": "coffee"}))).expect(200);
    caller.call("DELETE", &format!("/conversations/{id}/members/bob"), None).expect(200);
    same(make("tea", &["bob", "carol"]));
    is_problem(&make("coffee", &["carol"]), 409, "duplicate_conflict");
    assert_eq!(caller.get("/conversations")["conversations"].as_array().unwrap().len(), 1);
}

#[test]
fn members_come_and_go_and_see_what_was_theirs() {
    let server = Server::start(&[]);
    let (alice, carol) = (Caller::of(&server, "alice"), Caller::of(&server, "carol"));
    let group = alice.group(&["bob"]);
    alice.say(&group, "c1", "before carol");
    let path = format!("/conversations/{group}/members/carol");
    let joined = alice.call("PUT", &path, Some(json!({"role": "member"}))).expect(200).json();
    alice.say(&group, "c2", "with carol");
    let again = alice.call("PUT", &path, Some(json!({}))).expect(200).json();
    assert_eq!(again["seq"], Value::Null, "nothing to change");
    let left = alice.call("DELETE", &path, None).expect(200).json();
    alice.say(&group, "c3", "after carol");

    let history =
        carol.call("GET", &format!("/conversations/{group}/messages?after=0"), None).expect(200).json();
    assert_eq!(texts(&history), ["with carol"]);
    let seqs: Vec<&Value> = history["messages"].as_array().unwrap().iter().map(|item| &item["seq"]).collect();
    assert_eq!((seqs[0], seqs[seqs.len() - 1]), (&joined["seq"], &left["seq"]));
    is_problem(
        &carol.post("/messages", json!({"conversation_id": group, "client_msg_id": "x", "text": "x"})),
        404,
        "not_found",
    );
    is_problem(&carol.call("GET", &format!("/conversations/{group}"), None), 404, "not_found");
    is_problem(&alice.call("PUT", &path, Some(json!({"role": "owner"}))), 400, "invalid");
}

#[test]
fn what_a_stranger_may_not_know_of_looks_like_what_is_not_there() {
    let server = Server::start(&[]);
    let alice = Caller::of(&server, "alice");
    let group = alice.group(&["bob"]);
    alice.say(&group, "c1", "secret");
    let strangers = [
        server.token("eve"),
        server.token_of(&ringway_protocol::user::UserId::new("other", "alice").unwrap(), None, 600),
    ];
    let calls: [(&str, &str, Option<Value>); 8] = [
        ("GET", "/conversations/{id}", None),
        ("GET", "/conversations/{id}/messages", None),
        ("GET", "/chats/{id}/messages?cursor=", None),
        ("PATCH", "/conversations/{id}", Some(json!({"name": "mine"}))),
        ("DELETE", "/conversations/{id}", None),
        ("PUT", "/conversations/{id}/members/eve", Some(json!({}))),
        ("DELETE", "/conversations/{id}/members/bob", None),
        ("POST", "/messages", Some(json!({"conversation_id": "{id}", "client_msg_id": "c", "text": "x"}))),
    ];
    for token in strangers {
        let eve = Caller { http: server.http(), token };
        for (method, path, body) in &calls {
            let ask = |id: &str| {
                let body = body.as_ref().map(|body| {
                    serde_json::from_str::<Value>(&body.to_string().replace("{id}", id)).unwrap()
                });
                eve.call(method, &path.replace("{id}", id), body)
            };
            let (there, nowhere) = (ask(&group), ask("12345"));
            is_problem(&there, 404, "not_found");
            assert_eq!(there.text(), nowhere.text(), "{method} {path}");
            let mut names: [Vec<String>; 2] =
                [&there, &nowhere].map(|answer| answer.headers.keys().map(ToString::to_string).collect());
            names.iter_mut().for_each(|names| names.sort());
            assert_eq!(names[0], names[1]);
        }
    }
    assert_eq!(alice.get(&format!("/conversations/{group}"))["name"], "g", "nothing was changed");
}

#[test]
fn fields_that_only_the_server_gives_are_ignored() {
    let server = Server::start(&[]);
    let alice = Caller::of(&server, "alice");
    let sent = alice.post("/messages", json!({"to": "bob", "client_msg_id": "c", "text": "hi",
        "from": "mallory", "sender_id": "mallory", "seq": 99, "message_id": "1", "server_ts": 1, "role": "owner"}));
    let sent = sent.expect(200).json();
    let path = format!("/conversations/{}/messages", sent["conversation_id"].as_str().unwrap());
    let message = &alice.get(&path)["messages"][0];
    assert_eq!((&message["from"], &message["seq"]), (&json!("alice"), &json!(2)));
    assert_ne!(message["message_id"], "1");
}

#[test]
fn the_older_spelling_tells_the_same_story() {
    let server = Server::start(&[]);
    let alice = Caller::of(&server, "alice");
    let made = alice.post("/chats", json!({"name": "Tea", "memberIds": ["bob"]})).expect(201).json();
    assert_eq!(made["chatId"], made["conversation_id"]);
    assert_eq!(made["memberCount"], 2);
    let chat = made["chatId"].as_str().unwrap();
    for number in 1..=3 {
        let body = json!({"chatId": chat, "content": format!("m{number}"), "type": "text", "clientMsgId": format!("c{number}")});
        let sent = alice.post("/messages", body).expect(200).json();
        assert_eq!((&sent["chatId"], &sent["messageId"]), (&sent["conversation_id"], &sent["message_id"]));
        assert_eq!(sent["serverTs"], sent["server_ts"]);
    }
    let newest = alice.get(&format!("/chats/{chat}/messages?cursor=&limit=2"));
    assert_eq!(newest["messages"][0]["content"], "m3");
    assert_eq!(newest["messages"][0]["text"], "m3");
    assert_eq!(
        (&newest["messages"][0]["senderId"], &newest["messages"][0]["type"]),
        (&json!("alice"), &json!("text"))
    );
    let cursor = newest["nextCursor"].as_str().unwrap();
    assert_eq!(newest["next_cursor"], cursor);
    let older = alice.get(&format!("/chats/{chat}/messages?cursor={cursor}&limit=2"));
    assert_eq!(older["messages"][0]["content"], "m1");
    assert_eq!(alice.get(&format!("/chats/{chat}/messages"))["messages"][0]["content"], "m3");
}

#[test]
fn bodies_that_are_not_as_documented_are_problems() {
    let server = Server::start(&["--limits.max_frame_bytes", "4096"]);
    let (http, token) = (server.http(), server.token("alice"));
    let post = |body: &str| http.call_with("POST", "/api/v1/messages", Some(&token), &[], body);
    is_problem(&post("{\"to\":"), 400, "bad_frame");
    is_problem(&post("[]"), 400, "invalid");
    is_problem(&post("{\"to\": 7}"), 400, "invalid");
    is_problem(&post("{}"), 400, "invalid");
    let values =
        http.call_with("POST", "/api/v1/conversations", Some(&token), &[], r#"["group", "g", ["bob"]]"#);
    is_problem(&values, 400, "invalid");
    let get = |path: &str| http.get(&format!("/api/v1{path}"), Some(&token));
    is_problem(&get("/conversations?limit=1&limit=2"), 400, "invalid");
    is_problem(&get("/conversations/1/messages?limit=1&limit=2"), 400, "invalid");
    is_problem(&get("/chats/1/messages?cursor=a&cursor=b"), 400, "invalid");
    is_problem(&get("/conversations/%ff"), 400, "invalid");
    let member = http.call("DELETE", "/api/v1/conversations/1/members/%ff", Some(&token), None);
    is_problem(&member, 400, "invalid");
    let long = post(&json!({"to": "bob", "client_msg_id": "c", "text": "x".repeat(5000)}).to_string());
    is_problem(&long, 413, "too_large");
    assert_eq!(long.header("connection"), "close", "the body was not read");
    is_problem(&http.get("/api/v1/conversations", None), 401, "unauthorized");
    is_problem(&http.get("/api/v1/nothing", Some(&token)), 404, "not_found");
    let wrong = http.call("PUT", "/api/v1/messages", Some(&token), None);
    is_problem(&wrong, 405, "method_not_allowed");
    assert!(wrong.header("allow").contains("POST"));
}

#[test]
fn a_number_in_a_url_has_one_spelling() {
    let server = Server::start(&[]);
    let alice = Caller::of(&server, "alice");
    let group = alice.group(&["bob"]);
    alice.say(&group, "c1", "hi");
    for id in [format!("0{group}"), format!("+{group}"), format!("%2B{group}"), format!("%20{group}")] {
        for (method, path, body) in [
            ("GET", "", None),
            ("GET", "/messages", None),
            ("PATCH", "", Some(json!({"name": "n"}))),
            ("PUT", "/members/carol", Some(json!({}))),
            ("DELETE", "", None),
        ] {
            let answer = alice.call(method, &format!("/conversations/{id}{path}"), body);
            is_problem(&answer, 400, "invalid");
            assert!(answer.text().contains("leading zeros"), "{}", answer.text());
        }
        is_problem(&alice.call("GET", &format!("/chats/{id}/messages"), None), 400, "invalid");
    }
    let path = format!("/conversations/{group}/messages");
    for query in ["limit=01", "limit=%2B1", "before=02", "before=%2B2", "after=00", "after=%2B0"] {
        let answer = alice.call("GET", &format!("{path}?{query}"), None);
        is_problem(&answer, 400, "invalid");
        assert!(answer.text().contains("leading zeros"), "{}", answer.text());
    }
    is_problem(&alice.call("GET", "/conversations?limit=01", None), 400, "invalid");
    let body = json!({"conversation_id": format!("0{group}"), "client_msg_id": "c2", "text": "x"});
    is_problem(&alice.post("/messages", body), 400, "invalid");
    let seen = alice.get(&format!("/conversations/{group}"));
    assert_eq!((&seen["name"], &seen["member_count"]), (&json!("g"), &json!(2)), "nothing was changed");
}

#[test]
fn a_token_in_the_url_is_refused_under_any_name() {
    let server = Server::start(&[]);
    let (http, token) = (server.http(), server.token("alice"));
    for path in ["/api/v1/conversations", "/api/v1/openapi.json", "/", "/nowhere"] {
        for query in [format!("t={token}"), format!("limit=5&x=Bearer%20{token}"), token.replace('e', "%65")]
        {
            let answer = http.get(&format!("{path}?{query}"), Some(&token));
            is_problem(&answer, 400, "invalid");
            assert!(!answer.text().contains(&token), "it is not repeated");
        }
    }
    http.get("/api/v1/conversations?x=a.b.c", Some(&token)).expect(200);
}

#[test]
fn a_request_names_one_host() {
    let server = Server::start(&[]);
    let status = |head: &str| {
        let mut stream = TcpStream::connect(server.ws()).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        write!(stream, "{head}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let get = "GET /api/v1/openapi.json HTTP/1.1";
    assert_eq!(status(&format!("{get}\r\nHost: a")), "200");
    assert_eq!(status(&format!("{get}\r\nHost: a\r\nHost: b")), "400");
    assert_eq!(status(&format!("{get}\r\nAccept: */*")), "400");
    assert_eq!(status("GET /api/v1/openapi.json HTTP/1.0"), "200", "that version had no Host");
}

#[test]
fn too_many_requests_are_told_to_wait() {
    let server = Server::start(&["--limits.send_per_s", "1", "--limits.send_burst", "3"]);
    let alice = Caller::of(&server, "alice");
    let send = |key: usize| {
        alice.post("/messages", json!({"to": "bob", "client_msg_id": format!("c{key}"), "text": "x"}))
    };
    let limited = (0..20).map(send).find(|answer| answer.status != 200).expect("a burst of 3 is over");
    is_problem(&limited, 429, "rate_limited");
    assert!(limited.header("retry-after").parse::<u64>().unwrap() >= 1);
    let bob = Caller::of(&server, "bob");
    bob.post("/messages", json!({"to": "alice", "client_msg_id": "c", "text": "x"})).expect(200);
}

#[test]
fn a_head_costs_what_a_get_costs() {
    let server = Server::start(&["--limits.send_per_s", "1", "--limits.send_burst", "3"]);
    let alice = Caller::of(&server, "alice");
    let path = format!("/conversations/{}", alice.group(&["bob"]));
    let look = || alice.call("HEAD", &path, None);
    let seen = look().expect(200);
    assert!(seen.text().is_empty() && seen.header("content-length").parse::<u64>().unwrap() > 0);
    let limited = (0..20).map(|_| look()).find(|answer| answer.status != 200).expect("a burst of 3 is over");
    assert_eq!(limited.status, 429);
    assert_eq!(alice.call("GET", &path, None).status, 429, "a read like these");
    let body = json!({"to": "bob", "client_msg_id": "c", "text": "x"});
    alice.post("/messages", body).expect(200);
}

#[test]
fn the_page_logs_in_with_a_development_token_from_this_machine_only() {
    let server = Server::start(&[]);
    for http in [server.http(), server.https()] {
        let answer =
            http.call("POST", "/dev/token", None, Some(&json!({"user": "alice"}))).expect(200).json();
        let token = answer["token"].as_str().unwrap();
        http.get("/api/v1/conversations", Some(token)).expect(200);
    }
    let body = json!({"user": "alice"}).to_string();
    let http = server.http();
    let foreign = http.call_with("POST", "/dev/token", None, &[("host", "evil.example")], &body);
    is_problem(&foreign, 403, "forbidden");
    let form = http.call_with("POST", "/dev/token", None, &[("content-type", "text/plain")], &body);
    is_problem(&form, 400, "invalid");
    is_problem(&http.call("POST", "/dev/token", None, Some(&json!({"user": ""}))), 400, "invalid");
    let cross = http.call_with(
        "GET",
        "/api/v1/conversations",
        Some(&server.token("alice")),
        &[("origin", "https://evil.example")],
        "",
    );
    assert_eq!(cross.header("access-control-allow-origin"), "", "no other origin may read");
}

#[test]
fn the_document_describes_the_calls() {
    let server = Server::start(&[]);
    let document = server.http().get("/api/v1/openapi.json", None).expect(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.contains_key("/api/v1/messages") && paths.contains_key("/api/v1/chats/{chatId}/messages"));
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    let mut names: Vec<&str> =
        document["components"]["schemas"].as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert!(names.contains(&"Problem") && names.contains(&"SendRequest"), "{names:?}");
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(names.contains(&name), "{name} is described nowhere");
    }
}

#[test]
fn the_document_lists_the_problems_of_every_call() {
    let server = Server::start(&[]);
    let document = server.http().get("/api/v1/openapi.json", None).expect(200).json();
    let always = ["400", "401", "429", "503"];
    let with_body = ["408", "413"];
    let mut seen = 0;
    for (call, others) in [
        ("post /messages", &["200", "404", "409"][..]),
        ("get /conversations/{id}/messages", &["200", "404"]),
        ("post /conversations", &["200", "201", "404", "409"]),
        ("get /conversations", &["200"]),
        ("get /conversations/{id}", &["200", "404"]),
        ("patch /conversations/{id}", &["200", "403", "404", "409"]),
        ("delete /conversations/{id}", &["200", "403", "404", "409"]),
        ("put /conversations/{id}/members/{user}", &["200", "403", "404", "409"]),
        ("delete /conversations/{id}/members/{user}", &["200", "403", "404", "409"]),
        ("post /chats", &["200", "201", "404", "409"]),
        ("get /chats/{chatId}/messages", &["200", "404"]),
    ] {
        let (method, path) = call.split_once(' ').unwrap();
        let operation = &document["paths"][format!("/api/v1{path}")][method];
        let mut expected: Vec<&str> = always.iter().chain(others).copied().collect();
        if operation.get("requestBody").is_some() {
            expected.extend(with_body);
        }
        expected.sort_unstable();
        let answers = operation["responses"].as_object().unwrap_or_else(|| panic!("{call} is not there"));
        let mut statuses: Vec<&str> = answers.keys().map(String::as_str).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, expected, "{call}");
        for (status, answer) in answers.iter().filter(|(status, _)| !status.starts_with('2')) {
            let schema = &answer["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Problem", "{call} {status}");
            assert!(!answer["description"].as_str().unwrap().is_empty(), "{call} {status}");
        }
        seen += 1;
    }
    let all: usize = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|path| path.as_object().unwrap().keys().filter(|key| *key != "parameters").count())
        .sum();
    assert_eq!(seen, all, "a call without a row here");
}

#[test]
fn metrics_of_all_parts_are_on_the_admin_port_and_name_nobody() {
    let server = Server::start(&[]);
    let mut alice = server.connect("alice-of-the-metrics");
    alice.say_to_user("bob-of-the-metrics", "hi");
    let page = server.metrics();
    for part in [
        "ringway_gateway_",
        "ringway_router_",
        "ringway_store_",
        "ringway_http_",
        "process_resident_memory_bytes",
    ] {
        assert!(page.lines().any(|line| line.starts_with(part)), "{part}");
    }
    assert!(!page.contains("of-the-metrics"));
    let mut seen = std::collections::BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("# TYPE ")) {
        assert!(seen.insert(line), "twice: {line}");
    }
    assert_eq!(server.admin_http().get("/nothing", None).status, 404);
}

#[test]
fn a_connection_serves_many_requests_and_pipelined_ones_in_order() {
    use std::io::{Read as _, Write as _};
    let server = Server::start(&[]);
    let mut stream = std::net::TcpStream::connect(server.ws()).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(format!("{}{}{}", one("/style.css"), one("/ws"), one("/nothing")).as_bytes()).unwrap();
    let mut text = Vec::new();
    let statuses = |text: &[u8]| -> Vec<String> {
        String::from_utf8_lossy(text)
            .split("HTTP/1.1 ")
            .skip(1)
            .map(|answer| answer[..3].to_owned())
            .collect()
    };
    while statuses(&text).len() < 3 {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).expect("three answers");
        assert!(count > 0, "closed after {:?}", statuses(&text));
        text.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(statuses(&text), ["200", "400", "404"]);
}
