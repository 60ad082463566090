//! `loadgen abuse`: one kind of bad client, again and again for some seconds, beside whatever else runs.
//!
//! A round begins every second, or when the last one has ended if that took longer: a server should bear a
//! bad client that comes back, and the processor time of the client itself must not be what others wait
//! for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::PossibleValuesParser;
use ringway_loadgen::abuse::{Abuse, Report, Target};

use crate::{Failure, seconds};

/// From the beginning of a round to that of the next one.
const ROUND_EVERY: Duration = Duration::from_secs(1);

/// Options of the verb.
#[derive(Args)]
pub(crate) struct AbuseOptions {
    /// How to behave
    #[arg(value_parser = PossibleValuesParser::new(Abuse::ALL.map(Abuse::name)))]
    kind: String,
    /// The server's plain listener
    #[arg(long, default_value = "127.0.0.1:8080")]
    ws: SocketAddr,
    /// The server's TLS listener
    #[arg(long, default_value = "127.0.0.1:8443")]
    wss: SocketAddr,
    /// A token of the user who behaves so
    #[arg(long)]
    token: String,
    /// How long
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// Runs the verb. False if the server did not end a round as it must.
pub(crate) fn run(options: AbuseOptions) -> Result<bool, Failure> {
    let kind = Abuse::named(&options.kind).expect("clap let no other name pass");
    let target = Target { ws: options.ws, wss: options.wss, token: options.token };
    let deadline = Instant::now() + seconds(options.seconds)?;
    let mut total = Report::default();
    let mut rounds = 0;
    let mut complaints = Vec::new();
    while Instant::now() < deadline {
        let begun = Instant::now();
        let patience = if kind.lasts() { deadline - begun } else { kind.ends_within() };
        let report = kind.run(&target, patience)?;
        rounds += 1;
        if let Err(complaint) = kind.verdict(&report, patience) {
            eprintln!("loadgen: {complaint}");
            complaints.push(complaint);
        }
        total.merge(&report);
        std::thread::sleep((begun + ROUND_EVERY).min(deadline).saturating_duration_since(Instant::now()));
    }
    let summary = serde_json::json!({
        "kind": kind.name(),
        "passed": complaints.is_empty(),
        "rounds": rounds,
        "report": total,
        "complaints": complaints,
    });
    println!("{summary}");
    Ok(complaints.is_empty())
}
