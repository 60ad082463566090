//! What a load needs of a host, number by number, and the command that mends what is too little.
//!
//! Each check says where its number comes from. Too little means that the run would fail or measure the
//! host's limit; advice means that it can run, and that the numbers would be better without.

use super::host::Host;
use super::{Check, Load, State};
use crate::report::units;

/// Descriptors of a process besides its sockets: rings, timers, files.
const SPARE_FILES: u64 = 64;

/// Memory of a client that speaks TLS, in the generator: what `bench/RESULTS.md` holds loadgen to.
const TLS_CLIENT_BYTES: u64 = 6 * 1024;

/// Memory of a plain client in the generator.
const PLAIN_CLIENT_BYTES: u64 = 2 * 1024;

/// Kernel memory of one end of a connection, with an armed receive: measured with a slab of 4.7 KB.
const SOCKET_BYTES: u64 = 5 * 1024;

/// Memory of a connection in a server of ours.
const SERVER_BYTES: u64 = 1024;

/// Memory that is not of connections: rings, histograms, the history's buffers, the server's store.
const BASE_BYTES: u64 = 1 << 30;

/// Locked memory that a worker's ring needs where the kernel still counts it so.
const RING_LOCKED_BYTES: u64 = 8 << 20;

/// Connections that come while the server is busy elsewhere.
const ACCEPT_QUEUE: u64 = 4096;

