//! What was queued, carried out: each operation by one call, or armed for the edge that it waits for; and how each
//! of those that wait comes to its end.

use std::net::SocketAddr;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::Shutdown;

use crate::driver::{Operation, RingError};
use crate::user_data::{Kind, Token, UserData};

use super::sockets::{READABLE, RECEIVING, SENDING};
use super::{EVENT_NAME, EpollDriver, LISTENER_BIT, refusal};

impl EpollDriver {
    pub(super) fn carry_out(&mut self, user_data: UserData, operation: Operation) -> Result<(), RingError> {
        match operation {
            Operation::Accept { listener } => self.arm_accept(user_data, usize::from(listener)),
            Operation::PeerName { slot, .. } => self.name_peer(user_data, slot),
            Operation::Receive { slot } => {
                let socket = self.sockets.named(slot, user_data);
                assert!(!socket.is(RECEIVING), "slot {slot} has a receive armed already");
                socket.set(RECEIVING);
                if socket.is(READABLE) {
                    self.queue_visit(slot);
                }
            }
            Operation::Send { slot } => {
                self.sockets.named(slot, user_data).set(SENDING);
                self.chunks.start(slot);
                self.continue_send(slot);
            }
            Operation::Cancel { target } => {
                let found = self.end_operation(target);
                self.complete(user_data, if found { 0 } else { refusal(Errno::NOENT) });
            }
            Operation::CancelAll { slot } => {
                let token = user_data.token();
                let kinds = [Kind::Receive, Kind::Send].map(|kind| UserData::new(kind, token));
                let ended = kinds.into_iter().filter(|target| self.end_operation(*target)).count();
                debug_assert_eq!(token.slot, slot, "an operation is named after its slot");
                self.complete(user_data, if ended > 0 { ended as i32 } else { refusal(Errno::NOENT) });
            }
            Operation::Shutdown { slot } => {
                self.calls += 1;
                let socket = self.sockets.named(slot, user_data);
                let ended = rustix::net::shutdown(&socket.descriptor, Shutdown::Write);
                self.complete(user_data, ended.map_or_else(refusal, |()| 0));
            }
            Operation::Close { slot } => {
                self.calls += 1;
                let socket = self.sockets.vacate(slot);
                assert!(!socket.is(RECEIVING | SENDING), "slot {slot} is closed with operations in flight");
                self.names.remove(&slot);
                self.complete(user_data, 0);
            }
            Operation::Event => self.arm_event(user_data)?,
        }
        Ok(())
    }

    fn arm_accept(&mut self, user_data: UserData, index: usize) {
        let listener = &mut self.listeners[index];
        assert!(listener.armed.is_none(), "one accept a listener");
        listener.armed = Some(user_data);
        let socket = listener.socket.as_ref().expect("a closed listener accepts no more");
        if !listener.registered {
            self.calls += 1;
            let name = epoll::EventData::new_u64(LISTENER_BIT | index as u64);
            let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
            match epoll::add(&self.epoll, socket, name, edges) {
                Ok(()) => listener.registered = true,
                Err(error) => self.end_accept(index, refusal(error)),
            }
        }
    }

    fn arm_event(&mut self, user_data: UserData) -> Result<(), RingError> {
        let state = &mut self.event_state;
        state.armed = Some(user_data);
        if !state.registered {
            self.calls += 1;
            let event = self.event.as_ref().expect("an event was set");
            let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&self.epoll, event, epoll::EventData::new_u64(EVENT_NAME), edges)
                .map_err(|source| RingError::Epoll { source: source.into() })?;
            state.registered = true;
        }
        self.tell_event();
        Ok(())
    }

    /// Each write to an eventfd is an edge, also of a count that nobody reads: it is left to rise, as it would for
    /// 2^64 writes.
    pub(super) fn tell_event(&mut self) {
        if self.event_state.signalled
            && let Some(user_data) = self.event_state.armed.take()
        {
            self.event_state.signalled = false;
            self.complete(user_data, 8);
        }
    }

    fn name_peer(&mut self, user_data: UserData, slot: u32) {
        self.calls += 1;
        let socket = self.sockets.named(slot, user_data);
        let result = match rustix::net::getpeername(&socket.descriptor) {
            Ok(name) => {
                if let Some(address) = name.and_then(|name| SocketAddr::try_from(name).ok()) {
                    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                    self.names.insert(slot, address);
                }
                0
            }
            Err(error) => refusal(error),
        };
        self.complete(user_data, result);
    }

    /// Ends an operation with what it has, or as cancelled. False if it is over already.
    fn end_operation(&mut self, target: UserData) -> bool {
        let Token { slot, generation } = target.token();
        match target.kind() {
            Kind::Accept => {
                let armed = self.listeners[slot as usize].armed.is_some();
                if armed {
                    self.end_accept(slot as usize, refusal(Errno::CANCELED));
                }
                armed
            }
            kind @ (Kind::Receive | Kind::Send) => {
                let flag = if kind == Kind::Receive { RECEIVING } else { SENDING };
                let socket = self.sockets.get_mut(slot);
                if !socket.is_some_and(|socket| socket.generation == generation && socket.is(flag)) {
                    return false;
                }
                match kind {
                    Kind::Receive => self.end_receive(slot, refusal(Errno::CANCELED)),
                    _ => self.end_send(slot, refusal(Errno::CANCELED)),
                }
                true
            }
            // The others are over when they were carried out.
            _ => false,
        }
    }

    pub(super) fn end_accept(&mut self, index: usize, result: i32) {
        if let Some(user_data) = self.listeners[index].armed.take() {
            self.complete(user_data, result);
        }
    }

    pub(super) fn end_receive(&mut self, slot: u32, result: i32) {
        let user_data = self.sockets.end(slot, RECEIVING, Kind::Receive);
        self.complete(user_data, result);
    }

    /// Ends a send with what the kernel took, if it took anything.
    pub(super) fn end_send(&mut self, slot: u32, result: i32) {
        let user_data = self.sockets.end(slot, SENDING, Kind::Send);
        let taken = if self.taken.is_empty() { None } else { self.taken.remove(&slot) };
        self.chunks.stop(slot);
        self.complete(user_data, taken.map_or(result, |count| count as i32));
    }
}
