//! A server of a test's own.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ringway_protocol::ids::Timestamp;
use ringway_protocol::token::mint_development;
use ringway_protocol::user::{DeviceId, UserId};
use serde_json::Value;

use super::{Client, Http, PATIENCE, wait_for};

/// A running `ringway serve`.
pub struct Server {
    child: Child,
    folder: Folder,
    wss: Option<SocketAddr>,
    ws: Option<SocketAddr>,
    admin: SocketAddr,
    output: Output,
}

/// A server that ended: its exit code (`None`: by a signal) and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The folder a server runs in; a temporary one goes with the server.
enum Folder {
    Own(tempfile::TempDir),
    Given(PathBuf),
}

/// What a child writes, gathered while it runs.
#[derive(Clone, Default)]
struct Output {
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

impl Server {
    /// Starts a server in a folder of its own on free ports and waits until it accepts sends. `flags`
    /// come last, so they win over the harness's own.
    #[track_caller]
    pub fn start(flags: &[&str]) -> Server {
        Self::started(Self::launch(Folder::Own(tempfile::tempdir().unwrap()), flags, &[]))
    }

    /// The same in a folder that stays: for restarts. The server's data is in `ringway-data` in it.
    #[track_caller]
    pub fn start_in(folder: &Path, flags: &[&str]) -> Server {
        Self::started(Self::launch(Folder::Given(folder.to_owned()), flags, &[]))
    }

    /// The same with variables in its environment.
    #[track_caller]
    pub fn start_with(folder: &Path, flags: &[&str], variables: &[(&str, &str)]) -> Server {
        Self::started(Self::launch(Folder::Given(folder.to_owned()), flags, variables))
    }

    /// Starts a server that is expected to end by itself before it is ready.
    #[track_caller]
    pub fn fail_in(folder: &Path, flags: &[&str]) -> Ended {
        match Self::launch(Folder::Given(folder.to_owned()), flags, &[]) {
            Ok(server) => panic!("it was expected to fail, and serves with {flags:?} as {}", server.pid()),
            Err(ended) => ended,
        }
    }

    #[track_caller]
    fn started(launched: Result<Server, Ended>) -> Server {
        launched.unwrap_or_else(|ended| panic!("the server did not start: {ended:#?}"))
    }

    #[track_caller]
    fn launch(folder: Folder, flags: &[&str], variables: &[(&str, &str)]) -> Result<Server, Ended> {
        let path = folder.path().to_owned();
        // A file of an earlier server would be taken for this one's.
        let _ = std::fs::remove_file(path.join("ringway-data/run.json"));
        let mut command = command_in(&path);
        command.arg("serve");
        for listener in ["--listen.wss", "--listen.ws", "--listen.admin"] {
            if !flags.iter().any(|flag| flag.split('=').next() == Some(listener)) {
                command.args([listener, "127.0.0.1:0"]);
            }
        }
        command.args(flags).envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary was built with the tests");
        let output = Output::gather(&mut child);
        let data = data_folder(&path, flags);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return Err(output.ended(status.code()));
            }
            if let Some(run) = read_json(&data.join("run.json")) {
                let address = |name: &str| run[name].as_str().map(|text| text.parse().unwrap());
                let admin = address("admin").expect("run.json names the admin port");
                let server = Server { child, folder, wss: address("wss"), ws: address("ws"), admin, output };
                server.wait_ready();
                return Ok(server);
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("not ready after {PATIENCE:?}: {:#?}", output.ended(None));
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Waits until `/readyz` says 200.
    #[track_caller]
    pub fn wait_ready(&self) {
        wait_for("readyz", || (self.admin_http().get("/readyz", None).status == 200).then_some(()));
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder it runs in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its data folder.
    pub fn data_folder(&self) -> PathBuf {
        self.folder().join("ringway-data")
    }

    /// Where wss and HTTPS are.
    #[track_caller]
    pub fn wss(&self) -> SocketAddr {
        self.wss.expect("listen.wss is on")
    }

    /// Where ws and HTTP are.
    #[track_caller]
    pub fn ws(&self) -> SocketAddr {
        self.ws.expect("listen.ws is on")
    }

    /// Where the admin port is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// HTTP on the plain port.
    pub fn http(&self) -> Http {
        Http::plain(self.ws())
    }

    /// HTTP on the TLS port, trusting the development certificate.
    pub fn https(&self) -> Http {
        Http::tls(self.wss(), &self.development_certificate())
    }

    /// HTTP on the admin port.
    pub fn admin_http(&self) -> Http {
        Http::plain(self.admin)
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        self.admin_http().get("/metrics", None).text()
    }

    /// The sum over all label sets of one metric, 0 if it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        self.metrics()
            .lines()
            .filter_map(|line| {
                let (key, value) = line.rsplit_once(' ')?;
                (key.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok())?
            })
            .sum()
    }

    /// The development certificate as PEM.
    pub fn development_certificate(&self) -> Vec<u8> {
        std::fs::read(self.data_folder().join("tls/dev-cert.pem")).expect("made at the first start")
    }

    /// A development token of a user of the empty tenant, an hour long.
    pub fn token(&self, user: &str) -> String {
        self.token_of(&UserId::new("", user).unwrap(), None, 3600)
    }

    /// A development token of any kind.
    pub fn token_of(&self, user: &UserId, device: Option<&str>, life_seconds: u64) -> String {
        let secret = std::fs::read(self.data_folder().join("dev-signing-key")).expect("made at the start");
        let device = device.map(|device| DeviceId::new(device).unwrap());
        mint_development(&secret, user, device.as_ref(), now(), life_seconds)
    }

    /// A JSON client on the plain port, welcome already.
    #[track_caller]
    pub fn connect(&self, user: &str) -> Client {
        let mut client = Client::open(self.ws());
        client.hello(&self.token(user));
        client
    }

    /// A JSON client on the TLS port, welcome already.
    #[track_caller]
    pub fn connect_tls(&self, user: &str) -> Client {
        let mut client = Client::open_tls(self.wss(), &self.development_certificate());
        client.hello(&self.token(user));
        client
    }

    /// Sends a signal, by name: TERM, INT, HUP, STOP, CONT.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "kill -s {name}");
    }

