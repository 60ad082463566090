//! A session as bytes, for a connection that moves to another core or to the next binary.
//!
//! The fields lie in the order of [`Session`], little-endian; times as milliseconds from the moment of
//! freezing, since the next process has another clock; an option as one byte, then its value; a list as
//! four bytes of count, then its elements. What is thawed is checked: no bytes make a session that panics
//! later.

use bytes::BufMut;
use ringway_protocol::byte_cursor::{ByteCursor, put_bytes};
use ringway_protocol::client::Encoding;
use ringway_protocol::ids::{ConversationId, Position, RequestId, Seq, SessionId, Timestamp};
use ringway_protocol::token::Claims;
use ringway_protocol::user::{ClientMessageId, DeviceId, UserId};
use ringway_protocol::websocket::CONTROL_PAYLOAD_BYTES_MAX;

use super::gaps::{Everything, Gaps};
use super::hello::{Arriving, Identity, State};
use super::paging::{ActivePage, HeadPages, Paging, SyncJob};
use super::pending::{Asked, Pending, Request};
use super::rate::{Strikes, TokenBucket};
use super::work::Work;
use super::{Drain, Session};
use crate::clock::Tick;
use crate::connection::ThawError;

type Thawed<T> = Result<T, ThawError>;

/// Appends a time as its distance from `now`.
pub(crate) fn put_tick(out: &mut Vec<u8>, tick: Tick, now: Tick) {
    let distance = if tick == Tick(u64::MAX) { i64::MAX } else { tick.0 as i64 - now.0 as i64 };
    out.put_i64_le(distance);
}

/// Reads what [`put_tick`] wrote.
pub(crate) fn take_tick(cursor: &mut ByteCursor<'_>, now: Tick) -> Thawed<Tick> {
    let distance = cursor.u64()? as i64;
    Ok(if distance == i64::MAX { Tick(u64::MAX) } else { Tick(now.0.saturating_add_signed(distance)) })
}

/// Appends an option.
pub(crate) fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

/// Reads what [`put_option`] wrote.
pub(crate) fn take_option<'a, T>(
    cursor: &mut ByteCursor<'a>,
    take: impl FnOnce(&mut ByteCursor<'a>) -> Thawed<T>,
) -> Thawed<Option<T>> {
    if take_flag(cursor)? { take(cursor).map(Some) } else { Ok(None) }
}

/// Reads a byte that is 0 or 1.
pub(crate) fn take_flag(cursor: &mut ByteCursor<'_>) -> Thawed<bool> {
    match cursor.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(ThawError::Damaged("a flag")),
    }
}

fn put_list<T>(
    out: &mut Vec<u8>,
    list: impl ExactSizeIterator<Item = T>,
    mut put: impl FnMut(&mut Vec<u8>, T),
) {
    out.put_u32_le(list.len() as u32);
    list.for_each(|item| put(out, item));
}

fn take_list<'a, T, L: FromIterator<T>>(
    cursor: &mut ByteCursor<'a>,
    mut take: impl FnMut(&mut ByteCursor<'a>) -> Thawed<T>,
) -> Thawed<L> {
    // Collected one by one: nothing is allocated for a count before its elements are there.
    let count = cursor.u32()?;
    (0..count).map(|_| take(cursor)).collect()
}

fn put_place(out: &mut Vec<u8>, (conversation, seq): (ConversationId, Seq)) {
    out.put_u64_le(conversation.0);
    out.put_u64_le(seq.0);
}

fn take_place(cursor: &mut ByteCursor<'_>) -> Thawed<(ConversationId, Seq)> {
    Ok((ConversationId(cursor.u64()?), Seq(cursor.u64()?)))
}

fn put_device(out: &mut Vec<u8>, device: &DeviceId) {
    put_bytes(out, device.as_str().as_bytes());
}

fn take_request(cursor: &mut ByteCursor<'_>) -> Thawed<RequestId> {
    let request = cursor.u64()?;
    if request > u64::MAX / 2 {
        return Err(ThawError::Damaged("a request's number"));
    }
    Ok(RequestId(request))
}

fn take_text<'a>(cursor: &mut ByteCursor<'a>) -> Thawed<&'a str> {
    std::str::from_utf8(cursor.bytes()?).map_err(|_| ThawError::Damaged("a text"))
}

