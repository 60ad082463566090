//! A `ringway serve` of our own: started on free loopback ports, found by the `run.json` it writes,
//! killed by its process id.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::process::{Failure, Profile, binary, output};

/// How long a server may take from its start to being ready, recovery of its log included.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// What it wrote when it was ready.
    pub(crate) run: RunFile,
}

/// The `run.json` of a data folder.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RunFile {
    pub(crate) pid: u32,
    pub(crate) wss: Option<String>,
    pub(crate) ws: Option<String>,
    pub(crate) admin: String,
}

/// How a server is started, again and again on the same ports and folder.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) profile: Profile,
    pub(crate) folder: PathBuf,
    pub(crate) flags: Vec<String>,
}

impl Plan {
    /// On ports that the kernel picks, with limits that a load from one address needs.
    pub(crate) fn new(profile: Profile, folder: &Path) -> Self {
        let flags = [
            ("--listen.wss", "127.0.0.1:0"),
            ("--listen.ws", "127.0.0.1:0"),
            ("--listen.admin", "127.0.0.1:0"),
            ("--limits.connections_per_address", "100000"),
        ];
        let flags = flags.iter().flat_map(|(name, value)| [name.to_string(), value.to_string()]).collect();
        Self { profile, folder: folder.to_owned(), flags }
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(&self) -> Result<Server, Failure> {
        let run_file = self.folder.join("run.json");
        let _ = std::fs::remove_file(&run_file);
        let log_path = self.folder.with_extension("log");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(Failure::file(&log_path))?;
        let mut command = Command::new(binary(self.profile, "ringway"));
        command.arg("serve").arg("--data.folder").arg(&self.folder).args(&self.flags);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(Failure::file(&log_path))?).stderr(log);
        let mut child =
            command.spawn().map_err(|error| Failure::Start { command: "ringway serve".into(), error })?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let run =
                std::fs::read(&run_file).ok().and_then(|text| serde_json::from_slice::<RunFile>(&text).ok());
            if let Some(run) = run.filter(|run| run.pid == child.id()) {
                return Ok(Server { child, run });
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Failure::Unmet(format!(
                    "ringway serve ended at its start ({status}): see {}",
                    log_path.display()
                )));
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::Unmet(format!(
                    "ringway serve was not ready in time: see {}",
                    log_path.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The same, on the ports that the first start was given: clients come back to them.
    pub(crate) fn keep_ports(&mut self, run: &RunFile) {
        let mut set = |flag: &str, address: &str| {
            if let Some(at) = self.flags.iter().position(|word| word == flag) {
                self.flags[at + 1] = address.to_owned();
            }
        };
        set("--listen.wss", run.wss.as_deref().unwrap_or("off"));
        set("--listen.ws", run.ws.as_deref().unwrap_or("off"));
        set("--listen.admin", &run.admin);
    }

    /// Development tokens of users `u0` … , one line `USER TOKEN` each, in a file.
    pub(crate) fn tokens(&self, count: u32, file: &Path) -> Result<(), Failure> {
        let count = count.to_string();
        let mut command = Command::new(binary(self.profile, "ringway"));
        command.args(["token", "--prefix", "u", "--count", &count, "--data.folder"]).arg(&self.folder);
        std::fs::write(file, output(&mut command)?).map_err(Failure::file(file))
    }
}

impl Server {
    /// SIGKILL, and gone when this returns.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
