//! Answers to queries, from one durable view.
//!
//! Who may see what is decided here by the stays of a member: from the entry that let the user in to the one
//! that removed the user, both included; of many stays, the newest (`rows::STAYS_MAX`).

use bytes::Bytes;
use fjall::Guard;
use ringway_protocol::entry::Role;
use ringway_protocol::ids::{ConversationId, Position, Seq, Timestamp};
use ringway_protocol::limits::PAGE_BYTES_MAX;
use ringway_protocol::user::{ClientMessageId, UserId};

use super::rows::{self, ConversationRow, HeadRow, MemberRow, MetaRow, Stay, UserConversationRow};
use super::tables::{Table, View, read_error};
use crate::store::{
    Answer, Conversation, From, Query, RECENT_SENDS_MAX, SUMMARY_MEMBERS_MAX, StoreError, Summary,
};

/// Entries and bytes that a load of a conversation reads back at most to find recent idempotency keys.
const RECENT_SCAN_ENTRIES_MAX: usize = 2 * RECENT_SENDS_MAX;
const RECENT_SCAN_BYTES_MAX: usize = 2 << 20;

type Rows<T> = Result<T, StoreError>;

/// Answers a query. Idempotency keys as old as `horizon` are no more.
pub(super) fn answer(view: &View, query: &Query, horizon: Timestamp) -> Rows<Answer> {
    match query {
        Query::Conversation(conversation) => {
            Ok(Answer::Conversation(load(view, *conversation)?.map(Box::new)))
        }
        Query::Send { conversation, sender, client_message_id } => {
            send(view, *conversation, sender, client_message_id, horizon)
        }
        Query::Entries { conversation, user, from, limit } => {
            entries(view, *conversation, user, *from, *limit)
        }
        Query::Heads { user, since } => heads(view, user, *since),
        Query::Conversations { user, before, limit } => conversations(view, user, *before, *limit),
        Query::Summary { conversation, user } => {
            let Some(row) = conversation_row(view, *conversation)? else { return Ok(Answer::Summary(None)) };
            let stay = match view
                .get(Table::UserConversations, &rows::user_conversation_key(user, *conversation))?
            {
                Some(value) => UserConversationRow::decode(&value)?.stay,
                None => return Ok(Answer::Summary(None)),
            };
            if row.deleted || stay.left.is_some() {
                return Ok(Answer::Summary(None));
            }
            let summary = summary(view, *conversation, row, user, usize::MAX)?;
            Ok(Answer::Summary(Some(Box::new(summary))))
        }
    }
}

fn load(view: &View, conversation: ConversationId) -> Rows<Option<Conversation>> {
    let Some(row) = conversation_row(view, conversation)? else { return Ok(None) };
    let head = head(view, conversation)?;
    let (recent, recent_since) = recent_sends(view, conversation)?;
    Ok(Some(Conversation {
        kind: row.kind,
        members: members_by_joining(view, conversation)?,
        name: row.name,
        deleted: row.deleted,
        last_seq: head.seq,
        last_message: head.message,
        last_ts: head.server_ts,
        recent,
        recent_since,
    }))
}

type RecentSend = (UserId, ClientMessageId, crate::store::SendRow);

/// The newest idempotency keys, oldest first, and the time from which on they are all.
fn recent_sends(view: &View, conversation: ConversationId) -> Rows<(Vec<RecentSend>, Timestamp)> {
    let (mut recent, mut scanned, mut bytes) = (Vec::new(), 0, 0);
    let mut since = Timestamp(0);
    for row in message_rows(view, conversation, Seq(1), Seq(u64::MAX)).rev() {
        let (seq, value) = message_row(row)?;
        let head = rows::message_head(seq, &value)?;
        if recent.len() == RECENT_SENDS_MAX
            || scanned == RECENT_SCAN_ENTRIES_MAX
            || bytes > RECENT_SCAN_BYTES_MAX
        {
            // Times never fall within a conversation: this entry and all before it are older than the next
            // millisecond, and nothing from then on was left out.
            since = Timestamp(head.send.server_ts.0 + 1);
            break;
        }
        scanned += 1;
        bytes += value.len();
        if let Some(client_message_id) = head.client_message_id {
            recent.push((head.sender, client_message_id, head.send));
        }
    }
    recent.reverse();
    Ok((recent, since))
}

