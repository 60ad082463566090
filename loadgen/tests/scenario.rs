//! Scenarios carried out by the real command, with workers as processes, against a tiny server whose faults
//! are known.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ringway_loadgen::report::results::{ExitVerdict, Results, StageResults};
use rustix::process::{Pid, Signal, kill_process};
use support::{Fault, TinyServer};

/// A folder with a scenario and the tokens of its clients.
struct Run {
    folder: tempfile::TempDir,
    server: TinyServer,
}

impl Run {
    fn new(fault: Fault, scenario: &str) -> Self {
        let run = Self { folder: tempfile::tempdir().unwrap(), server: TinyServer::start(fault) };
        std::fs::write(run.path("scenario.toml"), scenario).unwrap();
        let tokens: String = (0..100).map(|number| format!("u{number} u{number}\n")).collect();
        std::fs::write(run.path("tokens"), tokens).unwrap();
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Carries it out, and gives the exit code with what was written.
    fn carry_out(&self, words: &[&str]) -> (i32, String) {
        told(self.command().args(words).output().unwrap())
    }

    fn command(&self) -> Command {
        let mut command = loadgen("scenario");
        command.arg(self.path("scenario.toml")).args(["--url", &self.server.url()]);
        command.arg("--tokens").arg(self.path("tokens")).arg("--json").arg(self.path("results.json"));
        command
    }

    fn results(&self) -> Results {
        Results::read(&self.path("results.json")).unwrap()
    }
}

fn loadgen(verb: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.arg(verb);
    command
}

fn told(output: Output) -> (i32, String) {
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

fn stage<'a>(results: &'a Results, name: &str) -> &'a StageResults {
    results.stages.iter().find(|stage| stage.name == name).unwrap()
}

/// Clients that connect and then send for so long.
fn sends(clients: usize, rate: u32, seconds: u32, thresholds: &str) -> String {
    format!(
        "name = \"test\"\nthresholds = [{thresholds}]\n[population]\nclients = {clients}\n\
         [connections]\nper_worker = {}\n\
         [[stage]]\nkind = \"connect\"\nconnections_per_s = 1000\n\
         [[stage]]\nkind = \"send\"\nmessages_per_s = {rate}\nduration_s = {seconds}\nsettle_s = 3\n",
        clients.div_ceil(2)
    )
}

#[test]
fn two_workers_add_up_and_every_delivery_is_accounted_for() {
    let thresholds = r#""lost == 0", "corrupted == 0", "dropped == 0", "disconnects == 0""#;
    let scenario = sends(40, 200, 3, thresholds).replace("clients = 40", "clients = 40\ngroup_share = 0.5");
    let run = Run::new(Fault::default(), &scenario);
    let (code, text) = run.carry_out(&[]);
    assert_eq!(code, 0, "{text}");
    let results = run.results();
    let counts = stage(&results, "send").counts;
    assert!((450..750).contains(&counts.intended), "{counts:?}");
    assert_eq!((counts.sent, counts.acked), (counts.intended, counts.intended), "{text}");
    assert_eq!((counts.delivered, counts.lost), (counts.expected, 0), "{text}");
    assert!(counts.expected > counts.acked, "a message to a group is delivered more than once: {counts:?}");
    let send = stage(&results, "send");
    assert_eq!(send.delivery.response.count(), counts.delivered);
    assert_eq!(stage(&results, "connect").counts.connected, 40);
    assert_eq!(stage(&results, "connect").connect.response.count(), 40);
    let in_seconds: u64 = results.series.seconds.iter().map(|second| second.delivered).sum();
    assert_eq!(in_seconds, counts.delivered, "the seconds make the whole");
    let open = results.series.seconds.iter().map(|second| second.open).max();
    assert_eq!(open, Some(40), "both workers' connections");
}

#[test]
fn a_pause_of_the_server_shows_in_response_and_not_in_service() {
    let pause = Some((Duration::from_millis(200), Duration::from_secs(5)));
    let run = Run::new(Fault { pause, ..Fault::default() }, &sends(4, 200, 15, ""));
    let (code, text) = run.carry_out(&["--threshold", "delivery.response.p99 <= 100ms"]);
    assert_eq!(code, 3, "a threshold on response is missed: {text}");
    let results = run.results();
    let send = stage(&results, "send");
    // One message in 25 falls into a pause and waits 100 ms on the average. But of four clients that wait
    // for their acks, only four messages are on their way in it: one in 250.
    for latency in [&send.ack, &send.delivery] {
        assert!(latency.response.quantile(0.99) > 100_000, "{text}");
        assert!(latency.response.max() > 150_000, "{text}");
        assert!(latency.service.quantile(0.99) < 50_000, "{text}");
    }
    assert!(run.carry_out(&["--threshold", "delivery.service.p99 <= 100ms"]).0 == 0);
}

