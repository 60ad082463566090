//! The keys of a scenario file, and what is wrong with them.
//!
//! A key that nobody knows is refused, with the one that was probably meant: a mistyped threshold or rate
//! would otherwise be a run that proves something else. A key that its stage has no use for is refused too.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::{Connections, Messages, Population, Scenario, ScenarioError, Stage, StageKind, Subprotocol};
use crate::report::threshold::Threshold;
use crate::schedule::Rate;

/// How like a key must be to be the one that was meant.
const LIKENESS_MIN: f64 = 0.6;

/// After a stage that sends, its sends and deliveries have this long to end, unless it says otherwise: a
/// send without an answer is tried again after ten seconds.
const SETTLE_S: f64 = 15.0;

/// After a storm, all have this long to be back, unless it says otherwise.
const RETURN_WITHIN_S: f64 = 60.0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default = "first_seed")]
    seed: u64,
    #[serde(default)]
    subprotocol: Subprotocol,
    #[serde(default)]
    check: bool,
    #[serde(default)]
    thresholds: Vec<Threshold>,
    population: Population,
    #[serde(default)]
    connections: Connections,
    #[serde(default)]
    messages: Messages,
    stage: Vec<StageTable>,
}

/// All keys of all kinds; [`StageTable::stage`] takes those of its kind and refuses the rest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StageTable {
    kind: Kind,
    name: Option<String>,
    measured: Option<bool>,
    duration_s: Option<f64>,
    settle_s: Option<f64>,
    connections_per_s: Option<f64>,
    messages_per_s: Option<f64>,
    from_messages_per_s: Option<f64>,
    to_messages_per_s: Option<f64>,
    churn_per_s: Option<f64>,
    cut: Option<u32>,
    return_over_s: Option<f64>,
    readers: Option<u32>,
    read_bytes_per_s: Option<u32>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Connect,
    Hold,
    Send,
    Ramp,
    Storm,
    SlowReaders,
}

