//! What a client asked for in bulk, page by page as it reads: `heads` after a `hello` with `resume`, and
//! `sync`.
//!
//! The next page is asked for only when the queue is down to a quarter, so the worker, and not this
//! socket's memory, holds what a slow reader has not taken. One conversation is paged at a time; its owner
//! holds its live entries back until the last page, so that the seam has no hole.
//!
//! Where a page cannot be had, or the client's bound cuts a conversation short, a `gap` says from where it
//! is incomplete: `sync` again from there. A conversation that is not the client's to read is answered by
//! `not_found` and the rest goes on: the client should stop asking for it.

use std::collections::VecDeque;

use ringway_protocol::client::{ErrorCode, ErrorFrame, Gap, Heads, LogItem, Messages, ServerFrame, Sync};
use ringway_protocol::entry::Entry;
use ringway_protocol::ids::{ConversationId, Position, Seq};
use ringway_protocol::limits::{HEADS_PAGE_MAX, PAGE_ENTRIES_MAX, SYNC_CONVERSATIONS_MAX, SYNC_ENTRIES_MAX};
use ringway_protocol::trunk::{Operation, Outcome, Refusal};

use super::Session;
use super::pending::Asked;
use crate::clock::Tick;
use crate::connection::limits::{INBOX_FULL_RETRY_MILLISECONDS, SYNCS_MAX};
use crate::connection::{Exchange, Step};

/// Boxed by its session, only while there is something.
pub(super) struct Paging {
    /// The `sync`s, oldest first; the first is in work.
    pub(super) syncs: VecDeque<SyncJob>,
    /// A page of the first is asked for and not here.
    pub(super) page_asked: bool,
    /// Heads have to be asked for: their worker's inbox was full.
    pub(super) heads_wanted: bool,
    /// Heads that are here and not all queued.
    pub(super) heads: Option<HeadPages>,
    /// When a full inbox is tried again.
    pub(super) retry_at: Tick,
    /// Bytes of pages that were queued since the queue was last down to a quarter.
    pub(super) queued_bytes: usize,
    /// While there are `sync`s: the cursor's position when the first of them came. A live entry that is
    /// held back for a page is above it.
    pub(super) held: Option<Position>,
}

/// One `sync`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyncJob {
    /// Conversations not yet begun, the next one last.
    pub(super) todo: Vec<(ConversationId, Seq)>,
    /// Entries wanted at most of each conversation.
    pub(super) limit: u32,
    /// Entries left of [`SYNC_ENTRIES_MAX`].
    pub(super) left: u32,
    /// The conversation in work.
    pub(super) active: Option<ActivePage>,
}

/// How far the conversation in work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ActivePage {
    pub(super) conversation: ConversationId,
    /// The client has everything up to here.
    pub(super) after: Seq,
    /// Entries left of the client's limit.
    pub(super) left: u32,
}

/// Heads on their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeadPages {
    pub(super) left: VecDeque<(ConversationId, Seq)>,
    pub(super) recovered: bool,
    /// What the client may resume from when it has them all.
    pub(super) position: Position,
}

impl Default for Paging {
    fn default() -> Self {
        Self {
            syncs: VecDeque::new(),
            page_asked: false,
            heads_wanted: false,
            heads: None,
            retry_at: Tick(u64::MAX),
            queued_bytes: 0,
            held: None,
        }
    }
}

impl Paging {
    fn is_over(&self) -> bool {
        self.syncs.is_empty() && !self.heads_wanted && self.heads.is_none() && self.queued_bytes == 0
    }

    fn conversations(&self) -> usize {
        self.syncs.iter().map(|job| job.todo.len() + usize::from(job.active.is_some())).sum()
    }
}

/// What to do next.
enum Next {
    AskHeads,
    QueueHeads,
    Ask(ActivePage),
    /// This conversation does not fit into the sync any more.
    Skip(ConversationId),
    Done,
    Nothing,
}

impl Session {
    pub(super) fn handle_sync(&mut self, exchange: &mut Exchange<'_>, sync: Sync) -> Step {
        if !self.allow_other(exchange)? {
            return Ok(());
        }
        let position = self.cursor_position(exchange.context);
        let paging = self.work().paging.get_or_insert_default();
        let waiting = paging.conversations() + sync.last_seen.len();
        if paging.syncs.len() >= SYNCS_MAX || waiting > SYNC_CONVERSATIONS_MAX {
            return self.queue_rate_limited(exchange, None, 1000);
        }
        let mut todo = sync.last_seen;
        todo.reverse();
        let limit = sync.limit.unwrap_or(SYNC_ENTRIES_MAX).max(1);
        paging.syncs.push_back(SyncJob { todo, limit, left: SYNC_ENTRIES_MAX, active: None });
        // A position that counts what a page has yet to bring would leave it out of the next heads.
        paging.held.get_or_insert(position);
        self.go_on_paging(exchange);
        Ok(())
    }

    /// Asks the worker of this user for its heads.
    pub(super) fn ask_heads(&mut self, exchange: &mut Exchange<'_>) {
        self.work().paging.get_or_insert_default().heads_wanted = true;
        self.go_on_paging(exchange);
    }

