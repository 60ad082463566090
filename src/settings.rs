//! Every setting of `ringway`, typed, with its default and its help.
//!
//! Each is a key of the settings file, a variable `RINGWAY__SECTION__KEY` and a flag `--section.key`.
//! `settings/layers.rs` reads the sources in their precedence, `settings/report.rs` prints the effective
//! configuration; `settings/field.rs` has the kinds of value. Here is also what must hold between them
//! ([`Settings::broken_rules`]), checked before anything is opened.

pub(crate) mod field;
pub(crate) mod layers;
pub(crate) mod report;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ringway_gateway::{GatewaySettings, IoChoice};
use ringway_protocol::{limits, token};
use ringway_router::RouterSettings;
use ringway_store_writer::StoreSettings;

use field::{Io, Listener, LogFormat, LogLevel, Threads, settings};

settings! {
    /// Where the server listens.
    listen: Listen {
        /// Address of wss, the HTTP API and the chat page over TLS; "off" for none; port 0 for any.
        wss: Listener = loopback(8443);
        /// Address of plain ws and HTTP; "off" for none; port 0 for any.
        ws: Listener = loopback(8080);
        /// Address of the admin port: /livez, /readyz, /metrics. It asks for no login: keep it private.
        admin: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9464));
    }
    /// What is kept on this machine.
    data: Data {
        /// Folder of the store, the development certificate and the development signing key.
        folder: PathBuf = PathBuf::from("./ringway-data");
    }
    /// The server's certificate. Without one, a development certificate for localhost is made.
    tls: Tls {
        /// PEM file with the certificate chain, the server's own first. SIGHUP reads it again.
        certificate: Option<PathBuf> = None;
        /// PEM file with the private key of the certificate.
        key: Option<PathBuf> = None;
        /// Also take TLS 1.2 (AEAD and ECDHE suites only), for old clients.
        allow_tls12: bool = false;
    }
    /// Whose tokens are valid. Without a key set, the development signing key is, on loopback only.
    auth: Auth {
        /// JSON Web Key Set file of the issuer (RS256, ES256, EdDSA). SIGHUP reads it again.
        jwks_file: Option<PathBuf> = None;
        /// URL of the issuer's JSON Web Key Set; fetched every five minutes and when a token names an
        /// unknown key; kept on disk for when the issuer is down.
        jwks_url: Option<String> = None;
        /// The only `iss` that tokens may have.
        issuer: Option<String> = None;
        /// An `aud` that tokens must have.
        audience: Option<String> = None;
        /// How far ahead the `exp` of a token may lie, in seconds.
        max_token_life_s: u64 = token::LIFE_SECONDS_MAX_DEFAULT;
    }
    /// What one client may use. `welcome` tells clients the first six.
    limits: Limits {
        /// Longest WebSocket message, and longest HTTP body, in bytes; past it close 1009, or HTTP 413.
        max_frame_bytes: usize = limits::MESSAGE_BYTES_DEFAULT;
        /// Sends without their ack on one connection; past it `window_full`.
        max_inflight: u32 = limits::INFLIGHT_DEFAULT;
        /// Bytes that may wait for one reader; past it a `gap`, then close 4102.
        max_queue_bytes: usize = limits::QUEUE_BYTES_DEFAULT;
        /// Sends a second on one connection, and by one user over HTTP, in the long run.
        send_per_s: u32 = limits::SEND_PER_SECOND_DEFAULT;
        /// Sends in a burst above that rate.
        send_burst: u32 = limits::SEND_BURST_DEFAULT;
        /// How long a `client_msg_id` is sure to be known, in seconds; older ones may be forgotten.
        dedup_window_s: u64 = limits::DEDUPLICATION_SECONDS;
        /// Bytes of messages received in part that all connections of one core may hold.
        partial_bytes: usize = ringway_gateway::connection::limits::PARTIAL_BYTES_DEFAULT;
        /// Bytes of one reader's frames that the kernel takes, which it doubles for its bookkeeping; 0 leaves it to the kernel, up to 4 MiB a socket.
        socket_send_buffer_bytes: usize = GatewaySettings::default().socket_send_buffer_bytes;
        /// Connections from one address (one /64 of IPv6); past it an upgrade on the plain port is answered 503, on the TLS port the connection is closed.
        connections_per_address: u32 = GatewaySettings::default().connections_per_address;
        /// Open sockets of one user; past it close 4029.
        connections_per_user: u32 = limits::CONNECTIONS_PER_USER_DEFAULT;
    }
    /// The socket plane.
    gateway: Gateway {
        /// Threads with a core each; "auto" is one for each CPU this process may use.
        cores: Threads = Threads::Auto;
        /// Rings (each a thread with its own table) that share a core; "auto" is as many as
        /// connections_max needs under the limit on open files.
        rings_per_core: Threads = Threads::Auto;
        /// What carries the sockets: "io_uring", "epoll" (a system call for each receive and send, an open file for each connection), or "auto": epoll where io_uring is refused, with a warning.
        io: Io = Io(IoChoice::Auto);
        /// Connections on the whole machine; past it an upgrade on the plain port is answered 503, on the TLS port the connection is closed.
        connections_max: u32 = GatewaySettings::default().connections_max;
        /// Origins (such as https://chat.example) whose pages may open a socket; empty for any.
        allowed_origins: Vec<String> = Vec::new();
    }
    /// The router.
    router: Router {
        /// Threads that the shards are spread over; "auto" leaves most CPUs to the gateway.
        workers: Threads = Threads::Auto;
        /// Keep each worker to one CPU. Pays where CPUs are left beside the gateway's.
        pinned: bool = RouterSettings::default().pinned;
        /// Number of this region, 0 to 7, a part of every id.
        region: u32 = 0;
        /// Conversations kept in memory by all workers; idle ones go first.
        conversations_loaded_max: usize = RouterSettings::default().conversations_loaded_max;
        /// Members of those conversations, all together.
        members_loaded_max: usize = RouterSettings::default().members_loaded_max;
        /// Idempotency keys kept in memory by all workers; older ones are looked up in the store.
        dedup_keys_max: usize = RouterSettings::default().dedup_keys_max;
        /// Messages that may wait for the store, all together; past it sends are refused.
        inflight_max: usize = RouterSettings::default().inflight_max;
        /// Bytes of those messages.
        inflight_bytes_max: usize = RouterSettings::default().inflight_bytes_max;
    }
    /// The embedded store.
    store: Store {
        /// Memory for blocks read from disk, in bytes. The kernel caches files beside it.
        cache_bytes: u64 = StoreSettings::default().cache_bytes;
        /// Bytes of disk kept in reserve for the day it is full; 0 for none.
        reserve_bytes: u64 = StoreSettings::default().reserve_bytes;
        /// Free bytes of disk below which no message is taken.
        free_bytes_min: u64 = StoreSettings::default().free_bytes_min;
        /// Threads that answer reads.
        readers: usize = StoreSettings::default().readers;
        /// Threads that write tables and merge them.
        background_threads: usize = StoreSettings::default().background_threads;
    }
    /// How the server ends.
    drain: Drain {
        /// Seconds from SIGTERM within which clients are told to go elsewhere; then their sockets close.
        within_s: u64 = 10;
    }
    /// For tests and measurements.
    diagnostics: Diagnostics {
        /// Serve GET /echo, a plain WebSocket echo with messages of up to 16 MiB.
        echo: bool = false;
        /// Serve GET /relay?id=N&room=0, a relay between WebSockets without login or store: a message goes to
        /// the id of seven digits behind its U, or to all with room=1 if it begins with R.
        relay: bool = false;
        /// File to which a line is appended for each durable entry, ack and delivery, for `loadgen check`.
        trace: Option<PathBuf> = None;
    }
    /// Log lines, on standard error.
    log: Log {
        /// "text" for people, "json" for machines.
        format: LogFormat = LogFormat::Text;
        /// The least severe line that is written: "error", "warn", "info", "debug", "trace".
        level: LogLevel = LogLevel(tracing::Level::INFO);
    }
}