    /// kill -9, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn wait_ended(&mut self) -> Ended {
        let code = wait_for("the server's end", || self.child.try_wait().unwrap()).code();
        self.output.ended(code)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        self.output.stdout.lock().unwrap().clone()
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.output.stderr.lock().unwrap().clone()
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a live process has it");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Folder::Own(folder) => folder.path(),
            Folder::Given(folder) => folder,
        }
    }
}

impl Output {
    fn gather(child: &mut Child) -> Self {
        let output = Self::default();
        read_into(child.stdout.take().unwrap(), &output.stdout);
        read_into(child.stderr.take().unwrap(), &output.stderr);
        output
    }

    fn ended(&self, code: Option<i32>) -> Ended {
        // The readers end with the pipes; what is left in them is read within moments.
        let deadline = Instant::now() + std::time::Duration::from_secs(5);
        while Arc::strong_count(&self.stdout) + Arc::strong_count(&self.stderr) > 2
            && Instant::now() < deadline
        {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let text = |text: &Mutex<String>| text.lock().unwrap().clone();
        Ended { code, stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

fn read_into(mut pipe: impl std::io::Read + Send + 'static, text: &Arc<Mutex<String>>) {
    let text = Arc::clone(text);
    let echo = std::env::var_os("RINGWAY_TEST_LOG").is_some();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let piece = String::from_utf8_lossy(&buffer[..count]);
            if echo {
                eprint!("{piece}");
            }
            text.lock().unwrap().push_str(&piece);
        }
    });
}

fn data_folder(path: &Path, flags: &[&str]) -> PathBuf {
    let given = flags.iter().position(|flag| *flag == "--data.folder").and_then(|at| flags.get(at + 1));
    path.join(given.unwrap_or(&"ringway-data"))
}

fn read_json(path: &Path) -> Option<Value> {
    let mut text = String::new();
    std::fs::File::open(path).ok()?.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The wall clock.
pub(super) fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

/// The command in a folder, with nothing of ours in its environment.
pub(super) fn command_in(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.current_dir(folder);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGWAY__") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `ringway` with words in a folder to its end.
pub fn run_in(folder: &Path, words: &[&str]) -> Ended {
    run_with(folder, words, &[])
}

/// The same with variables in its environment.
pub fn run_with(folder: &Path, words: &[&str], variables: &[(&str, &str)]) -> Ended {
    let output = command_in(folder).args(words).envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
