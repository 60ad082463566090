//! The load while the server dies: `kill -9`, or a cut of its disk's power, at random moments, each
//! followed by a start on the same folder and ports; or while its disk is full or fails for a moment.
//! Clients reconnect, repeat what was not acknowledged
//! under the same `client_msg_id`, and catch up; at the end the checker reads what they saw.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::power_cut::{Loss, PowerCutDisk};
use crate::process::{Failure, Profile, binary};
use crate::rows::{self, Rerun};
use crate::server::{Plan, Server};

/// Options of the verbs `kills` and `power-cuts`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Crashes {
    /// How often the server dies.
    #[arg(long, default_value_t = 20)]
    pub(crate) count: u32,
    /// Picks the moments, and what a power cut takes.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) rerun: Rerun,
}

/// The load that runs meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) users: u32,
    pub(crate) group_size: u32,
    pub(crate) messages_per_second: u32,
    pub(crate) seconds: u32,
}

/// The load of the verbs: half of the users in groups of 50.
const FULL: Load = Load { users: 1000, group_size: 50, messages_per_second: 500, seconds: 60 };

/// What is done to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL: the kernel keeps what was written.
    Kill,
    /// SIGKILL and a power cut: the disk keeps what was synced, and some of the rest by chance.
    PowerCut,
    /// The disk is full for two seconds; the server lives on.
    DiskFull,
    /// Every fsync fails for two seconds; the server lives on.
    FsyncFails,
}

/// How long a disk's fault lasts.
const DISK_FAULT: Duration = Duration::from_secs(2);

/// From one disk's fault to the next, on average: time to reopen the store and to answer what waited.
const DISK_FAULT_SPACING_SECONDS: u32 = 6;

/// The server's trace, in the folder of a run.
const TRACE: &str = "trace.ndjson";

/// The verb `load`: no crash at all.
pub(crate) fn load(rerun: &Rerun) -> Result<(), Failure> {
    Profile::Release.build("")?;
    rows::row("load 1000 users 60 s", rows::SERVER, rerun, || {
        let folder = scratch()?;
        run(Profile::Release, folder.path(), FULL, Fault::Kill, 0, 1)
    })
}

/// The verb `kills`.
pub(crate) fn kills(options: &Crashes) -> Result<(), Failure> {
    Profile::Release.build("")?;
    rows::row(&format!("{} kills seed {}", options.count, options.seed), rows::SERVER, &options.rerun, || {
        let folder = scratch()?;
        run(Profile::Release, folder.path(), FULL, Fault::Kill, options.count, options.seed)
    })
}

/// The verb `power-cuts`.
pub(crate) fn power_cuts(options: &Crashes) -> Result<(), Failure> {
    Profile::Release.build("")?;
    rows::row(
        &format!("{} power cuts seed {}", options.count, options.seed),
        rows::SERVER,
        &options.rerun,
        || {
            let folder = scratch()?;
            run(Profile::Release, folder.path(), FULL, Fault::PowerCut, options.count, options.seed)
        },
    )
}

/// The verb `disk-faults`.
pub(crate) fn disk_faults(options: &Crashes) -> Result<(), Failure> {
    Profile::Release.build("")?;
    for (name, fault) in [("full disks", Fault::DiskFull), ("failing fsyncs", Fault::FsyncFails)] {
        rows::row(
            &format!("{} {name} seed {}", options.count, options.seed),
            rows::SERVER,
            &options.rerun,
            || {
                let folder = scratch()?;
                let seconds = FULL.seconds.max((options.count + 1) * DISK_FAULT_SPACING_SECONDS);
                let load = Load { seconds, ..FULL };
                run(Profile::Release, folder.path(), load, fault, options.count, options.seed)
            },
        )?;
    }
    Ok(())
}

