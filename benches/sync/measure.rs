//! What a sync costs, by process: time on the wall, processor time, peak memory.

use std::{fs, time::Instant};

use chroma_sync::proto::Statistics;

/// Ticks of `/proc/PID/stat` a second, on every Linux.
const TICKS: f64 = 100.0;

/// What one sync cost.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    /// Seconds on the wall.
    pub seconds: f64,
    /// Processor seconds of the program that syncs, with its children.
    pub program: f64,
    /// Processor seconds of the Chroma server meanwhile.
    pub chroma: f64,
    /// Peak of the program's resident memory, in megabytes.
    pub peak_megabytes: f64,
}

/// Measures from now on.
pub struct Meter {
    program: Option<u32>,
    chroma: u32,
    start: Instant,
    program_before: f64,
    chroma_before: f64,
}

impl Meter {
    /// Begins to measure the process `program`, which is there already, whose peak starts anew. None measures the
    /// children that this process starts and waits for.
    pub fn start(program: Option<u32>) -> Self {
        let chroma = chroma_process();
        if let Some(program) = program {
            // Sets the peak to what is resident now (proc(5)).
            fs::write(format!("/proc/{program}/clear_refs"), "5").unwrap();
        }
        Self {
            program,
            chroma,
            start: Instant::now(),
            program_before: program.map_or_else(waited_for, processor_seconds),
            chroma_before: processor_seconds(chroma),
        }
    }

    pub fn stop(self) -> Cost {
        Cost {
            seconds: self.start.elapsed().as_secs_f64(),
            program: self.program.map_or_else(waited_for, processor_seconds) - self.program_before,
            chroma: processor_seconds(self.chroma) - self.chroma_before,
            peak_megabytes: self.program.map_or(0.0, peak_megabytes),
        }
    }
}

/// Processor seconds of a process and of its children that have ended.
fn processor_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name in brackets may hold spaces; after it come state, parent, and so on.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..15]
        .iter()
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    ticks as f64 / TICKS
}

/// Processor seconds of the children of this process that it has waited for.
fn waited_for() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[13..15]
        .iter()
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    ticks as f64 / TICKS
}

fn peak_megabytes(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

/// The Chroma server that the harness started: the child of this process that has a `--path`.
fn chroma_process() -> u32 {
    let own = std::process::id();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|process| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            let parent = stat
                .rsplit(')')
                .next()
                .and_then(|rest| rest.split_whitespace().nth(1));
            let command = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
            parent == Some(own.to_string().as_str()) && command.contains("--path")
        })
        .expect("the Chroma server runs")
}

/// One line of the profile: what each stage worked, in seconds. Stages overlap, so they add up to more than the
/// time on the wall.
pub fn profile(counts: &Statistics) -> String {
    let seconds = |duration: &Option<prost_types::Duration>| {
        duration.as_ref().map_or(0.0, |duration| {
            duration.seconds as f64 + f64::from(duration.nanos) * 1e-9
        })
    };
    format!(
        "fetch {:.1} s, chunk {:.1} s, embed {:.1} s, index {:.1} s",
        seconds(&counts.fetch_duration),
        seconds(&counts.chunk_duration),
        seconds(&counts.embed_duration),
        seconds(&counts.index_duration),
    )
}
