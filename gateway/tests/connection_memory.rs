//! What an idle connection costs in user memory, counted by the allocator: the inline part that lies in
//! the table and everything on the heap. The bound that the process as a whole is held to (1 KiB) leaves
//! room for the allocator's size classes and the table's other columns.
#![allow(dead_code, unreachable_pub, reason = "the helpers of another test binary")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[path = "connection/pair.rs"]
mod pair;

use pair::{Gateway, Setup, Socket, entry, send_frame};
use ringway_gateway::connection::Connection;
use ringway_protocol::ids::{ConversationId, MessageId, Seq, Timestamp};
use ringway_protocol::trunk::Outcome;

thread_local! {
    /// Bytes that this thread has allocated and not freed.
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator with the same arguments; the counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LIVE.try_with(|live| live.set(live.get() + layout.size() as isize));
        // SAFETY: the caller's promise on `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = LIVE.try_with(|live| live.set(live.get() - layout.size() as isize));
        // SAFETY: `pointer` came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn an_idle_session_costs_less_than_700_bytes_and_traffic_leaves_nothing_behind() {
    let mut gateway = Setup::default().start();
    drop(gateway.login("somebody", "first use of everything"));
    gateway.script.take();

    const COUNT: usize = 64;
    let mut sockets = Vec::with_capacity(COUNT);
    let before = LIVE.get();
    for index in 0..COUNT {
        let user = format!("user-of-usual-length-{index:04}");
        let mut socket = gateway.login(&user, "0123456789abcdef0123456789abcdef");
        socket.received = Vec::new();
        sockets.push(socket);
    }
    let held_by_script = gateway.script.take();
    assert!(held_by_script.is_empty());
    let idle = (LIVE.get() - before) as usize / COUNT;
    let total = idle + size_of::<Connection>();
    println!("an idle session: {} bytes inline, {idle} on the heap", size_of::<Connection>());
    assert!(total < 700, "{total} bytes");

    // The first round lets the core's scratch space grow to what it needs; then traffic leaves nothing.
    talk(&mut gateway, &mut sockets);
    let settled = LIVE.get();
    talk(&mut gateway, &mut sockets);
    assert_eq!(LIVE.get() - settled, 0, "bytes that traffic left behind");
}

/// Each client sends and is acked, and gets a message.
fn talk(gateway: &mut Gateway, sockets: &mut [Socket]) {
    for socket in sockets {
        for index in 0..20 {
            socket.send(gateway, &send_frame(7, &index.to_string(), "hello"));
        }
        for (request, _) in gateway.script.requests() {
            let sent = Outcome::Sent {
                conversation: ConversationId(7),
                message: MessageId(1),
                seq: Seq(1),
                server_ts: Timestamp(1),
                duplicate: false,
            };
            socket.reply(gateway, request, Ok(sent));
        }
        gateway.fan_out(&entry(7, 2, "bob", "hello"), &mut [socket]);
        assert_eq!(socket.frames(gateway).len(), 21);
        socket.received = Vec::new();
    }
}