/// One run of a load with `count` faults, in a folder of its own.
///
/// # Errors
/// [`Failure::Broken`] if the checker found a violation; anything else is a run that proves nothing.
pub(crate) fn run(
    profile: Profile,
    folder: &Path,
    load: Load,
    fault: Fault,
    count: u32,
    seed: u64,
) -> Result<serde_json::Value, Failure> {
    let data = folder.join("data");
    std::fs::create_dir(&data).map_err(Failure::file(&data))?;
    let disk = match fault {
        Fault::Kill => None,
        _ => Some(PowerCutDisk::mount(&data).map_err(Failure::file(&data))?),
    };
    let mut plan = Plan::new(profile, &data)?;
    // Beside the disk that loses power: a trace is no part of what must survive.
    let trace = folder.join(TRACE);
    plan.flags.extend(["--diagnostics.trace".to_owned(), trace.display().to_string()]);
    let mut server = plan.start()?;
    let tokens = folder.join("tokens");
    plan.tokens(load.users, &tokens)?;
    let summary = folder.join("summary.json");
    let mut clients = start_load(profile, &server, load, folder, &tokens, &summary, seed, count == 0)?;

    let mut dice = Dice(seed);
    let mut restarts = Vec::new();
    // The first seconds make conversations; then the deaths are spread over the measured time.
    let (began, spacing) = (Instant::now(), Duration::from_secs(u64::from(load.seconds)) / (count + 1));
    for number in 1..=count {
        let moment = spacing.mul_f64(f64::from(number) - 0.25 + 0.5 * dice.fraction());
        let pause = moment.saturating_sub(began.elapsed());
        if !wait_while_running(&mut clients, pause)? {
            return Err(Failure::Unmet(format!("the load ended before fault {number} of {count}")));
        }
        match (fault, &disk) {
            (Fault::DiskFull, Some(disk)) => {
                disk.set_capacity(disk.used());
                wait_while_running(&mut clients, DISK_FAULT)?;
                disk.set_capacity(u64::MAX);
            }
            (Fault::FsyncFails, Some(disk)) => {
                disk.set_fsync_fails(true);
                wait_while_running(&mut clients, DISK_FAULT)?;
                disk.set_fsync_fails(false);
            }
            (_, disk) => {
                server.kill();
                if let Some(disk) = disk {
                    // Every other cut takes all that was not synced; between them chance decides.
                    disk.cut_power(if number % 2 == 1 {
                        Loss::Everything
                    } else {
                        Loss::Random(dice.next())
                    });
                }
                let began = Instant::now();
                server = plan.start()?;
                restarts.push(began.elapsed().as_secs_f64());
            }
        }
    }
    let status =
        clients.wait().map_err(|error| Failure::Start { command: "wait for loadgen".into(), error })?;
    let text = std::fs::read_to_string(&summary).unwrap_or_default();
    let figures: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let system_calls = if count == 0 { Some(system_calls(&server)?) } else { None };
    drop(server);
    if !status.success() {
        let kept = keep(folder)?;
        let text = format!(
            "loadgen ended with {status}; seed {seed}; its history and the server's log are in {}",
            kept.display()
        );
        // What the exit codes of loadgen mean is in its help: 1 is the checker's verdict.
        return Err(if status.code() == Some(1) { Failure::Broken(text) } else { Failure::Unmet(text) });
    }
    restarts.sort_by(f64::total_cmp);
    Ok(serde_json::json!({
        "faults": count,
        "seed": seed,
        "restart_seconds_median": restarts.get(restarts.len() / 2),
        "fsyncs": disk.as_ref().map(PowerCutDisk::fsyncs),
        "system_calls": system_calls,
        "load": figures,
    }))
}

/// What the gateway's cores asked of the kernel for each message that went in or out, over the life of the
/// server: its rings' enters and its wake-ups of router workers, which are all that a core calls on the way of
/// a message.
fn system_calls(server: &Server) -> Result<serde_json::Value, Failure> {
    let metrics = server.metrics()?;
    let of = |name: &str| metrics.get(&format!("ringway_gateway_{name}")).copied().unwrap_or_default();
    let messages = of("frames_in_total") + of("frames_out_total");
    let (enters, wakes) = (of("ring_enters_total"), of("worker_wakes_total"));
    Ok(serde_json::json!({
        "enters_a_message": enters / messages,
        "wakes_a_message": wakes / messages,
        "system_calls_a_message": (enters + wakes) / messages,
        "completions_a_pass": of("completions_a_pass_sum") / of("completions_a_pass_count"),
        "sends_a_frame_out": of("sends_total") / of("frames_out_total"),
        "frames": messages,
    }))
}

#[expect(clippy::too_many_arguments, reason = "a load is made of these")]
fn start_load(
    profile: Profile,
    server: &Server,
    load: Load,
    folder: &Path,
    tokens: &Path,
    summary: &Path,
    seed: u64,
    measures_server: bool,
) -> Result<Child, Failure> {
    let address = server.run.wss.as_deref().unwrap_or_default();
    let mut command = Command::new(binary(profile, "loadgen"));
    command.args(["run", "--insecure", "--url", &format!("wss://{address}/ws")]);
    command.args(["--users", &load.users.to_string()]);
    command.args(["--group-size", &load.group_size.to_string()]);
    command.args(["--rate", &load.messages_per_second.to_string()]);
    command.args(["--duration", &load.seconds.to_string()]);
    command.args(["--seed", &seed.to_string()]);
    command.arg("--tokens").arg(tokens);
    command.arg("--history").arg(folder.join("history.ndjson"));
    command.arg("--with-history").arg(folder.join(TRACE));
    command.arg("--hdr-log").arg(folder.join("latency.hlog"));
    command.arg("--summary").arg(summary);
    if measures_server {
        command.args(["--server-pid", &server.run.pid.to_string()]);
    }
    command.stdin(Stdio::null());
    command.spawn().map_err(|error| Failure::Start { command: "loadgen run".into(), error })
}

/// Waits; false if the load ended meanwhile.
fn wait_while_running(clients: &mut Child, pause: Duration) -> Result<bool, Failure> {
    let until = Instant::now() + pause;
    while Instant::now() < until {
        match clients.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Ok(Some(_)) => return Ok(false),
            Err(error) => return Err(Failure::Start { command: "wait for loadgen".into(), error }),
        }
    }
    Ok(true)
}

/// A folder for one run, gone when dropped.
pub(crate) fn scratch() -> Result<tempfile::TempDir, Failure> {
    tempfile::Builder::new()
        .prefix("ringway-")
        .tempdir()
        .map_err(|error| Failure::Start { command: "mkdtemp".into(), error })
}

/// Moves what a failed run left beside the build, so that it can be looked at.
fn keep(folder: &Path) -> Result<PathBuf, Failure> {
    let kept = binary(Profile::Dev, "")
        .join("../failed-runs")
        .join(folder.file_name().expect("a scratch folder has a name"));
    std::fs::create_dir_all(&kept).map_err(Failure::file(&kept))?;
    for name in ["history.ndjson", TRACE, "data.log", "summary.json"] {
        let _ = std::fs::copy(folder.join(name), kept.join(name));
    }
    Ok(kept)
}

/// SplitMix64 (Steele et al., OOPSLA 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
