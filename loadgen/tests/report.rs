//! The verbs that read results, as a person uses them: `report`, `diff`, `doctor`.

use std::path::Path;
use std::process::{Command, Output};

use ringway_loadgen::report::results::{Results, StageResults};

/// Results of a run whose deliveries took about so many milliseconds.
fn run_of(milliseconds: u64) -> Results {
    let mut stage =
        StageResults { name: "send".into(), measured: true, length_seconds: 2.0, ..Default::default() };
    let second = 1_000_000_000;
    let mut results = Results::new("loadgen scenario a.toml", "name = \"a\"\n");
    for number in 0..2_000u64 {
        let latency = milliseconds * 1_000_000 + number % 100 * 1_000;
        stage.delivery.record(0, 0, latency);
        stage.counts.delivered += 1;
        results.series.second((number / 1_000) as usize).delivered += 1;
    }
    results.series.second(0).delivery_response = stage.delivery.response.encode();
    stage.lateness.record(second / 10_000);
    results.stages.push(stage);
    results.judge(&["delivery.response.p99 <= 20ms".parse().unwrap()]);
    results
}

fn loadgen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn named(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn results_become_a_page_a_log_and_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, merged, page, log] = ["one.json", "two.json", "merged.json", "page.html", "run.hlog"]
        .map(|name| named(folder.path(), name));
    run_of(10).write(Path::new(&one)).unwrap();
    run_of(30).write(Path::new(&two)).unwrap();

    let output = loadgen(&["report", &one, &two, "--html", &page, "--hdr-log", &log, "--json", &merged]);
    assert!(output.status.success(), "{}", text(&output));
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["total"]["counts"]["delivered"], 4_000);
    // One of the two was in time; both together are not.
    assert_eq!(line["verdict"], "missed");
    assert!(std::fs::read_to_string(&page).unwrap().contains("Latency spectrum"));
    assert!(std::fs::read_to_string(&log).unwrap().contains("Tag=delivery.response"));
    assert_eq!(Results::read(Path::new(&merged)).unwrap().total().delivery.response.count(), 4_000);
}

#[test]
fn a_second_run_that_is_worse_has_its_own_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let [fast, slow, foreign] =
        ["fast.json", "slow.json", "foreign.json"].map(|name| named(folder.path(), name));
    run_of(10).write(Path::new(&fast)).unwrap();
    run_of(12).write(Path::new(&slow)).unwrap();
    std::fs::write(&foreign, "{}").unwrap();
    let code = |arguments: &[&str]| loadgen(arguments).status.code();
    assert_eq!(code(&["diff", &fast, &fast]), Some(0));
    assert_eq!(code(&["diff", &fast, &slow]), Some(3));
    assert_eq!(code(&["diff", &slow, &fast]), Some(0));
    assert_eq!(code(&["diff", &fast, &slow, "--tolerance", "30"]), Some(0));
    assert_eq!(code(&["diff", &fast, &slow, "--tolerance", "-1"]), Some(2));
    let output = loadgen(&["diff", &fast, &foreign]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("foreign.json") && text(&output).contains("no results of loadgen"));
}

#[test]
fn the_doctor_says_what_a_host_cannot_carry() {
    assert_eq!(loadgen(&["doctor", "--users", "10"]).status.code(), Some(0));
    let output = loadgen(&["doctor", "--users", "100000000", "--tls", "--sources", "1"]);
    assert_eq!(output.status.code(), Some(2));
    let text = text(&output);
    assert!(text.contains("TOO LITTLE  ports of a source address") && text.contains("mend: "), "{text}");
}
