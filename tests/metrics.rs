//! The metrics page of the real binary moves with what clients do: a chat, a refused upgrade, a rate that is
//! not kept, and a message that breaks the protocol.

mod support;

use support::{Client, Server, wait_for};

/// Waits until a metric has come to `least`, over all cores.
#[track_caller]
fn comes_to(server: &Server, name: &str, least: f64) {
    wait_for(name, || (server.metric(name) >= least).then_some(()));
}

#[test]
fn a_chat_moves_the_families_of_connections_frames_acks_deliveries_ring_and_store() {
    let server = Server::start(&[]);
    let mut alice = server.connect_tls("alice");
    let mut bob = server.connect_tls("bob");
    alice.say_to_user("bob", "hello");
    bob.expect("message");
    for (name, least) in [
        ("ringway_gateway_connections", 2.0),
        ("ringway_gateway_tls_handshakes_total", 2.0),
        ("ringway_gateway_sessions_open", 2.0),
        ("ringway_gateway_frames_in_total", 3.0),
        ("ringway_gateway_frames_out_total", 4.0),
        ("ringway_gateway_ack_seconds_count", 1.0),
        ("ringway_gateway_delivery_seconds_count", 1.0),
        ("ringway_gateway_pass_seconds_count", 1.0),
        ("ringway_gateway_ring_enters_total", 1.0),
        ("ringway_gateway_worker_wakes_total", 1.0),
        ("ringway_router_endpoint_wakes_total", 1.0),
        ("ringway_router_loop_lag_seconds_count", 1.0),
        ("ringway_store_sync_seconds_count", 1.0),
    ] {
        comes_to(&server, name, least);
    }
    let deliveries = server.metric("ringway_gateway_delivery_seconds_count");
    alice.say_to_user("bob", "and again");
    bob.expect("message");
    comes_to(&server, "ringway_gateway_delivery_seconds_count", deliveries + 1.0);
    assert!(server.metric("ringway_gateway_delivery_seconds_sum") < 60.0, "milliseconds are not seconds");
}

#[test]
fn what_is_refused_and_closed_is_counted_by_its_cause() {
    let server = Server::start(&["--limits.send_burst", "1", "--limits.send_per_s", "1"]);
    assert!(Client::try_open(server.ws(), &[("authorization", "Bearer nothing")]).is_err());
    comes_to(&server, "ringway_gateway_requests_refused_total", 1.0);

    let mut alice = server.connect("alice");
    alice.say_to_user("bob", "within the rate");
    alice.send_to_user("bob", "past it");
    alice.take("rate_limited", |frame| frame["code"] == "rate_limited");
    comes_to(&server, "ringway_gateway_rate_refusals_total", 1.0);
    assert_eq!(server.metric("ringway_gateway_protocol_errors_total"), 0.0);

    for _ in 0..10 {
        alice.send_text("{");
    }
    assert_eq!(alice.read_to_end().code, Some(4000));
    comes_to(&server, "ringway_gateway_protocol_errors_total", 1.0);
    assert!(server.metrics().contains("code=\"40xx\"} 1\n"), "{}", server.metrics());
}

#[test]
fn every_metric_that_the_operating_document_names_is_on_the_page() {
    let page = Server::start(&[]).metrics();
    let document = include_str!("../docs/operating.md");
    let names: Vec<&str> = document
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| ["ringway_", "process_"].iter().any(|start| name.starts_with(start)))
        .collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("# TYPE {name} ")), "{name}");
    }
}
