//! The effective configuration as text: a settings file that would give the same, with where each value
//! came from behind it.

use std::fmt::Write as _;

use super::FIELDS;
use super::layers::Layered;

/// Writes every setting as a line of TOML under its section.
pub(crate) fn effective(layered: &Layered) -> String {
    let mut text = String::new();
    let mut section = "";
    for field in FIELDS {
        let (its_section, key) = field.name.split_once('.').unwrap_or(("", field.name));
        if its_section != section {
            section = its_section;
            let blank = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{blank}[{section}]");
        }
        let line = match (field.show)(&layered.settings) {
            Some(value) => format!("{key} = {value}"),
            None => format!("# {key} is not set"),
        };
        let _ = writeln!(text, "{line:<44} # {}", layered.origin(field.name));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::layers::Sources;
    use super::*;

    #[test]
    fn the_report_read_as_a_file_gives_the_same_settings() {
        let flags = vec![
            ("listen.ws".to_owned(), "off".to_owned()),
            ("gateway.allowed_origins".to_owned(), "https://a.example".to_owned()),
            ("data.folder".to_owned(), "/a \"quoted\" folder".to_owned()),
        ];
        let layered = Sources { flags, ..Sources::default() }.read().unwrap();
        let report = effective(&layered);
        assert!(report.contains("# flag --listen.ws\n"), "{report}");
        assert!(report.contains("# default\n"), "{report}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("again.toml");
        std::fs::write(&path, &report).unwrap();
        let again = Sources { file: Some(path), ..Sources::default() }.read().unwrap();
        assert_eq!(again.settings, layered.settings);
    }
}
