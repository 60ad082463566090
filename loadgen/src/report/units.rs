//! Numbers with their units, for people: three figures are enough to compare two runs.

/// Microseconds in the unit that keeps the number short: `87µs`, `12.3ms`, `1.5s`.
pub fn microseconds(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}s", three_figures(value / 1e6)),
        // 999.6 would be shown as 1000µs.
        value if value >= 999.5 => format!("{}ms", three_figures(value / 1e3)),
        value => format!("{}µs", three_figures(value)),
    }
}

/// Bytes in binary units: `1.5 MiB`.
pub fn bytes(value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = value;
    let mut unit = 0;
    while scaled.abs() >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_figures(scaled), UNITS[unit])
}

/// A count with its thousands apart: `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate a second: `2,500/s`, `1.25/s`.
pub fn rate(value: f64) -> String {
    if value >= 100.0 {
        format!("{}/s", count(value.round() as u64))
    } else {
        format!("{}/s", three_figures(value))
    }
}

/// A time of a run: `42 s`, `2:05`.
pub fn run_time(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..120 => format!("{whole} s"),
        120..3600 => format!("{}:{:02}", whole / 60, whole % 60),
        _ => format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60),
    }
}

/// A number of three figures, without zeros at its end.
pub fn three_figures(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_for_people() {
        let times = [0.5, 7.25, 99.0, 999.7, 1_500.0, 12_345.0, 123_456.0, 61_000_000.0].map(microseconds);
        assert_eq!(times, ["0.5µs", "7.25µs", "99µs", "1ms", "1.5ms", "12.3ms", "123ms", "61s"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([12.0, 1536.0, 1048576.0 * 90.0].map(bytes), ["12 B", "1.5 KiB", "90 MiB"]);
        assert_eq!([1.25, 2500.4].map(rate), ["1.25/s", "2,500/s"]);
        assert_eq!([42.0, 125.0, 3605.0].map(run_time), ["42 s", "2:05", "1:00:05"]);
    }
}