fn take_device(cursor: &mut ByteCursor<'_>) -> Thawed<DeviceId> {
    DeviceId::new(take_text(cursor)?).map_err(|_| ThawError::Damaged("a device"))
}

fn take_user(cursor: &mut ByteCursor<'_>) -> Thawed<UserId> {
    UserId::from_bytes(cursor.bytes()?).ok_or(ThawError::Damaged("a user"))
}

impl Session {
    /// Appends the session's state.
    pub(crate) fn freeze(&self, out: &mut Vec<u8>, now: Tick) {
        out.put_u8(match self.encoding {
            Encoding::Json => 0,
            Encoding::Protobuf => 1,
        });
        self.state.freeze(out, now);
        put_option(out, self.identity.as_ref(), |out, identity| identity.freeze(out, now));
        out.put_u8(u8::from(self.batch));
        out.put_u8(self.bad_frames);
        out.put_u8(u8::from(self.window_full));
        out.put_u8(u8::from(self.stopped));
        out.put_u64_le(self.others.full_in(now));
        put_option(out, self.work.as_ref(), |out, work| work.freeze(out, now));
        out.put_u64_le(self.next_request.0);
        match self.drain {
            Drain::NO => out.put_u8(0),
            Drain::OUT => out.put_u8(2),
            Drain(end) => {
                out.put_u8(1);
                put_tick(out, end, now);
            }
        }
    }

    /// Reads what [`freeze`](Self::freeze) wrote.
    pub(crate) fn thaw(cursor: &mut ByteCursor<'_>, now: Tick, worker_count: usize) -> Thawed<Self> {
        let encoding = match cursor.u8()? {
            0 => Encoding::Json,
            1 => Encoding::Protobuf,
            _ => return Err(ThawError::Damaged("an encoding")),
        };
        let state = State::thaw(cursor, now)?;
        let identity = take_option(cursor, |cursor| Identity::thaw(cursor, now))?;
        let batch = take_flag(cursor)?;
        let bad_frames = cursor.u8()?;
        let window_full = take_flag(cursor)?;
        let stopped = take_flag(cursor)?;
        let others = TokenBucket::full_after(cursor.u64()?, now);
        let work = take_option(cursor, |cursor| Work::thaw(cursor, now).map(Box::new))?;
        let next_request = take_request(cursor)?;
        let drain = match cursor.u8()? {
            0 => Drain::NO,
            1 => Drain(take_tick(cursor, now)?),
            2 => Drain::OUT,
            _ => return Err(ThawError::Damaged("a drain")),
        };

        let arriving = match &state {
            State::Arriving(arriving) => Some(&**arriving),
            State::Welcome => None,
        };
        if let Some(Arriving::Attaching { probes, .. }) = arriving {
            let asked = work.as_ref().map_or(0, |work| work.count(|asked| *asked == Asked::Probe));
            if usize::from(*probes) != asked || asked == 0 {
                return Err(ThawError::Damaged("probes"));
            }
        }
        if identity.is_none() && !matches!(arriving, Some(Arriving::AwaitingHello { .. })) {
            return Err(ThawError::Damaged("a session of nobody"));
        }
        if identity.as_ref().is_some_and(|identity| usize::from(identity.attached) > worker_count) {
            return Err(ThawError::Workers { attached: worker_count });
        }
        Ok(Self {
            encoding,
            state,
            identity,
            batch,
            bad_frames,
            window_full,
            stopped,
            others,
            work,
            next_request,
            drain,
        })
    }
}

impl Work {
    fn freeze(&self, out: &mut Vec<u8>, now: Tick) {
        freeze_pending(&self.pending, out, now);
        out.put_u64_le(self.sends.full_in(now));
        out.put_u16_le(self.strikes.count);
        put_tick(out, self.strikes.last, now);
        put_option(out, self.owed_pong.as_ref(), |out, payload| put_bytes(out, payload));
        put_option(out, self.resuming, |out, position| out.put_u64_le(position.0));
        put_option(out, self.paging.as_ref(), |out, paging| paging.freeze(out, now));
        put_option(out, self.gaps.as_ref(), |out, gaps| gaps.freeze(out));
    }

