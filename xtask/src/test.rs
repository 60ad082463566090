//! What continuous integration runs, in the order of what fails fastest.

use std::path::Path;
use std::process::Command;

use crate::crashes::{self, Fault, Load};
use crate::instructions::{self, Instructions};
use crate::process::{self, Failure, Profile, cargo, root};

/// A load small enough for a debug build beside other work.
const LOAD: Load = Load { users: 60, group_size: 10, messages_per_second: 60, seconds: 12 };

/// The verb.
pub(crate) fn run() -> Result<(), Failure> {
    process::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    process::run(&mut cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))?;
    crate::setup::run()?;
    process::run(&mut cargo(&["test", "--quiet", "--workspace"]))?;
    instructions::run(&Instructions::default())?;
    web()?;
    Profile::Dev.build("")?;
    crate::browser::chat(Path::new("target/screenshots"))?;
    crash("3 kills", Fault::Kill, 3)?;
    crash("3 power cuts", Fault::PowerCut, 3)?;
    println!("\nall passed");
    Ok(())
}

fn web() -> Result<(), Failure> {
    let folder = root().join("web");
    for script in ["check", "test"] {
        process::run(Command::new("npm").args(["run", "--silent", script]).current_dir(&folder))?;
    }
    Ok(())
}

fn crash(name: &str, fault: Fault, count: u32) -> Result<(), Failure> {
    println!("\n{name} under load");
    let folder = crashes::scratch()?;
    crashes::run(Profile::Dev, folder.path(), LOAD, fault, count, 1).map(drop)
}
