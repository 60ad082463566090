//! One worker: takes events in, finds the conversation, and keeps what is loaded true and bounded.
//!
//! A conversation is loaded from the store at its first touch, with what is asked of it queued meanwhile,
//! and dropped when it is idle and others need the room. What may be false is dropped at once: everything
//! when the store has a new epoch, and after a flush that failed all conversations that had something on
//! its way. Nothing of these is acknowledged.
//!
//! An entry whose outcome is unknown stays in *limbo*: in the next epoch its conversation is loaded
//! without being asked for, and the entries that turn out to be stored are delivered then, so that a
//! member who stays connected misses nothing. The watermark waits for it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use ringway_protocol::ids::{ConversationId, Epoch, Position, Seq, ShardId, Timestamp};
use ringway_protocol::trunk::{Operation, Refusal, ToRouter};
use ringway_protocol::user::UserId;
use ringway_store_writer::store::{self, Answer, Query, Status, StoreError};

use super::conversation::{Conversation, Pending, Weight};
use super::deduplication;
use super::directory::Directory;
use super::event::{Action, Caller, Event, FlushId, Forward, Moment, QueryId, Task};
use super::fan_out::FanOut;
use super::founding::Pairs;
use super::gather::{Gather, UnderWay};
use super::queries::{Purpose, Queries};
use super::requests::{Requests, Ticket};
use super::seeded::SeededState;
use super::shared::Shared;
use super::snowflake::Snowflake;
use super::watermark::Watermark;

/// How long after a failed load of what is in limbo the next try begins.
const RETRY_MICROSECONDS: u64 = 100_000;

/// What one worker is and may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSettings {
    /// Its number, below `worker_count`.
    pub worker: u16,
    /// How many workers share the shards.
    pub worker_count: usize,
    /// The region of its ids, below 8.
    pub region: u8,
    /// A random number, the seed of its hash maps.
    pub seed: u64,
    /// Open connections of one user.
    pub connections_per_user: usize,
    /// Conversations kept loaded; idle ones go first.
    pub conversations_max: usize,
    /// Members of the loaded conversations together.
    pub members_max: usize,
    /// Idempotency keys of the loaded conversations together.
    pub keys_max: usize,
    /// Idempotency keys of one conversation: a conversation with more sends than this within the horizon
    /// pays a point read for each new one, and its memory stays bounded.
    pub conversation_keys_max: usize,
    /// How long an idempotency key is known for sure, in seconds.
    pub dedup_window_seconds: u64,
    /// Tasks of one conversation that wait or are on their way to the store.
    pub conversation_inflight_max: usize,
    /// Entries that wait for the store.
    pub inflight_max: usize,
    /// Bytes of these entries.
    pub inflight_bytes_max: usize,
    /// Questions open at the store.
    pub queries_max: usize,
    /// When a request ends as `unavailable`.
    pub deadline_microseconds: u64,
}

/// The core of one router worker. See [`Event`] for how it is driven.
#[derive(Debug)]
pub struct Worker {
    pub(crate) settings: WorkerSettings,
    pub(crate) shared: Shared,
    conversations: HashMap<ConversationId, Slot, SeededState>,
    /// When each loaded conversation was last used: the least is the first to go.
    by_use: BTreeMap<u64, ConversationId>,
    uses: u64,
    weight: Weight,
    /// Conversations in limbo that no question is open for.
    limbo_to_ask: BTreeSet<ConversationId>,
    /// Conversations in limbo.
    limbo: usize,
    limbo_retry_at: u64,
    pub(crate) pairs: Pairs,
    watermark: Watermark,
    draining: bool,
}

/// Where a conversation stands.
#[derive(Debug)]
enum Slot {
    /// The store was asked for it, or will be.
    Loading(Loading),
    /// It is here.
    Loaded { conversation: Box<Conversation>, used: u64 },
}

#[derive(Debug, Default)]
struct Loading {
    /// What to do once it is here.
    queue: VecDeque<(Ticket, Task)>,
    /// Entries of an epoch that is over whose outcome is unknown.
    limbo: VecDeque<Pending>,
}

