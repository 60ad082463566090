//! TLS under the same conversations: a rustls client at the other end, records cut anywhere (facts B7 has
//! the traps of the unbuffered interface; contract.md S-T1, G7, G13).

use std::io::{Cursor, Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use ringway_gateway::connection::{Connection, Disposition, FreezeError, Phase, Transport};
use ringway_gateway::context::ConnectionSettings;
use ringway_gateway::tls::{TlsOptions, server_config};
use ringway_protocol::client::{ClientFrame, Encoding, Hello};
use ringway_protocol::websocket::{Opcode, append_masked_frame};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::pair::{Gateway, MASK, Seen, Setup, Socket, client_frame, entry, upgrade_request};

struct Pair {
    gateway: Gateway,
    socket: Socket,
    client: ClientConnection,
    config: Arc<ClientConfig>,
    roots: RootCertStore,
    /// How many bytes go over at once, in turn; all there are when it is empty.
    cuts: Vec<usize>,
    turn: usize,
    plaintext: Vec<u8>,
    /// The server's side ended with a close_notify.
    said_goodbye: bool,
    /// The connection is frozen and thawed wherever it can be, this many times by now.
    moves: Option<usize>,
}

fn roots(certificate_pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap()).unwrap();
    roots
}

fn client_config(roots: RootCertStore, hybrid: bool) -> Arc<ClientConfig> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if hybrid {
        provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768];
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

impl Pair {
    fn new(options: TlsOptions, cuts: Vec<usize>) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = made.cert.pem();
        let key = made.signing_key.serialize_pem();
        let tls = server_config(certificate.as_bytes(), key.as_bytes(), options).unwrap();
        let settings = ConnectionSettings { echo: true, ..ConnectionSettings::default() };
        let mut gateway = Setup { settings, tls: Some(tls), ..Setup::default() }.start();
        let socket = gateway.accept(Transport::Tls);
        let roots = roots(&certificate);
        let config = client_config(roots.clone(), options.hybrid);
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::clone(&config), name).unwrap();
        Self {
            gateway,
            socket,
            client,
            config,
            roots,
            cuts,
            turn: 0,
            plaintext: Vec::new(),
            said_goodbye: false,
            moves: None,
        }
    }

    /// A client that speaks nothing newer than TLS 1.2.
    fn of_tls_1_2(cuts: Vec<usize>) -> Self {
        let mut pair = Self::new(TlsOptions { allow_1_2: true, ..TlsOptions::default() }, cuts);
        let provider = Arc::clone(pair.config.crypto_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(pair.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        pair.config = Arc::new(config);
        pair.reconnect();
        pair
    }

    fn move_it(&mut self) {
        let Some(moves) = &mut self.moves else { return };
        let gateway = &mut self.gateway;
        match self.socket.connection.freeze(&mut gateway.context, gateway.now) {
            Ok(frozen) => {
                *moves += 1;
                self.socket.connection =
                    Connection::thaw(&mut gateway.context, gateway.now, &frozen).unwrap();
            }
            Err(error) => assert_eq!(error, FreezeError::Tls),
        }
    }

    /// The same client comes back.
    fn reconnect(&mut self) {
        self.socket = self.gateway.accept(Transport::Tls);
        let name = ServerName::try_from("localhost").unwrap();
        self.client = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        self.plaintext.clear();
    }

    fn next_cut(&mut self, len: usize) -> usize {
        if self.cuts.is_empty() {
            return len;
        }
        self.turn += 1;
        self.cuts[self.turn % self.cuts.len()].clamp(1, len)
    }

    /// Carries bytes both ways until neither side has any.
    fn carry(&mut self) {
        loop {
            let mut up = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut up).unwrap();
            }
            let mut rest = &up[..];
            while !rest.is_empty() {
                let cut = self.next_cut(rest.len());
                self.socket.send_bytes(&mut self.gateway, &rest[..cut]);
                self.move_it();
                rest = &rest[cut..];
            }
            if !self.socket.connection.has_output() {
                if up.is_empty() {
                    return;
                }
                continue;
            }
            let mut down = Vec::new();
            while self.socket.connection.has_output() {
                let capacity = self.next_cut(20 * 1024).max(64);
                let before = down.len();
                let gateway = &mut self.gateway;
                self.socket.connection.poll_transmit(&mut gateway.context, gateway.now, &mut down, capacity);
                assert!(down.len() - before <= capacity);
                self.move_it();
            }
            let mut rest = &down[..];
            while !rest.is_empty() {
                let cut = self.next_cut(rest.len());
                let mut part = Cursor::new(&rest[..cut]);
                while part.position() < cut as u64 {
                    self.client.read_tls(&mut part).unwrap();
                    let state = self.client.process_new_packets().expect("the server's records are right");
                    self.said_goodbye |= state.peer_has_closed();
                    let mut plaintext = vec![0; state.plaintext_bytes_to_read()];
                    self.client.reader().read_exact(&mut plaintext).unwrap();
                    self.plaintext.extend(plaintext);
                }
                rest = &rest[cut..];
            }
        }
    }

    fn say(&mut self, plaintext: &[u8]) {
        let mut rest = plaintext;
        while !rest.is_empty() {
            let written = self.client.writer().write(rest).unwrap();
            rest = &rest[written..];
            self.carry();
        }
    }

    fn upgrade(&mut self, path: &str) {
        self.say(&upgrade_request(path, ""));
        let end = self.plaintext.windows(4).position(|end| end == b"\r\n\r\n").expect("an answer") + 4;
        let head: Vec<u8> = self.plaintext.drain(..end).collect();
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        self.socket.raw = path == "/echo";
    }

    fn read(&mut self) -> Vec<Seen> {
        self.carry();
        self.socket.received = std::mem::take(&mut self.plaintext);
        self.socket.read_received()
    }
}

