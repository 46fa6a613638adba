//! What large sources cost: a prefix of many objects that did not change, one very large object, one very long
//! document.
//!
//! `cargo bench --bench sources -- prefix`, `-- object` or `-- document` runs a part; without a part all run. Memory is the
//! peak of the optimised binary's resident memory beyond what it has when the model is loaded and nothing runs.
//! Embedding is left to a stand-in that answers at once, so that minutes and not hours pass; what is measured is
//! everything around the model. Figures are in `benches/README.md`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod counting;
mod embeddings;
#[path = "../../tests/it/harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
#[path = "../shared/processes.rs"]
#[allow(dead_code)]
mod processes;

use std::{
    io::Write,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use chroma_sync::proto;
use harness::{
    moto::{Moto, REGION},
    rest::RestClient,
    scenario::Scenario,
    service::Service,
    stores::Backend,
};
use lopdf::{Dictionary, Document, Object, Stream, dictionary};
use serde_json::{Value, json};

use self::{counting::CountingProxy, embeddings::Embeddings};

const OBJECTS: usize = 10_000;
const OBJECT_BYTES: usize = 200_000_000;
const PAGES: usize = 2_000;
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn main() {
    let part = std::env::args().skip(1).find(|text| text != "--bench");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
        if wanted("prefix") {
            prefix().await;
        }
        if wanted("object") {
            let text = text(OBJECT_BYTES);
            single("object", "in/large.txt", text).await;
        }
        if wanted("document") {
            single("document", "in/long.pdf", pdf(PAGES)).await;
        }
    });
    runtime.shutdown_background();
}

/// A bucket, a service that reads it through a proxy that counts, and a source.
struct Bucket {
    moto: Moto,
    proxy: CountingProxy,
    scenario: Scenario,
    service: Service,
    rest: RestClient,
    source: String,
    _embeddings: Embeddings,
}

impl Bucket {
    async fn new() -> Self {
        let moto = Moto::start().await;
        moto.create_bucket("docs").await;
        let proxy = CountingProxy::start(moto.url.clone()).await;
        let embeddings = Embeddings::start().await;
        let mut scenario = Scenario::new(Backend::Sqlite).await;
        for (option, value) in embeddings.options() {
            scenario.deployment = scenario.deployment.with(option, &value);
        }
        scenario.deployment = scenario.deployment.with("s3.endpoint_url", &proxy.url);
        let service = scenario.deployment.start();
        let rest = RestClient::new(&service, &scenario.admin);
        let body = json!({
            "database_name": scenario.database(), "embedding_model": embeddings::MODEL,
            "chunking": {"type": "lines", "max_lines": 1_000, "max_size_bytes": 4_096},
            "s3": {
                "bucket_name": "docs", "region": REGION, "collection_name": "objects", "path_prefix": "in/",
                "aws_access_key_id": "AKIATEST", "aws_secret_access_key": "any",
            },
        });
        let (status, created) = rest.post("/api/v1/sources", &body).await;
        assert_eq!(status, 201, "{created}");
        let source = created["source_id"].as_str().unwrap().to_owned();
        Self {
            moto,
            proxy,
            scenario,
            service,
            rest,
            source,
            _embeddings: embeddings,
        }
    }

    /// Runs an invocation to its end.
    async fn run(&self, body: &Value) -> proto::Invocation {
        let path = format!("/api/v1/sources/{}/invocations", self.source);
        let (status, created) = self.rest.post(&path, body).await;
        assert_eq!(status, 201, "{created}");
        let id = created["invocation_id"].as_str().unwrap();
        let messages = self.scenario.watch(&self.service, id).await;
        let ended = messages.last().unwrap().invocation.clone().unwrap();
        assert_eq!(ended.state(), proto::invocation::State::Complete, "{ended:?}");
        ended
    }
}

