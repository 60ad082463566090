//! `loadgen knee` with the real engine, against a tiny server. The limit is a threshold on the rate itself,
//! so that where the knee lies does not depend on the machine.

mod support;

use std::process::Command;

use ringway_loadgen::report::results::Results;
use support::{Fault, TinyServer};

const SCENARIO: &str = r#"
name = "knee"
[population]
clients = 10
[messages]
arrival = "fixed"
[[stage]]
kind = "connect"
connections_per_s = 1000
[[stage]]
kind = "send"
messages_per_s = 10
duration_s = 1
settle_s = 1
"#;

#[test]
fn the_knee_is_the_highest_rate_that_meets_the_thresholds() {
    let folder = tempfile::tempdir().unwrap();
    let server = TinyServer::start(Fault::default());
    let (scenario, tokens) = (folder.path().join("knee.toml"), folder.path().join("tokens"));
    let results = folder.path().join("results.json");
    std::fs::write(&scenario, SCENARIO).unwrap();
    let lines: String = (0..10).map(|number| format!("u{number} u{number}\n")).collect();
    std::fs::write(&tokens, lines).unwrap();
    let knee = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command.arg("knee").arg(&scenario).args(["--url", &server.url()]).arg("--tokens").arg(&tokens);
        command.arg("--json").arg(&results).args(words).output().unwrap()
    };

    let output =
        knee(&["--from", "100", "--to", "1000", "--precision", "30", "--threshold", "send.rate <= 250"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    // 100 and 200 are met, 400 and 300 are not, 250 is: 249 or 250 are sent. Then the gap is small enough.
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((line["rate"].as_f64(), line["unmet_rate"].as_f64()), (Some(250.0), Some(300.0)), "{told}");
    assert!(told.contains("the knee is at 250/s"), "{told}");
    let counts = Results::read(&results).unwrap().total().counts;
    assert!((240..=250).contains(&counts.sent), "the results are those at the knee: {counts:?}");

    assert_eq!(knee(&["--from", "100", "--threshold", "send.rate <= 1"]).status.code(), Some(3));
    let output = knee(&["--from", "100"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no thresholds"));
}
