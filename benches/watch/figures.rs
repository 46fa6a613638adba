//! Figures of rounds, and the tables they are printed as.

use std::time::Duration;

use crate::fan_out::{Change, Opening};

/// What one round of changes took, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// From the start of the write to the message at the client.
    pub middle: f64,
    pub late: f64,
    pub last: f64,
    /// From the answer to the write to the message at the client; 0 for a message that was there before it.
    pub middle_after_answer: f64,
    pub late_after_answer: f64,
    /// Of the write itself, in the middle.
    pub write: f64,
    /// Of a write of something that nobody watches.
    pub write_alone: f64,
    /// Processor microseconds for each message delivered, the write's own included: of the server, and of
    /// this process.
    pub server: f64,
    pub client: f64,
    /// Where the commits are known.
    pub since_commit: Option<SinceCommit>,
}

/// From the commit of a change to the messages that tell it, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct SinceCommit {
    pub middle: f64,
    pub late: f64,
}

impl SinceCommit {
    /// The commit of a change is the last one that ended after the change was sent and before its first message came.
    /// `commits` are in their order.
    pub fn new(commits: &[Duration], changes: &[Change]) -> Self {
        let times = changes.iter().flat_map(|change| {
            let first = *change.arrived.iter().min().unwrap();
            let before = commits.partition_point(|commit| *commit <= first);
            let commit = commits[..before].last().copied().unwrap_or_default();
            assert!(
                commit >= change.started,
                "a message came before anything was synced"
            );
            change
                .arrived
                .iter()
                .map(move |arrived| (*arrived - commit).as_secs_f64() * 1e3)
        });
        let times = sorted(times);
        Self {
            middle: quantile(&times, 0.5),
            late: quantile(&times, 0.99),
        }
    }
}

/// When the messages of one round arrived, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    pub middle: f64,
    pub late: f64,
    pub last: f64,
    /// Processor microseconds of the server for each message delivered.
    pub server: f64,
}

impl Latency {
    pub fn new(times: impl Iterator<Item = f64>, server: f64) -> Self {
        let times = sorted(times);
        Self {
            middle: quantile(&times, 0.5),
            late: quantile(&times, 0.99),
            last: quantile(&times, 1.0),
            server,
        }
    }
}

impl Round {
    pub fn new(
        since_start: impl Iterator<Item = f64>,
        since_answer: impl Iterator<Item = f64>,
        writes: impl Iterator<Item = f64>,
        writes_alone: impl Iterator<Item = f64>,
        [server, client]: [f64; 2],
    ) -> Self {
        let (since_start, since_answer) = (sorted(since_start), sorted(since_answer));
        Self {
            middle: quantile(&since_start, 0.5),
            late: quantile(&since_start, 0.99),
            last: quantile(&since_start, 1.0),
            middle_after_answer: quantile(&since_answer, 0.5),
            late_after_answer: quantile(&since_answer, 0.99),
            write: quantile(&sorted(writes), 0.5),
            write_alone: quantile(&sorted(writes_alone), 0.5),
            server,
            client,
            since_commit: None,
        }
    }

    pub fn latency(&self) -> Latency {
        Latency {
            middle: self.middle,
            late: self.late,
            last: self.last,
            server: self.server,
        }
    }
}

/// All rounds of one subject.
pub struct Row {
    pub name: &'static str,
    pub opening: Opening,
    pub rounds: Vec<Round>,
}

impl Row {
    fn each(&self, part: fn(&Round) -> f64) -> Vec<f64> {
        sorted(self.rounds.iter().map(part))
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share) as usize;
    sorted[place.min(sorted.len() - 1)]
}

fn median(sorted: &[f64]) -> f64 {
    quantile(sorted, 0.5)
}

/// The median, and the least and the most of the rounds.
fn spread(sorted: &[f64]) -> String {
    let digits = if median(sorted) < 10.0 { 2 } else { 0 };
    let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
    format!(
        "{:.digits$} ({least:.digits$} to {most:.digits$})",
        median(sorted)
    )
}

