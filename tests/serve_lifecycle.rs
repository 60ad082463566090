//! The life of `ringway serve`: first start, refusals with their exit codes, drain, reload, restart.

mod support;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Client, Server, wait_for};

#[test]
fn the_first_start_makes_what_it_needs_and_says_where_it_is() {
    let server = Server::start(&[]);
    let data = server.data_folder();
    for (file, mode) in
        [("dev-signing-key", 0o600), ("resume-key", 0o600), ("tls/dev-key.pem", 0o600), ("run.json", 0o600)]
    {
        let permissions = std::fs::metadata(data.join(file)).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, mode, "{file}");
    }
    let printed = wait_for("what serve prints", || {
        let printed = server.stdout();
        printed.contains("Tokens for other clients").then_some(printed)
    });
    for part in [
        format!("wss://{}/ws", server.wss()),
        format!("ws://{}/ws", server.ws()),
        format!("https://{}/?user=alice", server.wss()),
        format!("http://{}/metrics", server.admin()),
        "io_uring".to_owned(),
        "open files at most".to_owned(),
    ] {
        assert!(printed.contains(&part), "{part}: {printed}");
    }
    let logins = printed.lines().skip_while(|line| !line.starts_with("Tokens")).nth(1).unwrap();
    let (user, token) = logins.trim().split_once(' ').unwrap();
    let mut client = Client::open_tls(server.wss(), &server.development_certificate());
    assert_eq!(client.hello(token)["user_id"], user);
    for line in printed.lines().filter(|line| line.contains("://")) {
        assert!(!line.contains("eyJ"), "no token in a URL: {line}");
    }
}

#[test]
fn the_page_is_served_with_headers_that_keep_it_in() {
    let server = Server::start(&[]);
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/chat.js", "text/javascript; charset=utf-8"),
        ("/ringway.js", "text/javascript; charset=utf-8"),
    ] {
        for http in [server.http(), server.https()] {
            let answer = http.get(path, None).expect(200);
            assert_eq!(answer.header("content-type"), kind);
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert!(answer.header("content-security-policy").contains("script-src 'self'"));
            assert_eq!(answer.header("cache-control"), "no-cache");
            let tag = answer.header("etag").to_owned();
            let again = http.call_with("GET", path, None, &[("if-none-match", &tag)], "");
            assert_eq!((again.status, again.text().len()), (304, 0));
        }
    }
}

#[test]
fn a_development_key_never_serves_beyond_loopback() {
    let folder = tempfile::tempdir().unwrap();
    for flag in ["--listen.wss", "--listen.ws"] {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let ended = Server::fail_in(folder.path(), &[flag, address]);
            assert_eq!(ended.code, Some(6), "{flag} {address}: {ended:?}");
            assert!(ended.stderr.contains("auth.jwks_file"), "it says what to set: {ended:?}");
        }
    }
    assert!(!folder.path().join("ringway-data").exists(), "nothing was made");
}

#[test]
fn each_failure_to_start_has_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen.wss", "--listen.ws", "--listen.admin"] {
        let ended = Server::fail_in(folder.path(), &[flag, &address]);
        assert_eq!(ended.code, Some(3), "{flag}: {ended:?}");
        assert!(ended.stderr.contains(&address), "it names the address: {ended:?}");
    }

    let running = Server::start_in(folder.path(), &[]);
    let run = std::fs::read(running.data_folder().join("run.json")).unwrap();
    let second = support::run_in(
        folder.path(),
        &[
            "serve",
            "--listen.wss",
            "127.0.0.1:0",
            "--listen.ws",
            "127.0.0.1:0",
            "--listen.admin",
            "127.0.0.1:0",
        ],
    );
    assert_eq!(second.code, Some(4), "two servers on one data folder: {second:?}");
    assert_eq!(std::fs::read(running.data_folder().join("run.json")).unwrap(), run, "the first one's stays");
    drop(running);

    std::fs::write(folder.path().join("a-file"), "").unwrap();
    let ended = Server::fail_in(folder.path(), &["--data.folder", "a-file/data"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");

    std::fs::write(folder.path().join("bad.pem"), "no PEM").unwrap();
    let ended = Server::fail_in(folder.path(), &["--tls.certificate", "bad.pem", "--tls.key", "bad.pem"]);
    assert_eq!(ended.code, Some(7), "{ended:?}");

    let ended = Server::fail_in(
        folder.path(),
        &["--gateway.connections_max", "4000000", "--gateway.rings_per_core", "1"],
    );
    assert_eq!(ended.code, Some(5), "more connections than descriptors: {ended:?}");
}

#[test]
fn sigterm_tells_clients_to_go_and_ends_with_success() {
    let mut server = Server::start(&["--drain.within_s", "2"]);
    let mut alice = server.connect("alice");
    let acked = alice.say_to_user("bob", "before the end");
    let run = server.data_folder().join("run.json");
    assert!(run.exists());
    server.signal("TERM");
    let reconnect = alice.expect("reconnect");
    assert!(reconnect["within_ms"].as_u64().is_some(), "{reconnect}");
    assert_eq!(alice.read_to_end().code, Some(4200));
    let ended = server.wait_ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("drained"), "{ended:?}");
    assert!(!run.exists(), "run.json goes with the server");

    let server = Server::start_in(server.folder(), &[]);
    let path = format!("/api/v1/conversations/{}/messages", acked["conversation_id"].as_str().unwrap());
    let history = server.http().get(&path, Some(&server.token("bob"))).expect(200).json();
    assert_eq!(history["messages"][0]["text"], "before the end");
}