fn first_seed() -> u64 {
    1
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ScenarioError`].
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ScenarioError::File { path: path.to_path_buf(), source })?;
        Self::parse(&text)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`ScenarioError`].
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let meant = meant(error.message()).map(|key| format!("did you mean `{key}`?\n"));
            ScenarioError::Syntax(format!("{error}{}", meant.unwrap_or_default()))
        })?;
        let mut stages: Vec<Stage> = Vec::new();
        for (number, table) in file.stage.into_iter().enumerate() {
            let stage = table.stage(number)?;
            if stages.iter().any(|other| other.name == stage.name) {
                let reason = "is the name of two stages: give one of them a `name` of its own".to_owned();
                return Err(wrong(&format!("{:?}", stage.name), reason));
            }
            stages.push(stage);
        }
        let scenario = Self {
            name: file.name,
            seed: file.seed,
            subprotocol: file.subprotocol,
            check: file.check,
            population: file.population,
            connections: file.connections,
            messages: file.messages,
            stages,
            thresholds: file.thresholds,
            text: text.to_owned(),
        };
        scenario.validate()?;
        Ok(scenario)
    }

    /// What no single key shows.
    pub(super) fn validate(&self) -> Result<(), ScenarioError> {
        self.population.validate()?;
        let connections = &self.connections;
        for (key, value) in [
            ("connections.patience_s", connections.patience_s),
            ("connections.per_source", connections.per_source),
            ("connections.per_worker", connections.per_worker),
            ("messages.window", self.messages.window),
            ("messages.open_max", self.messages.open_max),
        ] {
            rule(value > 0, key, "must be at least 1")?;
        }
        let cores = 0.0..=1024.0;
        rule(cores.contains(&connections.opening_cores), "connections.opening_cores", "must be 0 to 1024")?;
        rule(self.messages.bytes <= 32_768, "messages.bytes", "must be at most 32768")?;
        let connects = |stage: &Stage| matches!(stage.kind, StageKind::Connect { .. });
        let first = self.stages.first().is_some_and(connects);
        rule(first, "first stage", "must be of the kind connect: nobody is there before it")?;
        let others = self.stages.iter().skip(1).any(connects);
        rule(!others, "stages", "have two of the kind connect: all clients come in the first")?;
        for threshold in &self.thresholds {
            if let Some(name) = &threshold.stage
                && !self.stages.iter().any(|stage| stage.name == *name)
            {
                let names = self.stages.iter().map(|stage| stage.name.as_str());
                let reason = match likest(name, names) {
                    Some(meant) => format!("names a stage that is not there; did you mean {meant:?}?"),
                    None => "names a stage that is not there".into(),
                };
                return Err(wrong(&format!("threshold `{threshold}`"), reason));
            }
        }
        for stage in &self.stages {
            let many = match stage.kind {
                StageKind::Storm { cut, .. } => cut as usize,
                StageKind::SlowReaders { readers, .. } => readers as usize,
                _ => 0,
            };
            let most = match stage.kind {
                StageKind::SlowReaders { .. } => self.population.chatters(),
                _ => self.population.clients,
            };
            if many > most {
                return Err(wrong(
                    &format!("stage {:?}", stage.name),
                    format!("wants {many} clients of {most}"),
                ));
            }
        }
        Ok(())
    }
}

impl StageTable {
    fn stage(mut self, number: usize) -> Result<Stage, ScenarioError> {
        let place = match &self.name {
            Some(name) => format!("stage {name:?}"),
            None => format!("stage {}", number + 1),
        };
        let need = |key: &str| wrong(&place, format!("needs `{key}`"));
        let kind = match self.kind {
            Kind::Connect => {
                let rate = self.connections_per_s.take().ok_or_else(|| need("connections_per_s"))?;
                rule(rate > 0.0, &place, "must connect more than 0 a second")?;
                StageKind::Connect { rate }
            }
            Kind::Hold => StageKind::Hold,
            Kind::Send => StageKind::Send,
            Kind::Ramp => StageKind::Ramp,
            Kind::Storm => StageKind::Storm {
                cut: self.cut.take().ok_or_else(|| need("cut"))?,
                return_over: seconds(&place, self.return_over_s.take().unwrap_or(1.0))?,
            },
            Kind::SlowReaders => StageKind::SlowReaders {
                readers: self.readers.take().ok_or_else(|| need("readers"))?,
                bytes: self.read_bytes_per_s.take().unwrap_or(0),
            },
        };
        let duration = match self.kind {
            Kind::Connect => 0.0,
            _ => self.duration_s.take().ok_or_else(|| need("duration_s"))?,
        };
        let rate = match self.kind {
            Kind::Connect | Kind::Hold => Rate::steady(0.0),
            Kind::Ramp => Rate {
                from: self.from_messages_per_s.take().unwrap_or(0.0),
                to: self.to_messages_per_s.take().ok_or_else(|| need("to_messages_per_s"))?,
            },
            Kind::Send => Rate::steady(self.messages_per_s.take().ok_or_else(|| need("messages_per_s"))?),
            Kind::Storm | Kind::SlowReaders => Rate::steady(self.messages_per_s.take().unwrap_or(0.0)),
        };
        let churn = match self.kind {
            Kind::Connect => 0.0,
            _ => self.churn_per_s.take().unwrap_or(0.0),
        };
        let usual = match self.kind {
            Kind::Hold | Kind::Connect => 0.0,
            Kind::Storm => RETURN_WITHIN_S,
            _ => SETTLE_S,
        };
        let settle = seconds(&place, self.settle_s.take().unwrap_or(usual))?;
        self.refuse_the_rest(&place, kind)?;
        for value in [rate.from, rate.to, churn] {
            rule((0.0..=1e7).contains(&value), &place, "has a rate that is not between 0 and 10,000,000")?;
        }
        Ok(Stage {
            name: self.name.unwrap_or_else(|| kind.name().to_owned()),
            kind,
            duration: seconds(&place, duration)?,
            measured: self.measured.unwrap_or(!matches!(kind, StageKind::Connect { .. } | StageKind::Hold)),
            rate,
            churn,
            settle,
        })
    }

    /// Keys that were given and that this kind has no use for.
    fn refuse_the_rest(&self, place: &str, kind: StageKind) -> Result<(), ScenarioError> {
        let given = [
            ("duration_s", self.duration_s.is_some()),
            ("connections_per_s", self.connections_per_s.is_some()),
            ("messages_per_s", self.messages_per_s.is_some()),
            ("from_messages_per_s", self.from_messages_per_s.is_some()),
            ("to_messages_per_s", self.to_messages_per_s.is_some()),
            ("churn_per_s", self.churn_per_s.is_some()),
            ("cut", self.cut.is_some()),
            ("return_over_s", self.return_over_s.is_some()),
            ("readers", self.readers.is_some()),
            ("read_bytes_per_s", self.read_bytes_per_s.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((key, _)) => {
                Err(wrong(place, format!("is of the kind {}, which has no `{key}`", kind.name())))
            }
            None => Ok(()),
        }
    }
}

fn wrong(key: &str, reason: impl Into<String>) -> ScenarioError {
    ScenarioError::Value { key: key.to_owned(), reason: reason.into() }
}

pub(super) fn rule(holds: bool, key: &str, reason: &str) -> Result<(), ScenarioError> {
    if holds { Ok(()) } else { Err(wrong(key, reason)) }
}

fn seconds(place: &str, value: f64) -> Result<Duration, ScenarioError> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if value <= 1e7 => Ok(duration),
        _ => Err(wrong(place, format!("has {value}, which is no number of seconds"))),
    }
}

/// The known key that an unknown one is most like: serde's message names both, in back quotes.
fn meant(message: &str) -> Option<String> {
    let mut quoted = message.strip_prefix("unknown ")?.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    likest(unknown, quoted).map(str::to_owned)
}

fn likest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |key: &str| strsim::jaro_winkler(unknown, key);
    known
        .filter(|key| likeness(key) >= LIKENESS_MIN)
        .max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "name = \"small\"\n[population]\nclients = 10\n[[stage]]\nkind = \"connect\"\n\
                         connections_per_s = 5\n";

    fn refusal(text: &str) -> String {
        Scenario::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_a_file_leaves_out_has_a_default() {
        let text = format!("{SMALL}[[stage]]\nkind = \"send\"\nmessages_per_s = 10\nduration_s = 2\n");
        let scenario = Scenario::parse(&text).unwrap();
        assert_eq!((scenario.seed, scenario.messages.window, scenario.stages.len()), (1, 1, 2));
        let send = &scenario.stages[1];
        assert_eq!((send.name.as_str(), send.measured, send.settle.as_secs()), ("send", true, 15));
        assert!(!scenario.stages[0].measured);
        let json = serde_json::to_string(&scenario).unwrap();
        assert_eq!(serde_json::from_str::<Scenario>(&json).unwrap(), scenario, "workers get it as JSON");
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
        for (text, meant) in [
            (format!("trehsolds = []\n{SMALL}"), "thresholds"),
            (format!("{SMALL}conections_per_s = 1\n"), "connections_per_s"),
            (SMALL.replace("clients", "client"), "clients"),
            (format!("{SMALL}[messages]\nwindw = 1\n"), "window"),
            (format!("{SMALL}[[stage]]\nkind = \"slow_readers\"\n"), "slow-readers"),
            (format!("subprotocol = \"jsn\"\n{SMALL}"), "json"),
        ] {
            let refusal = refusal(&text);
            assert!(refusal.contains(&format!("did you mean `{meant}`?")), "{refusal}");
        }
        assert!(!refusal(&format!("xyz = 1\n{SMALL}")).contains("did you mean"));
    }

    #[test]
    fn what_makes_no_sense_says_where_and_why() {
        let send = "[[stage]]\nkind = \"send\"\nmessages_per_s = 1\nduration_s = 1\n";
        for (text, reason) in [
            (format!("{SMALL}{send}cut = 3\n"), "stage 2 is of the kind send, which has no `cut`"),
            (format!("{SMALL}{send}{send}"), "\"send\" is the name of two stages"),
            (format!("{SMALL}[[stage]]\nkind = \"storm\"\nduration_s = 1\n"), "stage 2 needs `cut`"),
            (format!("{SMALL}[[stage]]\nkind = \"storm\"\nduration_s = 1\ncut = 11\n"), "11 clients of 10"),
            (SMALL.replace("connect\"", "hold\"").replace("connections_per_s", "duration_s"), "first stage"),
            (format!("thresholds = [\"sned: lost == 0\"]\n{SMALL}{send}"), "did you mean \"send\"?"),
            (format!("thresholds = [\"lost\"]\n{SMALL}"), "compares nothing"),
            (format!("{SMALL}[[stage]]\nkind = \"hold\"\nduration_s = -1\n"), "no number of seconds"),
            (SMALL.replace("10\n", "0\n"), "population.clients must be"),
        ] {
            let refusal = refusal(&text);
            assert!(refusal.contains(reason), "{refusal}");
        }
    }

    #[test]
    fn the_scenarios_of_this_folder_are_good() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut seen = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let scenario =
                Scenario::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(path.file_stem().unwrap().to_str(), Some(scenario.name.as_str()));
            seen += 1;
        }
        assert!(seen >= 4, "{seen}");
    }
}
