//! The `ringway` command.
//!
//! `command_line.rs` says what was asked, `settings.rs` how. `serve.rs` is the whole service in one process.
#![forbid(unsafe_code)]

mod certificate;
mod command_line;
mod data_folder;
mod exit;
mod keys;
mod run_file;
mod settings;
mod token_verb;

use std::process::ExitCode;

use command_line::Verb;
use exit::{Exit, Failure};

fn main() -> ExitCode {
    let line = command_line::read();
    let ended = match line.sources.read() {
        Err(errors) => {
            let lines: Vec<String> = errors.iter().map(|error| format!("ringway: {error}")).collect();
            Err(Failure::new(Exit::Usage, lines.join("\n")))
        }
        Ok(layered) => match line.verb {
            Verb::Serve => Ok(()),
            Verb::Check => {
                print!("{}", settings::report::effective(&layered));
                Ok(())
            }
            Verb::Token(request) => token_verb::print(&request, &layered.settings),
        },
    };
    match ended {
        Ok(()) => Exit::Success.into(),
        Err(failure) => {
            eprintln!("{}", failure.message);
            failure.exit.into()
        }
    }
}
