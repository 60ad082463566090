//! The limits of a host, as its kernel tells them: read once, judged in `checks.rs`.
//!
//! Everything is a number or nothing; what a kernel does not have (a module that is not loaded, a machine
//! without frequency scaling) is `None` and limits nothing. Reading starts at a root folder, so that tests
//! bring hosts of their own.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use crate::report::machine::memory_bytes;

/// Allows locking memory without a limit.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// What a host allows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Host {
    /// Hard limit on a process's open files; `None` if there is none.
    pub(super) open_files: Option<u64>,
    /// Most that any process may raise it to.
    pub(super) open_files_ceiling: Option<u64>,
    /// Open files of the whole host, and how many are taken.
    pub(super) all_files: Option<(u64, u64)>,
    /// Hard limit on locked memory; `None` if there is none, or this process need not keep it.
    pub(super) locked_bytes: Option<u64>,
    /// Local ports of one source address.
    pub(super) ports: Option<u64>,
    /// Sockets in TIME-WAIT, which keep their port.
    pub(super) time_wait: u64,
    /// TIME-WAIT sockets that are kept; more are dropped at once.
    pub(super) time_wait_max: Option<u64>,
    /// Sockets that their process has left, at most.
    pub(super) orphans_max: Option<u64>,
    /// Longest queue of connections that wait to be accepted.
    pub(super) accept_queue: Option<u64>,
    /// Pages of all TCP buffers together, at most.
    pub(super) tcp_pages: Option<u64>,
    /// Tracked connections: at most, and now.
    pub(super) tracked: Option<(u64, u64)>,
    /// Memory that is free for use, also within this process's control group.
    pub(super) memory_bytes: u64,
    /// Cores that this process may use.
    pub(super) cores: usize,
    /// How the processor chooses its frequency.
    pub(super) governor: Option<String>,
    /// Who may use io_uring: 0 all, 1 a group, 2 nobody.
    pub(super) io_uring_disabled: u64,
}

/// What no file tells: the limits of this process.
#[derive(Clone, Copy, Default)]
struct Own {
    open_files: Option<u64>,
    locked_bytes: Option<u64>,
    cores: usize,
}

impl Host {
    /// This host.
    pub(super) fn this() -> Self {
        Self::read(
            Path::new("/"),
            Own {
                open_files: getrlimit(Resource::Nofile).maximum,
                locked_bytes: getrlimit(Resource::Memlock).maximum,
                cores: std::thread::available_parallelism().map_or(1, usize::from),
            },
        )
    }

    /// What the files below a root tell, beside what this process knows of itself.
    fn read(root: &Path, own: Own) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let numbers = |path: &str| -> Option<Vec<u64>> {
            text(path)?.split_whitespace().map(|number| number.parse().ok()).collect()
        };
        let number = |path: &str| numbers(path)?.first().copied();
        let ports = numbers("proc/sys/net/ipv4/ip_local_port_range").and_then(|range| match range[..] {
            [low, high] if low <= high => {
                let reserved = text("proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
                Some((high - low + 1).saturating_sub(reserved_within(&reserved, low, high)))
            }
            _ => None,
        });
        let conntrack = |name: &str| number(&format!("proc/sys/net/netfilter/nf_conntrack_{name}"));
        let files = numbers("proc/sys/fs/file-nr");
        Self {
            open_files: own.open_files,
            open_files_ceiling: number("proc/sys/fs/nr_open"),
            all_files: files.and_then(|files| Some((*files.get(2)?, *files.first()?))),
            locked_bytes: own
                .locked_bytes
                .filter(|_| !holds_ipc_lock(&text("proc/self/status").unwrap_or_default())),
            ports,
            time_wait: time_wait(&text("proc/net/sockstat").unwrap_or_default()),
            time_wait_max: number("proc/sys/net/ipv4/tcp_max_tw_buckets"),
            orphans_max: number("proc/sys/net/ipv4/tcp_max_orphans"),
            accept_queue: number("proc/sys/net/core/somaxconn"),
            tcp_pages: numbers("proc/sys/net/ipv4/tcp_mem").and_then(|pages| pages.get(2).copied()),
            tracked: conntrack("max").zip(conntrack("count")),
            memory_bytes: free_memory(&text),
            cores: own.cores,
            governor: text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
                .map(|governor| governor.trim().to_owned()),
            io_uring_disabled: number("proc/sys/kernel/io_uring_disabled").unwrap_or(0),
        }
    }
}

