//! A whole gateway on io_uring and on epoll, real sockets on loopback, and a router that answers at once.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringway_gateway::connection::limits::HEAD_MILLISECONDS;
use ringway_gateway::context::ConnectionSettings;
use ringway_gateway::http_stream::{HttpServer, HttpStream};
use ringway_gateway::{Gateway, GatewaySettings, IoChoice, RunningGateway, Started};
use ringway_protocol::ids::EndpointId;
use ringway_protocol::token::mint_development;
use ringway_protocol::user::UserId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::{SECRET, TestWorkers, client_frame, keys, take_head, take_server_frame, upgrade};

const PATIENCE: Duration = Duration::from_secs(10);

/// Each story on both drivers.
macro_rules! on_both_drivers {
    ($($story:ident)*) => {
        mod on_io_uring {
            $( #[test] fn $story() { super::$story(super::IoChoice::IoUring); } )*
        }
        mod on_epoll {
            $( #[test] fn $story() { super::$story(super::IoChoice::Epoll); } )*
        }
    };
}

on_both_drivers! {
    a_session_sends_and_is_acknowledged
    big_frames_come_back_whole
    a_request_that_is_no_upgrade_goes_to_the_http_server_and_back
    an_upload_that_nobody_reads_waits_in_the_kernel
    an_idle_core_sleeps
    too_many_of_one_address_read_503
    tls_carries_requests_and_a_reload_is_for_new_handshakes
    a_drain_sends_everybody_elsewhere_and_ends
    a_silent_socket_is_cut_after_its_time
    many_frames_of_one_pass_are_one_send
    rings_that_share_a_core_share_its_port
    a_message_costs_the_system_calls_that_its_driver_needs
}

/// Reads a request of `content-length` bytes and sends them back.
struct Mirror(tokio::runtime::Runtime);

impl Mirror {
    fn new() -> Arc<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        Arc::new(Self(runtime))
    }
}

impl HttpServer for Mirror {
    fn serve(&self, stream: HttpStream, _: SocketAddr, _: bool) {
        self.0.spawn(async move {
            // A client that vanishes ends its task, and nothing else.
            let _ = mirror(stream).await;
        });
    }
}

async fn mirror(mut stream: HttpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    let end = loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await?;
    let mut body = request.split_off(end);
    let mut left = length;
    while left > 0 {
        if body.is_empty() && stream.read_buf(&mut body).await? == 0 {
            return Ok(());
        }
        left -= body.len();
        stream.write_all(&body).await?;
        body.clear();
    }
    stream.shutdown().await
}

struct Fixture {
    gateway: Option<RunningGateway>,
    workers: Arc<TestWorkers>,
    ws: SocketAddr,
    wss: Option<SocketAddr>,
}

impl Fixture {
    fn new(io: IoChoice, change: impl FnOnce(&mut GatewaySettings)) -> Self {
        let mut settings = GatewaySettings {
            io,
            wss: None,
            cores: NonZeroUsize::new(2),
            connection: ConnectionSettings { echo: true, ..ConnectionSettings::default() },
            ..GatewaySettings::default()
        };
        change(&mut settings);
        let tls = settings.wss.map(|_| server_config());
        let gateway = Gateway::bind(settings).unwrap();
        let workers = Arc::new(TestWorkers::default());
        workers.set_endpoints(gateway.endpoints());
        let addresses = gateway.addresses();
        let running = gateway
            .start(Started {
                workers: Arc::clone(&workers) as _,
                endpoint_base: EndpointId(0),
                http: Some(Mirror::new()),
                keys: keys(),
                tls,
            })
            .unwrap();
        Self { gateway: Some(running), workers, ws: addresses.ws.unwrap(), wss: addresses.wss }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.ws).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream, received: Vec::new() }
    }

    fn sum(&self, of: impl Fn(&ringway_gateway::metrics::CoreMetrics) -> u64) -> u64 {
        self.gateway.as_ref().unwrap().metrics().iter().map(|core| of(core)).sum()
    }

    fn wait_until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < until, "it never came to this: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop();
            gateway.join().unwrap();
        }
    }
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// False at the end of the stream.
    fn read_some(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer).unwrap();
        self.received.extend(&buffer[..count]);
        count > 0
    }

    fn head(&mut self) -> String {
        loop {
            if let Some(head) = take_head(&mut self.received) {
                return head;
            }
            assert!(self.read_some(), "the stream ended before the head");
        }
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some(frame) = take_server_frame(&mut self.received) {
                return frame;
            }
            assert!(self.read_some(), "the stream ended before a frame");
        }
    }

    fn text(&mut self) -> String {
        let (opcode, payload) = self.frame();
        assert_eq!(opcode, 1, "{}", String::from_utf8_lossy(&payload));
        String::from_utf8(payload).unwrap()
    }

    fn open_echo(&mut self) {
        self.send(&upgrade("/echo"));
        assert!(self.head().starts_with("HTTP/1.1 101 "));
    }

    fn open_session(&mut self, user: &str) {
        self.send(&upgrade("/ws"));
        assert!(self.head().starts_with("HTTP/1.1 101 "));
        let user = UserId::new("", user).unwrap();
        let now = ringway_gateway::clock::wall_clock();
        let token = mint_development(SECRET, &user, None, now, 3_600);
        self.send(&client_frame(1, format!(r#"{{"type":"hello","token":"{token}"}}"#).as_bytes()));
        let welcome = self.text();
        assert!(welcome.contains(r#""type":"welcome""#), "{welcome}");
    }

    fn read_to_end(&mut self) -> Vec<u8> {
        while self.read_some() {}
        std::mem::take(&mut self.received)
    }
}

fn server_config() -> Arc<rustls::ServerConfig> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    Arc::new(config)
}

fn a_session_sends_and_is_acknowledged(io: IoChoice) {
    let fixture = Fixture::new(io, |_| {});
    let mut alice = fixture.connect();
    alice.open_session("alice");
    for count in 1..=20 {
        let send =
            format!(r#"{{"type":"send","conversation_id":"77","client_msg_id":"m{count}","text":"hello"}}"#);
        alice.send(&client_frame(1, send.as_bytes()));
        let ack = alice.text();
        assert!(ack.contains(r#""type":"ack""#) && ack.contains(&format!("m{count}")), "{ack}");
    }
    assert_eq!(fixture.workers.attached.load(Ordering::SeqCst), 1);
    drop(alice);
    fixture.wait_until("the session ends", |fixture| fixture.workers.detached.load(Ordering::SeqCst) == 1);
    fixture.wait_until("the slot is free", |fixture| {
        fixture.sum(|core| core.closed.get()) == fixture.sum(|core| core.accepted.get())
    });
}

fn big_frames_come_back_whole(io: IoChoice) {
    let fixture = Fixture::new(io, |_| {});
    let mut client = fixture.connect();
    client.open_echo();
    for length in [0, 1, 125, 126, 4_095, 4_096, 65_536, 3_000_000] {
        let payload: Vec<u8> = (0..length).map(|index| (index * 31 % 253) as u8).collect();
        let frame = client_frame(2, &payload);
        let mut writer = client.stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&frame).unwrap());
        let (opcode, echoed) = client.frame();
        assert_eq!(opcode, 2);
        assert!(echoed == payload, "{length} bytes come back as they were");
        writing.join().unwrap();
    }
    client.send(&client_frame(8, &1_000u16.to_be_bytes()));
    assert_eq!(client.frame(), (8, 1_000u16.to_be_bytes().to_vec()));
    assert!(client.read_to_end().is_empty(), "the server ends the stream first");
}

fn a_request_that_is_no_upgrade_goes_to_the_http_server_and_back(io: IoChoice) {
    let fixture = Fixture::new(io, |_| {});
    let mut client = fixture.connect();
    // More than all queues between hold, both ways at once.
    let body: Vec<u8> = (0..2_000_000u32).map(|index| (index * 17 % 255) as u8).collect();
    let mut request =
        format!("POST /mirror HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    request.extend(&body);
    let mut writer = client.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&request).unwrap());
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    let answer = client.read_to_end();
    writing.join().unwrap();
    assert!(answer == body, "the body comes back as it was, and then the end");
    fixture.wait_until("the slot is free", |fixture| fixture.sum(|core| core.closed.get()) == 1);
}

fn an_upload_that_nobody_reads_waits_in_the_kernel(io: IoChoice) {
    // The HTTP server never reads this one: nothing accepts its stream.
    struct Keeper(std::sync::Mutex<Vec<HttpStream>>);
    impl HttpServer for Keeper {
        fn serve(&self, stream: HttpStream, _: SocketAddr, _: bool) {
            self.0.lock().unwrap().push(stream);
        }
    }
    let gateway = Gateway::bind(GatewaySettings {
        io,
        wss: None,
        cores: NonZeroUsize::new(1),
        ..GatewaySettings::default()
    })
    .unwrap();
    let address = gateway.addresses().ws.unwrap();
    let workers = Arc::new(TestWorkers::default());
    workers.set_endpoints(gateway.endpoints());
    let keeper = Arc::new(Keeper(std::sync::Mutex::new(Vec::new())));
    let running = gateway
        .start(Started {
            workers,
            endpoint_base: EndpointId(0),
            http: Some(Arc::clone(&keeper) as _),
            keys: keys(),
            tls: None,
        })
        .unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n").unwrap();
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let chunk = vec![0; 1 << 20];
    while client.write(&chunk).is_ok() {}
    let taken = running.metrics()[0].bytes_in.get();
    assert!(taken < 1 << 20, "the core stopped reading: it took {taken} bytes");
    // The one that reads again gets all of it.
    let stream = keeper.0.lock().unwrap().pop().unwrap();
    drop(stream);
    let mut rest = Vec::new();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    // Dropped by the server: an end or a reset, both are the end.
    let _ = client.read_to_end(&mut rest);
    running.stop();
    running.join().unwrap();
}

fn an_idle_core_sleeps(io: IoChoice) {
    let fixture = Fixture::new(io, |_| {});
    let mut clients: Vec<Client> = (0..20).map(|_| fixture.connect()).collect();
    clients.iter_mut().for_each(Client::open_echo);
    std::thread::sleep(Duration::from_millis(50));
    let before = fixture.sum(|core| core.passes.get());
    std::thread::sleep(Duration::from_millis(1_000));
    let passes = fixture.sum(|core| core.passes.get()) - before;
    assert!(passes <= 10, "two idle cores look up about once a second: {passes}");
}

fn too_many_of_one_address_read_503(io: IoChoice) {
    let fixture = Fixture::new(io, |settings| settings.connections_per_address = 3);
    let mut inside: Vec<Client> = (0..3).map(|_| fixture.connect()).collect();
    inside.iter_mut().for_each(Client::open_echo);
    let mut outside = fixture.connect();
    outside.send(&upgrade("/echo"));
    assert!(outside.head().starts_with("HTTP/1.1 503 "));
    assert!(outside.read_to_end().is_empty());
    inside.pop();
    fixture.wait_until("a place is free", |fixture| {
        let mut another = fixture.connect();
        another.send(&upgrade("/echo"));
        another.head().starts_with("HTTP/1.1 101 ")
    });
}

fn tls_carries_requests_and_a_reload_is_for_new_handshakes(io: IoChoice) {
    let fixture = Fixture::new(io, |settings| settings.wss = Some(SocketAddr::from(([127, 0, 0, 1], 0))));
    let first = tls_certificate(fixture.wss.unwrap());
    assert_eq!(first, tls_certificate(fixture.wss.unwrap()));
    fixture.gateway.as_ref().unwrap().reload_tls(server_config());
    assert_ne!(first, tls_certificate(fixture.wss.unwrap()));
    assert_eq!(fixture.sum(|core| core.handshakes.get()), 3);
}

/// Makes a request over TLS; returns the server's certificate.
fn tls_certificate(address: SocketAddr) -> Vec<u8> {
    let config = client_tls::config();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let connection = rustls::ClientConnection::new(config, name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, socket);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"hello"), "{}", String::from_utf8_lossy(&answer));
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

/// A client that trusts whoever it talks to: what is tested is the transport.
mod client_tls {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    #[derive(Debug)]
    struct Trusting;

    impl ServerCertVerifier for Trusting {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            rustls::crypto::aws_lc_rs::default_provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }

    pub(super) fn config() -> Arc<rustls::ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting))
            .with_no_client_auth();
        Arc::new(config)
    }
}