impl Worker {
    /// A worker with nothing loaded. The first event must be [`Event::Status`].
    pub fn new(settings: WorkerSettings) -> Self {
        let directory = Directory::new(settings.connections_per_user, settings.seed);
        let (newest, key_time) = (Timestamp(0), Timestamp(0));
        let status = Status { accepts: false, epoch: Epoch(0), position: Position(0), newest, key_time };
        let shared = Shared {
            now: Moment::default(),
            status,
            snowflake: Snowflake::new(settings.region, settings.worker),
            gather: Gather::new(settings.inflight_max, settings.inflight_bytes_max),
            requests: Requests::new(settings.deadline_microseconds),
            queries: Queries::new(settings.queries_max),
            fan_out: FanOut::new(directory),
            unknown_in: None,
            conversation_inflight_max: settings.conversation_inflight_max,
            conversation_keys_max: settings.conversation_keys_max,
            keys_horizon: deduplication::horizon(settings.dedup_window_seconds),
        };
        Self {
            conversations: HashMap::with_hasher(SeededState(settings.seed)),
            by_use: BTreeMap::new(),
            uses: 0,
            weight: Weight::default(),
            limbo_to_ask: BTreeSet::new(),
            limbo: 0,
            limbo_retry_at: 0,
            pairs: Pairs::default(),
            watermark: Watermark::default(),
            draining: false,
            shared,
            settings,
        }
    }

    /// Takes one event in and adds what is to be done to `actions`.
    pub fn step(&mut self, now: Moment, event: Event, actions: &mut Vec<Action>) {
        self.shared.now = now;
        match event {
            Event::Status(status) => self.on_status(status, actions),
            Event::Endpoint(message) => self.on_message(message, actions),
            Event::Forwarded(forward) => {
                let Forward { caller, conversation, task } = *forward;
                let ticket = self.shared.requests.open(caller);
                self.dispatch(conversation, ticket, task, actions);
            }
            Event::Flushed { id, result } => self.on_flushed(id, result, actions),
            Event::Answered { id, result } => self.on_answered(id, result, actions),
            Event::Claimed { id, result } => self.on_claimed(id, result, actions),
            Event::Drain => self.draining = true,
            Event::EndOfPass => self.end_pass(actions),
        }
    }

    /// Whether nothing is open: no request without its answer, no entry on its way to the store.
    pub fn is_idle(&self) -> bool {
        self.shared.requests.len() == 0 && self.shared.gather.len() == 0
    }

    /// Conversations loaded or loading.
    pub fn conversations_loaded(&self) -> usize {
        self.conversations.len()
    }

    /// Idempotency keys in memory.
    pub fn keys_loaded(&self) -> usize {
        self.weight.keys
    }

    /// Requests without their answer.
    pub fn requests_open(&self) -> usize {
        self.shared.requests.len()
    }

    /// Users with a connection.
    pub fn users_connected(&self) -> usize {
        self.shared.fan_out.directory.users()
    }

    /// Questions open at the store.
    pub fn queries_open(&self) -> usize {
        self.shared.queries.len()
    }

    fn on_message(&mut self, message: ToRouter, actions: &mut Vec<Action>) {
        match message {
            ToRouter::Attach { connection, user, device } => {
                let decides = self.is_mine(user.shard());
                let close = self.shared.fan_out.directory.attach(connection, user, device, decides);
                if let Some((connection, code)) = close {
                    actions.push(Action::Close { connection, code });
                }
            }
            ToRouter::Detach { connection, user, .. } => {
                self.shared.fan_out.directory.detach(connection, &user);
                self.shared.fan_out.holds.detach(connection);
            }
            ToRouter::Request { connection, request, user, operation } => {
                let accepted_microseconds = self.shared.now.steady_microseconds;
                let caller = Caller { connection, request, user: user.clone(), accepted_microseconds };
                let ticket = self.shared.requests.open(caller);
                if self.draining {
                    return self.shared.requests.reply(ticket, Err(Refusal::Unavailable), actions);
                }
                self.on_request(ticket, user, operation, actions);
            }
        }
    }

