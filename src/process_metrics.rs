//! What the process as a whole takes of the machine, under the names that Prometheus' own clients use.

use std::time::{SystemTime, UNIX_EPOCH};

use ringway_metrics::Text;

/// The start of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessMetrics {
    start_seconds: u64,
}

impl ProcessMetrics {
    /// To be made when the process starts.
    pub(crate) fn begin() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start_seconds: since.as_secs() }
    }

    /// Writes them.
    pub(crate) fn render(self, text: &mut Text) {
        let one = |value: u64| [(String::new(), value)];
        let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
        text.gauge("ringway_build_info", "The version that runs.", [(version, 1)]);
        text.gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
            one(self.start_seconds),
        );
        if let Some(bytes) = resident_bytes() {
            text.gauge("process_resident_memory_bytes", "Resident memory.", one(bytes));
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            text.gauge("process_open_fds", "Open file descriptors.", one(files.count() as u64));
        }
    }
}

fn resident_bytes() -> Option<u64> {
    // proc_pid_status(5): "VmRSS:    1234 kB".
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}
