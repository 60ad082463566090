//! Tokens on the real binary: `ringway token`, key sets from a file and a URL, and what may not get in.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::PublicKeyData as _;
use ringway_protocol::user::UserId;
use serde_json::{Value, json};
use support::{Client, Server, run_in, wait_for};

/// An issuer of tokens with an Ed25519 key.
struct Issuer {
    key: rcgen::KeyPair,
    kid: String,
}

impl Issuer {
    fn new(kid: &str) -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        Self { key, kid: kid.to_owned() }
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.der_bytes());
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.kid, "x": x})
    }

    fn token(&self, claims: &Value) -> String {
        let mut header = jsonwebtoken::Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(&self.key.serialize_der())).unwrap()
    }

    fn token_of(&self, user: &str) -> String {
        self.token(
            &json!({"sub": user, "exp": now_seconds() + 600, "iss": "https://id.example", "aud": "chat"}),
        )
    }
}

fn now_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn jwks(issuers: &[&Issuer]) -> String {
    json!({"keys": issuers.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>()}).to_string()
}

/// The status of a call that any user may make.
fn status(server: &Server, token: &str) -> u16 {
    server.http().get("/api/v1/conversations", Some(token)).status
}

#[test]
fn token_prints_one_token_and_nothing_else() {
    let server = Server::start(&[]);
    let printed = run_in(server.folder(), &["token", "alice", "--device", "phone"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let token = printed.stdout.strip_suffix('\n').unwrap();
    assert_eq!(token.split('.').count(), 3);
    assert!(!token.contains(char::is_whitespace));
    let mut alice = Client::open(server.ws());
    let welcome = alice.hello(token);
    assert_eq!((&welcome["user_id"], &welcome["device_id"]), (&json!("alice"), &json!("phone")));
    let tokens = run_in(server.folder(), &["token", "--prefix", "u", "--count", "3"]);
    let lines: Vec<&str> = tokens.stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    for (number, line) in lines.iter().enumerate() {
        let (user, token) = line.split_once(' ').unwrap();
        assert_eq!(user, format!("u{number}"));
        assert_eq!(status(&server, token), 200);
    }
}

#[test]
fn token_says_what_is_missing_where_nothing_serves() {
    let folder = tempfile::tempdir().unwrap();
    let refused = run_in(folder.path(), &["token", "alice"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(7), ""));
    assert!(refused.stderr.contains("run this in the folder where `ringway serve` runs"), "{refused:?}");
    let server = Server::start(&[]);
    for words in [&["token", ""][..], &["token", "a", "--life", "100000000"], &["token", "a", "--device", ""]]
    {
        let refused = run_in(server.folder(), words);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{words:?}");
    }
}

#[test]
fn a_token_in_the_url_is_refused() {
    let server = Server::start(&[]);
    let token = server.token("alice");
    let path = format!("/api/v1/conversations?token={token}&access_token={token}");
    assert_eq!(server.http().get(&path, None).status, 400);
}

#[test]
fn tokens_of_another_secret_or_too_long_a_life_are_refused() {
    let (server, other) = (Server::start(&[]), Server::start(&[]));
    assert_eq!(status(&server, &other.token("alice")), 401);
    let user = UserId::new("", "alice").unwrap();
    assert_eq!(status(&server, &server.token_of(&user, None, 100_000)), 401);
    assert_eq!(status(&server, "nonsense"), 401);
    assert_eq!(status(&server, &server.token("alice")), 200);
}

#[test]
fn a_key_set_file_verifies_and_is_read_again_on_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Issuer::new("one"), Issuer::new("two"));
    let path = folder.path().join("keys.json");
    std::fs::write(&path, jwks(&[&first])).unwrap();
    let flags =
        ["--auth.jwks_file", "keys.json", "--auth.issuer", "https://id.example", "--auth.audience", "chat"];
    let server = Server::start_in(folder.path(), &flags);
    assert_eq!(status(&server, &first.token_of("alice")), 200);
    assert_eq!(status(&server, &second.token_of("alice")), 401);
    let foreign = first.token(
        &json!({"sub": "alice", "exp": now_seconds() + 600, "iss": "https://evil.example", "aud": "chat"}),
    );
    assert_eq!(status(&server, &foreign), 401);
    assert!(!server.data_folder().join("dev-signing-key").exists(), "no development key beside an issuer");
    let login = server.http().call("POST", "/dev/token", None, Some(&json!({"user": "alice"})));
    assert_eq!(login.status, 404);
    assert!(!server.stdout().contains("Log in"), "{}", server.stdout());

    // A rotation with both keys live, then a file that is no key set: the keys stay.
    std::fs::write(&path, jwks(&[&first, &second])).unwrap();
    server.signal("HUP");
    wait_for("the second key", || (status(&server, &second.token_of("bob")) == 200).then_some(()));
    assert_eq!(status(&server, &first.token_of("alice")), 200);
    std::fs::write(&path, "no keys").unwrap();
    server.signal("HUP");
    wait_for("the refusal", || server.stderr().contains("the old ones serve on").then_some(()));
    assert_eq!(status(&server, &first.token_of("alice")), 200);
}