    fn on_request(&mut self, ticket: Ticket, user: UserId, operation: Operation, actions: &mut Vec<Action>) {
        match operation {
            Operation::Send { target, client_message_id, message } => {
                self.begin_send(ticket, user, target, client_message_id, message, actions);
            }
            Operation::Create { kind, name, members, idempotency_key } => {
                self.begin_creation(ticket, user, kind, name, members, idempotency_key, actions);
            }
            Operation::Heads { since } => {
                let asked = self.shared.queries.ask(Purpose::Heads(ticket));
                self.ask_or_refuse(asked, ticket, Query::Heads { user, since }, actions);
            }
            Operation::AddMember { conversation, .. }
            | Operation::RemoveMember { conversation, .. }
            | Operation::Rename { conversation, .. }
            | Operation::Delete { conversation }
            | Operation::SyncPage { conversation, .. }
            | Operation::SyncEnd { conversation } => {
                self.dispatch(conversation, ticket, Task::Operation(operation), actions);
            }
        }
    }

    /// Does a task here, or hands it to the worker whose conversation it is.
    pub(crate) fn dispatch(
        &mut self,
        conversation: ConversationId,
        ticket: Ticket,
        task: Task,
        actions: &mut Vec<Action>,
    ) {
        if self.is_mine(conversation.shard()) {
            match task {
                Task::Operation(Operation::SyncPage { after, limit, .. }) => {
                    self.sync_page(ticket, conversation, after, limit, actions);
                }
                Task::Operation(Operation::SyncEnd { .. }) => {
                    self.sync_end(ticket, conversation, actions);
                }
                task => self.assign(conversation, ticket, task, actions),
            }
        } else if let Some(caller) = self.shared.requests.close(ticket) {
            let worker = conversation.shard().worker(self.settings.worker_count);
            let forward = Box::new(Forward { caller, conversation, task });
            actions.push(Action::Forward { worker, forward });
        }
    }

    /// Gives a task to a conversation of ours, loading it at need.
    fn assign(&mut self, id: ConversationId, ticket: Ticket, task: Task, actions: &mut Vec<Action>) {
        self.shared.requests.waits_in(ticket, id);
        match self.conversations.get_mut(&id) {
            Some(Slot::Loaded { .. }) => {
                self.with(id, actions, |conversation, shared, actions| {
                    conversation.arrive(shared, ticket, task, actions);
                });
            }
            Some(Slot::Loading(loading)) => {
                if loading.queue.len() >= self.settings.conversation_inflight_max {
                    // Not `ConversationFull`: nobody knows yet whether it exists and the caller is in it.
                    return self.shared.requests.reply(ticket, Err(Refusal::Unavailable), actions);
                }
                loading.queue.push_back((ticket, task));
            }
            None => {
                if !self.ask_to_load(id, actions) {
                    return self.shared.requests.reply(ticket, Err(Refusal::Unavailable), actions);
                }
                let queue = VecDeque::from([(ticket, task)]);
                self.conversations.insert(id, Slot::Loading(Loading { queue, ..Loading::default() }));
            }
        }
    }

    /// Asks the store for a conversation; false if it may not be asked now.
    fn ask_to_load(&mut self, id: ConversationId, actions: &mut Vec<Action>) -> bool {
        if !self.shared.may_load() {
            return false;
        }
        let Some(query) = self.shared.queries.ask(Purpose::Load(id)) else { return false };
        actions.push(Action::Query { id: query, query: Query::Conversation(id) });
        true
    }

    fn ask_or_refuse(
        &mut self,
        asked: Option<QueryId>,
        ticket: Ticket,
        query: Query,
        actions: &mut Vec<Action>,
    ) {
        match asked {
            Some(id) => actions.push(Action::Query { id, query }),
            None => self.shared.requests.reply(ticket, Err(Refusal::Unavailable), actions),
        }
    }

