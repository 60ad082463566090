//! `docs/operating.md`, held against the code: its tables of settings and of exit codes are those of the
//! command. Names of metrics are held against a running server in `tests/metrics.rs`.

use crate::exit::Exit;
use crate::settings::{FIELDS, Settings};

const DOCUMENT: &str = include_str!("../docs/operating.md");

/// The rows of the table under this head.
fn rows(head: &str) -> Vec<&'static str> {
    let (_, table) = DOCUMENT.split_once(head).unwrap_or_else(|| panic!("no table {head}"));
    table.lines().skip(2).take_while(|line| line.starts_with('|')).collect()
}

#[test]
fn every_setting_is_in_the_table_with_its_default_and_its_help() {
    let defaults = Settings::default();
    let expected: Vec<String> = FIELDS
        .iter()
        .map(|field| {
            let default = match (field.show)(&defaults) {
                // The only default that is not the same on every machine.
                _ if field.name == "router.pinned" => "`true` with more than two CPUs".to_owned(),
                Some(value) => format!("`{value}`"),
                None => "not set".to_owned(),
            };
            let help = field.help.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("| `{}` | {default} | {} |", field.name, help.trim_end_matches('.'))
        })
        .collect();
    assert_eq!(rows("| setting | default | meaning |"), expected);
}

#[test]
fn the_exit_codes_are_those_of_the_command() {
    let expected: Vec<String> =
        Exit::MEANINGS.iter().map(|(exit, meaning)| format!("| {} | {meaning} |", *exit as u8)).collect();
    assert_eq!(rows("| code | meaning |"), expected);
}

#[test]
fn every_setting_that_the_text_names_exists() {
    let sections: Vec<&str> = FIELDS.iter().filter_map(|field| field.name.split('.').next()).collect();
    for quoted in DOCUMENT.split('`').skip(1).step_by(2) {
        let Some((section, key)) = quoted.split_once('.') else { continue };
        if sections.contains(&section) && !key.contains(['\u{2026}', ' ', '/']) {
            assert!(FIELDS.iter().any(|field| field.name == quoted), "there is no setting {quoted}");
        }
    }
}
