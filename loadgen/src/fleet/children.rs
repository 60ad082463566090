//! Workers that are processes of this machine.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::KEY_VARIABLE;

/// From the order to leave to the end of the last worker.
const LEAVE_MAX: Duration = Duration::from_secs(60);

/// Workers of this machine. They end when their coordinator does; who does not is killed.
pub(super) struct Children(Vec<Child>);

impl Children {
    /// Starts so many, who join at `address`.
    ///
    /// # Errors
    /// The program cannot be run.
    pub(super) fn start(program: &Path, count: usize, address: SocketAddr, key: &str) -> io::Result<Self> {
        let mut children = Self(Vec::new());
        for _ in 0..count {
            let mut command = Command::new(program);
            command.args(["join", &address.to_string()]).env(KEY_VARIABLE, key);
            command.stdin(Stdio::null()).stdout(Stdio::null());
            children.0.push(command.spawn()?);
        }
        Ok(children)
    }

    /// None: they are somewhere else.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Waits for all, who were told to leave.
    pub(super) fn wait(mut self) {
        for mut child in self.0.drain(..) {
            let until = Instant::now() + LEAVE_MAX;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