fn loopback(port: u16) -> Listener {
    Listener::At(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A listener that others than this machine can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exposed {
    /// Which setting.
    pub(crate) name: &'static str,
    /// Where it stands.
    pub(crate) address: SocketAddr,
}

impl Settings {
    /// What is wrong between values, each with the setting that is to blame and what to do.
    pub(crate) fn broken_rules(&self) -> Vec<(&'static str, String)> {
        let mut broken = Vec::new();
        let mut rule = |holds: bool, name: &'static str, text: &str| {
            if !holds {
                broken.push((name, text.to_owned()));
            }
        };
        let (tls, auth, limits) = (&self.tls, &self.auth, &self.limits);
        rule(
            self.listen.wss != Listener::Off || self.listen.ws != Listener::Off,
            "listen.wss",
            "is off and listen.ws as well: a server needs one of them",
        );
        rule(tls.certificate.is_none() || tls.key.is_some(), "tls.certificate", "needs tls.key beside it");
        rule(tls.key.is_none() || tls.certificate.is_some(), "tls.key", "needs tls.certificate beside it");
        rule(
            auth.jwks_file.is_none() || auth.jwks_url.is_none(),
            "auth.jwks_url",
            "and auth.jwks_file exclude each other: keep one",
        );
        let has_key_set = self.has_key_set();
        let needs_key_set = "has no effect on the development key: set auth.jwks_file or auth.jwks_url";
        rule(auth.issuer.is_none() || has_key_set, "auth.issuer", needs_key_set);
        rule(auth.audience.is_none() || has_key_set, "auth.audience", needs_key_set);
        rule(
            auth.jwks_url.as_deref().is_none_or(is_safe_key_url),
            "auth.jwks_url",
            "must be an https:// URL (http:// only to 127.0.0.1): who can change the keys can be anybody",
        );
        rule(auth.max_token_life_s >= 60, "auth.max_token_life_s", "must be at least 60");
        let frame = 1024..=16 * 1024 * 1024;
        rule(frame.contains(&limits.max_frame_bytes), "limits.max_frame_bytes", "must be 1024 to 16777216");
        rule(limits.max_inflight >= 1, "limits.max_inflight", "must be at least 1");
        rule(
            limits.max_queue_bytes >= 2 * limits::PAGE_BYTES_MAX
                && limits.max_queue_bytes >= limits.max_frame_bytes,
            "limits.max_queue_bytes",
            "must hold two pages of history (131072) and one frame of limits.max_frame_bytes",
        );
        rule(limits.send_per_s >= 1, "limits.send_per_s", "must be at least 1");
        rule(limits.send_burst >= 1, "limits.send_burst", "must be at least 1");
        let window = 60..=366 * 86_400;
        rule(window.contains(&limits.dedup_window_s), "limits.dedup_window_s", "must be 60 to 31622400");
        rule(
            limits.partial_bytes >= limits.max_frame_bytes,
            "limits.partial_bytes",
            "must hold one frame of limits.max_frame_bytes",
        );
        let buffer = 16 * 1024..=64 * 1024 * 1024;
        rule(
            limits.socket_send_buffer_bytes == 0 || buffer.contains(&limits.socket_send_buffer_bytes),
            "limits.socket_send_buffer_bytes",
            "must be 0 (as the kernel likes), or 16384 to 67108864",
        );
        rule(limits.connections_per_address >= 1, "limits.connections_per_address", "must be at least 1");
        rule(limits.connections_per_user >= 1, "limits.connections_per_user", "must be at least 1");
        rule(self.router.region <= 7, "router.region", "must be 0 to 7");
        rule(self.store.readers >= 1, "store.readers", "must be at least 1");
        rule(self.store.background_threads >= 1, "store.background_threads", "must be at least 1");
        rule(self.gateway.connections_max >= 1, "gateway.connections_max", "must be at least 1");
        rule(
            self.gateway.allowed_origins.iter().all(|origin| is_origin(origin)),
            "gateway.allowed_origins",
            "takes origins as browsers send them: scheme://host, with :port where it is not the usual one, \
             no path",
        );
        broken
    }

    /// Whether the issuer's keys are given; else the development key is used.
    pub(crate) fn has_key_set(&self) -> bool {
        self.auth.jwks_file.is_some() || self.auth.jwks_url.is_some()
    }

    /// The listener beyond loopback that a development key or certificate would serve, if any: that must
    /// not be.
    pub(crate) fn development_beyond_loopback(&self) -> Option<Exposed> {
        let listeners = [("listen.wss", self.listen.wss), ("listen.ws", self.listen.ws)];
        listeners.into_iter().find_map(|(name, listener)| {
            let address = listener.address().filter(|address| !is_loopback(address.ip()))?;
            let development_certificate = name == "listen.wss" && self.tls.certificate.is_none();
            (!self.has_key_set() || development_certificate).then_some(Exposed { name, address })
        })
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn is_safe_key_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty());
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(is_loopback)
}

fn is_origin(origin: &str) -> bool {
    origin.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && !host.contains(['/', ' ', ',', '*'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_break_no_rule_and_stay_on_loopback() {
        let settings = Settings::default();
        assert_eq!(settings.broken_rules(), []);
        assert_eq!(settings.development_beyond_loopback(), None);
    }

    #[test]
    fn every_setting_has_a_help_text_of_a_sentence() {
        for field in FIELDS {
            assert!(field.help.trim().ends_with('.'), "{}: {:?}", field.name, field.help);
        }
    }

    #[test]
    fn a_development_key_or_certificate_is_seen_beyond_loopback() {
        let mut settings = Settings::default();
        let wide = Listener::At("0.0.0.0:8443".parse().unwrap());
        settings.listen.wss = wide;
        assert_eq!(settings.development_beyond_loopback().unwrap().name, "listen.wss");
        settings.auth.jwks_file = Some("keys.json".into());
        assert_eq!(settings.development_beyond_loopback().unwrap().name, "listen.wss", "the certificate");
        settings.tls.certificate = Some("certificate.pem".into());
        assert_eq!(settings.development_beyond_loopback(), None);
        settings.auth.jwks_file = None;
        settings.listen = Listen { wss: Listener::Off, ws: wide, ..Listen::default() };
        assert_eq!(settings.development_beyond_loopback().unwrap().name, "listen.ws");
        for loopback in ["127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            settings.listen.ws = Listener::At(loopback.parse().unwrap());
            assert_eq!(settings.development_beyond_loopback(), None, "{loopback}");
        }
    }

    #[test]
    fn keys_come_over_https_or_from_this_machine() {
        for (url, safe) in [
            ("https://id.example/keys", true),
            ("http://127.0.0.1:9000/keys", true),
            ("http://[::1]:9000/keys", true),
            ("http://id.example/keys", false),
            ("http://127.0.0.1.evil.example/keys", false),
            ("http://127.0.0.1@evil.example/keys", false),
            ("file:///etc/keys", false),
            ("https://", false),
        ] {
            assert_eq!(is_safe_key_url(url), safe, "{url}");
        }
    }
}
