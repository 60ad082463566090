//! A writer that is killed at any moment, and journals as a power cut leaves them: what was acknowledged is
//! there, whole, in order, and nothing that is damaged passes for a torn end.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::*;
use ringway_protocol::ids::{ConversationId, Seq};
use ringway_store_writer::store::{Answer, Flush, Query, Store};
use ringway_store_writer::{EmbeddedStore, OpenError};

const ROOM: ConversationId = ConversationId(1);
const CHILD: &str = "RINGWAY_STORE_CRASH_FOLDER";
const ROOMS: u64 = 8;

/// The writer that gets killed: says each entry that was acknowledged, `ack CONVERSATION SEQ`, for ever.
/// Started by the test below; on its own it has nothing to do.
#[test]
fn child() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let store = open(Path::new(&folder));
    let (alice, mut log) = (user("alice"), Log::default());
    let mut appends = Vec::new();
    for room in (1..=ROOMS).map(ConversationId) {
        match read(&store, Query::Conversation(room)) {
            Answer::Conversation(Some(loaded)) => {
                // Goes on where the log ends.
                while log.message(room, &alice, None).seq < loaded.last_seq {}
            }
            _ => appends.push(log.create(room, &[&alice])),
        }
    }
    if !appends.is_empty() {
        flush(&store, appends).unwrap();
    }
    let epoch = store.status().epoch;
    for round in 0.. {
        let mut pending = Vec::new();
        for room in (1..=ROOMS).map(ConversationId) {
            let append = log.message(room, &alice, Some(&format!("{epoch}-{round}")));
            let seq = append.seq;
            pending.push((room, seq, start_flush(&store, Flush { epoch, appends: vec![append] })));
        }
        for (room, seq, flush) in pending {
            flush.wait().unwrap();
            // Whole lines: a half one at the end is not counted.
            let mut out = std::io::stdout().lock();
            out.write_all(format!("\nack {room} {seq}\n").as_bytes()).unwrap();
            out.flush().unwrap();
        }
    }
}

#[test]
fn what_was_acknowledged_outlives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
    for kill in 0..12_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acks = 0;
        let mut killed = false;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some(ack) = line.strip_prefix("ack ") else { continue };
            let Some((room, seq)) = ack.split_once(' ') else { continue };
            let (room, seq): (u64, u64) = (room.parse().unwrap(), seq.parse().unwrap());
            let last = acknowledged.entry(room).or_default();
            assert!(seq > *last, "entry {seq} of {room} acknowledged after {last}");
            *last = seq;
            acks += 1;
            if acks > 20 + kill * 37 && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the writer ended by itself");
        let store = open(folder.path());
        for (room, last) in &acknowledged {
            let seen = history(&store, ConversationId(*room), &user("alice"));
            let seqs: Vec<u64> = seen.iter().map(|entry| seq_of(entry).0).collect();
            assert!(seqs.len() as u64 >= *last, "kill {kill}: {room} ends at {} before {last}", seqs.len());
            assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "kill {kill}: a hole in {room}");
            let Answer::Conversation(Some(loaded)) = read(&store, Query::Conversation(ConversationId(*room)))
            else {
                panic!("kill {kill}: {room} is gone")
            };
            assert_eq!(loaded.last_seq, Seq(seqs.len() as u64), "entries and heads are of one batch");
        }
        assert!(acknowledged.len() as u64 == ROOMS);
    }
}

/// A closed store whose last flush came in a batch of its own: the journal, and where that batch begins.
fn written(folder: &Path) -> (PathBuf, usize) {
    let (alice, mut log) = (user("alice"), Log::default());
    let store = open(folder);
    flush(&store, vec![log.create(ROOM, &[&alice])]).unwrap();
    flush(&store, vec![log.message(ROOM, &alice, Some("second"))]).unwrap();
    let journal = journal(folder);
    let length = fs::metadata(&journal).unwrap().len() as usize;
    flush(&store, vec![log.message(ROOM, &alice, Some("third"))]).unwrap();
    (journal, length)
}

fn journal(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder.join("database")).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "jnl")).max().unwrap()
}

fn entries(folder: &Path) -> usize {
    history(&open(folder), ROOM, &user("alice")).len()
}

#[test]
fn a_batch_that_is_torn_anywhere_goes_and_what_is_before_stays() {
    let folder = quick_folder();
    let (path, start) = written(folder.path());
    let whole = fs::read(&path).unwrap();
    for cut in [1, 5, 14, 40, (whole.len() - start) / 2, whole.len() - start - 1] {
        fs::write(&path, &whole[..start + cut]).unwrap();
        assert_eq!(entries(folder.path()), 2, "cut {cut} bytes into the batch");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(entries(folder.path()), 3, "the whole batch is read");
}

#[test]
fn a_hole_in_the_last_batch_is_a_torn_end_also_where_fjall_alone_gives_up() {
    let folder = quick_folder();
    let (path, start) = written(folder.path());
    let mut holed = fs::read(&path).unwrap();
    let middle = start + (holed.len() - start) / 2;
    holed[middle..middle + 16].fill(0);
    fs::write(&path, &holed).unwrap();
    let alone = fjall::Database::builder(folder.path().join("database")).open();
    assert!(alone.is_err(), "fjall cuts holes off by itself now: journal_tail.rs has less to do");
    drop(alone);
    fs::write(&path, &holed).unwrap();
    assert_eq!(entries(folder.path()), 2);
    assert_eq!(entries(folder.path()), 2, "and it is gone for good");
}

#[test]
fn damage_to_what_was_acknowledged_is_told_and_nothing_is_changed() {
    let folder = quick_folder();
    let (path, start) = written(folder.path());
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[start - 60] ^= 0x10;
    fs::write(&path, &damaged).unwrap();
    match EmbeddedStore::open(folder.path(), settings()) {
        Err(error @ OpenError::Damaged { .. }) => assert!(error.to_string().contains("backup"), "{error}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it opened over the damage"),
    }
    assert_eq!(fs::read(&path).unwrap(), damaged);
    fs::write(&path, &whole).unwrap();
    assert_eq!(entries(folder.path()), 3, "the restored journal is read");
}

#[test]
fn a_creation_that_was_cut_short_begins_anew() {
    let folder = quick_folder();
    let unfinished = folder.path().join("database.new");
    fs::create_dir_all(unfinished.join("keyspaces/1")).unwrap();
    fs::write(unfinished.join("0.jnl"), b"anything").unwrap();
    let (alice, mut log) = (user("alice"), Log::default());
    flush(&open(folder.path()), vec![log.create(ROOM, &[&alice])]).unwrap();
    assert_eq!(entries(folder.path()), 1);
    assert!(!unfinished.exists());
}
