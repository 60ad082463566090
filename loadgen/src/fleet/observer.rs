//! What the machine and the server's process do while a load runs, second by second.

use std::fs;

use crate::report::machine::Machine;
use crate::report::results::ServerUse;
use crate::report::series::{BusyKind, Series};
use crate::server_process::{Reading, read};

/// Looks at this machine.
pub(super) struct Observer {
    machine: String,
    server: Option<u32>,
    cores: Vec<CoreTime>,
    last: Option<Reading>,
}

/// The time of a core since the machine started, in ticks.
#[derive(Clone, Copy)]
struct CoreTime {
    busy: u64,
    all: u64,
}

impl Observer {
    /// Begins to look, also at a server's process.
    pub(super) fn new(server: Option<u32>) -> Self {
        let last = server.and_then(|process| read(process).ok());
        Self { machine: Machine::this().name, server, cores: core_times(), last }
    }

    /// The server's process now.
    pub(super) fn server(&self) -> Option<Reading> {
        self.server.and_then(|process| read(process).ok())
    }

    /// A second is over.
    pub(super) fn note(&mut self, second: usize, series: &mut Series) {
        let cores = core_times();
        for (number, (before, now)) in self.cores.iter().zip(&cores).enumerate() {
            let all = now.all.saturating_sub(before.all);
            if all > 0 {
                let busy = now.busy.saturating_sub(before.busy) as f64 / all as f64 * 100.0;
                series.row(&self.machine, BusyKind::Core, &format!("cpu{number}")).set(second, busy);
            }
        }
        self.cores = cores;
        let now = self.server();
        if let (Some(before), Some(now)) = (self.last, now) {
            let used = now.cpu_microseconds.saturating_sub(before.cpu_microseconds);
            let second = series.second(second);
            second.server_cpu_percent = Some(used as f64 / 10_000.0);
            second.server_resident_bytes = Some(now.resident_bytes);
        }
        self.last = now;
    }
}

/// What the server used between two readings.
pub(super) fn server_use(before: Option<Reading>, after: Option<Reading>) -> Option<ServerUse> {
    let (before, after) = before.zip(after)?;
    Some(ServerUse {
        cpu_microseconds: after.cpu_microseconds.saturating_sub(before.cpu_microseconds),
        resident_bytes_begin: before.resident_bytes,
        resident_bytes_end: after.resident_bytes,
    })
}

fn core_times() -> Vec<CoreTime> {
    parse_cores(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// The lines `cpuN` of proc(5)'s stat: user, nice, system, idle, iowait, irq, softirq, steal. What a
/// hypervisor stole was not idle for us, and not ours either.
fn parse_cores(stat: &str) -> Vec<CoreTime> {
    stat.lines()
        .filter(|line| {
            line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .map(|line| {
            let ticks: Vec<u64> =
                line.split_whitespace().skip(1).take(8).map(|field| field.parse().unwrap_or(0)).collect();
            let idle: u64 = ticks.iter().skip(3).take(2).sum();
            let all: u64 = ticks.iter().sum();
            CoreTime { busy: all - idle, all }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_read_and_their_sum_is_not() {
        let stat =
            "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 10 0 20 60 10 0 0 0 0 0\ncpu1 1 1 1 1 1 1 1 1 5 5\nintr 3\n";
        let cores = parse_cores(stat);
        assert_eq!(cores.len(), 2);
        assert_eq!((cores[0].busy, cores[0].all), (30, 100));
        assert_eq!((cores[1].busy, cores[1].all), (6, 8));
    }

    #[test]
    fn a_second_of_this_machine_has_its_cores_and_its_server() {
        let mut observer = Observer::new(Some(std::process::id()));
        let mut series = Series::default();
        let until = std::time::Instant::now() + std::time::Duration::from_millis(50);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        observer.note(2, &mut series);
        assert!(series.busy.iter().any(|row| row.name == "cpu0" && row.percent[2].is_some()));
        assert!(series.seconds[2].server_resident_bytes.is_some_and(|bytes| bytes > 100_000));
    }
}