fn binary(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_masked_frame(&mut bytes, Opcode::Binary, payload, MASK);
    bytes
}

#[test]
fn a_session_over_tls_is_the_session_over_plain() {
    for options in [TlsOptions::default(), TlsOptions { hybrid: true, allow_1_2: true }] {
        let mut pair = Pair::new(options, Vec::new());
        pair.upgrade("/ws");
        assert_eq!(pair.client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(pair.client.alpn_protocol(), Some(&b"http/1.1"[..]));
        let hello = Hello { token: Some(pair.gateway.token("alice", 3600)), ..Hello::default() };
        pair.say(&client_frame(Encoding::Json, &ClientFrame::Hello(hello)));
        pair.gateway.answer_probes(&mut pair.socket);
        pair.gateway.fan_out(&entry(7, 1, "bob", "hi"), &mut [&mut pair.socket]);
        assert_eq!(pair.read().len(), 2, "welcome and a message");
        assert_eq!(pair.socket.connection.phase(), Phase::Session);
        assert_eq!(pair.gateway.context.metrics().handshakes.get(), 1);
    }
}

#[test]
fn what_one_pass_has_goes_in_one_record() {
    let mut pair = Pair::new(TlsOptions::default(), Vec::new());
    pair.upgrade("/echo");
    for _ in 0..10 {
        pair.client.writer().write_all(&binary(&[1; 100])).unwrap();
    }
    let mut up = Vec::new();
    pair.client.write_tls(&mut up).unwrap();
    pair.socket.send_bytes(&mut pair.gateway, &up);
    let mut down = Vec::new();
    pair.socket.connection.poll_transmit(&mut pair.gateway.context, pair.gateway.now, &mut down, 20 * 1024);
    assert_eq!(down.len(), 10 * 102 + 22, "ten frames, one header and tag");
    assert!(!pair.socket.connection.has_output());
}

#[test]
fn megabytes_go_both_ways_in_any_pieces() {
    let mut pair = Pair::new(TlsOptions::default(), vec![1, 5_000, 17_000, 333, 16_000, 70_000]);
    pair.upgrade("/echo");
    let payload: Vec<u8> = (0..3 << 20).map(|index| (index % 251) as u8).collect();
    pair.say(&binary(&payload));
    assert_eq!(pair.read(), [Seen::Binary(payload)]);
}

#[test]
fn both_ends_take_leave_by_close_notify() {
    let mut pair = Pair::new(TlsOptions::default(), Vec::new());
    pair.upgrade("/echo");
    pair.say(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]);
    assert_eq!(pair.socket.connection.disposition(), Disposition::CloseAfterFlush);
    assert!(pair.said_goodbye);
    assert!(matches!(&pair.read()[..], [Seen::Close(code, _)] if code.0 == 1000));

    pair.reconnect();
    pair.upgrade("/echo");
    pair.client.send_close_notify();
    pair.carry();
    assert_eq!(pair.socket.connection.disposition(), Disposition::CloseAfterFlush);
}