    /// Takes the next steps that the queue has room for.
    pub(super) fn go_on_paging(&mut self, exchange: &mut Exchange<'_>) {
        loop {
            if exchange.output.len() > exchange.context.settings.queue_bytes_max / 4 {
                return;
            }
            let Some(paging) = self.paging_mut() else { return };
            let asked = match next(paging) {
                Next::AskHeads => self.send_heads_request(exchange),
                Next::Ask(page) => self.send_page_request(exchange, page),
                Next::QueueHeads => {
                    self.queue_heads_page(exchange);
                    continue;
                }
                Next::Skip(conversation) => {
                    let page = Messages { conversation, items: Vec::new(), more: true };
                    self.queue_page(exchange, ServerFrame::Messages(page));
                    continue;
                }
                Next::Done => {
                    self.queue_page(exchange, ServerFrame::SyncDone);
                    continue;
                }
                Next::Nothing => {
                    if let Some(work) = &mut self.work {
                        work.paging.take_if(|paging| paging.is_over());
                    }
                    return;
                }
            };
            let Some(paging) = self.paging_mut() else { return };
            if !asked {
                paging.retry_at = exchange.now + INBOX_FULL_RETRY_MILLISECONDS;
                return;
            }
            paging.retry_at = Tick(u64::MAX);
        }
    }

    fn send_heads_request(&mut self, exchange: &mut Exchange<'_>) -> bool {
        let Some(identity) = &self.identity else { return true };
        let user = identity.user.clone();
        let worker = exchange.context.worker_of(user.shard());
        let operation = Operation::Heads { since: self.resume_since() };
        let asked = self.ask(exchange, worker, user, operation, Asked::Heads);
        if let Some(paging) = self.paging_mut() {
            paging.heads_wanted = !asked;
        }
        asked
    }

    fn send_page_request(&mut self, exchange: &mut Exchange<'_>, page: ActivePage) -> bool {
        let Some(identity) = &self.identity else { return true };
        let user = identity.user.clone();
        let ActivePage { conversation, after, left } = page;
        let worker = exchange.context.worker_of(conversation.shard());
        let operation = Operation::SyncPage { conversation, after, limit: left.min(PAGE_ENTRIES_MAX) };
        let asked = self.ask(exchange, worker, user, operation, Asked::Page(conversation, after));
        if let Some(paging) = self.paging_mut() {
            paging.page_asked = asked;
        }
        asked
    }

    pub(super) fn handle_page(
        &mut self,
        exchange: &mut Exchange<'_>,
        conversation: ConversationId,
        after: Seq,
        outcome: Result<Outcome, Refusal>,
    ) {
        match outcome {
            Ok(Outcome::Page { entries, more, .. }) => match self.read_page(&entries) {
                Some(items) => self.take_page(exchange, conversation, after, items, more),
                None => self.fail_page(exchange, conversation, after, Refusal::Unavailable),
            },
            Ok(_) => self.fail_page(exchange, conversation, after, Refusal::Unavailable),
            Err(refusal) => self.fail_page(exchange, conversation, after, refusal),
        }
        self.go_on_paging(exchange);
    }

    /// A page did not come in time.
    pub(super) fn give_up_page(
        &mut self,
        exchange: &mut Exchange<'_>,
        conversation: ConversationId,
        after: Seq,
    ) {
        self.fail_page(exchange, conversation, after, Refusal::Unavailable);
        self.go_on_paging(exchange);
    }

    fn read_page(&self, entries: &[bytes::Bytes]) -> Option<Vec<LogItem>> {
        let identity = self.identity.as_ref()?;
        let mut items = Vec::with_capacity(entries.len());
        for bytes in entries {
            let entry = Entry::decode_shared(bytes)
                .inspect_err(|error| tracing::error!(%error, "a bad entry in a page"))
                .ok()?;
            let for_sender = entry.sender == identity.user;
            items.push(LogItem::from_entry(entry, for_sender));
        }
        Some(items)
    }

    fn take_page(
        &mut self,
        exchange: &mut Exchange<'_>,
        conversation: ConversationId,
        after: Seq,
        items: Vec<LogItem>,
        more: bool,
    ) {
        let Some(job) = self.job_in_work() else { return };
        let Some(active) = &mut job.active else { return };
        let count = items.len() as u32;
        // An empty page with more behind it: an entry came live while it was read, and the next page has
        // it. It costs the sync one entry, so that nothing is asked for for ever.
        job.left = job.left.saturating_sub(if more { count.max(1) } else { count });
        active.left = active.left.saturating_sub(count).min(job.left);
        active.after = items.last().map_or(after, |item| item.placement().seq);
        let reached = active.after;
        let is_cut = more && active.left == 0;
        if !more || is_cut {
            job.active = None;
        }
        if count > 0 || is_cut {
            let page = Messages { conversation, items, more };
            self.queue_page(exchange, ServerFrame::Messages(page));
        }
        if is_cut {
            self.end_hold(exchange, conversation);
            self.queue_incomplete(exchange, conversation, reached);
        }
        if !more && let Some(gaps) = self.gaps_mut() {
            gaps.synced(conversation);
            self.drop_gaps_if_over();
        }
    }

