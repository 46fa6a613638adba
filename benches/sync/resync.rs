//! What a re-sync costs beside the first sync, with 0 %, 1 % and 10 % of the files changed: into a new collection and
//! into the one that is there, and by the embedding cache alone. One run against one Chroma server.
//!
//! `cargo bench --bench resync`; `RESYNC_FILES` sets how many files the repository has (3,000). Figures are in
//! `benches/README.md`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "../../tests/it/harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
mod measure;
mod repository;

use chroma_sync::proto::{self, Statistics, github_input::Reference, invocation::State};
use harness::{
    git_server::Repository,
    scenario::{Scenario, invocation_request},
    service::Service,
    stores::Backend,
};
use measure::{Cost, Meter};

/// Files of the repository, unless `RESYNC_FILES` says otherwise.
const FILES: usize = 3_000;

fn main() {
    tokio::runtime::Runtime::new().unwrap().block_on(run());
}

async fn run() {
    let count = std::env::var("RESYNC_FILES").map_or(FILES, |count| count.parse().unwrap());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!("load of the machine before: {}", load.trim());
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario
        .deployment
        .with("embedding.threads", "0")
        .with("log.filter", "warn");
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    let files = repository::files(count);
    for (branch, percent) in [("main", 0), ("changed-1", 1), ("changed-10", 10)] {
        repository::commit(&repository, branch, &files, percent);
    }
    let bytes: usize = files.iter().map(|(_, text)| text.len()).sum();
    println!("{count} files, {:.1} MB", bytes as f64 / 1e6);

    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    println!(
        "\n{:<34} {:>8} {:>9} {:>9} {:>8} {:>8} {:>8} {:>9} {:>7} {:>6}",
        "", "wall s", "CPU s", "Chroma s", "peak MB", "records", "computed", "cached", "copied", "read"
    );
    let bench = Bench {
        scenario: &scenario,
        service: &service,
    };
    let first = bench.sync("first sync", &source, "main", "c-main", false).await;
    println!("    {}", measure::profile(&first.1));
    let mut ratios = Vec::new();
    for (percent, branch) in [(0, "main"), (1, "changed-1"), (10, "changed-10")] {
        let name = format!("{percent} % changed, new collection");
        let collection = format!("c-new-{percent}");
        let (cost, _) = bench.sync(&name, &source, branch, &collection, false).await;
        ratios.push((name, cost));
    }
    for (percent, branch) in [(0, "main"), (1, "changed-1"), (10, "changed-10")] {
        let name = format!("{percent} % changed, same collection");
        let (cost, _) = bench.sync(&name, &source, branch, "c-main", true).await;
        ratios.push((name, cost));
    }
    // No collection of another source gives records away, so all of it is cut anew and found in the cache.
    let mut request = scenario.source_request("owner/name");
    if let Some(proto::create_source_request::Settings::Github(github)) = &mut request.settings {
        github.include_globs = vec!["directory-*/*".to_owned()];
    }
    let other = service.sources(&scenario.admin).create_source(request).await;
    let other = other.unwrap().into_inner().id;
    let name = "0 % changed, by the cache alone";
    let (cost, counts) = bench.sync(name, &other, "main", "c-cached", false).await;
    assert_eq!(counts.embeddings_computed, 0);
    ratios.push((name.to_owned(), cost));

    println!(
        "\n{:<34} {:>12} {:>12} {:>12}",
        "of the first sync", "wall", "CPU", "Chroma"
    );
    for (name, cost) in ratios {
        println!(
            "{name:<34} {:>12.3} {:>12.3} {:>12.3}",
            cost.seconds / first.0.seconds,
            cost.program / first.0.program,
            cost.chroma / first.0.chroma,
        );
    }
}

struct Bench<'a> {
    scenario: &'a Scenario,
    service: &'a Service,
}

impl Bench<'_> {
    async fn sync(
        &self,
        name: &str,
        source: &str,
        branch: &str,
        collection: &str,
        update: bool,
    ) -> (Cost, Statistics) {
        let reference = Some(Reference::Branch(branch.to_owned()));
        let mut request = invocation_request(source, collection, reference);
        request.update_collection = update;
        let meter = Meter::start(Some(self.service.process_id()));
        let mut invocations = self.service.invocations(&self.scenario.admin);
        let created = invocations.create_invocation(request).await.unwrap().into_inner();
        let messages = self.scenario.watch(self.service, &created.id).await;
        let cost = meter.stop();
        let ended = messages.last().unwrap().invocation.clone().unwrap();
        assert_eq!(ended.state(), State::Complete, "{name}: {:?}", ended.failure);
        let counts = ended.statistics.unwrap();
        println!(
            "{name:<34} {:>8.2} {:>9.2} {:>9.2} {:>8.0} {:>8} {:>8} {:>9} {:>7} {:>6}",
            cost.seconds,
            cost.program,
            cost.chroma,
            cost.peak_megabytes,
            counts.chunks_indexed,
            counts.embeddings_computed,
            counts.embeddings_cached,
            counts.documents_copied,
            counts.documents_indexed - counts.documents_copied,
        );
        (cost, counts)
    }
}
