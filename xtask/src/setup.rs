//! Installs what tests need and a fresh machine lacks, from the package registries: Chromium and
//! valgrind from Debian's packages (the versions of its release), TypeScript and the browser driver from npm by
//! `web/package-lock.json`. What cannot be installed is named, and the tests fail rather than skip.

use std::path::Path;
use std::process::Command;

use crate::process::{self, Failure, is_installed, root};

/// The verb, and the first step of `test`.
pub(crate) fn run() -> Result<(), Failure> {
    for package in ["chromium", "valgrind"] {
        debian_package(package)?;
    }
    for program in ["node", "npm"] {
        if !is_installed(program) {
            return Err(Failure::Unmet(format!("{program} is not installed: install Node.js 20 or newer")));
        }
    }
    if !Path::new("/dev/fuse").exists() {
        return Err(Failure::Unmet(
            "/dev/fuse is missing and the power-cut tests need it: modprobe fuse".into(),
        ));
    }
    process::run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(root().join("web")))
}

/// Installs a package that has a program of the same name, where that is not installed.
pub(crate) fn debian_package(package: &str) -> Result<(), Failure> {
    if is_installed(package) {
        return Ok(());
    }
    process::run(Command::new("apt-get").args(["update", "-qq"]))?;
    process::run(
        Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends", package])
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}
