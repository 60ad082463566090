//! Child processes: run one to its end, or fail with its command line in the message.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a chore did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A program could not be started.
    #[error("`{command}` could not be started: {error}")]
    Start { command: String, error: std::io::Error },
    /// A program ended with another code than 0.
    #[error("`{command}` failed: {status}")]
    Exit { command: String, status: std::process::ExitStatus },
    /// A file could not be read or written.
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    /// The checker found a broken promise.
    #[error("a promise was broken: {0}")]
    Broken(String),
    /// What was expected did not happen.
    #[error("{0}")]
    Unmet(String),
}

impl Failure {
    /// For `map_err` on file operations.
    pub(crate) fn file(path: &Path) -> impl Fn(std::io::Error) -> Failure {
        move |error| Failure::File { path: path.to_owned(), error }
    }
}

/// Runs a command to its end, its output going where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let line = line(command);
    println!("\n$ {line}");
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Exit { command: line, status }),
        Err(error) => Err(Failure::Start { command: line, error }),
    }
}

/// Runs a command to its end and gives its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let line = line(command);
    match command.stdin(Stdio::null()).stderr(Stdio::inherit()).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(Failure::Exit { command: line, status: output.status }),
        Err(error) => Err(Failure::Start { command: line, error }),
    }
}

/// Whether a program is found on the PATH.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The project's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the project")
}

/// The cargo that runs us, in the project's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// A command that runs another on one CPU, before all other work if we may: its arguments follow.
pub(crate) fn pinned(cpu: u32) -> Command {
    let mut allowed = Command::new("chrt");
    allowed.args(["--fifo", "50", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    let is_allowed = allowed.status().is_ok_and(|status| status.success());
    let mut command = Command::new(if is_allowed { "chrt" } else { "taskset" });
    if is_allowed {
        command.args(["--fifo", "50", "taskset"]);
    }
    command.args(["-c", &cpu.to_string()]);
    command
}

/// A command that runs another before what else goes on on the machine, if we may: its arguments follow. Not before all,
/// as [`pinned`] does: what takes both processors for minutes leaves something to the others.
pub(crate) fn urgent() -> Command {
    let mut command = Command::new("nice");
    // Who may not is told so on stderr, and the command runs as it would.
    command.args(["-n", "-20"]);
    command
}

/// Where cargo puts a binary of this profile: the folder beside our own binary's.
pub(crate) fn binary(profile: Profile, name: &str) -> PathBuf {
    let ours = std::env::current_exe().expect("Linux knows the path of a running program");
    let target = ours.ancestors().nth(2).expect("cargo runs us from target/PROFILE");
    target.join(profile.folder()).join(name)
}

/// Which build of our binaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Profile {
    fn folder(self) -> &'static str {
        match self {
            Profile::Dev => "debug",
            Profile::Release => "release",
        }
    }

    /// Builds the server and the load generator, the server with these features.
    pub(crate) fn build(self, features: &str) -> Result<(), Failure> {
        let mut arguments = vec!["build", "--quiet"];
        if self == Profile::Release {
            arguments.push("--release");
        }
        let mut server = arguments.clone();
        server.extend(["--package", "ringway", "--features", features]);
        run(&mut cargo(&server))?;
        arguments.extend(["--package", "ringway-loadgen"]);
        run(&mut cargo(&arguments))
    }
}

fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}
