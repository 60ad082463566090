//! The disk alone: how long it takes to make an appended write durable, in the folder and with the sizes of the server.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::meter::percentiles;

/// Appends so many bytes so often and makes each durable as the store does (`fdatasync`); says how long that took.
pub(crate) fn measure(folder: &Path, bytes: usize, a_second: u32, seconds: u64) {
    let path = folder.join("sync-probe");
    let mut file = File::create(&path).expect("a folder to write in");
    let group = vec![b'x'; bytes];
    let (began, pause) = (Instant::now(), Duration::from_secs(1) / a_second);
    let (mut due, mut took) = (began, Vec::new());
    while began.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let start = Instant::now();
        file.write_all(&group).expect("room on the disk");
        file.sync_data().expect("a disk that writes");
        took.push(start.elapsed().as_micros() as u64);
        due = (due + pause).max(start);
    }
    drop(std::fs::remove_file(&path));
    println!("{{\"syncs\":{},\"bytes\":{bytes},{}}}", took.len(), percentiles("sync", &mut took));
}