#[test]
fn readyz_says_no_while_it_drains() {
    let server = Server::start(&["--drain.within_s", "5"]);
    let _alice = server.connect("alice");
    server.signal("TERM");
    wait_for("a readyz that says no", || {
        let answer = server.admin_http().try_call_with("GET", "/readyz", None, &[], "").ok()?;
        (answer.status == 503).then_some(())
    });
    assert_eq!(server.admin_http().get("/livez", None).status, 200);
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&["--drain.within_s", "60"]);
    let mut alice = server.connect("alice");
    server.signal("TERM");
    alice.expect("reconnect");
    let begun = Instant::now();
    server.signal("INT");
    let ended = server.wait_ended();
    assert!(begun.elapsed() < Duration::from_secs(20), "it did not wait for the drain");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!server.data_folder().join("run.json").exists());
}

#[test]
fn what_was_acked_is_there_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start_in(folder.path(), &[]);
    let mut alice = server.connect("alice");
    let first = alice.say_to_user("bob", "one");
    let conversation = first["conversation_id"].as_str().unwrap().to_owned();
    let second = alice.say(&conversation, "two");
    server.kill();
    drop(server);

    let server = Server::start_in(folder.path(), &[]);
    let path = format!("/api/v1/conversations/{conversation}/messages?after=0");
    let history = server.http().get(&path, Some(&server.token("bob"))).expect(200).json();
    let texts: Vec<&str> =
        history["messages"].as_array().unwrap().iter().filter_map(|item| item["text"].as_str()).collect();
    assert_eq!(texts, ["one", "two"]);
    let mut alice = server.connect("alice");
    let retry = json!({"type": "send", "conversation_id": conversation, "text": "two",
        "client_msg_id": second["client_msg_id"]});
    alice.send_frame(&retry);
    let again = alice.acked(second["client_msg_id"].as_str().unwrap());
    assert_eq!((&again["seq"], &again["message_id"]), (&second["seq"], &second["message_id"]));
    assert_eq!(again["duplicate"], true);
}

/// The certificate that a server shows, whatever it is.
fn shown_certificate(server: &Server) -> Vec<u8> {
    #[derive(Debug)]
    struct Any;
    impl rustls::client::danger::ServerCertVerifier for Any {
        fn verify_server_cert(
            &self,
            _: &rustls_pki_types::CertificateDer<'_>,
            _: &[rustls_pki_types::CertificateDer<'_>],
            _: &rustls_pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls_pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls_pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls_pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Any))
            .with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = std::net::TcpStream::connect(server.wss()).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut stream).unwrap();
    }
    session.peer_certificates().unwrap()[0].to_vec()
}

fn write_pair(folder: &std::path::Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

#[test]
fn sighup_takes_a_new_certificate_and_refuses_a_bad_one() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path());
    let server = Server::start_in(folder.path(), &["--tls.certificate", "cert.pem", "--tls.key", "key.pem"]);
    let first = shown_certificate(&server);

    let kept = std::fs::read(folder.path().join("key.pem")).unwrap();
    write_pair(folder.path());
    std::fs::write(folder.path().join("key.pem"), &kept).unwrap();
    server.signal("HUP");
    wait_for("the refusal", || server.stderr().contains("the new certificate is bad").then_some(()));
    assert_eq!(shown_certificate(&server), first, "a pair that does not belong together leaves the old one");

    let mut alice = Client::open(server.ws());
    alice.hello(&server.token("alice"));
    write_pair(folder.path());
    server.signal("HUP");
    wait_for("the new certificate", || (shown_certificate(&server) != first).then_some(()));
    assert!(alice.rest().is_empty(), "open sockets stay");
}

#[test]
fn a_listener_that_is_off_is_off() {
    let server = Server::start(&["--listen.wss", "off"]);
    let run: serde_json::Value =
        serde_json::from_slice(&std::fs::read(server.data_folder().join("run.json")).unwrap()).unwrap();
    assert_eq!(run["wss"], serde_json::Value::Null);
    assert!(!server.data_folder().join("tls/dev-cert.pem").exists(), "no certificate without TLS");
    server.connect("alice").say_to_user("bob", "hi");
}

#[test]
fn what_clients_call_themselves_is_escaped_in_the_log_and_no_secret_is_in_it() {
    let server = Server::start(&["--log.level", "trace", "--drain.within_s", "0"]);
    let evil = "eve\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m";
    let token = server.token(evil);
    let mut eve = Client::open(server.ws());
    eve.hello_with(json!({"type": "hello", "token": token, "client": evil}));
    eve.say_to_user("bob", "a body that nobody may log");
    server.http().post(
        "/api/v1/messages",
        &token,
        &json!({"to": "bob", "client_msg_id": "c", "text": "a body"}),
    );
    drop(eve);
    server.signal("TERM");
    wait_for("the end of the log", || server.stderr().contains("drained").then_some(()));
    let log = server.stderr();
    assert!(!log.contains('\u{1b}'), "no terminal sequence");
    assert!(
        !log.lines().any(|line| line.contains("ERROR forged") && !line.contains("eve")),
        "no forged line"
    );
    assert!(!log.contains("a body"), "no message");
    let signature = token.rsplit('.').next().unwrap();
    assert!(!log.contains(signature), "no token");
}
