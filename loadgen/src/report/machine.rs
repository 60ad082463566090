//! The machine that a generator ran on: what a reader of results must know to believe a number.

use std::fs;

use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its host name.
    pub name: String,
    /// The kernel, as `uname -sr` says.
    pub kernel: String,
    /// The model of its processor.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Its memory.
    pub memory_bytes: u64,
}

impl Machine {
    /// This one. What cannot be read is empty.
    pub fn this() -> Self {
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        Self {
            name: text(uname.nodename()),
            kernel: format!("{} {}", text(uname.sysname()), text(uname.release())),
            processor: processor(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal"),
        }
    }
}

/// The model in `/proc/cpuinfo`, where the architecture tells it.
fn processor(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':')).map_or(String::new(), |(_, model)| model.trim().into())
}

/// A line of `/proc/meminfo`, in bytes; 0 if it is not there.
pub(crate) fn memory_bytes(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_and_memory() {
        let machine = Machine::this();
        assert!(machine.kernel.starts_with("Linux "), "{machine:?}");
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 26, "{machine:?}");
        assert_eq!(processor("processor : 0\nmodel name\t: A B\n"), "A B");
        assert_eq!(memory_bytes("MemTotal:  7 kB\nMemAvailable: 3 kB\n", "MemAvailable"), 3072);
    }
}
