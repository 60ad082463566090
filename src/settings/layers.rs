//! Where settings come from: the defaults, below a TOML file, below the environment, below the flags.
//!
//! A name that no setting has is refused in each of the three, with the nearest one that exists: a typing
//! error must not leave a limit at its default. All that is wrong is told at once, each with its source.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::field::{Field, Raw};
use super::{FIELDS, Settings};

/// The file that is read when none is named and it exists.
pub(crate) const FILE_DEFAULT: &str = "ringway.toml";

/// What every variable of ours starts with.
const VARIABLE_PREFIX: &str = "RINGWAY__";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Built in.
    Default,
    /// A line of the settings file.
    File {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// What is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {reason}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is not TOML.
    #[error("{}:{line}: not TOML: {reason}", path.display())]
    NotToml {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// No setting has that name.
    #[error("{origin}: there is no setting {name}{}", suggestion(nearest))]
    Unknown {
        /// Who names it.
        origin: Origin,
        /// The name.
        name: String,
        /// The one that was meant, perhaps.
        nearest: Option<String>,
    },
    /// The value is not of the setting's kind.
    #[error("{origin}: {name} expects {expected}")]
    WrongKind {
        /// Who gives it.
        origin: Origin,
        /// The setting.
        name: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// The value is of the right kind and makes no sense.
    #[error("{origin}: {name} {rule}")]
    Rule {
        /// Who gave it.
        origin: Origin,
        /// The setting.
        name: &'static str,
        /// What it must be, and what to do.
        rule: String,
    },
}

fn suggestion(nearest: &Option<String>) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean {nearest}?"),
        None => "; `ringway serve --help` lists them".to_owned(),
    }
}

/// The settings with where each came from.
#[derive(Clone, Debug)]
pub(crate) struct Layered {
    /// The values.
    pub(crate) settings: Settings,
    origins: BTreeMap<&'static str, Origin>,
}

impl Layered {
    /// Where the value of a setting came from.
    pub(crate) fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).cloned().unwrap_or(Origin::Default)
    }
}

/// The sources above the defaults.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// `--config`; without it [`FILE_DEFAULT`] is read if it is there.
    pub(crate) file: Option<PathBuf>,
    /// The environment.
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// Flags that name a setting, in their order.
    pub(crate) flags: Vec<(String, String)>,
}

impl Sources {
    /// Reads all layers and checks the whole.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the layers.
    pub(crate) fn read(&self) -> Result<Layered, Vec<SettingError>> {
        let mut reading = Reading {
            layered: Layered { settings: Settings::default(), origins: BTreeMap::new() },
            errors: Vec::new(),
        };
        match &self.file {
            Some(path) => reading.file(path),
            None if Path::new(FILE_DEFAULT).exists() => reading.file(Path::new(FILE_DEFAULT)),
            None => {}
        }
        for (name, value) in &self.variables {
            reading.variable(name, value);
        }
        for (name, value) in &self.flags {
            reading.set(name, &Raw::Text(value.clone()), Origin::Flag(name.clone()));
        }
        let broken = reading.layered.settings.broken_rules();
        reading.errors.extend(broken.into_iter().map(|(name, rule)| SettingError::Rule {
            origin: reading.layered.origin(name),
            name,
            rule,
        }));
        if reading.errors.is_empty() { Ok(reading.layered) } else { Err(reading.errors) }
    }
}

struct Reading {
    layered: Layered,
    errors: Vec<SettingError>,
}