    /// Works on a loaded conversation, and keeps account of what it costs.
    fn with(
        &mut self,
        id: ConversationId,
        actions: &mut Vec<Action>,
        work: impl FnOnce(&mut Conversation, &mut Shared, &mut Vec<Action>),
    ) {
        let Some(Slot::Loaded { conversation, used }) = self.conversations.get_mut(&id) else { return };
        self.by_use.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(*used, id);
        let before = conversation.weight();
        work(conversation, &mut self.shared, actions);
        let after = conversation.weight();
        self.weight.members = self.weight.members + after.members - before.members;
        self.weight.keys = self.weight.keys + after.keys - before.keys;
    }

    fn insert_loaded(&mut self, conversation: Box<Conversation>) {
        self.uses += 1;
        self.by_use.insert(self.uses, conversation.id);
        let weight = conversation.weight();
        self.weight.members += weight.members;
        self.weight.keys += weight.keys;
        self.conversations.insert(conversation.id, Slot::Loaded { conversation, used: self.uses });
    }

    fn remove_loaded(&mut self, id: ConversationId) -> Option<Box<Conversation>> {
        if !matches!(self.conversations.get(&id), Some(Slot::Loaded { .. })) {
            return None;
        }
        let Some(Slot::Loaded { conversation, used }) = self.conversations.remove(&id) else { return None };
        self.by_use.remove(&used);
        let weight = conversation.weight();
        self.weight.members -= weight.members;
        self.weight.keys -= weight.keys;
        Some(conversation)
    }

    fn on_answered(&mut self, id: QueryId, result: Result<Answer, StoreError>, actions: &mut Vec<Action>) {
        match self.shared.queries.answered(id) {
            Purpose::Load(conversation) => self.on_loaded(conversation, result, actions),
            Purpose::Key(conversation) => {
                let answer = match result {
                    Ok(Answer::Send(row)) => Ok(row),
                    _ => Err(()),
                };
                self.with(conversation, actions, |conversation, shared, actions| {
                    conversation.key_read(shared, id, answer, actions);
                });
            }
            Purpose::Page(asked) => self.on_page(asked, result, actions),
            Purpose::Membership(asked) => self.on_membership(asked, result, actions),
            Purpose::Heads(ticket) => self.on_heads(ticket, result, actions),
            Purpose::Claim(_) | Purpose::Forgotten => {}
        }
    }

    /// The store's state of a conversation is here: what was in limbo first, then what waited.
    fn on_loaded(
        &mut self,
        id: ConversationId,
        result: Result<Answer, StoreError>,
        actions: &mut Vec<Action>,
    ) {
        let Some(Slot::Loading(loading)) = self.conversations.remove(&id) else {
            unreachable!("a conversation with an open load is loading")
        };
        let Ok(Answer::Conversation(stored)) = result else {
            return self.on_load_failed(id, loading, actions);
        };
        if !loading.limbo.is_empty() {
            self.limbo -= 1;
            self.leave_limbo(id, loading.limbo, stored.as_deref(), actions);
        }
        let mut conversation = stored.map(|stored| Box::new(Conversation::load(id, *stored)));
        for (ticket, task) in loading.queue {
            perform(&mut conversation, id, &mut self.shared, ticket, task, actions);
        }
        if let Some(conversation) = conversation {
            self.insert_loaded(conversation);
        }
    }

    fn on_load_failed(&mut self, id: ConversationId, loading: Loading, actions: &mut Vec<Action>) {
        for (ticket, _) in loading.queue {
            self.shared.requests.reply(ticket, Err(Refusal::Unavailable), actions);
        }
        if !loading.limbo.is_empty() {
            self.limbo_retry_at = self.shared.now.steady_microseconds + RETRY_MICROSECONDS;
            self.limbo_to_ask.insert(id);
            let loading = Loading { limbo: loading.limbo, ..Loading::default() };
            self.conversations.insert(id, Slot::Loading(loading));
        }
    }