/// Syncs a prefix twice; the second time nothing has changed.
async fn prefix() {
    let bucket = Bucket::new().await;
    for n in 0..OBJECTS {
        let text = format!("Note {n} about river {}.\n", n % 97);
        bucket.moto.put("docs", &format!("in/{n:05}.txt"), text).await;
    }
    for round in ["first sync", "nothing changed"] {
        let (began, before) = (Instant::now(), resident(&bucket.service));
        let peak = Peak::watch(&bucket.service);
        bucket.proxy.reset();
        let ended = bucket.run(&json!({"sync_prefix": true})).await;
        let (seconds, (peak, _)) = (began.elapsed().as_secs_f64(), peak.end());
        let (listings, others) = bucket.proxy.counted();
        println!(
            "prefix of {OBJECTS} objects, {round}: {seconds:.1} s, {listings} listing calls, {others} other requests to the \
             bucket, {:?}, peak memory +{} MiB",
            ended.statistics,
            mebibytes(peak.saturating_sub(before)),
        );
    }
}

/// Syncs one object.
async fn single(what: &str, key: &str, content: Vec<u8>) {
    let bucket = Bucket::new().await;
    let size = content.len();
    bucket.moto.put("docs", key, content).await;
    let (began, before) = (Instant::now(), resident(&bucket.service));
    let peak = Peak::watch(&bucket.service);
    let ended = bucket.run(&json!({"object_key": key})).await;
    let (seconds, (peak, child)) = (began.elapsed().as_secs_f64(), peak.end());
    println!(
        "{what} of {size} bytes: {seconds:.1} s, {:?}, peak memory +{} MiB over {} MiB, conversion {} MiB (target: 512 MiB beyond the model)",
        ended.statistics,
        mebibytes(peak.saturating_sub(before)),
        mebibytes(before),
        mebibytes(child),
    );
}

fn resident(service: &Service) -> u64 {
    processes::resident_bytes(service.process_id())
}

fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

/// The highest memory of a process and of the largest of its children, looked at every few milliseconds.
struct Peak {
    looking: JoinHandle<(u64, u64)>,
    stop: Sender<()>,
}

impl Peak {
    fn watch(service: &Service) -> Self {
        let process = service.process_id();
        let (stop, stopped) = mpsc::channel();
        let looking = thread::spawn(move || {
            let (mut own, mut child) = (0, 0);
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                own = own.max(processes::resident_bytes(process));
                let of_children = children(process)
                    .into_iter()
                    .filter_map(processes::find_resident_bytes);
                child = of_children.fold(child, u64::max);
            }
            (own, child)
        });
        Self { looking, stop }
    }

    /// The highest memory of the process, and of a child, in bytes.
    fn end(self) -> (u64, u64) {
        drop(self.stop);
        self.looking.join().unwrap()
    }
}

/// The processes that a process started and that are still there.
fn children(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let lists = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// Lines of words, no two alike.
fn text(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 100);
    let mut n = 0_usize;
    while text.len() < bytes {
        writeln!(
            text,
            "Line {n}: the river {} is {} kilometres long and ends in lake {}.",
            n % 89,
            n * 7 % 5_003,
            n % 31
        )
        .unwrap();
        n += 1;
    }
    text
}

/// Pages of forty lines each.
fn pdf(pages: usize) -> Vec<u8> {
    let mut document = Document::with_version("1.5");
    let tree = document.new_object_id();
    let font =
        document.add_object(dictionary! {"Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Helvetica"});
    let resources = document.add_object(dictionary! {"Font" => dictionary! {"F1" => font}});
    let kids: Vec<Object> = (0..pages)
        .map(|page| {
            let mut content = String::from("BT /F1 11 Tf 14 TL 50 780 Td\n");
            for line in 0..40 {
                let n = page * 40 + line;
                content.push_str(&format!("(Page {page}, line {line}: the river {n} is {} km long.) Tj T*\n", n * 7 % 5_003));
            }
            content.push_str("ET");
            let content = document.add_object(Stream::new(Dictionary::new(), content.into_bytes()));
            let page = dictionary! {"Type" => "Page", "Parent" => tree, "Contents" => content, "Resources" => resources};
            document.add_object(page).into()
        })
        .collect();
    let count = i64::try_from(pages).unwrap();
    let root = dictionary! {
        "Type" => "Pages", "Kids" => kids, "Count" => count,
        "MediaBox" => vec![0.into(), 0.into(), 595.into(), 842.into()],
    };
    document.objects.insert(tree, Object::Dictionary(root));
    let catalog = document.add_object(dictionary! {"Type" => "Catalog", "Pages" => tree});
    document.trailer.set("Root", catalog);
    let mut bytes = Vec::new();
    document.save_to(&mut bytes).unwrap();
    bytes
}
