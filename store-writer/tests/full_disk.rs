//! A disk that is really full: a small file system in memory, filled by another file.
//!
//! Needs the right to mount one (root): it fails, and says so, where that is refused.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use ringway_protocol::ids::{ConversationId, Seq};
use ringway_store_writer::store::{Answer, IndexChange, Query, Store, StoreError};
use ringway_store_writer::{GroupStage, StoreSettings};

const ROOM: ConversationId = ConversationId(1);
const DISK: u64 = 64 << 20;
const RESERVE: u64 = 12 << 20;
const FREE_MIN: u64 = 16 << 20;

/// A mounted disk of [`DISK`] bytes, gone at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK}"), "ringway-test"])
            .arg(folder.path())
            .status();
        assert!(
            mounted.as_ref().is_ok_and(|status| status.success()),
            "this test mounts a tmpfs and may not here ({mounted:?}): run it as root"
        );
        Self(folder)
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn free(&self) -> u64 {
        let figures = rustix::fs::statvfs(self.0.path()).unwrap();
        figures.f_bavail * figures.f_frsize
    }

    /// Takes all room but so much.
    fn fill(&self, leave: u64) {
        fill(self.0.path(), leave);
    }

    fn empty(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn fill(disk: &Path, leave: u64) {
    let figures = rustix::fs::statvfs(disk).unwrap();
    let bytes = (figures.f_bavail * figures.f_frsize).saturating_sub(leave);
    let file = fs::File::options().create(true).append(true).open(disk.join("filler")).unwrap();
    let length = file.metadata().unwrap().len();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), length, bytes).unwrap();
}

fn small() -> StoreSettings {
    StoreSettings { reserve_bytes: RESERVE, free_bytes_min: FREE_MIN, ..StoreSettings::default() }
}

#[test]
fn writes_are_refused_before_the_disk_is_full_and_taken_again_when_it_is_not() {
    let disk = SmallDisk::mount();
    let store = open_with(&disk.store(), small());
    let (alice, mut log) = (user("alice"), Log::default());
    flush(&store, vec![log.create(ROOM, &[&alice])]).unwrap();
    for round in 1..4 {
        let epoch = store.status().epoch;
        disk.fill(FREE_MIN - 4096);
        until("the store to refuse", || {
            let result = flush(&store, vec![log.message(ROOM, &alice, None)]);
            if result.is_err() {
                log.forget(ROOM);
                assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
            }
            result.is_err()
        });
        assert!(!store.status().accepts);
        let last = history(&store, ROOM, &alice).len();
        disk.empty();
        until("the store to accept", || store.status().accepts);
        assert!(store.status().epoch > epoch, "what was refused is not continued in its epoch");
        flush(&store, vec![log.message(ROOM, &alice, None)]).unwrap();
        assert_eq!(history(&store, ROOM, &alice).len(), last + 1);
        assert_eq!(store.metrics().reopens.get(), 0, "round {round}: nothing failed");
    }
}

#[test]
fn a_write_into_the_end_of_the_disk_loses_nothing_that_was_acknowledged() {
    let disk = SmallDisk::mount();
    let full = Arc::new(AtomicBool::new(false));
    let hook = {
        let (full, path) = (Arc::clone(&full), disk.0.path().to_owned());
        move |stage| {
            // Somebody else takes the last block between our look at the disk and our write.
            if stage == GroupStage::Formed && full.swap(false, Ordering::SeqCst) {
                fill(&path, 0);
            }
            Ok(())
        }
    };
    let store = open_with(&disk.store(), StoreSettings { group_hook: Some(Arc::new(hook)), ..small() });
    let (alice, mut log) = (user("alice"), Log::default());
    flush(&store, vec![log.create(ROOM, &[&alice])]).unwrap();
    for _ in 0..3 {
        flush(&store, (0..50).map(|_| log.entry(ROOM, &alice, None, None, 1000)).collect()).unwrap();
        let (epoch, before) = (store.status().epoch, history(&store, ROOM, &alice).len());
        full.store(true, Ordering::SeqCst);
        let big = (0..100).map(|_| log.entry(ROOM, &alice, None, None, 20_000)).collect();
        let result = flush(&store, big);
        assert!(matches!(result, Err(StoreError::Unknown(_))), "{result:?}");
        (0..100).for_each(|_| log.forget(ROOM));
        // The reserve lets it open again, for reads.
        until("the store to open", || store.status().epoch > epoch);
        assert!(!store.status().accepts);
        assert!(matches!(flush(&store, vec![]), Err(StoreError::Unavailable(_))));
        assert_eq!(history(&store, ROOM, &alice).len(), before, "a batch that did not fit is not there");
        disk.empty();
        until("the store to accept", || store.status().accepts);
        let renamed = IndexChange::Renamed { name: "after".into() };
        flush(&store, vec![log.change(ROOM, &alice, renamed)]).unwrap();
        assert_eq!(history(&store, ROOM, &alice).len(), before + 1);
    }
    drop(store);
    let store = open_with(&disk.store(), small());
    let Answer::Conversation(Some(loaded)) = read(&store, Query::Conversation(ROOM)) else { panic!() };
    assert_eq!(loaded.last_seq, Seq(1 + 3 * 51));
    assert_eq!(loaded.name, "after");
}

#[test]
fn a_store_on_a_full_disk_opens_for_reads_by_its_reserve() {
    let disk = SmallDisk::mount();
    let (alice, mut log) = (user("alice"), Log::default());
    let store = open_with(&disk.store(), small());
    flush(&store, vec![log.create(ROOM, &[&alice])]).unwrap();
    drop(store);
    disk.fill(0);
    assert_eq!(disk.free(), 0);
    let store = open_with(&disk.store(), small());
    assert!(!store.status().accepts);
    assert_eq!(history(&store, ROOM, &alice).len(), 1);
    disk.empty();
    until("the store to accept", || store.status().accepts);
    flush(&store, vec![log.message(ROOM, &alice, None)]).unwrap();
    assert!(disk.store().join("reserve").exists(), "the reserve is held again");
}
