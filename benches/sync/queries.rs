//! How long a query waits while a large sync runs, beside how long it takes when nothing does.
//!
//! `cargo bench --bench queries`; `QUERIES` sets how many are asked of each kind (200). One caller asks one question
//! after the other: for its vector alone (`EmbeddingService.Embed`), and for its hits (`SearchService.Search`, with a real
//! Chroma server that the sync writes to). Target: at most twice the time. How busy the embedding threads are kept
//! while documents wait is printed as well. Figures are in `benches/README.md`.

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
#[path = "../shared/processes.rs"]
#[allow(dead_code)]
mod processes;
#[allow(dead_code)]
mod repository;

use std::time::{Duration, Instant};

use chroma_sync::proto::{
    self, EmbedRequest, EmbeddingPurpose, SearchRequest, embed_request, invocation::State,
    search_request::Place,
};
use harness::{
    git_server::Repository,
    scenario::{Scenario, invocation_request},
    service::Service,
    stores::Backend,
};

/// Files of the repository that is synced meanwhile; enough that its sync outlasts the questions.
const FILES: usize = 6_000;
const QUESTIONS: [&str; 4] = [
    "how is a lease renewed?",
    "what happens to a document that is gone from the source?",
    "where are secrets sealed, and with which key?",
    "retry after the server said too many requests",
];

fn main() {
    tokio::runtime::Runtime::new().unwrap().block_on(run());
}

async fn run() {
    let count = std::env::var("QUERIES").map_or(200, |count| count.parse().unwrap());
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario
        .deployment
        .with("embedding.threads", "0")
        .with("log.filter", "warn");
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository::commit(&repository, "main", &repository::files(FILES), 0);
    let small = Repository::create(&scenario.repositories(), "owner/small");
    repository::commit(&small, "main", &repository::files(200), 0);
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/small").await;
    let ended = scenario.run(&service, &source, "searched", None).await;
    assert_eq!(ended.state(), State::Complete, "{ended:?}");
    let caller = Caller {
        scenario: &scenario,
        service: &service,
    };

    caller.ask(20).await;
    let idle = caller.ask(count).await;
    idle.print("nothing else runs");
    let source = scenario.create_source(&service, "owner/name").await;
    let mut invocations = service.invocations(&scenario.admin);
    let request = invocation_request(&source, "large", None);
    let created = invocations.create_invocation(request).await.unwrap().into_inner();
    embeds(&scenario, &service, &created.id).await;
    let (before, start) = (processes::processor_time(service.process_id()), Instant::now());
    let busy = caller.ask(count).await;
    let used = processes::processor_time(service.process_id()) - before;
    let seconds = start.elapsed().as_secs_f64();
    let now = invocations
        .get_invocation(proto::GetInvocationRequest {
            invocation_id: created.id,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        now.state(),
        State::Processing,
        "the sync ended before the questions"
    );
    busy.print("a sync runs");
    println!(
        "ratios: embed p50 {:.2}, p99 {:.2}; search p50 {:.2}, p99 {:.2} (target: at most 2)",
        ratio(&busy.embed, &idle.embed, 50),
        ratio(&busy.embed, &idle.embed, 99),
        ratio(&busy.search, &idle.search, 50),
        ratio(&busy.search, &idle.search, 99),
    );
    println!(
        "the service used {:.2} cores meanwhile",
        used.as_secs_f64() / seconds
    );
}

/// Waits until the sync embeds.
async fn embeds(scenario: &Scenario, service: &Service, id: &str) {
    let mut messages = scenario.open_watch(service, id, None).await.unwrap();
    while let Some(message) = messages.message().await.unwrap() {
        let counts = message.invocation.unwrap().statistics;
        if counts.is_some_and(|counts| counts.embeddings_computed > 0) {
            return;
        }
    }
    panic!("the sync ended before it embedded");
}

/// Times of the questions of each kind, sorted.
struct Times {
    embed: Vec<Duration>,
    search: Vec<Duration>,
}

impl Times {
    fn print(&self, when: &str) {
        let of = |times: &[Duration], percent| at(times, percent).as_secs_f64() * 1e3;
        println!(
            "{when:<18} embed p50 {:.1} ms, p99 {:.1} ms; search p50 {:.1} ms, p99 {:.1} ms",
            of(&self.embed, 50),
            of(&self.embed, 99),
            of(&self.search, 50),
            of(&self.search, 99),
        );
    }
}

fn at(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() - 1) * percent / 100]
}

fn ratio(busy: &[Duration], idle: &[Duration], percent: usize) -> f64 {
    at(busy, percent).as_secs_f64() / at(idle, percent).as_secs_f64()
}

struct Caller<'a> {
    scenario: &'a Scenario,
    service: &'a Service,
}

impl Caller<'_> {
    async fn ask(&self, count: usize) -> Times {
        let token = &self.scenario.admin;
        let mut embedding = self.service.embeddings(token);
        let mut search = self.service.searches(token);
        let (mut embed, mut hits) = (Vec::new(), Vec::new());
        for n in 0..count {
            let question = format!("{} ({n})", QUESTIONS[n % QUESTIONS.len()]);
            let start = Instant::now();
            let request = EmbedRequest {
                texts: vec![question.clone()],
                purpose: EmbeddingPurpose::Query.into(),
                settings: Some(embed_request::Settings::Model(
                    chroma_sync::domain::embedding::MINILM.to_owned(),
                )),
            };
            embedding.embed(request).await.unwrap();
            embed.push(start.elapsed());
            let start = Instant::now();
            let request = SearchRequest {
                query: question,
                place: Some(Place::DatabaseName(self.scenario.database())),
                collection_name: "searched".to_owned(),
                limit: 10,
                ..Default::default()
            };
            search.search(request).await.unwrap();
            hits.push(start.elapsed());
        }
        embed.sort_unstable();
        hits.sort_unstable();
        Times { embed, search: hits }
    }
}
