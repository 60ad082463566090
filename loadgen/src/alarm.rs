//! Wakes a thread's schedule to the microsecond.
//!
//! Monoio's own timers are a wheel of milliseconds; a send that waits for the next millisecond would add
//! half of one to each latency. A timerfd, read through the ring, has no such step.

use std::fs::File as StandardFile;
use std::io;

use monoio::fs::File;
use rustix::fd::{AsFd, OwnedFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::SECOND;

/// A timer of one thread.
pub(crate) struct Alarm {
    timer: OwnedFd,
    file: File,
}

impl Alarm {
    /// A timer that is not set.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let file = File::from_std(StandardFile::from(timer.try_clone()?))?;
        Ok(Self { timer, file })
    }

    /// Waits until this time of [`crate::clock`]; a time that has passed is over at once.
    ///
    /// # Errors
    /// The kernel refuses the timer.
    pub(crate) async fn sleep_until(&mut self, time: u64) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero would disarm it.
        let time = time.max(1);
        let at = Timespec { tv_sec: (time / SECOND) as i64, tv_nsec: (time % SECOND) as i64 };
        let setting = Itimerspec { it_interval: zero, it_value: at };
        timerfd_settime(self.timer.as_fd(), TimerfdTimerFlags::ABSTIME, &setting)?;
        let (read, _) = self.file.read_at(vec![0u8; 8], 0).await;
        read.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn an_alarm_is_neither_early_nor_lost() {
        let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build().unwrap();
        runtime.block_on(async {
            let mut alarm = Alarm::new().unwrap();
            for _ in 0..20 {
                let time = clock::now() + 300_000;
                alarm.sleep_until(time).await.unwrap();
                assert!(clock::now() >= time);
            }
            alarm.sleep_until(0).await.unwrap();
        });
    }
}
