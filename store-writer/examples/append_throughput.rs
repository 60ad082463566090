//! How many entries a second become durable on this disk, by group commit.
//!
//! `cargo run --release -p ringway-store-writer --example append_throughput [FOLDER] [SECONDS]`
//!
//! Stands for a router: some workers, each with one flush under way, made of the sends of a pass. An entry is
//! 300 bytes with an idempotency key, over 1,000 conversations a worker. Left out: reads beside it, and a
//! database larger than memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringway_metrics::Text;
use ringway_protocol::entry::{ConversationKind, Role};
use ringway_protocol::ids::{ConversationId, MessageId, Seq, Timestamp};
use ringway_protocol::user::{ClientMessageId, UserId};
use ringway_store_writer::store::{Append, Flush, IndexChange, Store};
use ringway_store_writer::{EmbeddedStore, StoreSettings};

const CONVERSATIONS: u64 = 1000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(|| PathBuf::from("append-throughput"), PathBuf::from);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(5);
    println!("workers  entries a flush  entries/s  groups/s  flush ms (mean)");
    for (workers, entries) in [(1, 1), (1, 64), (4, 1), (4, 64), (32, 16)] {
        let path = folder.join(format!("{workers}-{entries}"));
        let store =
            EmbeddedStore::open(&path, StoreSettings::default()).unwrap_or_else(|error| panic!("{error}"));
        let store = Arc::new(store);
        let until = Instant::now() + Duration::from_secs(seconds);
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                let store = Arc::clone(&store);
                std::thread::spawn(move || work(&*store, worker, entries, until))
            })
            .collect();
        let flushes: u64 = threads.into_iter().map(|thread| thread.join().expect("a worker panicked")).sum();
        println!(
            "{workers:7}  {entries:15}  {:9}  {:8}  {:.2}",
            flushes * entries / seconds,
            store.metrics().groups.get() / seconds,
            (seconds * workers * 1000) as f64 / flushes as f64,
        );
        if std::env::var_os("METRICS").is_some() {
            let mut text = Text::default();
            store.metrics().render(&mut text);
            print!("{}", text.finish());
        }
        drop(store);
        std::fs::remove_dir_all(path).expect("the folder is ours");
    }
    // Only if it is empty.
    let _ = std::fs::remove_dir(folder);
}

/// One flush after the other. Answers how many.
fn work(store: &dyn Store, worker: u64, entries: u64, until: Instant) -> u64 {
    let sender = UserId::new("", &format!("user{worker}")).expect("a short name");
    let mut last = vec![0; CONVERSATIONS as usize];
    let (mut flushes, mut number) = (0, 0);
    while Instant::now() < until {
        let mut appends = Vec::new();
        while (appends.len() as u64) < entries {
            let index = (number * 7919 % CONVERSATIONS) as usize;
            number += 1;
            last[index] += 1;
            let created = IndexChange::Created {
                kind: ConversationKind::Group,
                name: String::new(),
                members: vec![(sender.clone(), Role::Owner)],
            };
            appends.push(Append {
                conversation: ConversationId(worker << 32 | index as u64),
                seq: Seq(last[index]),
                message: MessageId(worker << 40 | number),
                server_ts: Timestamp(number),
                sender: sender.clone(),
                client_message_id: ClientMessageId::new(&format!("{number:036}")).ok(),
                body_hash: number,
                index: (last[index] == 1).then_some(created),
                entry: Bytes::from(vec![b'x'; 300]),
            });
        }
        let (done, answer) = mpsc::channel();
        let flush = Flush { epoch: store.status().epoch, appends };
        store.flush(flush, Box::new(move |result| drop(done.send(result))));
        answer.recv().expect("an answer").unwrap_or_else(|error| panic!("{error}"));
        flushes += 1;
    }
    flushes
}
