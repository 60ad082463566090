//! What a connection that does nothing costs the server: the growth of its resident memory over 15,000
//! connections, logged in and beating, on the plain listener and over TLS.

use std::process::Command;

use crate::crashes::scratch;
use crate::process::{self, Failure, Profile, binary};
use crate::rows::{self, Rerun};
use crate::server::Plan;

/// Connections: what fits the limit on open files of one client process.
const CONNECTIONS: u32 = 15_000;

/// Each listener, with the user memory that an idle connection on it may cost, in bytes.
const LISTENERS: [(&str, f64); 2] = [("ws", 512.0), ("wss", 1024.0)];

/// The verb.
pub(crate) fn run(rerun: &Rerun) -> Result<(), Failure> {
    Profile::Release.build("")?;
    for (scheme, bytes_max) in LISTENERS {
        rows::row(&format!("idle {CONNECTIONS} {scheme}"), rows::SERVER, rerun, || {
            let figures = idle(scheme, CONNECTIONS)?;
            match figures["resident_bytes_a_connection"].as_f64() {
                Some(bytes) if bytes <= bytes_max => Ok(figures),
                _ => Err(Failure::Unmet(format!("more than {bytes_max} bytes a connection: {figures}"))),
            }
        })?;
    }
    Ok(())
}

fn idle(scheme: &str, connections: u32) -> Result<serde_json::Value, Failure> {
    let folder = scratch()?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data).map_err(Failure::file(&data))?;
    let mut plan = Plan::new(Profile::Release, &data)?;
    plan.flags.extend(["--gateway.connections_max".into(), "18000".into()]);
    let server = plan.start()?;
    let tokens = folder.path().join("tokens");
    plan.tokens(connections, &tokens)?;
    let summary = folder.path().join("summary.json");
    let address = if scheme == "wss" { &server.run.wss } else { &server.run.ws };
    let url = format!("{scheme}://{}/ws", address.as_deref().unwrap_or_default());
    let mut command = Command::new(binary(Profile::Release, "loadgen"));
    command.args(["idle", "--insecure", "--url", &url, "--connections", &connections.to_string()]);
    command.args(["--server-pid", &server.run.pid.to_string(), "--encoding", "json"]);
    command.arg("--tokens").arg(&tokens).arg("--summary").arg(&summary);
    process::run(&mut command)?;
    let text = std::fs::read_to_string(&summary).map_err(Failure::file(&summary))?;
    serde_json::from_str(&text).map_err(|error| Failure::Unmet(format!("{}: {error}", summary.display())))
}
