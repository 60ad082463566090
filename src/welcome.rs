//! What `serve` prints when it is ready: where it listens, how to log in, what the kernel gave, what was
//! chosen. On standard output; log lines go to standard error.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use ringway_gateway::Plan;

/// What there is to tell.
pub(crate) struct Welcome {
    /// wss and HTTPS.
    pub(crate) wss: Option<SocketAddr>,
    /// ws and HTTP.
    pub(crate) ws: Option<SocketAddr>,
    /// The admin port.
    pub(crate) admin: SocketAddr,
    /// The data folder.
    pub(crate) data_folder: std::path::PathBuf,
    /// Which certificate.
    pub(crate) certificate: Option<String>,
    /// Which keys verify tokens.
    pub(crate) keys: String,
    /// Development users with a token each; empty unless the development key is in use.
    pub(crate) logins: Vec<(&'static str, String)>,
    /// What the kernel gave.
    pub(crate) kernel: String,
    /// Threads of the gateway.
    pub(crate) plan: Plan,
    /// Threads of the router.
    pub(crate) workers: usize,
    /// The sum of the gateway's bounds, line by line.
    pub(crate) memory: String,
}

impl Welcome {
    /// Prints it. A closed pipe is no reason to end.
    pub(crate) fn print(&self) {
        let _ = std::io::stdout().lock().write_all(self.text().as_bytes());
    }

    fn text(&self) -> String {
        let mut text = format!("Ringway {} serves\n", env!("CARGO_PKG_VERSION"));
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<12} {value}");
        };
        if let Some(address) = self.wss {
            line("wss", &format!("wss://{}/ws", reachable(address)));
        }
        if let Some(address) = self.ws {
            line("ws", &format!("ws://{}/ws", reachable(address)));
        }
        line("HTTP API", &format!("{}/api/v1 (described by /api/v1/openapi.json)", self.base()));
        line("chat page", &format!("{}/", self.base()));
        line("admin", &format!("http://{}/metrics, /readyz, /livez", reachable(self.admin)));
        line("data", &self.data_folder.display().to_string());
        if let Some(certificate) = &self.certificate {
            line("certificate", certificate);
        }
        line("token keys", &self.keys);
        line("kernel", &self.kernel);
        let plan = self.plan;
        line(
            "gateway",
            &format!(
                "{} cores x {} rings, {} sockets a ring",
                plan.cores, plan.rings_per_core, plan.ring.slots
            ),
        );
        line(
            "router",
            &format!("{} workers for {} shards", self.workers, ringway_protocol::ids::SHARD_COUNT),
        );
        let _ = writeln!(text, "  memory       the gateway's bounds add up to\n{}", indented(&self.memory));
        self.logins(&mut text);
        text
    }

    fn logins(&self, text: &mut String) {
        if self.logins.is_empty() {
            return;
        }
        let _ = writeln!(text, "\nLog in (development users; any other name does as well):");
        for (user, _) in &self.logins {
            let _ = writeln!(text, "  {}/?user={user}", self.base());
        }
        let _ = writeln!(text, "Tokens for other clients (`ringway token USER` makes more):");
        for (user, token) in &self.logins {
            let _ = writeln!(text, "  {user} {token}");
        }
    }

    /// The address of the page: over TLS if there is one.
    fn base(&self) -> String {
        match (self.wss, self.ws) {
            (Some(address), _) => format!("https://{}", reachable(address)),
            (None, Some(address)) => format!("http://{}", reachable(address)),
            (None, None) => String::new(),
        }
    }
}

/// An address that a browser on this machine can open: 0.0.0.0 is none.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, address.port()))
        }
        _ => address,
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_interfaces_is_shown_as_loopback() {
        assert_eq!(reachable("0.0.0.0:8443".parse().unwrap()), "127.0.0.1:8443".parse().unwrap());
        assert_eq!(reachable("[::]:8443".parse().unwrap()), "[::1]:8443".parse().unwrap());
        assert_eq!(reachable("192.0.2.1:1".parse().unwrap()), "192.0.2.1:1".parse().unwrap());
    }
}