/// Free memory, or what is left of the control group's limit when that is less.
fn free_memory(text: &impl Fn(&str) -> Option<String>) -> u64 {
    let free = memory_bytes(&text("proc/meminfo").unwrap_or_default(), "MemAvailable");
    let groups = text("proc/self/cgroup").unwrap_or_default();
    // Version 2 has one hierarchy, whose line begins with `0::`; version 1 one for memory.
    let second = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .map(|group| (format!("sys/fs/cgroup/{group}"), "memory.max", "memory.current", "inactive_file"));
    let first = groups.lines().find_map(|line| line.split_once(":memory:/")).map(|(_, group)| {
        let folder = format!("sys/fs/cgroup/memory/{group}");
        (folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    });
    let left = second.into_iter().chain(first).filter_map(|(folder, most, now, cache)| {
        let number = |name: &str| text(&format!("{folder}/{name}"))?.trim().parse::<u64>().ok();
        let stat = text(&format!("{folder}/memory.stat")).unwrap_or_default();
        let cache = stat.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse::<u64>().ok());
        // The cache of files gives way.
        Some(number(most)?.saturating_sub(number(now)?.saturating_sub(cache.unwrap_or(0))))
    });
    left.min().map_or(free, |left| left.min(free))
}

fn holds_ipc_lock(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & CAP_IPC_LOCK != 0)
}

/// The number behind `tw` in the line of TCP.
fn time_wait(sockstat: &str) -> u64 {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or("");
    let mut words = line.split_whitespace().skip_while(|word| *word != "tw");
    words.nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Ports of a list like `8080,9000-9100` that lie within a range.
fn reserved_within(list: &str, low: u64, high: u64) -> u64 {
    let count = |part: &str| -> Option<u64> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some((last.min(high) + 1).saturating_sub(first.max(low)))
    };
    list.trim().split(',').filter_map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_from_its_files() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("proc/sys/net/ipv4/ip_local_reserved_ports", "80,40000-40009\n"),
            ("proc/sys/net/ipv4/tcp_mem", "1\t2\t3\n"),
            ("proc/sys/fs/file-nr", "1200\t0\t9223372036854775807\n"),
            ("proc/net/sockstat", "sockets: used 5\nTCP: inuse 8 orphan 0 tw 1234 alloc 9 mem 2\n"),
            ("proc/self/status", "Name:\ta\nCapEff:\t0000000000004000\n"),
            ("proc/self/cgroup", "0::/a/b\n"),
            ("proc/meminfo", "MemTotal: 100 kB\nMemAvailable: 50 kB\n"),
            ("sys/fs/cgroup/a/b/memory.max", "40960\n"),
            ("sys/fs/cgroup/a/b/memory.current", "10240\n"),
            ("sys/fs/cgroup/a/b/memory.stat", "anon 7\ninactive_file 1024\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let own = Own { open_files: Some(20_000), locked_bytes: Some(1), cores: 2 };
        let host = Host::read(root.path(), own);
        assert_eq!(host.ports, Some(28_232 - 10));
        assert_eq!((host.time_wait, host.tcp_pages), (1234, Some(3)));
        assert_eq!(host.all_files, Some((i64::MAX as u64, 1200)));
        assert_eq!((host.memory_bytes, host.locked_bytes, host.tracked), (31_744, None, None));
    }

    #[test]
    fn this_host_has_ports_and_memory() {
        let host = Host::this();
        assert!(
            host.ports.is_some_and(|ports| ports > 0) && host.memory_bytes > 0 && host.cores > 0,
            "{host:?}"
        );
    }
}
