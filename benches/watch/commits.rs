//! When commits were on the disk, as the kernel saw the calls that sync files.
//!
//! `perf` (Debian's `linux-perf`) follows `fsync` and `fdatasync` of the whole machine while the rounds are taken. Where it
//! is absent or may not do that, the times from a commit to its messages are left out: nothing else here needs it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// What is followed: when a sync ended is when its commit was durable.
const SYNCS: &str = "syscalls:sys_exit_fsync,syscalls:sys_exit_fdatasync";

/// `perf` at work.
pub struct Recorder {
    perf: Child,
    file: PathBuf,
}

/// A call that synced a file.
#[derive(Debug)]
pub struct Sync {
    /// The name of the thread that called, cut to 15 bytes.
    pub thread: String,
    pub process: u32,
    /// When it returned, by the clock that [`since_boot`] reads.
    pub ended: Duration,
}

impl Recorder {
    /// Begins to follow; none when `perf` cannot.
    pub async fn start(directory: &Path) -> Option<Self> {
        let file = directory.join("perf.data");
        let mut perf = Command::new("perf")
            .args(["record", "--quiet", "--all-cpus", "--clockid", "CLOCK_MONOTONIC"])
            .args(["--event", SYNCS, "--output"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        // It opens the file once it has the events; without the right to follow them it ends.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !file.exists() {
            if perf.try_wait().unwrap().is_some() || Instant::now() > deadline {
                perf.kill().ok();
                perf.wait().unwrap();
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(Self { perf, file })
    }

    /// Everything that was synced, in the order of the ends.
    pub fn stop(mut self) -> Vec<Sync> {
        let process = rustix::process::Pid::from_child(&self.perf);
        rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
        self.perf.wait().unwrap();
        let script = Command::new("perf")
            .args(["script", "--ns", "--fields", "comm,pid,time", "--input"])
            .arg(&self.file)
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8(script.stdout).unwrap();
        let mut syncs: Vec<Sync> = text.lines().map(read).collect();
        syncs.sort_by_key(|sync| sync.ended);
        syncs
    }
}

/// `name of the thread   1234 5678.123456789:`
fn read(line: &str) -> Sync {
    let mut words = line.trim().trim_end_matches(':').rsplitn(3, char::is_whitespace);
    let time = words.next().unwrap();
    let process = words.next().unwrap().parse().unwrap();
    let thread = words.next().unwrap().trim().to_owned();
    let (seconds, nanoseconds) = time.split_once('.').unwrap();
    Sync {
        thread,
        process,
        ended: Duration::new(seconds.parse().unwrap(), nanoseconds.parse().unwrap()),
    }
}

/// The clock that `perf` was told to use.
pub fn since_boot() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes to the one place that it is given.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}
