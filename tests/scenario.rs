//! A whole scenario against the real server, over TLS: connect, hold, ramp, churn, a storm and slow readers,
//! by two workers, with the checker's word in the end.

mod support;

use std::net::SocketAddr;
use std::path::Path;

use ringway_loadgen::fleet::{Crowd, Lead, join, lead};
use ringway_loadgen::logins::Source;
use ringway_loadgen::scenario::Scenario;
use ringway_loadgen::target::Trust;
use support::{Server, wait_for};

#[test]
fn the_smoke_scenario_loses_nothing_and_everybody_comes_back() {
    let server = Server::start(&[]);
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("loadgen/scenarios/smoke.toml");
    let listen = free_address();
    let load = Lead {
        scenario: Scenario::read(&scenario).unwrap(),
        url: format!("wss://{}/ws", server.wss()),
        trust: Trust::Authority(server.data_folder().join("tls/dev-cert.pem")),
        source: Source::Secret { path: server.data_folder().join("dev-signing-key"), prefix: "u".into() },
        crowd: Crowd::Joined { listen, workers: 2, key: "key".into() },
        server_process: Some(server.pid()),
        command: "the test".into(),
    };
    let workers: Vec<_> = (0..2)
        .map(|_| {
            std::thread::spawn(move || {
                wait_for("the coordinator", || std::net::TcpStream::connect(listen).ok());
                join(&listen.to_string(), "key")
            })
        })
        .collect();
    let mut lines = String::new();
    let outcome = lead(&load, |progress| lines += &format!("{progress:?}\n")).unwrap();
    workers.into_iter().for_each(|worker| worker.join().unwrap().unwrap());

    let check = outcome.check.expect("the scenario asks for it");
    assert!(check.passed(), "{check}");
    let clients = load.scenario.population.clients as u64;
    let stages = &outcome.results.stages;
    let counts = |name: &str| stages.iter().find(|stage| stage.name == name).unwrap().counts;
    assert_eq!(counts("connect").connected, clients, "{lines}");
    assert_eq!((counts("storm").left, counts("storm").reconnects >= 60), (60, true), "{lines}");
    for name in ["ramp", "send", "storm", "slow-readers"] {
        let counts = counts(name);
        assert!(counts.acked > 0, "{name}: {counts:?}");
        assert_eq!((counts.lost, counts.corrupted, counts.disconnects), (0, 0, 0), "{name}: {counts:?}");
    }
    // What waited in the sockets of who read slowly is no latency of the server.
    let slow_readers = stages.iter().find(|stage| stage.name == "slow-readers").unwrap();
    assert!(slow_readers.delivery.response.count() < slow_readers.counts.delivered, "{slow_readers:?}");
    let promised: u64 = stages.iter().map(|stage| stage.counts.expected).sum();
    let came: u64 = stages.iter().map(|stage| stage.counts.delivered).sum();
    assert_eq!(promised, came);
    let server = stages.last().unwrap().server.expect("its process is known");
    assert!(server.resident_bytes_end > 1 << 20, "{server:?}");
}

fn free_address() -> SocketAddr {
    // A port that is free now is free in a moment, almost certainly.
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