#[test]
fn a_refused_request_is_answered_inside_tls() {
    let mut pair = Pair::new(TlsOptions::default(), Vec::new());
    pair.say(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(pair.plaintext.starts_with(b"HTTP/1.1 404 "));
    assert!(pair.said_goodbye);
    assert_eq!(pair.socket.connection.disposition(), Disposition::ShutdownAfterFlush);
}

#[test]
fn a_ticket_resumes_and_brings_no_early_data() {
    let mut pair = Pair::new(TlsOptions::default(), Vec::new());
    pair.upgrade("/echo");
    pair.reconnect();
    pair.upgrade("/echo");
    assert_eq!(pair.client.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    assert!(!pair.client.is_early_data_accepted());
}

/// Post-quantum hellos come in several records: rustls keeps track of them by where they lie, and must be
/// given the same bytes again, also to get at the alert when the rest is garbage.
#[test]
fn a_hello_in_many_records_is_put_together_or_refused() {
    for options in [TlsOptions::default(), TlsOptions { hybrid: true, allow_1_2: false }] {
        for cut in [1, 7, 100, 10_000] {
            let mut pair = Pair::new(options, vec![cut]);
            let mut config = ClientConfig::clone(&pair.config);
            config.max_fragment_size = Some(50);
            pair.config = Arc::new(config);
            pair.reconnect();
            pair.upgrade("/echo");
            pair.say(&binary(b"in pieces"));
            assert_eq!(pair.read(), [Seen::Binary(b"in pieces".to_vec())]);

            pair.reconnect();
            let mut up = Vec::new();
            pair.client.write_tls(&mut up).unwrap();
            for byte in up[..150].iter().chain(&[0x63; 100]) {
                pair.socket.send_bytes(&mut pair.gateway, &[*byte]);
            }
            assert_eq!(pair.socket.connection.disposition(), Disposition::ShutdownAfterFlush);
            pair.socket.drain(&mut pair.gateway);
            assert_eq!(pair.socket.received.first(), Some(&0x15), "an alert");
        }
    }
}

#[test]
fn garbage_gets_an_alert_and_is_not_listened_to() {
    for garbage in
        [&b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3], &[0x17; 64]]
    {
        let mut pair = Pair::new(TlsOptions::default(), Vec::new());
        pair.socket.send_bytes(&mut pair.gateway, garbage);
        assert_eq!(pair.socket.connection.disposition(), Disposition::ShutdownAfterFlush);
        assert_eq!(pair.gateway.context.metrics().handshakes_failed.get(), 1);
        pair.socket.drain(&mut pair.gateway);
        assert_eq!(pair.socket.received.first(), Some(&0x15), "an alert");
        let deadline = pair.socket.connection.poll_timeout();
        pair.gateway.now = pair.gateway.now + 100;
        pair.socket.send_bytes(&mut pair.gateway, garbage);
        assert_eq!(pair.socket.connection.poll_timeout(), deadline, "more of it buys no time");
    }
}

#[test]
fn a_broken_record_ends_a_session_and_its_attach() {
    let mut pair = Pair::new(TlsOptions::default(), Vec::new());
    pair.upgrade("/ws");
    let hello = Hello { token: Some(pair.gateway.token("alice", 3600)), ..Hello::default() };
    pair.say(&client_frame(Encoding::Json, &ClientFrame::Hello(hello)));
    pair.gateway.answer_probes(&mut pair.socket);
    pair.read();
    pair.socket.send_bytes(
        &mut pair.gateway,
        &[
            0x17, 3, 3, 0, 30, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
            22, 23, 24, 25, 26, 27, 28, 29,
        ],
    );
    assert_eq!(pair.socket.connection.disposition(), Disposition::ShutdownAfterFlush);
    assert_eq!(pair.gateway.script.take().len(), 3);
    assert!(pair.socket.connection.has_output(), "bad_record_mac");
}

#[test]
fn a_handshake_has_eight_seconds_and_the_request_eight_more() {
    let mut pair = Pair::new(TlsOptions::default(), Vec::new());
    let mut up = Vec::new();
    pair.client.write_tls(&mut up).unwrap();
    for byte in &up[..7] {
        pair.gateway.pass(1_000, &mut pair.socket);
        pair.socket.send_bytes(&mut pair.gateway, &[*byte]);
    }
    pair.gateway.pass(1_000, &mut pair.socket);
    assert_eq!(pair.socket.connection.disposition(), Disposition::Abort);

    pair.reconnect();
    pair.gateway.pass(7_000, &mut pair.socket);
    pair.carry();
    assert!(!pair.client.is_handshaking());
    pair.gateway.pass(7_000, &mut pair.socket);
    assert!(pair.socket.is_open());
    pair.gateway.pass(1_000, &mut pair.socket);
    assert_eq!(pair.socket.connection.disposition(), Disposition::Abort);
}

#[test]
fn a_key_update_goes_unnoticed() {
    let mut pair = Pair::new(TlsOptions::default(), vec![3, 900, 1]);
    pair.upgrade("/echo");
    for _ in 0..3 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.say(&binary(b"after"));
        assert_eq!(pair.read(), [Seen::Binary(b"after".to_vec())]);
    }
}