fn send(
    view: &View,
    conversation: ConversationId,
    sender: &UserId,
    client_message_id: &ClientMessageId,
    horizon: Timestamp,
) -> Rows<Answer> {
    let key = rows::send_key(conversation, sender, client_message_id);
    let row = view.get(Table::Sends, &key)?.map(|value| rows::read_send(&value)).transpose()?;
    Ok(Answer::Send(row.filter(|row| row.server_ts > horizon)))
}

/// Entries as they fill a page.
struct Page {
    entries: Vec<Bytes>,
    bytes: usize,
    limit: usize,
}

impl Page {
    /// Adds an entry. False if the page is full without it.
    fn take(&mut self, entry: &[u8]) -> bool {
        let is_full = self.entries.len() >= self.limit || self.bytes + entry.len() > PAGE_BYTES_MAX;
        if is_full && !self.entries.is_empty() {
            return false;
        }
        self.bytes += entry.len();
        self.entries.push(Bytes::copy_from_slice(entry));
        true
    }
}

fn entries(view: &View, conversation: ConversationId, user: &UserId, from: From, limit: u32) -> Rows<Answer> {
    let stays = match view.get(Table::Members, &rows::member_key(conversation, user))? {
        Some(value) => MemberRow::decode(&value)?.stays,
        None => Vec::new(),
    };
    let mut page = Page { entries: Vec::new(), bytes: 0, limit: limit as usize };
    let more = match from {
        From::After(after) => {
            let first = Seq(after.0.saturating_add(1));
            let visible = stays.iter().filter_map(|stay| within(stay, first, Seq(u64::MAX)));
            let rows = visible.flat_map(|(first, last)| message_rows(view, conversation, first, last));
            fill(&mut page, rows)?
        }
        From::Before(before) => {
            let last = Seq(before.map_or(u64::MAX, |before| before.0.saturating_sub(1)));
            let visible = stays.iter().rev().filter_map(|stay| within(stay, Seq(1), last));
            let rows = visible.flat_map(|(first, last)| message_rows(view, conversation, first, last).rev());
            fill(&mut page, rows)?
        }
    };
    Ok(Answer::Entries { entries: page.entries, more })
}

/// The part of a stay between two seqs.
fn within(stay: &Stay, first: Seq, last: Seq) -> Option<(Seq, Seq)> {
    let (first, last) = (first.max(stay.joined), last.min(stay.left.unwrap_or(Seq(u64::MAX))));
    (first <= last).then_some((first, last))
}

