//! What a server that is measured has taken of the processor.

/// User and system time of a process, in milliseconds, as Linux counts them: in ticks of 10.
///
/// # Panics
/// The process is gone.
pub fn processor_milliseconds(pid: u32) -> [u64; 2] {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    let (_, fields) = text.rsplit_once(')').expect("a name in brackets");
    let field = |index: usize| fields.split_whitespace().nth(index).expect("a field").parse().unwrap_or(0u64);
    // Fields 14 and 15 of proc_pid_stat(5).
    [field(11) * 10, field(12) * 10]
}