    fn thaw(cursor: &mut ByteCursor<'_>, now: Tick) -> Thawed<Self> {
        let mut work = Self {
            pending: thaw_pending(cursor, now)?,
            inflight: 0,
            sends: TokenBucket::full_after(cursor.u64()?, now),
            strikes: Strikes { count: cursor.u16()?, last: take_tick(cursor, now)? },
            owed_pong: take_option(cursor, |cursor| Ok(Box::from(cursor.bytes()?)))?,
            resuming: take_option(cursor, |cursor| Ok(Position(cursor.u64()?)))?,
            paging: take_option(cursor, |cursor| Paging::thaw(cursor, now).map(Box::new))?,
            gaps: take_option(cursor, |cursor| Gaps::thaw(cursor).map(Box::new))?,
        };
        if work.owed_pong.as_ref().is_some_and(|payload| payload.len() > CONTROL_PAYLOAD_BYTES_MAX) {
            return Err(ThawError::Damaged("a pong"));
        }
        work.inflight = work.count(|asked| matches!(asked, Asked::Send(_))) as u32;
        Ok(work)
    }

    /// Requests of a kind.
    fn count(&self, wanted: fn(&Asked) -> bool) -> usize {
        self.pending.parts().1.flatten().filter(|request| wanted(&request.asked)).count()
    }
}

impl State {
    fn freeze(&self, out: &mut Vec<u8>, now: Tick) {
        let State::Arriving(arriving) = self else { return out.put_u8(2) };
        match &**arriving {
            Arriving::AwaitingHello { bearer, deadline } => {
                out.put_u8(0);
                put_option(out, bearer.as_ref(), |out, claims| {
                    put_bytes(out, claims.user.as_bytes());
                    put_option(out, claims.device.as_ref(), put_device);
                    out.put_u64_le(claims.expires.0);
                });
                put_tick(out, *deadline, now);
            }
            Arriving::Attaching { probes, resumes } => {
                out.put_u8(1);
                out.put_u16_le(*probes);
                out.put_u8(u8::from(*resumes));
            }
        }
    }

    fn thaw(cursor: &mut ByteCursor<'_>, now: Tick) -> Thawed<Self> {
        Ok(match cursor.u8()? {
            0 => {
                let bearer = take_option(cursor, |cursor| {
                    let user = take_user(cursor)?;
                    let device = take_option(cursor, take_device)?;
                    let expires = Timestamp(cursor.u64()?);
                    Ok(Box::new(Claims { user, device, expires }))
                })?;
                Arriving::AwaitingHello { bearer, deadline: take_tick(cursor, now)? }.into()
            }
            1 => Arriving::Attaching { probes: cursor.u16()?, resumes: take_flag(cursor)? }.into(),
            2 => State::Welcome,
            _ => return Err(ThawError::Damaged("a session's state")),
        })
    }
}

impl Identity {
    fn freeze(&self, out: &mut Vec<u8>, now: Tick) {
        put_bytes(out, self.user.as_bytes());
        put_device(out, &self.device);
        out.put_u64_le(self.session.0);
        put_tick(out, self.expires, now);
        out.put_u8(u8::from(self.warned));
        out.put_u16_le(self.attached);
        out.put_u8(u8::from(self.cursor_known));
    }

    fn thaw(cursor: &mut ByteCursor<'_>, now: Tick) -> Thawed<Self> {
        Ok(Self {
            user: take_user(cursor)?,
            device: take_device(cursor)?,
            session: SessionId(cursor.u64()?),
            expires: take_tick(cursor, now)?,
            warned: take_flag(cursor)?,
            attached: cursor.u16()?,
            cursor_known: take_flag(cursor)?,
        })
    }
}

fn freeze_pending(pending: &Pending, out: &mut Vec<u8>, now: Tick) {
    let (first, requests) = pending.parts();
    out.put_u64_le(first.0);
    put_list(out, requests, |out, request| {
        put_option(out, request, |out, request| {
            put_tick(out, request.since, now);
            match &request.asked {
                Asked::Probe => out.put_u8(0),
                Asked::Send(id) => {
                    out.put_u8(1);
                    put_bytes(out, id.as_str().as_bytes());
                }
                Asked::Page(conversation, after) => {
                    out.put_u8(2);
                    put_place(out, (*conversation, *after));
                }
                Asked::Heads => out.put_u8(3),
            }
        });
    });
}