/// Fills the page. True if more is there.
fn fill(page: &mut Page, rows: impl Iterator<Item = Guard>) -> Rows<bool> {
    for row in rows {
        let value = row.value().map_err(|error| read_error(&error))?;
        if !page.take(rows::entry_of(&value)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All conversations of a user that changed after `since`: by an entry while the user is in, or by the
/// user's own join or removal.
fn heads(view: &View, user: &UserId, since: Option<Position>) -> Rows<Answer> {
    let meta = view.get(Table::Meta, rows::META_KEY)?.ok_or_else(|| rows::damaged("meta"))?;
    let position = MetaRow::decode(&meta)?.position;
    let known = since.filter(|since| since.0 > 0 && *since <= position);
    let mut heads = Vec::new();
    for row in view.prefix(Table::UserConversations, &rows::user_prefix(user)) {
        let (conversation, row) = user_conversation_row(row)?;
        let head = head(view, conversation)?;
        let (last, changed) = match row.stay.left {
            Some(left) => (left, row.position),
            None => (head.seq, head.position),
        };
        if known.is_none_or(|known| changed > known) {
            heads.push((conversation, last));
        }
    }
    Ok(Answer::Heads { heads, recovered: known.is_some() })
}

fn conversations(view: &View, user: &UserId, before: Option<ConversationId>, limit: u32) -> Rows<Answer> {
    let mut found = Vec::new();
    let last = match before {
        Some(ConversationId(0)) => return Ok(Answer::Conversations { conversations: found, more: false }),
        Some(before) => ConversationId(before.0 - 1),
        None => ConversationId(u64::MAX),
    };
    let first_key = rows::user_conversation_key(user, ConversationId(0));
    let last_key = rows::user_conversation_key(user, last);
    for row in view.range(Table::UserConversations, &first_key, &last_key).rev() {
        let (conversation, row) = user_conversation_row(row)?;
        if row.stay.left.is_some() {
            continue;
        }
        let row = conversation_row(view, conversation)?.ok_or_else(|| rows::damaged("conversations"))?;
        if row.deleted {
            continue;
        }
        if found.len() >= limit.max(1) as usize {
            return Ok(Answer::Conversations { conversations: found, more: true });
        }
        found.push(summary(view, conversation, row, user, SUMMARY_MEMBERS_MAX)?);
    }
    Ok(Answer::Conversations { conversations: found, more: false })
}

/// A conversation as a present member sees it.
fn summary(
    view: &View,
    conversation: ConversationId,
    row: ConversationRow,
    user: &UserId,
    members_max: usize,
) -> Rows<Summary> {
    let member = view
        .get(Table::Members, &rows::member_key(conversation, user))?
        .ok_or_else(|| rows::damaged("members"))?;
    let last_seq = head(view, conversation)?.seq;
    let last_entry = match view.get(Table::Messages, &rows::message_key(conversation, last_seq))? {
        Some(value) => Some(Bytes::copy_from_slice(rows::entry_of(&value)?)),
        None => None,
    };
    Ok(Summary {
        conversation,
        kind: row.kind,
        name: row.name,
        members: members(view, conversation, members_max)?,
        member_count: row.member_count,
        role: MemberRow::decode(&member)?.role,
        last_seq,
        last_entry,
    })
}

/// Present members, in the order of their ids.
fn members(view: &View, conversation: ConversationId, most: usize) -> Rows<Vec<(UserId, Role)>> {
    let members = present_members(view, conversation, most)?;
    Ok(members.into_iter().map(|(_, member)| member).collect())
}

/// All present members in the order of joining; those who joined together in the order of their ids.
fn members_by_joining(view: &View, conversation: ConversationId) -> Rows<Vec<(UserId, Role)>> {
    let mut members = present_members(view, conversation, usize::MAX)?;
    members.sort_by_key(|(joined, _)| *joined);
    Ok(members.into_iter().map(|(_, member)| member).collect())
}

/// When a member joined, and who it is.
type Joined = (Option<Seq>, (UserId, Role));

/// Present members in the order of their ids, with when they joined; at most so many.
fn present_members(view: &View, conversation: ConversationId, most: usize) -> Rows<Vec<Joined>> {
    let mut members = Vec::new();
    for row in view.prefix(Table::Members, &rows::conversation_key(conversation)) {
        if members.len() == most {
            break;
        }
        let (key, value) = row.into_inner().map_err(|error| read_error(&error))?;
        let member = MemberRow::decode(&value)?;
        if member.is_present() {
            let joined = member.stays.last().map(|stay| stay.joined);
            members.push((joined, (rows::member_key_user(&key)?, member.role)));
        }
    }
    Ok(members)
}

fn conversation_row(view: &View, conversation: ConversationId) -> Rows<Option<ConversationRow>> {
    let value = view.get(Table::Conversations, &rows::conversation_key(conversation))?;
    value.map(|value| ConversationRow::decode(&value)).transpose()
}

fn head(view: &View, conversation: ConversationId) -> Rows<HeadRow> {
    let value = view.get(Table::Heads, &rows::conversation_key(conversation))?;
    HeadRow::decode(&value.ok_or_else(|| rows::damaged("heads"))?)
}

fn message_rows(view: &View, conversation: ConversationId, first: Seq, last: Seq) -> fjall::Iter {
    let (first, last) = (rows::message_key(conversation, first), rows::message_key(conversation, last));
    view.range(Table::Messages, &first, &last)
}

fn message_row(row: Guard) -> Rows<(Seq, fjall::UserValue)> {
    let (key, value) = row.into_inner().map_err(|error| read_error(&error))?;
    Ok((rows::message_key_seq(&key)?, value))
}

fn user_conversation_row(row: Guard) -> Rows<(ConversationId, UserConversationRow)> {
    let (key, value) = row.into_inner().map_err(|error| read_error(&error))?;
    Ok((rows::user_conversation_key_conversation(&key)?, UserConversationRow::decode(&value)?))
}