#[test]
fn a_connection_moves_at_any_byte_behind_its_handshake() {
    for cuts in [vec![1], vec![1, 64, 3], vec![5, 100, 30_000]] {
        let mut pair = Pair::new(TlsOptions::default(), cuts);
        pair.moves = Some(0);
        pair.upgrade("/ws");
        let hello = Hello { token: Some(pair.gateway.token("alice", 3600)), ..Hello::default() };
        pair.say(&client_frame(Encoding::Json, &ClientFrame::Hello(hello)));
        pair.gateway.answer_probes(&mut pair.socket);
        pair.client.refresh_traffic_keys().unwrap();
        pair.gateway.fan_out(&entry(7, 1, "bob", "hi"), &mut [&mut pair.socket]);
        assert_eq!(pair.read().len(), 2, "welcome and a message");
        assert_eq!(pair.socket.connection.phase(), Phase::Session);
        assert_eq!(pair.gateway.context.metrics().sessions_open.get(), 1);
        assert!(pair.moves.unwrap() > 10, "{:?}", pair.moves);
    }
}

#[test]
fn what_a_move_left_behind_says_nothing_more() {
    let mut pair = Pair::new(TlsOptions::default(), Vec::new());
    pair.upgrade("/echo");
    pair.client.writer().write_all(&binary(b"answered elsewhere")).unwrap();
    let mut up = Vec::new();
    pair.client.write_tls(&mut up).unwrap();
    pair.socket.send_bytes(&mut pair.gateway, &up);
    assert!(pair.socket.connection.has_output());
    let frozen = pair.socket.freeze(&mut pair.gateway);
    assert!(!pair.socket.connection.has_output());
    assert_eq!(pair.socket.connection.phase(), Phase::Ending);
    let gateway = &mut pair.gateway;
    pair.socket.connection = Connection::thaw(&mut gateway.context, gateway.now, &frozen).unwrap();
    assert_eq!(pair.read(), [Seen::Binary(b"answered elsewhere".to_vec())]);
}