/// All checks.
pub(super) fn all(host: &Host, load: &Load) -> Vec<Check> {
    let both_ends = if load.server_is_here { 2 } else { 1 };
    [
        Some(io_uring(host)),
        Some(open_files(host, load)),
        all_files(host, load, both_ends),
        ports(host, load),
        time_wait(host, load),
        Some(locked_memory(host)),
        orphans(host, load),
        load.server_is_here.then(|| accept_queue(host)).flatten(),
        tcp_memory(host, load, both_ends),
        tracked(host, load),
        Some(memory(host, load, both_ends)),
        Some(cores(host, load)),
        governor(host),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn io_uring(host: &Host) -> Check {
    let found = match host.io_uring_disabled {
        0 => "allowed",
        1 => "for a group",
        _ => "forbidden",
    };
    Check {
        name: "io_uring",
        state: if host.io_uring_disabled == 0 { State::Good } else { State::TooLittle },
        found: found.into(),
        needed: "allowed".into(),
        mend: "sysctl -w kernel.io_uring_disabled=0".into(),
    }
}

fn open_files(host: &Host, load: &Load) -> Check {
    let in_a_worker = load.clients.min(load.per_worker);
    let needed = in_a_worker + SPARE_FILES;
    let is_enough = host.open_files.is_none_or(|limit| limit >= needed);
    let ceiling = host.open_files_ceiling.unwrap_or(u64::MAX);
    Check {
        name: "open files of a worker",
        state: State::of(is_enough),
        found: host.open_files.map_or("no limit".into(), units::count),
        needed: units::count(needed),
        mend: if needed > ceiling {
            format!("sysctl -w fs.nr_open={needed} && ulimit -Hn {needed}")
        } else {
            let fits = host.open_files.unwrap_or(0).saturating_sub(SPARE_FILES);
            format!("ulimit -Hn {needed}, or per_worker = {fits} in the scenario's [connections]")
        },
    }
}

fn all_files(host: &Host, load: &Load, ends: u64) -> Option<Check> {
    let (most, taken) = host.all_files?;
    let needed = load.clients * ends;
    let free = most.saturating_sub(taken);
    Some(Check {
        name: "open files of the host",
        state: State::of(free >= needed),
        found: if free > 1 << 40 { "no limit".into() } else { units::count(free) },
        needed: units::count(needed),
        mend: format!("sysctl -w fs.file-max={}", needed + taken),
    })
}

fn ports(host: &Host, load: &Load) -> Option<Check> {
    let ports = host.ports?;
    let from_each = load.clients.div_ceil(load.sources.max(1));
    let needed_sources = load.clients.div_ceil(ports.max(1));
    Some(Check {
        name: "ports of a source address",
        state: State::of(ports >= from_each),
        found: units::count(ports),
        needed: format!("{} from each of {}", units::count(from_each), units::count(load.sources)),
        mend: format!(
            "{needed_sources} addresses as sources in the scenario's [connections] \
             (ip addr add ADDRESS dev DEVICE), or sysctl -w net.ipv4.ip_local_port_range='1024 65535'"
        ),
    })
}

/// A closed socket keeps its port for a minute; the next run from the same addresses must do without.
fn time_wait(host: &Host, load: &Load) -> Option<Check> {
    let ports = host.ports? * load.sources;
    let free = ports.saturating_sub(host.time_wait);
    let is_tight = host.time_wait_max.is_some_and(|most| most < load.clients);
    let state = match (free >= load.clients, is_tight) {
        (false, _) => State::TooLittle,
        (true, true) => State::Advice,
        (true, false) => State::Good,
    };
    let found = format!("{} free, {} in TIME-WAIT", units::count(free), units::count(host.time_wait));
    Some(Check {
        name: "free ports of all sources",
        state,
        found,
        needed: units::count(load.clients),
        mend: match state {
            State::Advice => format!(
                "sysctl -w net.ipv4.tcp_max_tw_buckets={}: sockets past it are forgotten at once, and a late \
                 packet meets a stranger",
                load.clients
            ),
            _ => "wait a minute for them to end, or take more source addresses".into(),
        },
    })
}

fn locked_memory(host: &Host) -> Check {
    let is_enough = host.locked_bytes.is_none_or(|limit| limit >= RING_LOCKED_BYTES);
    Check {
        name: "locked memory",
        state: State::of(is_enough),
        found: host.locked_bytes.map_or("no limit".into(), |bytes| units::bytes(bytes as f64)),
        needed: units::bytes(RING_LOCKED_BYTES as f64),
        mend: format!("ulimit -Hl {}", RING_LOCKED_BYTES / 1024),
    }
}

fn orphans(host: &Host, load: &Load) -> Option<Check> {
    let most = host.orphans_max?;
    Some(Check {
        name: "sockets left by a process",
        // The run itself does not fail; its end does not look like the end of so many clients.
        state: if most >= load.clients { State::Good } else { State::Advice },
        found: units::count(most),
        needed: units::count(load.clients),
        mend: format!("sysctl -w net.ipv4.tcp_max_orphans={}: past it, closing ones are reset", load.clients),
    })
}

fn accept_queue(host: &Host) -> Option<Check> {
    let most = host.accept_queue?;
    let needed = ACCEPT_QUEUE;
    Some(Check {
        name: "accept queue of the server",
        state: if most >= needed { State::Good } else { State::Advice },
        found: units::count(most),
        needed: units::count(needed),
        mend: format!("sysctl -w net.core.somaxconn={needed}, then restart the server"),
    })
}

/// A page each: an idle socket has none, one that is talking has its packets in some.
fn tcp_memory(host: &Host, load: &Load, ends: u64) -> Option<Check> {
    let most = host.tcp_pages?;
    let needed = load.clients * ends;
    let (half, three_quarters) = (needed / 2, needed / 4 * 3);
    Some(Check {
        name: "pages of TCP buffers",
        state: if most >= needed { State::Good } else { State::Advice },
        found: units::count(most),
        needed: units::count(needed),
        mend: format!(
            "sysctl -w net.ipv4.tcp_mem='{half} {three_quarters} {needed}': past it, packets are dropped"
        ),
    })
}

fn tracked(host: &Host, load: &Load) -> Option<Check> {
    let (most, now) = host.tracked?;
    // Without a rule that looks at connections none is tracked; then the count stays where it is.
    let free = most.saturating_sub(now);
    let state = match free >= load.clients {
        true => State::Good,
        false if now == 0 => State::Advice,
        false => State::TooLittle,
    };
    Some(Check {
        name: "tracked connections",
        state,
        found: format!("{} free", units::count(free)),
        needed: units::count(load.clients),
        mend: format!("sysctl -w net.netfilter.nf_conntrack_max={}", load.clients + now + 10_000),
    })
}

fn memory(host: &Host, load: &Load, ends: u64) -> Check {
    let client = if load.tls { TLS_CLIENT_BYTES } else { PLAIN_CLIENT_BYTES };
    let server = if load.server_is_here { SERVER_BYTES } else { 0 };
    let needed = load.clients * (client + SOCKET_BYTES * ends + server) + BASE_BYTES;
    let fits = host.memory_bytes.saturating_sub(BASE_BYTES) / (client + SOCKET_BYTES * ends + server);
    Check {
        name: "memory",
        state: State::of(host.memory_bytes >= needed),
        found: units::bytes(host.memory_bytes as f64),
        needed: units::bytes(needed as f64),
        mend: format!("{} clients fit here; take the others to another machine", units::count(fits)),
    }
}

fn cores(host: &Host, load: &Load) -> Check {
    let needed = if load.server_is_here { 2 } else { 1 };
    Check {
        name: "cores",
        state: if host.cores >= needed { State::Good } else { State::Advice },
        found: host.cores.to_string(),
        needed: needed.to_string(),
        mend: "run the server on another machine: each waits for the other here".into(),
    }
}

fn governor(host: &Host) -> Option<Check> {
    let governor = host.governor.clone()?;
    Some(Check {
        name: "processor's frequency",
        state: if governor == "performance" { State::Good } else { State::Advice },
        found: governor,
        needed: "performance".into(),
        mend: "echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Examination;

    fn large_host() -> Host {
        Host {
            open_files: Some(20_000),
            open_files_ceiling: Some(1 << 20),
            all_files: Some((2_500_000, 3_000)),
            locked_bytes: None,
            ports: Some(28_232),
            time_wait: 31_000,
            time_wait_max: Some(1 << 20),
            orphans_max: Some(1 << 20),
            accept_queue: Some(4096),
            tcp_pages: Some(2 << 20),
            tracked: Some((1 << 20, 0)),
            memory_bytes: 22 << 30,
            cores: 2,
            governor: None,
            io_uring_disabled: 0,
        }
    }

    fn load(clients: u64) -> Load {
        Load { tls: true, ..Load::of(clients) }
    }

    fn state_of(host: &Host, load: &Load, name: &str) -> State {
        all(host, load).into_iter().find(|check| check.name == name).unwrap().state
    }

    #[test]
    fn half_a_million_fit_where_nothing_is_too_little() {
        let examination = Examination { checks: all(&large_host(), &load(500_000)) };
        assert!(examination.passed(), "{examination}");
        assert_eq!(
            examination.checks.iter().filter(|check| check.state != State::Good).count(),
            0,
            "{examination}"
        );
    }

    #[test]
    fn each_number_that_is_too_little_is_found_with_its_remedy() {
        type Spoil = fn(&mut Host, &mut Load);
        let cases: [(&str, State, Spoil, &str); 13] = [
            ("io_uring", State::TooLittle, |host, _| host.io_uring_disabled = 2, "io_uring_disabled=0"),
            (
                "open files of a worker",
                State::TooLittle,
                |host, _| host.open_files = Some(1024),
                "per_worker = 960",
            ),
            (
                "open files of the host",
                State::TooLittle,
                |host, _| host.all_files = Some((9, 8)),
                "fs.file-max=1000008",
            ),
            ("ports of a source address", State::TooLittle, |_, load| load.sources = 2, "18 addresses"),
            (
                "free ports of all sources",
                State::TooLittle,
                |host, _| host.time_wait = u64::MAX,
                "wait a minute",
            ),
            (
                "free ports of all sources",
                State::Advice,
                |host, _| host.time_wait_max = Some(9),
                "tcp_max_tw_buckets",
            ),
            (
                "locked memory",
                State::TooLittle,
                |host, _| host.locked_bytes = Some(65_536),
                "ulimit -Hl 8192",
            ),
            (
                "sockets left by a process",
                State::Advice,
                |host, _| host.orphans_max = Some(1),
                "tcp_max_orphans=500000",
            ),
            (
                "accept queue of the server",
                State::Advice,
                |host, _| host.accept_queue = Some(128),
                "somaxconn=4096",
            ),
            ("pages of TCP buffers", State::Advice, |host, _| host.tcp_pages = Some(9), "750000 1000000"),
            (
                "tracked connections",
                State::TooLittle,
                |host, _| host.tracked = Some((9, 5)),
                "nf_conntrack_max=510005",
            ),
            ("memory", State::TooLittle, |host, _| host.memory_bytes = 4 << 30, "clients fit here"),
            (
                "processor's frequency",
                State::Advice,
                |host, _| host.governor = Some("powersave".into()),
                "tee /sys",
            ),
        ];
        for (name, state, spoil, remedy) in cases {
            let (mut host, mut load) = (large_host(), load(500_000));
            spoil(&mut host, &mut load);
            assert_eq!(state_of(&host, &load, name), state, "{name}");
            let examination = Examination { checks: all(&host, &load) };
            assert_eq!(examination.passed(), state == State::Advice, "{name}");
            assert!(examination.to_string().contains(remedy), "{name}\n{examination}");
        }
    }

    #[test]
    fn a_server_elsewhere_needs_no_room_here() {
        let mut host = large_host();
        host.accept_queue = Some(1);
        let here = load(500_000);
        let elsewhere = Load { server_is_here: false, ..here };
        let needed = |load: &Load| memory(&host, load, if load.server_is_here { 2 } else { 1 }).needed;
        assert_ne!(needed(&here), needed(&elsewhere));
        assert!(all(&host, &elsewhere).iter().all(|check| check.state == State::Good));
    }
}