    /// Entries of an epoch that is over: those that are stored are delivered, the rest never was.
    fn leave_limbo(
        &mut self,
        id: ConversationId,
        limbo: VecDeque<Pending>,
        stored: Option<&store::Conversation>,
        actions: &mut Vec<Action>,
    ) {
        let last = stored.map_or(Seq(0), |stored| stored.last_seq);
        let ours = limbo.iter().any(|pending| {
            pending.seq == last && stored.is_some_and(|stored| stored.last_message == pending.message)
        });
        for pending in limbo.into_iter().take_while(|pending| ours && pending.seq <= last) {
            pending.deliver(id, &mut self.shared, actions);
        }
    }

    fn on_status(&mut self, status: Status, actions: &mut Vec<Action>) {
        let new_epoch = status.epoch != self.shared.status.epoch;
        self.shared.status = status;
        self.shared.snowflake.rise_above(status.newest);
        if !new_epoch {
            return;
        }
        self.shared.queries.forget_conversations();
        self.shared.gather.discard();
        let unknown = self.shared.gather.under_way().map(last_seqs).unwrap_or_default();
        let mut all: Vec<ConversationId> = self.conversations.keys().copied().collect();
        all.sort_unstable(); // the map's order is not for output
        for id in all {
            self.drop_conversation(id, unknown.get(&id).copied(), actions);
        }
    }

    fn on_flushed(&mut self, id: FlushId, result: Result<Position, StoreError>, actions: &mut Vec<Action>) {
        let Some(flush) = self.shared.gather.end(id) else { return };
        if flush.epoch != self.shared.status.epoch {
            return; // all of it was dropped with its epoch; what is stored of it is in limbo
        }
        match result {
            Ok(position) => {
                for (conversation, seq) in flush.entries {
                    self.with(conversation, actions, |conversation, shared, actions| {
                        conversation.settle(shared, seq, actions);
                    });
                }
                self.watermark.flush_handled(position);
            }
            Err(error) => self.fence(flush, error, actions),
        }
    }

    /// A flush failed: whatever was decided by its entries is dropped.
    fn fence(&mut self, flush: UnderWay, error: StoreError, actions: &mut Vec<Action>) {
        let surely_not_written = matches!(error, StoreError::Unavailable(_));
        let unknown = if surely_not_written { BTreeMap::new() } else { last_seqs(&flush) };
        if !surely_not_written {
            self.shared.unknown_in = Some(flush.epoch);
        }
        let mut dropped: BTreeSet<ConversationId> = flush.entries.iter().map(|(id, _)| *id).collect();
        dropped.extend(self.shared.gather.discard());
        for id in dropped {
            self.drop_conversation(id, unknown.get(&id).copied(), actions);
        }
    }

    /// Forgets a conversation and refuses what waits for it. Entries up to `unknown` may be stored.
    fn drop_conversation(&mut self, id: ConversationId, unknown: Option<Seq>, actions: &mut Vec<Action>) {
        let limbo = if let Some(mut conversation) = self.remove_loaded(id) {
            for waiting in conversation.waiting.drain(..) {
                self.shared.requests.reply(waiting.ticket(), Err(Refusal::Unavailable), actions);
            }
            for pending in &mut conversation.pending {
                pending.refuse(&mut self.shared, actions);
            }
            let mut limbo = conversation.pending;
            limbo.retain(|pending| unknown.is_some_and(|last| pending.seq <= last));
            if !limbo.is_empty() {
                self.limbo += 1;
            }
            limbo
        } else if let Some(Slot::Loading(loading)) = self.conversations.remove(&id) {
            for (ticket, _) in loading.queue {
                self.shared.requests.reply(ticket, Err(Refusal::Unavailable), actions);
            }
            loading.limbo
        } else {
            return;
        };
        if !limbo.is_empty() {
            self.limbo_to_ask.insert(id);
            self.conversations.insert(id, Slot::Loading(Loading { limbo, ..Loading::default() }));
        }
    }

    fn end_pass(&mut self, actions: &mut Vec<Action>) {
        self.expire(actions);
        self.ask_for_limbo(actions);
        self.evict();
        let Status { epoch, position, .. } = self.shared.status;
        if let Some((id, flush)) = self.shared.gather.start(epoch, position) {
            actions.push(Action::Flush { id, flush });
        }
        let now = self.shared.now.steady_microseconds;
        let under_way = self.shared.gather.under_way();
        if let Some(position) = self.watermark.end_of_pass(position, under_way, self.limbo > 0, now) {
            actions.push(Action::Watermark(position));
        }
    }

