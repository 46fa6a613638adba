//! Calls in a closed loop, and what they cost.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::processor_time::own_seconds;

/// How long a measurement runs before it counts.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long it counts.
const MEASURED: Duration = Duration::from_millis(1_500);

/// Processes whose processor time belongs to the server's side of a call.
pub struct Processes(pub Vec<u32>);

impl Processes {
    /// Processor seconds so far, of the processes and their children.
    fn processor_seconds(&self) -> f64 {
        let tick = 1.0 / 100.0;
        let mut ticks = 0;
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            // The name in brackets may hold spaces; after it come state, parent, and so on.
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            let parent: u32 = fields[1].parse().unwrap();
            if self.0.contains(&id) || self.0.contains(&parent) {
                ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
            }
        }
        ticks as f64 * tick
    }
}

/// One measurement.
#[derive(Clone, Copy)]
pub struct Figure {
    /// Calls a second.
    pub rate: f64,
    /// Processor microseconds a call, of the server's processes.
    pub server: f64,
    /// Processor microseconds a call, of this process.
    pub client: f64,
}

/// Keeps `tasks` calls under way and counts them.
pub async fn drive<C, F>(tasks: usize, server: &Processes, call: C) -> Figure
where
    C: Fn(usize) -> F + Send + Sync + Clone + 'static,
    F: Future<Output = ()> + Send,
{
    let start = Instant::now();
    let (from, until) = (start + WARM_UP, start + WARM_UP + MEASURED);
    let callers: Vec<_> = (0..tasks)
        .map(|task| {
            let call = call.clone();
            tokio::spawn(async move {
                let mut counted = 0_u64;
                loop {
                    call(task).await;
                    let now = Instant::now();
                    if now >= until {
                        return counted;
                    }
                    counted += u64::from(now >= from);
                }
            })
        })
        .collect();
    tokio::time::sleep_until(from.into()).await;
    let (server_before, client_before) = (server.processor_seconds(), own_seconds());
    tokio::time::sleep_until(until.into()).await;
    let (server_after, client_after) = (server.processor_seconds(), own_seconds());
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.unwrap();
    }
    let calls = calls as f64;
    Figure {
        rate: calls / MEASURED.as_secs_f64(),
        server: (server_after - server_before) * 1e6 / calls,
        client: (client_after - client_before) * 1e6 / calls,
    }
}

/// Figures of one subject over all rounds.
pub struct Row {
    pub name: String,
    pub figures: Vec<Figure>,
}

impl Row {
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            name,
            figures: Vec::new(),
        }
    }

    pub fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    pub fn rate(&self) -> f64 {
        median(self.figures.iter().map(|figure| figure.rate))
    }
}

/// Prints a table of medians.
pub fn print_table(heading: &str, rows: &[&Row]) {
    println!("\n{heading}");
    println!(
        "  {:<58} {:>9} {:>12} {:>12}",
        "", "calls/s", "server us", "client us"
    );
    for row in rows {
        let each = |part: fn(&Figure) -> f64| median(row.figures.iter().map(part));
        println!(
            "  {:<58} {:>9.0} {:>12.0} {:>12.0}",
            row.name,
            row.rate(),
            each(|figure| figure.server),
            each(|figure| figure.client),
        );
    }
}

/// Prints the ratio of what the calls cost in processor time on both sides, which other load on the machine
/// disturbs less than it does the rates.
pub fn print_processor_ratio(what: &str, over: &Row, under: &Row) {
    let cost = |row: &Row| median(row.figures.iter().map(|figure| figure.server + figure.client));
    println!("  {what:<58} {:>9.2}", cost(under) / cost(over));
}

/// Prints the ratio of two rates, round by round, with the target it is to reach.
pub fn print_ratio(what: &str, over: &Row, under: &Row, target: f64) {
    let pairs = over.figures.iter().zip(&under.figures);
    let ratios: Vec<f64> = pairs.map(|(over, under)| over.rate / under.rate).collect();
    let middle = median(ratios.iter().copied());
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    let verdict = if middle >= target { "reached" } else { "MISSED" };
    println!("  {what:<58} {middle:>9.2} ({least:.2} to {most:.2}), at least {target}: {verdict}");
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