impl Reading {
    fn file(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let reason = error.to_string();
                return self.errors.push(SettingError::Unreadable { path: path.to_owned(), reason });
            }
        };
        let line_of = |offset: usize| 1 + text[..offset.min(text.len())].matches('\n').count();
        let table = match DeTable::parse(&text) {
            Ok(table) => table,
            Err(error) => {
                return self.errors.push(SettingError::NotToml {
                    path: path.to_owned(),
                    line: line_of(error.span().map_or(0, |span| span.start)),
                    reason: error.message().to_owned(),
                });
            }
        };
        for (section, value) in table.get_ref() {
            let origin = |offset| Origin::File { path: path.to_owned(), line: line_of(offset) };
            match value.get_ref() {
                DeValue::Table(keys) => {
                    for (key, value) in keys {
                        let name = format!("{}.{}", section.get_ref(), key.get_ref());
                        self.set(&name, &raw(value.get_ref()), origin(key.span().start));
                    }
                }
                // A key outside a section; no setting is called so.
                _ => self.unknown(section.get_ref(), origin(section.span().start)),
            }
        }
    }

    fn variable(&mut self, name: &OsString, value: &OsString) {
        let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX)) else { return };
        let dotted = name[VARIABLE_PREFIX.len()..].split("__").collect::<Vec<_>>().join(".").to_lowercase();
        let raw = value.to_str().map_or(Raw::Other, |text| Raw::Text(text.to_owned()));
        self.set(&dotted, &raw, Origin::Variable(name.to_owned()));
    }

    fn set(&mut self, name: &str, raw: &Raw, origin: Origin) {
        let Some(field) = FIELDS.iter().find(|field| field.name == name) else {
            return self.unknown(name, origin);
        };
        match (field.set)(&mut self.layered.settings, raw) {
            Some(()) => {
                self.layered.origins.insert(field.name, origin);
            }
            None => self.errors.push(SettingError::WrongKind {
                origin,
                name: field.name,
                expected: field.expected,
            }),
        }
    }

    fn unknown(&mut self, name: &str, origin: Origin) {
        self.errors.push(SettingError::Unknown { origin, name: name.to_owned(), nearest: nearest(name) });
    }
}

