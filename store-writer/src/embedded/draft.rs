//! A group before it is written: the rows that its flushes, claims and removals come to.
//!
//! All items of a fjall batch have one number, so of two values for one key nobody could say which holds:
//! the draft keeps one value a key, and reads its own rows first.
//!
//! It is also the last guard of the log: an entry must be the one after the last. A hole or a second entry
//! at a place is refused here, whatever the router did.

use std::collections::{BTreeMap, HashMap};

use fjall::{Database, OwnedWriteBatch, UserValue};
use ringway_protocol::entry::{ConversationKind, Role};
use ringway_protocol::ids::{ConversationId, Position, Seq, Timestamp};
use ringway_protocol::user::UserId;

use super::rows::{self, ConversationRow, HeadRow, MemberRow, MetaRow, UserConversationRow};
use super::tables::{Table, Tables, read_error};
use crate::store::{Append, ClaimKey, Flush, IndexChange, SendRow, StoreError};

/// Last seqs of conversations that the writer touched in this epoch, so that it need not read them.
pub(super) type LastSeqs = HashMap<ConversationId, Seq>;

/// Why something did not get into the draft.
#[derive(Debug)]
pub(super) enum DraftError {
    /// An entry does not follow the log: the flush is left out, the draft is as before.
    OutOfOrder(String),
    /// A row could not be read: the draft may hold a part and must not be written.
    Read(StoreError),
}

impl From<StoreError> for DraftError {
    fn from(error: StoreError) -> Self {
        Self::Read(error)
    }
}

/// Rows of one group.
pub(super) struct Draft<'a> {
    tables: &'a Tables,
    known: &'a LastSeqs,
    /// Last seqs with what is drafted.
    last_seqs: LastSeqs,
    /// The row of `meta`, as it will be.
    meta: MetaRow,
    messages: Vec<([u8; 16], Vec<u8>)>,
    /// All other rows; `None` removes one.
    rows: HashMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    entries: u64,
    bytes: u64,
}

impl<'a> Draft<'a> {
    /// Nothing yet, on top of what is written.
    pub(super) fn new(tables: &'a Tables, known: &'a LastSeqs, meta: MetaRow) -> Self {
        Self {
            tables,
            known,
            last_seqs: HashMap::new(),
            meta,
            messages: Vec::new(),
            rows: HashMap::new(),
            entries: 0,
            bytes: 0,
        }
    }

    /// Adds a flush. Answers its position.
    pub(super) fn append(&mut self, flush: &Flush) -> Result<Position, DraftError> {
        if flush.appends.is_empty() {
            return Ok(self.meta.position);
        }
        self.check_order(flush)?;
        let position = Position(self.meta.position.0 + 1);
        for append in &flush.appends {
            self.append_entry(append, position)?;
        }
        self.meta.position = position;
        Ok(position)
    }

    /// Adds a claim. Answers who has the key.
    pub(super) fn claim(
        &mut self,
        key: &ClaimKey,
        proposed: ConversationId,
    ) -> Result<ConversationId, DraftError> {
        let key = rows::claim_key(key);
        if let Some(holder) = self.get(Table::Claims, &key)? {
            return Ok(rows::read_claim(&holder)?);
        }
        // No entry may ever come to say so: the id alone must keep later ones away from its time.
        self.meta.newest = self.meta.newest.max(time_of(proposed));
        self.put(Table::Claims, rows::claim_of_key(proposed), key.clone());
        self.put(Table::Claims, key, proposed.0.to_be_bytes().to_vec());
        Ok(proposed)
    }