    /// No page: the conversation in work ends here.
    fn fail_page(
        &mut self,
        exchange: &mut Exchange<'_>,
        conversation: ConversationId,
        after: Seq,
        refusal: Refusal,
    ) {
        if let Some(job) = self.job_in_work() {
            job.active = None;
        }
        self.end_hold(exchange, conversation);
        let code = ErrorCode::from(refusal);
        let is_temporary = refusal == Refusal::Unavailable;
        let reason =
            if is_temporary { "cannot be read now: sync it again".to_owned() } else { refusal.to_string() };
        let error = ErrorFrame {
            retry_after_ms: is_temporary.then_some(INBOX_FULL_RETRY_MILLISECONDS),
            ..ErrorFrame::new(code, format!("conversation {conversation}: {reason}"))
        };
        self.queue_page(exchange, ServerFrame::Error(error));
        if is_temporary {
            self.queue_incomplete(exchange, conversation, after);
        } else if let Some(gaps) = self.gaps_mut() {
            gaps.synced(conversation);
            self.drop_gaps_if_over();
        }
    }

    /// The first `sync`, whose page has just come or failed to.
    fn job_in_work(&mut self) -> Option<&mut SyncJob> {
        let paging = self.paging_mut()?;
        paging.page_asked = false;
        paging.syncs.front_mut()
    }

    /// Lets the worker deliver the conversation live again.
    fn end_hold(&mut self, exchange: &mut Exchange<'_>, conversation: ConversationId) {
        let Some(identity) = &self.identity else { return };
        let user = identity.user.clone();
        let worker = exchange.context.worker_of(conversation.shard());
        self.tell(exchange, worker, user, Operation::SyncEnd { conversation });
    }

    /// Says from where a conversation is incomplete, and keeps the cursor back until it is not.
    fn queue_incomplete(&mut self, exchange: &mut Exchange<'_>, conversation: ConversationId, after: Seq) {
        self.gaps_from_here(exchange.context).incomplete(conversation);
        let gap = Gap { conversation: Some(conversation), after_seq: Some(after), after_ms: None };
        self.queue_gap(exchange, gap);
        self.tell_gaps(exchange);
    }

    pub(super) fn handle_heads(&mut self, exchange: &mut Exchange<'_>, outcome: Result<Outcome, Refusal>) {
        let Ok(Outcome::Heads { heads, recovered }) = outcome else {
            return self.give_up_heads(exchange);
        };
        let recovered = recovered && self.resume_since().is_some();
        let position = exchange.context.resume_position();
        let paging = self.work().paging.get_or_insert_default();
        paging.heads = Some(HeadPages { left: heads.into(), recovered, position });
        self.go_on_paging(exchange);
    }

    /// No heads: the client is asked to say `hello` again, and keeps its cursor.
    pub(super) fn give_up_heads(&mut self, exchange: &mut Exchange<'_>) {
        self.gaps_from_here(exchange.context).note_everything();
        self.work().resuming = None;
        let message = "your conversations cannot be read now: a gap says when to send hello again";
        self.queue_error(exchange, ErrorCode::Unavailable, message);
        self.tell_gaps(exchange);
        self.go_on_paging(exchange);
    }

    fn queue_heads_page(&mut self, exchange: &mut Exchange<'_>) {
        let Some(work) = &mut self.work else { return };
        let Some(paging) = &mut work.paging else { return };
        let Some(pages) = &mut paging.heads else { return };
        let count = pages.left.len().min(HEADS_PAGE_MAX);
        let conversations: Vec<_> = pages.left.drain(..count).collect();
        let more = !pages.left.is_empty();
        let recovered = pages.recovered;
        if !more {
            // Only who has them all may go on from the new position.
            work.resuming = Some(pages.position);
            paging.heads = None;
        }
        let resume = self.cursor(exchange.context);
        if !more {
            self.work().resuming = None;
        }
        self.queue_page(exchange, ServerFrame::Heads(Heads { conversations, recovered, resume, more }));
    }

    fn queue_page(&mut self, exchange: &mut Exchange<'_>, frame: ServerFrame) {
        let added = self.queue(exchange, &frame);
        self.work().paging.get_or_insert_default().queued_bytes += added;
    }
}

/// Picks the next step, and moves the first `sync` on to its next conversation.
fn next(paging: &mut Paging) -> Next {
    if paging.heads.is_some() {
        return Next::QueueHeads;
    }
    if paging.heads_wanted {
        return Next::AskHeads;
    }
    if paging.page_asked {
        return Next::Nothing;
    }
    let Some(job) = paging.syncs.front_mut() else { return Next::Nothing };
    if job.active.is_none() {
        let Some((conversation, after)) = job.todo.pop() else {
            paging.syncs.pop_front();
            if paging.syncs.is_empty() {
                paging.held = None;
            }
            return Next::Done;
        };
        if job.left == 0 {
            return Next::Skip(conversation);
        }
        job.active = Some(ActivePage { conversation, after, left: job.limit.min(job.left) });
    }
    job.active.map_or(Next::Nothing, Next::Ask)
}
