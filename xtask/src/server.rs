//! A `ringway serve` of our own: started again and again on the same free ports, found by its `run.json`,
//! killed by its process id.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::process::{self, Failure, Profile, binary, output};

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
    /// The CPU that it has for itself; `None` for all that we may use.
    pub(crate) cpu: Option<u32>,
    /// It runs before what else goes on on the machine.
    pub(crate) urgent: bool,
}

impl Plan {
    /// On three free ports, with limits that a load from one address needs.
    pub(crate) fn new(profile: Profile, folder: &Path) -> Result<Self, Failure> {
        let [wss, ws, admin] = free_ports()?;
        let mut flags = Vec::new();
        for (flag, port) in [("--listen.wss", wss), ("--listen.ws", ws), ("--listen.admin", admin)] {
            flags.extend([flag.to_owned(), format!("127.0.0.1:{port}")]);
        }
        flags.extend(["--limits.connections_per_address".to_owned(), "100000".to_owned()]);
        Ok(Self { profile, folder: folder.to_owned(), flags, cpu: None, urgent: false })
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
        let ringway = binary(self.profile, "ringway");
        let around = self.cpu.map(process::pinned).or_else(|| self.urgent.then(process::urgent));
        let mut command = match around {
            None => Command::new(ringway),
            Some(mut around) => {
                around.arg(ringway);
                around
            }
        };
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

    /// Development tokens of users `u0` … , one line `USER TOKEN` each, in a file.
    pub(crate) fn tokens(&self, count: u32, file: &Path) -> Result<(), Failure> {
        let count = count.to_string();
        let mut command = Command::new(binary(self.profile, "ringway"));
        command.args(["token", "--prefix", "u", "--count", &count, "--data.folder"]).arg(&self.folder);
        std::fs::write(file, output(&mut command)?).map_err(Failure::file(file))
    }
}

/// Three ports that nobody has, below those that the kernel gives to clients: while a killed server is
/// away, a client that comes back must not be given its port.
fn free_ports() -> Result<[u16; 3], Failure> {
    let start = 20_000 + (std::process::id() % 1_000) as u16 * 8;
    let mut free = (start..32_000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    match (free.next(), free.next(), free.next()) {
        (Some(one), Some(two), Some(three)) => Ok([one, two, three]),
        _ => Err(Failure::Unmet(format!("no three free ports from {start} to 32000"))),
    }
}

impl Server {
    /// What its metrics page says, each family summed over its labels.
    pub(crate) fn metrics(&self) -> Result<BTreeMap<String, f64>, Failure> {
        let failed = |error| Failure::Unmet(format!("http://{}/metrics: {error}", self.run.admin));
        let mut socket = TcpStream::connect(&self.run.admin).map_err(failed)?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.run.admin);
        socket.write_all(request.as_bytes()).map_err(failed)?;
        let mut page = String::new();
        socket.read_to_string(&mut page).map_err(failed)?;
        let mut sums = BTreeMap::new();
        for line in page.lines().filter(|line| line.starts_with("ringway_")) {
            if let Some((name, value)) = line.rsplit_once(' ')
                && let Ok(value) = value.parse::<f64>()
            {
                let family = name.split('{').next().unwrap_or(name);
                *sums.entry(family.to_owned()).or_default() += value;
            }
        }
        Ok(sums)
    }

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
