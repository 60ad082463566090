//! What a worker does of its own accord: orders, stages, and what is odd in them (cuts, slow readers,
//! churn). Everything here happens in a tick, between the passes of `event_loop.rs`.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use super::event_loop::{Engine, EngineError, TICK, processor_time};
use super::stage_run::StageRun;
use super::{Order, Report};
use crate::clock::{self, SECOND};
use crate::device::Afterwards;
use crate::scenario::StageKind;

/// Longest absence of a client that left on purpose.
const ABSENCE_MAX: u64 = 3 * SECOND;

/// From the order to leave to the end of the last socket, at most.
const LEAVING_MAX: u64 = 5 * SECOND;

impl Engine {
    pub(super) fn take_orders(&mut self, orders: &Receiver<Order>, now: u64) -> Result<(), EngineError> {
        loop {
            match orders.try_recv() {
                Ok(Order::Begin { stage, elapsed }) => self.begin_stage(stage, elapsed, now),
                Ok(Order::Leave) => self.leave(now),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(EngineError::Alone),
            }
        }
    }

    fn begin_stage(&mut self, number: usize, elapsed: Duration, now: u64) {
        let Some(stage) = self.scenario.stages.get(number) else { return };
        if number == 0 {
            self.start = Some(now.saturating_sub(elapsed.as_nanos() as u64));
            self.processor_time = processor_time();
        }
        let mut run = StageRun::new(number, stage, &self.part, now);
        match run.kind {
            StageKind::Storm { .. } => run.chosen = self.choose(self.seats.len(), run.chosen_count),
            StageKind::SlowReaders { .. } => {
                run.chosen = self.choose(self.part.chatters, run.chosen_count);
                run.chosen.iter().for_each(|number| self.set_slow(*number as usize, true, now));
            }
            StageKind::Connect { .. } | StageKind::Hold | StageKind::Send | StageKind::Ramp => {}
        }
        self.stage = Some(run);
    }

    /// So many of the first clients that are welcome and have nothing under way: a send that waits for one who
    /// does not read would be late by our own doing.
    fn choose(&mut self, of: usize, count: usize) -> Vec<u32> {
        let is_free = |number: &u32| {
            let seat = &self.seats[*number as usize];
            seat.is_open && seat.device.open_sends() == 0
        };
        let mut open: Vec<u32> = (0..of as u32).filter(is_free).collect();
        self.context.dice.shuffle(&mut open);
        open.truncate(count);
        open
    }

    /// A storm cuts as fast as sockets can be closed, but not so that those who stay are late for it.
    pub(super) fn cut_some(&mut self, most: usize) {
        for _ in 0..most {
            let Some((number, return_over)) = self.stage.as_mut().and_then(StageRun::take_cut) else {
                return;
            };
            self.cut(number as usize, clock::now(), return_over);
        }
    }

    /// Ends a socket without a word; the client wants back at once, and tries within `return_over`.
    fn cut(&mut self, number: usize, now: u64, return_over: Duration) {
        let most = (return_over.as_nanos() as u64).max(1);
        let absence = self.context.dice.u64(0..most);
        let seat = &mut self.seats[number];
        seat.device.will_return_after(absence);
        seat.is_returning = true;
        if let Some(socket) = seat.socket.take() {
            socket.cut();
        }
        self.end(number, now);
        self.seats[number].wanted = now;
    }

    fn set_slow(&mut self, number: usize, slow: bool, now: u64) {
        let seat = &mut self.seats[number];
        seat.is_slow = slow;
        seat.device.set_slow(slow, now);
        if let Some(socket) = &seat.socket
            && slow
        {
            socket.read_slowly();
        }
        self.watch(number, now);
    }

    /// Slow readers get what is theirs of this tick.
    pub(super) fn read_slowly(&mut self, now: u64) {
        let Some(stage) = &mut self.stage else { return };
        let bytes = (u64::from(stage.slow_bytes) * TICK / SECOND) as usize;
        if bytes == 0 || stage.is_settling {
            return;
        }
        let chosen = std::mem::take(&mut stage.chosen);
        for number in &chosen {
            let mut most = bytes;
            if self.seats[*number as usize].socket.is_some() {
                self.receive(*number as usize, now, &mut most);
            }
        }
        if let Some(stage) = &mut self.stage {
            stage.chosen = chosen;
        }
    }

