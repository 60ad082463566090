//! What all workers told so far, added up.

use std::time::{Duration, Instant};

use super::Progress;
use super::observer::Observer;
use crate::report::latency_histogram::HistogramError;
use crate::report::results::{Results, StageResults};
use crate::report::series::{BusyKind, Second};
use crate::server_process::Reading;

/// What all workers told so far.
pub(super) struct Sum {
    /// The document that comes of it.
    pub(super) results: Results,
    observer: Observer,
    start: Instant,
    /// Seconds that the observer has noted.
    observed: usize,
    /// How many workers told of each second; those that all told of were handed on.
    told: Vec<usize>,
    workers: usize,
    /// Resident memory of each worker, before its first socket and at the end of a stage.
    pub(super) resident: Vec<(u64, u64)>,
}

impl Sum {
    /// Nothing yet, of so many workers.
    pub(super) fn new(command: &str, scenario: &str, workers: usize, server: Option<u32>) -> Self {
        Self {
            results: Results::new(command, scenario),
            observer: Observer::new(server),
            start: Instant::now(),
            observed: 0,
            told: Vec::new(),
            workers,
            resident: vec![(0, 0); workers],
        }
    }

    /// Since the start of the run.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The server's process now.
    pub(super) fn server(&self) -> Option<Reading> {
        self.observer.server()
    }

    /// The first stage begins: seconds count from now.
    pub(super) fn begin(&mut self, server: Option<u32>) {
        let (command, scenario) = (self.results.command.clone(), self.results.scenario.clone());
        self.results = Results::new(command, scenario);
        self.observer = Observer::new(server);
        self.start = Instant::now();
        self.observed = 0;
    }

    /// Looks at the machine, if a second is over.
    pub(super) fn observe(&mut self) {
        let second = self.start.elapsed().as_secs() as usize;
        if second > self.observed {
            self.observer.note(self.observed, &mut self.results.series);
            self.observed = second;
        }
    }

    /// A worker told of a second.
    ///
    /// # Errors
    /// A histogram of it is damaged.
    pub(super) fn add_second(
        &mut self,
        worker: usize,
        number: usize,
        second: &Second,
        busy: f64,
    ) -> Result<(), HistogramError> {
        self.results.series.second(number).merge(second)?;
        let machine = self.results.machines.first().map_or_else(String::new, |machine| machine.name.clone());
        self.results.series.row(&machine, BusyKind::Worker, &format!("worker {worker}")).set(number, busy);
        if self.told.len() <= number {
            self.told.resize(number + 1, 0);
        }
        self.told[number] += 1;
        Ok(())
    }

    /// Hands on the seconds that all workers told of, each once.
    pub(super) fn tell_complete(&mut self, progress: &mut impl FnMut(Progress<'_>)) {
        for (number, told) in self.told.iter_mut().enumerate() {
            if *told == self.workers {
                *told += 1;
                let series = &self.results.series;
                if let Some(second) = series.seconds.get(number) {
                    let rows = series.busy.iter().filter(|row| row.kind == BusyKind::Worker);
                    let workers = rows.filter_map(|row| *row.percent.get(number)?).collect();
                    progress(Progress::Second { number, second, workers });
                }
            }
        }
    }

    /// A worker told of a stage.
    pub(super) fn add_stage(&mut self, results: StageResults) {
        match self.results.stages.iter_mut().find(|stage| stage.name == results.name) {
            Some(stage) => stage.merge(&results),
            None => self.results.stages.push(results),
        }
    }

    /// Of all workers, in bytes.
    pub(super) fn resident_growth(&self) -> f64 {
        self.resident.iter().map(|(before, after)| *after as f64 - *before as f64).sum()
    }
}