    /// Removes rows of `sends` that are as old as `horizon` still.
    pub(super) fn remove_sends(&mut self, keys: Vec<Vec<u8>>, horizon: Timestamp) -> Result<u64, DraftError> {
        let mut removed = 0;
        for key in keys {
            let Some(value) = self.get(Table::Sends, &key)? else { continue };
            if rows::read_send(&value)?.server_ts <= horizon {
                self.rows.insert((Table::Sends, key), None);
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Stores the time by which keys age.
    pub(super) fn save_key_time(&mut self, time: Timestamp) {
        self.put(Table::Meta, rows::KEY_TIME_KEY.to_vec(), rows::key_time_value(time));
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.rows.is_empty()
    }

    /// Entries in it.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes of entries in it.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The batch, with the row of `meta`; that row; and the last seqs once it is written.
    ///
    /// The rows are in the order of their keys: fjall looks for the place of each from the top of its table, and
    /// what that walks over is then still in the processor's cache.
    pub(super) fn finish(mut self, database: &Database) -> (OwnedWriteBatch, MetaRow, LastSeqs) {
        let count = self.messages.len() + self.rows.len() + 1;
        let mut batch = OwnedWriteBatch::with_capacity(database.clone(), count);
        self.messages.sort_unstable_by_key(|(key, _)| *key);
        for (key, value) in self.messages {
            batch.insert(self.tables.of(Table::Messages), &key[..], value);
        }
        let mut rows: Vec<_> = self.rows.into_iter().collect();
        rows.sort_unstable_by(|((table, key), _), ((other_table, other_key), _)| {
            (*table as u8, key).cmp(&(*other_table as u8, other_key))
        });
        for ((table, key), value) in rows {
            match value {
                Some(value) => batch.insert(self.tables.of(table), key, value),
                None => batch.remove(self.tables.of(table), key),
            }
        }
        batch.insert(self.tables.of(Table::Meta), rows::META_KEY, self.meta.encode());
        (batch, self.meta, self.last_seqs)
    }

    /// Every entry must follow the last of its conversation, and the first one, alone, must create it.
    fn check_order(&mut self, flush: &Flush) -> Result<(), DraftError> {
        let mut next: HashMap<ConversationId, Seq> = HashMap::new();
        for append in &flush.appends {
            let conversation = append.conversation;
            let last = match next.get(&conversation) {
                Some(last) => *last,
                None => self.last_seq(conversation)?,
            };
            if append.seq != last.next() {
                return Err(DraftError::OutOfOrder(format!(
                    "entry {} of conversation {conversation} does not follow entry {last}",
                    append.seq
                )));
            }
            let creates = matches!(append.index, Some(IndexChange::Created { .. }));
            if creates != (append.seq == Seq(1)) {
                return Err(DraftError::OutOfOrder(format!(
                    "entry {} of conversation {conversation}: the first entry, and no other, creates one",
                    append.seq
                )));
            }
            next.insert(conversation, append.seq);
        }
        self.last_seqs.extend(next);
        Ok(())
    }

    fn last_seq(&self, conversation: ConversationId) -> Result<Seq, StoreError> {
        if let Some(seq) = self.last_seqs.get(&conversation).or_else(|| self.known.get(&conversation)) {
            return Ok(*seq);
        }
        match self.tables.get(Table::Heads, &rows::conversation_key(conversation))? {
            Some(value) => Ok(HeadRow::decode(&value)?.seq),
            None => Ok(Seq(0)),
        }
    }

    fn append_entry(&mut self, append: &Append, position: Position) -> Result<(), DraftError> {
        let (conversation, seq) = (append.conversation, append.seq);
        self.entries += 1;
        self.bytes += append.entry.len() as u64;
        // The conversation's id may be another worker's, whose clock was ahead of this entry's.
        self.meta.newest = self.meta.newest.max(append.server_ts).max(time_of(conversation));
        self.messages.push((rows::message_key(conversation, seq), rows::message_value(append)));
        let head = HeadRow { seq, message: append.message, server_ts: append.server_ts, position };
        self.put(Table::Heads, rows::conversation_key(conversation).to_vec(), head.encode());
        if let Some(client_message_id) = &append.client_message_id {
            let send = SendRow {
                seq,
                message: append.message,
                server_ts: append.server_ts,
                body_hash: append.body_hash,
            };
            let key = rows::send_key(conversation, &append.sender, client_message_id);
            self.put(Table::Sends, key, rows::send_value(&send));
        }
        match &append.index {
            None => Ok(()),
            Some(IndexChange::Created { kind, name, members }) => {
                self.create(conversation, *kind, name, members, position)
            }
            Some(change) => self.change(conversation, seq, change, position),
        }
    }

    fn create(
        &mut self,
        conversation: ConversationId,
        kind: ConversationKind,
        name: &str,
        members: &[(UserId, Role)],
        position: Position,
    ) -> Result<(), DraftError> {
        let mut row = ConversationRow { kind, deleted: false, member_count: 0, name: name.to_owned() };
        for (user, role) in members {
            if self.join(conversation, user, *role, Seq(1), position)? {
                row.member_count += 1;
            }
        }
        self.put(Table::Conversations, rows::conversation_key(conversation).to_vec(), row.encode());
        Ok(())
    }

    fn change(
        &mut self,
        conversation: ConversationId,
        seq: Seq,
        change: &IndexChange,
        position: Position,
    ) -> Result<(), DraftError> {
        let key = rows::conversation_key(conversation).to_vec();
        let value = self.get(Table::Conversations, &key)?.ok_or_else(|| rows::damaged("conversations"))?;
        let mut row = ConversationRow::decode(&value)?;
        match change {
            IndexChange::Created { .. } => {}
            IndexChange::MemberAdded { user, role } => {
                row.member_count += u32::from(self.join(conversation, user, *role, seq, position)?);
            }
            IndexChange::MemberRemoved { user } => {
                let left = self.leave(conversation, user, seq, position)?;
                row.member_count = row.member_count.saturating_sub(u32::from(left));
            }
            IndexChange::Renamed { name } => row.name.clone_from(name),
            IndexChange::Deleted => {
                row.deleted = true;
                self.release_claim(conversation)?;
            }
        }
        self.put(Table::Conversations, key, row.encode());
        Ok(())
    }

    /// A conversation is no more: whoever comes with its key next makes another one.
    fn release_claim(&mut self, conversation: ConversationId) -> Result<(), DraftError> {
        let of = rows::claim_of_key(conversation);
        // One without a key, or one that was made before this row was written.
        let Some(key) = self.get(Table::Claims, &of)? else { return Ok(()) };
        self.rows.insert((Table::Claims, key.to_vec()), None);
        self.rows.insert((Table::Claims, of), None);
        Ok(())
    }

    /// Lets a user in from `seq` on. False if the user was in: then only the role is new.
    fn join(
        &mut self,
        conversation: ConversationId,
        user: &UserId,
        role: Role,
        seq: Seq,
        position: Position,
    ) -> Result<bool, DraftError> {
        let mut row = match self.get(Table::Members, &rows::member_key(conversation, user))? {
            Some(value) => MemberRow::decode(&value)?,
            None => MemberRow { role, stays: Vec::new() },
        };
        let joins = !row.is_present();
        row.role = role;
        if joins {
            row.join(seq);
        }
        self.put_member(conversation, user, &row, position, joins);
        Ok(joins)
    }

    /// Lets a user see no entry after `seq`. False if the user was not in.
    fn leave(
        &mut self,
        conversation: ConversationId,
        user: &UserId,
        seq: Seq,
        position: Position,
    ) -> Result<bool, DraftError> {
        let Some(value) = self.get(Table::Members, &rows::member_key(conversation, user))? else {
            return Ok(false);
        };
        let mut row = MemberRow::decode(&value)?;
        let Some(stay) = row.stays.last_mut().filter(|stay| stay.left.is_none()) else {
            return Ok(false);
        };
        stay.left = Some(seq);
        self.put_member(conversation, user, &row, position, true);
        if row.role == Role::Owner {
            self.pass_ownership_on(conversation, position)?;
        }
        Ok(true)
    }

    /// The owner left: the member who has been in longest, of several the first by id, is the owner now, as
    /// for the router (its `members.rs`).
    fn pass_ownership_on(
        &mut self,
        conversation: ConversationId,
        position: Position,
    ) -> Result<(), DraftError> {
        let prefix = rows::conversation_key(conversation);
        let mut members: BTreeMap<Vec<u8>, MemberRow> = BTreeMap::new();
        for row in self.tables.of(Table::Members).prefix(prefix) {
            let (key, value) = row.into_inner().map_err(|error| read_error(&error))?;
            members.insert(key.to_vec(), MemberRow::decode(&value)?);
        }
        for ((table, key), value) in &self.rows {
            if let (Table::Members, true, Some(value)) = (table, key.starts_with(&prefix), value) {
                members.insert(key.clone(), MemberRow::decode(value)?);
            }
        }
        members.retain(|_, row| row.is_present());
        if members.values().any(|row| row.role == Role::Owner) {
            return Ok(());
        }
        let longest = members.iter().min_by_key(|(_, row)| row.stays.last().map(|stay| stay.joined));
        if let Some((key, row)) = longest {
            let heir = MemberRow { role: Role::Owner, ..row.clone() };
            self.put_member(conversation, &rows::member_key_user(key)?, &heir, position, false);
        }
        Ok(())
    }

    fn put_member(
        &mut self,
        conversation: ConversationId,
        user: &UserId,
        row: &MemberRow,
        position: Position,
        moved: bool,
    ) {
        self.put(Table::Members, rows::member_key(conversation, user), row.encode());
        if let Some(stay) = row.stays.last().filter(|_| moved) {
            let value = UserConversationRow { position, stay: *stay }.encode();
            self.put(Table::UserConversations, rows::user_conversation_key(user, conversation), value);
        }
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        // A key of a few dozen bytes: the copy is nothing beside the read it saves.
        match self.rows.get(&(table, key.to_vec())) {
            Some(value) => Ok(value.as_ref().map(|value| UserValue::from(value.as_slice()))),
            None => self.tables.get(table, key),
        }
    }

    fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.rows.insert((table, key), Some(value));
    }
}

/// The millisecond of an id, which is a Snowflake: all but its low 22 bits.
fn time_of(id: ConversationId) -> Timestamp {
    Timestamp(id.0 >> 22)
}