    /// Some clients leave, politely or not, and come back.
    pub(super) fn churn(&mut self, now: u64) {
        let Some(stage) = &self.stage else { return };
        let mut expected = if now < stage.end { stage.churn * TICK as f64 / SECOND as f64 } else { 0.0 };
        while self.context.dice.f64() < expected {
            expected -= 1.0;
            let number = self.context.dice.usize(0..self.seats.len());
            let device = &mut self.seats[number].device;
            // Nobody leaves in the middle of a send: the wait would be the user's own.
            if !device.is_open() || device.open_sends() > 0 {
                continue;
            }
            let absence = self.context.dice.u64(0..ABSENCE_MAX);
            self.seats[number].is_returning = true;
            let device = &mut self.seats[number].device;
            if self.context.dice.bool() {
                device.leave(&mut self.context, now, Afterwards::Return(absence));
                self.settle(number, now);
            } else {
                device.will_return_after(absence);
                if let Some(socket) = self.seats[number].socket.take() {
                    socket.cut();
                }
                self.end(number, now);
            }
        }
    }

    /// Whether the stage is over by the clock, and then whether what it did has ended.
    pub(super) fn look_at_stage(&mut self, now: u64) {
        let Some(stage) = &mut self.stage else { return };
        let has_begun_all = stage.next_connect(self.seats.len()).is_none();
        if now < stage.end || !has_begun_all || stage.schedule.next_time().is_some() {
            return;
        }
        if !stage.is_settling {
            stage.is_settling = true;
            if matches!(stage.kind, StageKind::SlowReaders { .. }) {
                let slow = std::mem::take(&mut stage.chosen);
                slow.iter().for_each(|number| self.set_slow(*number as usize, false, now));
            }
        }
        let Some(stage) = &self.stage else { return };
        let missing = self.missing();
        let is_quiet = match stage.kind {
            StageKind::Connect { .. } => self.arriving == 0,
            StageKind::Hold => true,
            _ => {
                let is_back = |number: &u32| {
                    let seat = &self.seats[*number as usize];
                    seat.is_open && !seat.is_arriving
                };
                missing == self.lost_before
                    && self.seats[..self.part.chatters].iter().all(|seat| seat.device.open_sends() == 0)
                    && stage.chosen.iter().all(is_back)
            }
        };
        if is_quiet || now >= stage.deadline {
            self.finish_stage(now, missing);
        }
    }

    /// Messages that acks promise and that are not there.
    fn missing(&self) -> u64 {
        self.seats[..self.part.chatters].iter().map(|seat| seat.device.missing(&self.context)).sum()
    }

    fn finish_stage(&mut self, now: u64, missing: u64) {
        let Some(stage) = self.stage.take() else { return };
        self.tally.lost = missing.saturating_sub(self.lost_before);
        self.lost_before = self.lost_before.max(missing);
        self.collect();
        let end = match stage.kind {
            StageKind::Connect { .. } => now,
            _ => stage.end,
        };
        let since = |time: u64, from: u64| Duration::from_nanos(time.saturating_sub(from));
        let over = Report::Over {
            stage: stage.number,
            begin: since(stage.begin, self.start.unwrap_or(stage.begin)),
            length: since(end, stage.begin),
            tally: Box::new(std::mem::take(&mut self.stage_tally)),
        };
        // If nobody listens, the run is being given up, and the next look at the orders ends it.
        let _ = self.tell(over);
    }

    fn leave(&mut self, now: u64) {
        self.leaving_since = Some(now);
        self.stage = None;
        for number in 0..self.seats.len() {
            let device = &mut self.seats[number].device;
            device.record_end(&mut self.context);
            device.leave(&mut self.context, now, Afterwards::Stay);
            self.flush(number, now);
            self.settle(number, now);
        }
        self.context.recorder.flush();
    }

    pub(super) fn has_left(&mut self, now: u64) -> bool {
        let Some(since) = self.leaving_since else { return false };
        now > since + LEAVING_MAX || self.seats.iter().all(|seat| seat.socket.is_none())
    }
}
