//! The `ringway` command.
//!
//! - `command_line.rs` says what was asked, `settings.rs` how; `exit.rs` how it may end.
//! - `serve.rs` is the whole service in one process: begin there. `plan.rs` hands each part its settings,
//!   `welcome.rs` says what came of it, `signals.rs` what the operator wants.
//! - `data_folder.rs`, `certificate.rs`, `keys.rs`, `run_file.rs`: what is kept beside the store.
//! - `token_verb.rs`: `ringway token`.
#![forbid(unsafe_code)]

mod certificate;
mod command_line;
mod data_folder;
mod exit;
mod keys;
mod log;
#[cfg(test)]
mod operating_document;
mod plan;
mod process_metrics;
mod run_file;
mod serve;
mod settings;
mod signals;
mod token_verb;
mod trace;
mod welcome;

use std::process::ExitCode;

use command_line::{CommandLine, Verb};
use exit::{Exit, Failure};

/// Small classes and little slack: a server's memory is many small things.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for huge pages, and with them a size class of which one object is used costs 2 MiB:
    // an empty server took 46 MB instead of 32, and each of 15,000 idle connections 1,267 bytes instead of
    // 907. A kernel without huge pages refuses this, and gives none.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    match run(command_line::read()) {
        Ok(()) => Exit::Success.into(),
        Err(failure) => {
            eprintln!("{}", failure.message);
            failure.exit.into()
        }
    }
}

fn run(line: CommandLine) -> Result<(), Failure> {
    let layered = line.sources.read().map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|error| format!("ringway: {error}")).collect();
        Failure::new(Exit::Usage, lines.join("\n"))
    })?;
    match line.verb {
        Verb::Serve => serve::run(&layered.settings),
        Verb::Check => {
            print!("{}", settings::report::effective(&layered));
            serve::check(&layered.settings)
        }
        Verb::Token(request) => token_verb::print(&request, &layered.settings),
    }
}