#[test]
fn a_bad_key_set_file_is_an_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keys.json"), r#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#).unwrap();
    let ended = Server::fail_in(folder.path(), &["--auth.jwks_file", "keys.json"]);
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert!(ended.stderr.contains("no usable key"), "{ended:?}");
}

/// A key set endpoint that can be taken down and counts what is asked of it.
struct Endpoint {
    address: SocketAddr,
    keys: Arc<Mutex<String>>,
    is_down: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Endpoint {
    fn start(keys: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Self {
            address: listener.local_addr().unwrap(),
            keys: Arc::new(Mutex::new(keys)),
            is_down: Arc::default(),
            asked: Arc::default(),
        };
        let (keys, is_down, asked) =
            (Arc::clone(&endpoint.keys), Arc::clone(&endpoint.is_down), Arc::clone(&endpoint.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                asked.fetch_add(1, Ordering::SeqCst);
                let mut head = [0; 4096];
                let _ = stream.read(&mut head);
                let body = keys.lock().unwrap().clone();
                let answer = match is_down.load(Ordering::SeqCst) {
                    true => "HTTP/1.1 500 Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
                    false => format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                        body.len()
                    ),
                };
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        endpoint
    }

    fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }
}

#[test]
fn keys_at_a_url_outlive_their_endpoint_and_follow_a_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Issuer::new("one"), Issuer::new("two"));
    let endpoint = Endpoint::start(jwks(&[&first]));
    let url = endpoint.url();
    let flags = ["--auth.jwks_url", url.as_str()];
    let mut server = Server::start_in(folder.path(), &flags);
    assert_eq!(status(&server, &first.token_of("alice")), 200);
    server.kill();
    drop(server);

    endpoint.is_down.store(true, Ordering::SeqCst);
    let server = Server::start_in(folder.path(), &flags);
    assert_eq!(status(&server, &first.token_of("alice")), 200, "the keys kept on disk serve");

    endpoint.is_down.store(false, Ordering::SeqCst);
    *endpoint.keys.lock().unwrap() = jwks(&[&first, &second]);
    let before = endpoint.asked.load(Ordering::SeqCst);
    // Unknown keys make it look again, and never more than once in ten seconds.
    for _ in 0..50 {
        assert_eq!(status(&server, &Issuer::new("nobody").token_of("eve")), 401);
    }
    wait_for("the rotated key", || (status(&server, &second.token_of("bob")) == 200).then_some(()));
    assert!(endpoint.asked.load(Ordering::SeqCst) - before <= 3, "fetches are limited");
}

#[test]
fn a_url_that_never_answered_is_an_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(String::new());
    endpoint.is_down.store(true, Ordering::SeqCst);
    let ended = Server::fail_in(folder.path(), &["--auth.jwks_url", &endpoint.url()]);
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert!(ended.stderr.contains("no key set of an earlier run is kept"), "{ended:?}");
}