#[test]
fn deliveries_that_never_come_are_lost() {
    let run =
        Run::new(Fault { forgets_one_in: Some(50), ..Fault::default() }, &sends(10, 100, 3, "\"lost == 0\""));
    let (code, text) = run.carry_out(&[]);
    assert_eq!(code, 3, "{text}");
    let counts = stage(&run.results(), "send").counts;
    assert_eq!(counts.lost, counts.expected / 50, "{text}");
    assert_eq!(counts.delivered + counts.lost, counts.expected, "{text}");
}

#[test]
fn a_generator_that_never_has_a_moment_to_spare_answers_for_what_it_dropped() {
    let run = Run::new(Fault::default(), &sends(10, 2_000_000, 3, ""));
    let (code, text) = run.carry_out(&[]);
    assert_eq!(code, 4, "{text}");
    let counts = stage(&run.results(), "send").counts;
    assert!(counts.starved > counts.intended / 10 || counts.late > counts.sent / 100, "{counts:?}");
    assert!(counts.starved <= counts.dropped, "{counts:?}");
}

#[test]
fn a_generator_that_is_too_slow_says_so() {
    let run = Run::new(Fault::default(), &sends(10, 500, 3, ""));
    let mut command = run.command();
    let generator = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Its workers get a processor for a fifth of a second, and none for the next.
    let hold_up = Duration::from_millis(200);
    let list = format!("/proc/{0}/task/{0}/children", generator.id());
    for _ in 0..12 {
        let workers = std::fs::read_to_string(&list).unwrap_or_default();
        let workers = workers.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?));
        let workers: Vec<Pid> = workers.collect();
        for signal in [Signal::STOP, Signal::CONT] {
            // One that has left meanwhile is not held up.
            workers.iter().for_each(|worker| kill_process(*worker, signal).unwrap_or_default());
            std::thread::sleep(hold_up);
        }
    }
    let (code, text) = told(generator.wait_with_output().unwrap());
    assert_eq!(code, 4, "{text}");
    let results = run.results();
    assert_eq!(results.verdict, ExitVerdict::GeneratorBottleneck);
    let counts = stage(&results, "send").counts;
    assert!(counts.late > counts.sent / 10, "what was sent late is told: {counts:?}");
    assert_eq!(counts.dropped, counts.intended - counts.sent, "what was not sent was intended: {counts:?}");
}

#[test]
fn bad_input_is_2_and_a_server_that_is_not_there_is_not() {
    let run = Run::new(Fault::default(), &sends(10, 10, 1, "").replace("messages_per_s", "mesages_per_s"));
    let (code, text) = run.carry_out(&[]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("did you mean `messages_per_s`?"), "{text}");
    assert_eq!(run.carry_out(&["--no-such-flag"]).0, 2);

    let run = Run::new(Fault::default(), &sends(1_000, 10, 1, ""));
    let (code, text) = run.carry_out(&[]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("100 logins"), "{text}");
    let missing = told(loadgen("scenario").arg("/does/not/exist").output().unwrap());
    assert_eq!(missing.0, 2, "{}", missing.1);
    assert_eq!(told(loadgen("join").args(["127.0.0.1:1", "--key", "k"]).output().unwrap()).0, 1);
}

#[test]
fn workers_join_a_coordinator_that_waits_for_them() {
    let run = Run::new(Fault::default(), &sends(10, 50, 1, "\"lost == 0\""));
    let address = {
        // A port that is free now is free in a moment, almost certainly.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let mut serve = loadgen("serve");
    serve.arg(run.path("scenario.toml")).args(["--url", &run.server.url(), "--listen", &address]);
    serve.args(["--key", "the key", "--workers", "3"]).arg("--tokens").arg(run.path("tokens"));
    serve.arg("--json").arg(run.path("results.json"));
    let serving = std::thread::spawn(move || serve.output().unwrap());
    let join = |key: &'static str| {
        let address = address.clone();
        std::thread::spawn(move || {
            wait_for_listener(&address);
            told(loadgen("join").args([&address, "--key", key]).output().unwrap())
        })
    };
    let stranger = join("another key");
    assert_eq!(stranger.join().unwrap().0, 1, "who does not know the key is let go");
    let workers: Vec<_> = (0..3).map(|_| join("the key")).collect();
    for worker in workers {
        let (code, text) = worker.join().unwrap();
        assert_eq!(code, 0, "{text}");
    }
    let (code, text) = told(serving.join().unwrap());
    assert_eq!(code, 0, "{text}");
    assert_eq!(stage(&run.results(), "connect").counts.connected, 10);
}

fn wait_for_listener(address: &str) {
    for _ in 0..500 {
        if std::net::TcpStream::connect(address).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nobody listens at {address}");
}

#[test]
fn the_folder_of_scenarios_is_where_the_readme_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    for name in ["smoke", "half-million", "reconnect-storm", "slow-readers"] {
        assert!(folder.join(format!("{name}.toml")).is_file(), "{name}");
    }
}
