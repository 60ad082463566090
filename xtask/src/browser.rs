//! The browser test: two headless Chromium windows on the chat page of a server of our own, over wss; in
//! the middle the server is killed and comes back, and nothing acknowledged is missing.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::crashes::scratch;
use crate::process::{Failure, Profile, root};
use crate::server::Plan;

/// The verb.
pub(crate) fn run(screenshots: &Path) -> Result<(), Failure> {
    crate::setup::run()?;
    Profile::Dev.build("")?;
    chat(screenshots)
}

/// Runs `web/test/browser.mjs`, which says on its standard output `restart` when it wants the server
/// killed and started anew, and reads `restarted` when that is done.
pub(crate) fn chat(screenshots: &Path) -> Result<(), Failure> {
    let screenshots = root().join(screenshots);
    std::fs::create_dir_all(&screenshots).map_err(Failure::file(&screenshots))?;
    let folder = scratch()?;
    let plan = Plan::new(Profile::Dev, &folder.path().join("data"))?;
    std::fs::create_dir(&plan.folder).map_err(Failure::file(&plan.folder))?;
    let mut server = plan.start()?;
    let url = format!("https://{}", server.run.wss.as_deref().unwrap_or_default());
    println!("\n$ node test/browser.mjs {url}");
    let mut browser = Command::new("node")
        .args(["test/browser.mjs", &url])
        .arg(&screenshots)
        .current_dir(root().join("web"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::Start { command: "node test/browser.mjs".into(), error })?;
    let mut answers = browser.stdin.take().expect("standard input is piped");
    let lines = BufReader::new(browser.stdout.take().expect("standard output is piped")).lines();
    for line in lines.map_while(Result::ok) {
        if line == "restart" {
            server.kill();
            server = plan.start()?;
            let _ = writeln!(answers, "restarted");
        } else {
            println!("{line}");
        }
    }
    let status = browser.wait().map_err(|error| Failure::Start { command: "wait for node".into(), error })?;
    drop(server);
    if status.success() {
        Ok(())
    } else {
        Err(Failure::Unmet(format!(
            "the browser test failed; its screenshots are in {}",
            screenshots.display()
        )))
    }
}