/// The setting whose name is nearest, if it is near enough to have been meant.
fn nearest(name: &str) -> Option<String> {
    let key = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let distance = |field: &Field| {
        // The right key in the wrong section, or in none, is near as well.
        strsim::damerau_levenshtein(name, field.name)
            .min(1 + strsim::damerau_levenshtein(&key(name), &key(field.name)))
    };
    let best = FIELDS.iter().min_by_key(|field| distance(field))?;
    (distance(best) <= 3).then(|| best.name.to_owned())
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Quoted(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Raw::Other, Raw::Integer)
        }
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Array(list) => list
            .iter()
            .map(|value| value.get_ref().as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map_or(Raw::Other, Raw::List),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => Raw::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(file: Option<&str>, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Read {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.toml");
        std::fs::write(&path, file.unwrap_or_default()).unwrap();
        Sources {
            file: Some(path),
            variables: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            flags: flags.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        }
        .read()
    }

    type Read = Result<Layered, Vec<SettingError>>;

    fn messages(read: Read) -> Vec<String> {
        read.unwrap_err().iter().map(ToString::to_string).collect()
    }

    const FILE: &str = "[limits]\nmax_inflight = 11\nsend_burst = 600\nsend_per_s = 31\n";

    #[test]
    fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
        let read = sources(
            Some(FILE),
            &[("RINGWAY__LIMITS__SEND_BURST", "601"), ("RINGWAY__LIMITS__SEND_PER_S", "32"), ("HOME", "/")],
            &[("limits.send_per_s", "33")],
        )
        .unwrap();
        let limits = &read.settings.limits;
        assert_eq!((limits.max_inflight, limits.send_burst, limits.send_per_s), (11, 601, 33));
        assert_eq!(limits.max_frame_bytes, Settings::default().limits.max_frame_bytes);
        assert!(matches!(read.origin("limits.max_inflight"), Origin::File { line: 2, .. }));
        let variable = Origin::Variable("RINGWAY__LIMITS__SEND_BURST".into());
        assert_eq!(read.origin("limits.send_burst"), variable);
        assert_eq!(read.origin("limits.send_per_s"), Origin::Flag("limits.send_per_s".into()));
        assert_eq!(read.origin("limits.max_frame_bytes"), Origin::Default);
    }

    #[test]
    fn an_unknown_name_is_refused_in_each_source_with_a_suggestion() {
        let errors = messages(sources(
            Some("[limits]\nmax_inflght = 1\n[limts]\nmax_inflight = 2\n"),
            &[("RINGWAY__LISTEN__WS_S", "off")],
            &[("diagnostic.echo", "true"), ("completely.different", "1")],
        ));
        assert!(errors[0].contains("settings.toml:2: there is no setting limits.max_inflght"), "{errors:?}");
        assert!(errors[0].contains("did you mean limits.max_inflight?"), "{errors:?}");
        assert!(
            errors[1].contains(":4: there is no setting limts.max_inflight; did you mean limits.max_inf")
        );
        assert!(errors[2].starts_with("environment RINGWAY__LISTEN__WS_S: "), "{errors:?}");
        assert!(errors[2].contains("did you mean listen.wss?") || errors[2].contains("listen.ws?"));
        assert!(errors[3].starts_with("flag --diagnostic.echo: "), "{errors:?}");
        assert!(errors[3].ends_with("did you mean diagnostics.echo?"), "{errors:?}");
        assert!(errors[4].ends_with("`ringway serve --help` lists them"), "{errors:?}");
    }

    #[test]
    fn a_key_in_the_wrong_section_or_in_none_is_recognised() {
        let errors = messages(sources(Some("max_inflight = 1\n[gateway]\nmax_inflight = 1\n"), &[], &[]));
        assert!(
            errors.iter().all(|error| error.ends_with("did you mean limits.max_inflight?")),
            "{errors:?}"
        );
        assert_eq!(errors.len(), 2);
    }

    #[test]
    fn a_wrong_kind_says_source_key_and_what_was_expected() {
        let errors = messages(sources(
            Some("[listen]\nwss = \"localhost\"\n[limits]\nmax_inflight = \"many\"\n[gateway]\ncores = 0\n"),
            &[("RINGWAY__DIAGNOSTICS__ECHO", "maybe")],
            &[("limits.send_burst", "-1"), ("log.level", "loud")],
        ));
        let all = errors.join("\n");
        for part in [
            "settings.toml:2: listen.wss expects an address and a port",
            "settings.toml:4: limits.max_inflight expects a whole number",
            "settings.toml:6: gateway.cores expects a number from 1",
            "environment RINGWAY__DIAGNOSTICS__ECHO: diagnostics.echo expects true or false",
            "flag --limits.send_burst: limits.send_burst expects a whole number",
            "flag --log.level: log.level expects \"error\"",
        ] {
            assert!(all.contains(part), "{part}\n{all}");
        }
    }

    #[test]
    fn a_file_that_is_not_toml_or_not_there_is_told_with_its_place() {
        let errors = messages(sources(Some("[listen]\nwss = \n"), &[], &[]));
        assert!(errors[0].contains("settings.toml:2: not TOML"), "{errors:?}");
        let missing = Sources { file: Some("/nowhere/ringway.toml".into()), ..Sources::default() };
        assert!(messages(missing.read())[0].starts_with("/nowhere/ringway.toml: cannot be read"));
    }

    #[test]
    fn lists_and_off_and_auto_are_read_in_all_sources() {
        let read = sources(
            Some(
                "[gateway]\nallowed_origins = [\"https://a.example\"]\ncores = \"auto\"\n[listen]\nws = \"off\"",
            ),
            &[],
            &[("gateway.allowed_origins", "https://b.example, https://c.example")],
        )
        .unwrap();
        assert_eq!(read.settings.gateway.allowed_origins, ["https://b.example", "https://c.example"]);
        assert_eq!(read.settings.listen.ws.address(), None);
    }

    #[test]
    fn a_rule_names_the_source_of_the_value_that_breaks_it() {
        let errors = messages(sources(Some("[tls]\ncertificate = \"a.pem\"\n"), &[], &[]));
        assert!(errors[0].contains("settings.toml:2: tls.certificate"), "{errors:?}");
        assert!(errors[0].contains("tls.key"), "{errors:?}");
    }
}