fn thaw_pending(cursor: &mut ByteCursor<'_>, now: Tick) -> Thawed<Pending> {
    let first = take_request(cursor)?;
    let requests = take_list(cursor, |cursor| {
        take_option(cursor, |cursor| {
            let since = take_tick(cursor, now)?;
            let asked = match cursor.u8()? {
                0 => Asked::Probe,
                1 => Asked::Send(
                    ClientMessageId::new(take_text(cursor)?).map_err(|_| ThawError::Damaged("a send"))?,
                ),
                2 => {
                    let (conversation, after) = take_place(cursor)?;
                    Asked::Page(conversation, after)
                }
                3 => Asked::Heads,
                _ => return Err(ThawError::Damaged("a request")),
            };
            Ok(Request { asked, since })
        })
    })?;
    Ok(Pending::from_parts(first, requests))
}

impl Paging {
    fn freeze(&self, out: &mut Vec<u8>, now: Tick) {
        put_list(out, self.syncs.iter(), |out, job| {
            put_list(out, job.todo.iter().copied(), put_place);
            out.put_u32_le(job.limit);
            out.put_u32_le(job.left);
            put_option(out, job.active, |out, active| {
                put_place(out, (active.conversation, active.after));
                out.put_u32_le(active.left);
            });
        });
        out.put_u8(u8::from(self.page_asked));
        out.put_u8(u8::from(self.heads_wanted));
        put_option(out, self.heads.as_ref(), |out, heads| {
            put_list(out, heads.left.iter().copied(), put_place);
            out.put_u8(u8::from(heads.recovered));
            out.put_u64_le(heads.position.0);
        });
        put_tick(out, self.retry_at, now);
        out.put_u64_le(self.queued_bytes as u64);
        put_option(out, self.held, |out, position| out.put_u64_le(position.0));
    }

    fn thaw(cursor: &mut ByteCursor<'_>, now: Tick) -> Thawed<Self> {
        Ok(Self {
            syncs: take_list(cursor, |cursor| {
                let todo = take_list(cursor, take_place)?;
                let (limit, left) = (cursor.u32()?, cursor.u32()?);
                let active = take_option(cursor, |cursor| {
                    let (conversation, after) = take_place(cursor)?;
                    Ok(ActivePage { conversation, after, left: cursor.u32()? })
                })?;
                Ok(SyncJob { todo, limit, left, active })
            })?,
            page_asked: take_flag(cursor)?,
            heads_wanted: take_flag(cursor)?,
            heads: take_option(cursor, |cursor| {
                let left = take_list(cursor, take_place)?;
                let recovered = take_flag(cursor)?;
                Ok(HeadPages { left, recovered, position: Position(cursor.u64()?) })
            })?,
            retry_at: take_tick(cursor, now)?,
            queued_bytes: usize::try_from(cursor.u64()?).map_err(|_| ThawError::Damaged("a size"))?,
            held: take_option(cursor, |cursor| Ok(Position(cursor.u64()?)))?,
        })
    }
}

impl Gaps {
    fn freeze(&self, out: &mut Vec<u8>) {
        put_list(out, self.noted.iter().copied(), put_place);
        put_list(out, self.told.iter(), |out, conversation| out.put_u64_le(conversation.0));
        out.put_u8(match self.everything {
            Everything::No => 0,
            Everything::Noted => 1,
            Everything::Told => 2,
        });
        out.put_u64_le(self.held.0);
    }

    fn thaw(cursor: &mut ByteCursor<'_>) -> Thawed<Self> {
        Ok(Self {
            noted: take_list(cursor, take_place)?,
            told: take_list(cursor, |cursor| Ok(ConversationId(cursor.u64()?)))?,
            everything: match cursor.u8()? {
                0 => Everything::No,
                1 => Everything::Noted,
                2 => Everything::Told,
                _ => return Err(ThawError::Damaged("a gap")),
            },
            held: Position(cursor.u64()?),
        })
    }
}