/// Prints a table of one case, as Markdown.
pub fn print_table(heading: &str, rows: &[Row]) {
    println!("\n{heading}\n");
    println!(
        "| | p50 ms | p99 ms | after the answer: p50, p99 ms | write ms | write nobody watches ms | server us a message | client us a message | KiB a stream | opened in s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        println!(
            "| {} | {} | {} | {}, {} | {} | {} | {} | {} | {:.1} | {:.2} |",
            row.name,
            spread(&row.each(|round| round.middle)),
            spread(&row.each(|round| round.late)),
            spread(&row.each(|round| round.middle_after_answer)),
            spread(&row.each(|round| round.late_after_answer)),
            spread(&row.each(|round| round.write)),
            spread(&row.each(|round| round.write_alone)),
            spread(&row.each(|round| round.server)),
            spread(&row.each(|round| round.client)),
            row.opening.resident_a_stream / 1024.0,
            row.opening.seconds,
        );
    }
}

/// Prints a table of rounds of which only the arrivals are known, and compares each row with the last.
pub fn print_latencies(heading: &str, rows: &[(&str, Vec<Latency>)]) {
    println!("\n{heading}\n");
    println!("| | p50 ms | p99 ms | last ms | server us a message |");
    println!("|---|---|---|---|---|");
    for (name, rounds) in rows {
        let each = |part: fn(&Latency) -> f64| spread(&sorted(rounds.iter().map(part)));
        println!(
            "| {name} | {} | {} | {} | {} |",
            each(|round| round.middle),
            each(|round| round.late),
            each(|round| round.last),
            each(|round| round.server),
        );
    }
    println!();
    let ((other, others), ours) = rows.split_last().unwrap();
    for (name, rounds) in ours {
        let pairs = rounds.iter().zip(others);
        print_late_ratio(name, other, pairs.map(|(ours, other)| ours.late / other.late));
    }
}

fn print_late_ratio(ours: &str, other: &str, ratios: impl Iterator<Item = f64>) {
    let ratios = sorted(ratios);
    let what = format!("p99 of {ours} / p99 of {other}: {}", spread(&ratios));
    print_verdict(&what, median(&ratios), 1.0);
}

/// Compares the rows with the last of them, which is the one to be better than, round by round.
pub fn print_ratios(rows: &[Row]) {
    let (other, ours) = rows.split_last().unwrap();
    println!();
    for row in ours {
        let pairs = row.rounds.iter().zip(&other.rounds);
        let ratios = pairs.map(|(ours, other)| ours.late / other.late);
        print_late_ratio(row.name, other.name, ratios);
    }
}

/// Prints what came how long after its commit, where that is known, and compares the rows with the last of them.
pub fn print_since_commit(rows: &[Row]) {
    let each = |row: &Row, part: fn(&SinceCommit) -> f64| -> Option<Vec<f64>> {
        let parts = row
            .rounds
            .iter()
            .map(|round| round.since_commit.as_ref().map(part));
        parts.collect()
    };
    let late = |row: &Row| each(row, |since| since.late);
    let Some(others) = rows.last().and_then(late) else {
        println!("\nfrom the commit: not known, since perf cannot follow the syncs of this machine");
        return;
    };
    println!("\n| from the commit to the client | p50 ms | p99 ms |");
    println!("|---|---|---|");
    for row in rows {
        let (Some(middle), Some(late)) = (each(row, |since| since.middle), late(row)) else {
            continue;
        };
        let both = [middle, late].map(|times| spread(&sorted(times.into_iter())));
        println!("| {} | {} | {} |", row.name, both[0], both[1]);
    }
    println!();
    let (other, ours) = rows.split_last().unwrap();
    for row in ours {
        let Some(times) = late(row) else { continue };
        let ratios = times.iter().zip(&others).map(|(ours, other)| ours / other);
        print_late_ratio(
            &format!("{} from the commit", row.name),
            &format!("{} from the commit", other.name),
            ratios,
        );
    }
}

/// Says whether a figure keeps to what it is to stay under.
pub fn print_verdict(what: &str, figure: f64, bound: f64) {
    let verdict = if figure <= bound { "reached" } else { "MISSED" };
    println!("{what}, at most {bound}: {verdict}");
}
