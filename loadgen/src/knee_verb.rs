//! `loadgen knee`: a scenario at one rate after the other, until the highest that meets its thresholds is
//! found.
//!
//! Exit codes as those of `scenario`: 0 found; 1 a run could not be carried out; 2 the command line or a
//! file is wrong; 3 not even the first rate meets the thresholds; 4 the generator was the limit, and the
//! knee is at least what was met.

use std::error::Error;
use std::process::ExitCode;

use clap::Args;
use ringway_loadgen::fleet::{FleetError, lead};
use ringway_loadgen::knee::{Search, SearchError, Trial};
use ringway_loadgen::report::results::Results;

use crate::report_verbs::Outputs;
use crate::scenario_verb::{Access, ScenarioChoice, local};

/// A run could not be carried out.
const FAILED: u8 = 1;
/// The command line, or a file that it names, is wrong.
const INPUT: u8 = 2;

/// Options of the verb.
#[derive(Args)]
pub(crate) struct KneeOptions {
    #[command(flatten)]
    choice: ScenarioChoice,
    #[command(flatten)]
    access: Access,
    /// The first rate, in messages a second
    #[arg(long)]
    from: f64,
    /// The highest rate that is tried
    #[arg(long, default_value_t = 1_000_000.0)]
    to: f64,
    /// Percent between the highest rate that is met and the lowest that is not
    #[arg(long, default_value_t = 5.0)]
    precision: f64,
    /// Runs of each rate, of which the majority decides
    #[arg(long, default_value_t = 1)]
    repeats: u32,
    /// The results of the highest rate that was met
    #[command(flatten)]
    outputs: Outputs,
}

/// A scenario, run at the rates that the search asks for.
struct ScenarioTrial<'a>(&'a KneeOptions);

impl Trial for ScenarioTrial<'_> {
    fn run(&mut self, rate: f64) -> Result<Results, Box<dyn Error>> {
        let mut scenario = self.0.choice.read()?;
        scenario.set_rate(rate);
        let load = self.0.access.lead(scenario, local()?)?;
        Ok(lead(&load, |_| {})?.results)
    }
}

/// The verb.
pub(crate) fn run(options: &KneeOptions) -> ExitCode {
    match search(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loadgen: {error}");
            let is_input = error.is::<SearchError>()
                || error.is::<NoThreshold>()
                || error.downcast_ref::<FleetError>().is_some_and(FleetError::is_input);
            ExitCode::from(if is_input { INPUT } else { FAILED })
        }
    }
}

/// A scenario that nothing can miss.
#[derive(Debug, thiserror::Error)]
#[error("the scenario has no thresholds, so every rate would meet them: give some with --threshold")]
struct NoThreshold;

fn search(options: &KneeOptions) -> Result<ExitCode, Box<dyn Error>> {
    if options.choice.read()?.thresholds.is_empty() {
        return Err(NoThreshold.into());
    }
    let search = Search {
        from: options.from,
        to: options.to,
        precision: options.precision / 100.0,
        repeats: options.repeats,
    };
    let knee = search.run(&mut ScenarioTrial(options), |tried| eprintln!("loadgen: {tried}"))?;
    eprintln!("loadgen: {knee}");
    println!("{}", knee.to_json());
    if let Some(results) = knee.results() {
        options.outputs.write(results)?;
    }
    Ok(ExitCode::from(knee.verdict().code()))
}