fn a_drain_sends_everybody_elsewhere_and_ends(io: IoChoice) {
    let mut fixture = Fixture::new(io, |_| {});
    let mut clients: Vec<Client> = (0..8).map(|_| fixture.connect()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.open_session(&format!("user{index}"));
    }
    let gateway = fixture.gateway.take().unwrap();
    gateway.drain(Duration::from_millis(800));
    for client in &mut clients {
        let reconnect = client.text();
        assert!(reconnect.contains(r#""type":"reconnect""#), "{reconnect}");
        let (opcode, payload) = client.frame();
        assert_eq!((opcode, &payload[..2]), (8, 4_200u16.to_be_bytes().as_slice()));
        client.send(&client_frame(8, &payload));
        assert!(client.read_to_end().is_empty());
    }
    let joined = Instant::now();
    gateway.join().unwrap();
    assert!(joined.elapsed() < Duration::from_secs(3));
    assert!(TcpStream::connect(fixture.ws).is_err(), "nobody listens any more");
    assert_eq!(fixture.workers.detached.load(Ordering::SeqCst), 8);
}

fn a_silent_socket_is_cut_after_its_time(io: IoChoice) {
    let fixture = Fixture::new(io, |_| {});
    let mut silent = fixture.connect();
    let began = Instant::now();
    assert!(silent.read_to_end().is_empty());
    let cut = began.elapsed();
    assert!(cut >= Duration::from_millis(HEAD_MILLISECONDS - 100), "{cut:?}");
}

fn many_frames_of_one_pass_are_one_send(io: IoChoice) {
    let fixture = Fixture::new(io, |settings| settings.cores = NonZeroUsize::new(1));
    let mut client = fixture.connect();
    client.open_echo();
    let before = fixture.sum(|core| core.sends.get());
    let frames: Vec<u8> = (0..64).flat_map(|index| client_frame(2, &[index; 20])).collect();
    client.send(&frames);
    for index in 0..64 {
        assert_eq!(client.frame(), (2, vec![index; 20]));
    }
    let sends = fixture.sum(|core| core.sends.get()) - before;
    assert!(sends <= 4, "64 frames that came together went out in {sends} sends");
}

fn rings_that_share_a_core_share_its_port(io: IoChoice) {
    let fixture = Fixture::new(io, |settings| {
        settings.cores = NonZeroUsize::new(1);
        settings.rings_per_core = NonZeroUsize::new(3);
    });
    let mut clients: Vec<Client> = (0..60).map(|_| fixture.connect()).collect();
    clients.iter_mut().for_each(Client::open_echo);
    let accepted: Vec<u64> =
        fixture.gateway.as_ref().unwrap().metrics().iter().map(|core| core.accepted.get()).collect();
    assert_eq!(accepted.len(), 3);
    assert!(accepted.iter().all(|count| *count > 0), "the kernel spreads connections: {accepted:?}");
}

fn a_message_costs_the_system_calls_that_its_driver_needs(io: IoChoice) {
    let fixture = Fixture::new(io, |settings| settings.cores = NonZeroUsize::new(1));
    let mut clients: Vec<Client> = (0..50).map(|_| fixture.connect()).collect();
    clients.iter_mut().for_each(Client::open_echo);
    let before = fixture.sum(|core| core.enters.get());
    for round in 0..40u8 {
        for client in &mut clients {
            client.send(&client_frame(2, &[round; 100]));
        }
        for client in &mut clients {
            assert_eq!(client.frame(), (2, vec![round; 100]));
        }
    }
    let messages = 40 * clients.len() as u64;
    fixture.wait_until("the last pass is counted", |fixture| {
        fixture.sum(|core| core.frames_in.get()) >= messages
    });
    let enters = fixture.sum(|core| core.enters.get()) - before;
    // On epoll a receive and a send, and here and there a wait; io_uring does all of a pass in one.
    let most = if io == IoChoice::Epoll { 4 * messages } else { messages };
    assert!(enters <= most, "{messages} messages took {enters} system calls");
}
