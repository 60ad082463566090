//! What the server took, and percentiles of what took time.

use std::time::Instant;

use ringway_bench::processor_time::processor_milliseconds;

/// The server's processor time since it was made.
pub(crate) struct Meter {
    pid: u32,
    began: Instant,
    before: [u64; 2],
}

impl Meter {
    pub(crate) fn start(pid: u32) -> Self {
        Self { pid, began: Instant::now(), before: processor_milliseconds(pid) }
    }

    /// Figures for so many messages, as the members of a JSON object.
    pub(crate) fn figures(&self, messages: u64) -> String {
        let seconds = self.began.elapsed().as_secs_f64();
        let now = processor_milliseconds(self.pid);
        let [user, system] = [0, 1].map(|kind| (now[kind] - self.before[kind]) as f64);
        let count = messages as f64;
        format!(
            "\"us_a_message\":{:.4},\"user_us_a_message\":{:.4},\"messages_a_second\":{:.0},\"utilisation\":{:.3}",
            (user + system) * 1_000.0 / count,
            user * 1_000.0 / count,
            count / seconds,
            (user + system) / 1_000.0 / seconds,
        )
    }
}

/// Durations in microseconds, of which this fraction is not longer: the median and the last percents, as the members
/// of a JSON object under this name.
pub(crate) fn percentiles(name: &str, microseconds: &mut [u64]) -> String {
    microseconds.sort_unstable();
    let at = |fraction: f64| {
        let index = (microseconds.len() as f64 * fraction) as usize;
        microseconds.get(index.min(microseconds.len().saturating_sub(1))).copied().unwrap_or(0)
    };
    format!(
        "\"{name}_p50_us\":{},\"{name}_p99_us\":{},\"{name}_p999_us\":{},\"{name}_max_us\":{}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    )
}