#[test]
fn handshakes_and_tls_1_2_do_not_move() {
    let mut pair = Pair::of_tls_1_2(Vec::new());
    let gateway = &mut pair.gateway;
    let refused = pair.socket.connection.freeze(&mut gateway.context, gateway.now);
    assert_eq!(refused, Err(FreezeError::Tls));
    assert!(FreezeError::Tls.to_string().contains("connect anew"));
    pair.upgrade("/echo");
    let gateway = &mut pair.gateway;
    let refused = pair.socket.connection.freeze(&mut gateway.context, gateway.now);
    assert_eq!(refused, Err(FreezeError::Tls));
    pair.say(&binary(b"it goes on"));
    assert_eq!(pair.read(), [Seen::Binary(b"it goes on".to_vec())]);
}

#[test]
fn tls_1_2_is_spoken_as_well() {
    for cuts in [Vec::new(), vec![1], vec![3, 20_000, 64, 1_000]] {
        let mut pair = Pair::of_tls_1_2(cuts);
        pair.upgrade("/echo");
        assert_eq!(pair.client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
        let payload: Vec<u8> = (0..50_000).map(|index| (index % 251) as u8).collect();
        pair.say(&binary(&payload));
        assert_eq!(pair.read(), [Seen::Binary(payload)]);
        pair.say(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]);
        assert_eq!(pair.socket.connection.disposition(), Disposition::CloseAfterFlush);
        assert!(pair.said_goodbye);

        pair.reconnect();
        pair.upgrade("/echo");
        pair.client.send_close_notify();
        pair.carry();
        assert_eq!(pair.socket.connection.disposition(), Disposition::CloseAfterFlush);

        pair.reconnect();
        pair.upgrade("/echo");
        pair.socket.send_bytes(&mut pair.gateway, &[0x17, 3, 3, 0, 26].repeat(7));
        assert_eq!(pair.socket.connection.disposition(), Disposition::ShutdownAfterFlush);
        pair.socket.drain(&mut pair.gateway);
        assert_eq!(pair.socket.received.first(), Some(&0x15), "an alert");
    }
}

#[test]
fn a_request_in_the_same_reception_as_the_end_of_the_handshake_is_heard() {
    for options in [TlsOptions::default(), TlsOptions { hybrid: true, allow_1_2: true }] {
        let mut pair = Pair::new(options, Vec::new());
        pair.client.writer().write_all(&upgrade_request("/echo", "")).unwrap();
        pair.client.writer().write_all(&binary(b"early")).unwrap();
        pair.carry();
        let end = pair.plaintext.windows(4).position(|end| end == b"\r\n\r\n").expect("an answer") + 4;
        pair.plaintext.drain(..end);
        pair.socket.raw = true;
        assert_eq!(pair.read(), [Seen::Binary(b"early".to_vec())]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn records_may_be_cut_anywhere(
        cuts in proptest::collection::vec(1usize..2_000, 1..8),
        lens in proptest::collection::vec(0usize..40_000, 1..4),
        hybrid: bool,
    ) {
        let mut pair = Pair::new(TlsOptions { hybrid, allow_1_2: false }, cuts);
        pair.upgrade("/echo");
        let mut sent = Vec::new();
        for len in lens {
            let payload = vec![len as u8; len];
            pair.say(&binary(&payload));
            sent.push(Seen::Binary(payload));
        }
        prop_assert_eq!(pair.read(), sent);
    }
}
