//! `diagnostics.trace`: an entry is durable before its sender or anyone else hears of it, and a server that
//! was killed leaves a trace that its successor goes on with.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use support::Server;

/// The steps of one conversation, in their order: what happened, and to which place.
fn steps(trace: &Path) -> BTreeMap<u64, Vec<(String, u64)>> {
    let text = std::fs::read_to_string(trace).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["t"].as_u64().unwrap());
    let mut steps: BTreeMap<u64, Vec<(String, u64)>> = BTreeMap::new();
    for line in lines {
        let step = (line["e"].as_str().unwrap().to_owned(), line["seq"].as_u64().unwrap());
        steps.entry(line["conv"].as_u64().unwrap()).or_default().push(step);
    }
    steps
}

#[test]
fn nobody_hears_of_an_entry_before_it_is_durable_and_a_successor_knows_what_survived() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.ndjson");
    let flags = ["--diagnostics.trace", trace.to_str().unwrap()];
    let mut server = Server::start_in(folder.path(), &flags);
    let (mut alice, mut bob) = (server.connect("alice"), server.connect("bob"));
    for text in ["one", "two", "three"] {
        alice.say_to_user("bob", text);
        bob.take(text, |frame| frame["text"] == text);
    }
    server.kill();
    drop((alice, bob, server));

    let server = Server::start_in(folder.path(), &flags);
    let (mut alice, mut bob) = (server.connect("alice"), server.connect("bob"));
    bob.say_to_user("alice", "four");
    alice.take("four", |frame| frame["text"] == "four");

    let steps = steps(&trace);
    assert_eq!(steps.len(), 1, "one conversation: {steps:?}");
    let steps = steps.into_values().next().unwrap();
    let mut durable_up_to = 0;
    for (step, seq) in &steps {
        match step.as_str() {
            "durable" => durable_up_to = *seq,
            "loaded" => assert_eq!(*seq, durable_up_to, "what was durable is found again: {steps:?}"),
            _ => assert!(*seq <= durable_up_to, "{step} {seq} came before its durability: {steps:?}"),
        }
    }
    let count = |name: &str| steps.iter().filter(|(step, _)| step == name).count();
    // The creation of the conversation is an entry, and nobody's send.
    assert_eq!((count("durable"), count("ack"), count("loaded")), (5, 4, 1), "{steps:?}");
    assert!(count("deliver") >= 4, "{steps:?}");
}
