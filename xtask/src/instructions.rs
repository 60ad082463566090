//! A gate against work that creeps in: the instructions that pieces of a message's way take, counted by valgrind's
//! callgrind and held against `bench/instructions.toml`. Times on a shared machine differ by tens of percent,
//! instructions by less than one.
//!
//! They are counted in the development profile, whose dependencies the tests have built: less is inlined there than
//! in a release, and a piece that does more does more in both. The compiler and the processor's extensions that valgrind
//! passes on decide the counts too: where these are others than in the file, nothing is judged.
//! `--accept` writes what is counted now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::process::{Failure, Profile, binary, cargo, output, root, run as run_command};
use crate::setup;

/// Iterations that are counted.
const COUNT: u64 = 500;

/// More than this part above the accepted count fails.
const TOLERANCE: f64 = 0.02;

/// What begins the file.
const HEADER: &str = "# Instructions of one iteration, development profile, by `cargo xtask instructions`; what grows by more than
# the tolerance fails. A change that is worth it is accepted by `cargo xtask instructions --accept`, and its
# commit says what it is worth.
";

/// Options of the verb.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Instructions {
    /// Write what is counted now into bench/instructions.toml, as what later counts are held against.
    #[arg(long)]
    accept: bool,
}

/// `bench/instructions.toml`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Accepted {
    /// What the counts depend on besides the code: `rustc --version`.
    rustc: String,
    /// And what of the processor's extensions the C library and the cryptography choose by.
    processor: String,
    tolerance: f64,
    instructions: BTreeMap<String, u64>,
}

/// The verb, and a step of `test`.
pub(crate) fn run(options: &Instructions) -> Result<(), Failure> {
    setup::debian_package("valgrind")?;
    build()?;
    let now = count()?;
    let path = root().join("bench/instructions.toml");
    if options.accept {
        let text = toml::to_string(&now).expect("strings and numbers");
        return std::fs::write(&path, format!("{HEADER}{text}")).map_err(Failure::file(&path));
    }
    let text = std::fs::read_to_string(&path).map_err(Failure::file(&path))?;
    let accepted: Accepted =
        toml::from_str(&text).map_err(|error| Failure::Unmet(format!("{}: {error}", path.display())))?;
    let complaints = judge(&accepted, &now);
    if (&accepted.rustc, &accepted.processor) != (&now.rustc, &now.processor) {
        println!(
            "NOT JUDGED: the counts in bench/instructions.toml are of {} on {}, these of {} on {}.\n\
             `cargo xtask instructions --accept` takes these as the new ones.",
            accepted.rustc, accepted.processor, now.rustc, now.processor
        );
        return Ok(());
    }
    if complaints.is_empty() { Ok(()) } else { Err(Failure::Unmet(complaints.join("\n"))) }
}

/// The profile's defaults, so that the same code is generated whatever the environment says.
fn build() -> Result<(), Failure> {
    let mut command = cargo(&["build", "--quiet", "--package", "ringway-bench", "--bin", "instructions"]);
    run_command(command.env("CARGO_INCREMENTAL", "1"))
}

fn count() -> Result<Accepted, Failure> {
    let program = binary(Profile::Dev, "instructions");
    let folder = tempfile::tempdir().map_err(Failure::file(Path::new("a temporary folder")))?;
    let mut instructions = BTreeMap::new();
    for case in output(&mut Command::new(&program))?.lines() {
        let [once, twice] = [COUNT, 2 * COUNT].map(|count| total(&program, case, count, folder.path()));
        instructions.insert(case.to_owned(), twice?.saturating_sub(once?) / COUNT);
    }
    let rustc =
        output(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version"))?;
    Ok(Accepted {
        rustc: rustc.trim().to_owned(),
        processor: processor(),
        tolerance: TOLERANCE,
        instructions,
    })
}

/// Instructions of a whole run.
fn total(program: &Path, case: &str, count: u64, folder: &Path) -> Result<u64, Failure> {
    let out: PathBuf = folder.join("callgrind.out");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet", &format!("--callgrind-out-file={}", out.display())]);
    command.arg(program).args([case, &count.to_string()]).stdin(Stdio::null());
    // Seeds of hash maps and addresses of allocations must not differ between two runs.
    output(command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()))?;
    let text = std::fs::read_to_string(&out).map_err(Failure::file(&out))?;
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
    totals
        .and_then(|totals| totals.trim().parse().ok())
        .ok_or_else(|| Failure::Unmet(format!("callgrind has no total for `{case}`")))
}

/// What callgrind's processor has: of the host's extensions it passes on these. The maker is told too: its counts were
/// not compared with another's.
fn processor() -> String {
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = information.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    };
    let flags: Vec<&str> =
        field("flags").split_whitespace().chain(field("Features").split_whitespace()).collect();
    let known = ["avx2", "bmi2", "aes", "pclmulqdq"].into_iter().filter(|flag| flags.contains(flag));
    let host = [std::env::consts::ARCH, field("vendor_id")];
    host.into_iter().chain(known).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Prints the table, and says what grew too much or is not in the file.
fn judge(accepted: &Accepted, now: &Accepted) -> Vec<String> {
    let mut complaints = Vec::new();
    for (case, &count) in &now.instructions {
        let Some(&before) = accepted.instructions.get(case) else {
            complaints.push(format!(
                "{case}: {count} instructions, and bench/instructions.toml has none: --accept"
            ));
            continue;
        };
        let growth = count as f64 / before as f64 - 1.0;
        println!("  {case}: {count} instructions, accepted {before}, {:+.2} %", growth * 100.0);
        // What is a thousandth of a percent above is the rounding of the fractions.
        if growth > accepted.tolerance + 1e-5 {
            complaints.push(format!("{case}: {count} instructions, {:+.2} % above {before}", growth * 100.0));
        } else if growth < -accepted.tolerance {
            println!("    less than accepted: --accept keeps it so");
        }
    }
    let gone = accepted.instructions.keys().filter(|case| !now.instructions.contains_key(*case));
    complaints.extend(gone.map(|case| format!("{case}: no longer counted: --accept")));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(read: u64) -> Accepted {
        let instructions = BTreeMap::from([("read".to_owned(), read)]);
        Accepted { rustc: "rustc 1".into(), processor: "x".into(), tolerance: TOLERANCE, instructions }
    }

    #[test]
    fn growth_beyond_the_tolerance_is_a_complaint_and_less_work_is_none() {
        assert_eq!(judge(&counts(1000), &counts(1020)), Vec::<String>::new());
        assert_eq!(judge(&counts(1000), &counts(500)), Vec::<String>::new());
        assert_eq!(judge(&counts(1000), &counts(1021)), ["read: 1021 instructions, +2.10 % above 1000"]);
    }

    #[test]
    fn a_case_on_one_side_alone_is_a_complaint() {
        let none = Accepted { instructions: BTreeMap::new(), ..counts(0) };
        assert_eq!(judge(&none, &counts(1000)).len(), 1);
        assert_eq!(judge(&counts(1000), &none).len(), 1);
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let text = format!("{HEADER}{}", toml::to_string(&counts(7)).unwrap());
        assert_eq!(toml::from_str::<Accepted>(&text).unwrap(), counts(7));
    }
}
