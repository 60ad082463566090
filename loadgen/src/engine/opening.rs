//! How clients get their sockets: at the pace of the connect stage, or as they want back, and within what
//! that may cost.

use std::io;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::event_loop::{DOORWAY, Engine, EngineError, SOCKETS_A_PASS_MAX, processor_time};
use super::seat::Socket;
use crate::clock;

impl Engine {
    /// Does what opens connections, if the allowance has something left for it; when it is used up, the
    /// doorway is shut until the next tick.
    pub(super) fn spending(&mut self, work: impl FnOnce(&mut Self)) -> Result<(), EngineError> {
        if !self.allowance.is_bounded() {
            work(self);
            return Ok(());
        }
        if self.allowance.is_left() {
            let before = processor_time();
            work(self);
            self.allowance.spend(processor_time() - before);
        }
        self.shut_doorway(!self.allowance.is_left())
    }

    pub(super) fn shut_doorway(&mut self, shut: bool) -> Result<(), EngineError> {
        if self.doorway_is_shut != shut {
            self.doorway_is_shut = shut;
            let flags = if shut { EventFlags::empty() } else { EventFlags::IN };
            epoll::modify(&self.epoll, &self.doorway, EventData::new_u64(DOORWAY), flags)
                .map_err(io::Error::from)?;
        }
        Ok(())
    }

    /// Opens sockets: of the connect stage, and of clients that want back.
    pub(super) fn begin_connections(&mut self) {
        for _ in 0..SOCKETS_A_PASS_MAX {
            let now = clock::now();
            let next = self.stage.as_mut().and_then(|stage| stage.take_connect(self.seats.len(), now));
            if let Some((number, wanted)) = next {
                self.seats[number].wanted = wanted;
                self.connect(number, now);
            } else if let Some(number) = self.waiting.pop_front() {
                if self.seats[number as usize].device.wants_socket(now) {
                    self.connect(number as usize, now);
                }
            } else {
                return;
            }
        }
    }

    /// Opens a socket for a client.
    fn connect(&mut self, number: usize, now: u64) {
        self.next_connection += 1;
        let seat = &mut self.seats[number];
        if !seat.is_arriving {
            seat.is_arriving = true;
            self.arriving += 1;
            self.tally.connects_intended += 1;
            if seat.wanted == 0 {
                seat.wanted = now;
            }
        }
        seat.began = now;
        seat.device.begin(now, self.next_connection);
        seat.device.set_arriving(true);
        let opened = Socket::open(&self.route, self.sources.of(number)).and_then(|socket| {
            let flags = EventFlags::IN | EventFlags::OUT;
            epoll::add(&self.doorway, &socket.stream, EventData::new_u64(number as u64), flags)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => {
                seat.socket = Some(socket);
                self.settle(number, now);
            }
            Err(_) => self.end(number, now),
        }
    }
}
