//! Made-up results, for the tests of everything that reads results: a server with a planted pause.

use super::machine::Machine;
use super::results::{Results, ServerUse, StageResults};
use super::series::{BusyKind, Second};

/// Sends in a second.
const RATE: u64 = 2_000;

/// Results of so many seconds: connections first, then sends, of which each fifth second has a pause of
/// 200 ms that response time shows and service time does not.
pub(crate) fn specimen(seed: u64, seconds: usize) -> Results {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut results =
        Results::new("loadgen scenario specimen.toml", "# two stages\n[[stage]]\nkind = \"send\" # <&>\n");
    results.started_unix_milliseconds = 1_764_000_000_000;
    results.versions.push(("server".into(), "ringway 0.1.0".into()));
    results.machines = vec![Machine {
        name: format!("box{seed}"),
        kernel: "Linux 6.18.0".into(),
        processor: "AMD EPYC".into(),
        cores: 2,
        memory_bytes: 24 << 30,
    }];
    let machine = format!("box{seed}");
    let mut connect =
        StageResults { name: "connect".into(), kind: "connect".into(), ..StageResults::default() };
    connect.length_seconds = 2.0;
    connect.counts.connects_intended = 10_000;
    connect.counts.connected = 10_000;
    for _ in 0..10_000 {
        let handshake = 150_000 + dice.u64(0..400_000);
        connect.handshake.record(handshake);
        connect.connect.record(0, dice.u64(0..50_000), handshake + 900_000);
    }
    let mut send =
        StageResults { name: "send".into(), kind: "send".into(), measured: true, ..StageResults::default() };
    send.begin_seconds = 2.0;
    send.length_seconds = seconds as f64;
    for number in 0..2 {
        let second = results.series.second(number);
        second.open = 5_000 * (number as u64 + 1);
        second.connected = 5_000;
    }
    for number in 0..seconds {
        let pause = number % 5 == 4;
        let mut parts = StageResults::default();
        for _ in 0..RATE {
            // An exponential body with a tail, as queues have.
            let service = 90_000 + (-(1.0 - dice.f64()).ln() * 60_000.0) as u64;
            let waited =
                if pause && dice.u8(0..5) == 0 { dice.u64(0..200_000_000) } else { dice.u64(0..30_000) };
            parts.ack.record(0, waited, waited + service);
            parts.delivery.record(0, waited, waited + service + 40_000);
            parts.lateness.record(dice.u64(1_000..80_000));
        }
        let counts = &mut parts.counts;
        (counts.intended, counts.sent, counts.acked) = (RATE, RATE, RATE);
        (counts.expected, counts.delivered) = (RATE, RATE);
        send.add_specimen(&parts);
        *results.series.second(number + 2) = Second {
            intended: RATE,
            sent: RATE,
            acked: RATE,
            delivered: RATE,
            open: 10_000,
            ack_response: parts.ack.response.encode(),
            ack_service: parts.ack.service.encode(),
            delivery_response: parts.delivery.response.encode(),
            delivery_service: parts.delivery.service.encode(),
            lateness: parts.lateness.encode(),
            server_cpu_percent: Some(30.0 + dice.f64() * 10.0),
            server_resident_bytes: Some(90 << 20),
            ..Second::default()
        };
        for worker in 0..2 {
            let busy = if pause { 20.0 } else { 45.0 + dice.f64() * 30.0 };
            results.series.row(&machine, BusyKind::Worker, &format!("worker {worker}")).set(number + 2, busy);
            results
                .series
                .row(&machine, BusyKind::Core, &format!("cpu{worker}"))
                .set(number + 2, busy + 20.0);
        }
    }
    send.server = Some(ServerUse {
        cpu_microseconds: seconds as u64 * 350_000,
        resident_bytes_begin: 88 << 20,
        resident_bytes_end: 90 << 20,
    });
    results.stages = vec![connect, send];
    results
}

impl StageResults {
    fn add_specimen(&mut self, parts: &StageResults) {
        self.counts.merge(&parts.counts);
        self.ack.merge(&parts.ack);
        self.delivery.merge(&parts.delivery);
        self.lateness.merge(&parts.lateness);
    }
}