    /// Ends the requests whose time is over.
    fn expire(&mut self, actions: &mut Vec<Action>) {
        while let Some((ticket, conversation)) =
            self.shared.requests.expired(self.shared.now.steady_microseconds)
        {
            self.sync_expired(ticket);
            self.shared.requests.reply(ticket, Err(Refusal::Unavailable), actions);
            if let Some(id) = conversation {
                self.with(id, actions, |conversation, shared, actions| {
                    conversation.advance(shared, actions);
                });
            }
        }
    }

    fn ask_for_limbo(&mut self, actions: &mut Vec<Action>) {
        if self.shared.now.steady_microseconds < self.limbo_retry_at {
            return;
        }
        while let Some(&id) = self.limbo_to_ask.first() {
            if !self.ask_to_load(id, actions) {
                return;
            }
            self.limbo_to_ask.remove(&id);
        }
    }

    /// Makes room: the conversations that were not used for longest go, as long as they are idle.
    fn evict(&mut self) {
        let mut busy_since = 0;
        while self.conversations.len() > self.settings.conversations_max
            || self.weight.members > self.settings.members_max
            || self.weight.keys > self.settings.keys_max
        {
            let Some((&used, &id)) = self.by_use.range(busy_since..).next() else { return };
            let Some(Slot::Loaded { conversation, .. }) = self.conversations.get(&id) else {
                unreachable!("what was used is loaded")
            };
            if conversation.is_idle() {
                self.remove_loaded(id);
            } else {
                busy_since = used + 1;
            }
        }
    }

    /// The last entry of a conversation that is written, or to be, and not delivered yet.
    pub(crate) fn on_its_way(&self, id: ConversationId) -> Option<Seq> {
        match self.conversations.get(&id)? {
            Slot::Loaded { conversation, .. } => conversation.pending.back().map(|pending| pending.seq),
            Slot::Loading(loading) => loading.limbo.back().map(|pending| pending.seq),
        }
    }

    /// Whether a user is surely a member now.
    pub(crate) fn is_member(&self, id: ConversationId, user: &UserId) -> bool {
        match self.conversations.get(&id) {
            Some(Slot::Loaded { conversation, .. }) => conversation.role(user).is_some(),
            _ => false,
        }
    }

    pub(crate) fn is_mine(&self, shard: ShardId) -> bool {
        shard.worker(self.settings.worker_count) == usize::from(self.settings.worker)
    }
}

/// The last entry of each conversation in a flush.
fn last_seqs(flush: &UnderWay) -> BTreeMap<ConversationId, Seq> {
    flush.entries.iter().copied().collect()
}

/// Does a task in a conversation that was just loaded, or is not in the store.
fn perform(
    conversation: &mut Option<Box<Conversation>>,
    id: ConversationId,
    shared: &mut Shared,
    ticket: Ticket,
    task: Task,
    actions: &mut Vec<Action>,
) {
    if conversation.is_none() {
        let Some(creator) = shared.requests.caller(ticket).map(|caller| caller.user.clone()) else { return };
        let founding = match &task {
            Task::Create(founding) | Task::Send { make: Some(founding), .. } => founding.clone(),
            Task::Send { make: None, .. } | Task::Operation(_) => {
                return shared.requests.reply(ticket, Err(Refusal::NotFound), actions);
            }
        };
        if !shared.may_append(2) {
            return shared.requests.reply(ticket, Err(Refusal::Unavailable), actions);
        }
        let founded = conversation.insert(Box::new(Conversation::found(shared, id, founding, creator)));
        if matches!(task, Task::Create(_)) {
            return founded.answer_founded(shared, ticket, actions);
        }
    }
    if let Some(conversation) = conversation {
        conversation.arrive(shared, ticket, task, actions);
    }
}
