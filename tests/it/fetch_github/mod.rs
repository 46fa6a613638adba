//! Fetching repositories from real git: over `file://` and over smart HTTP.

mod limits;
mod network;
mod references;

use std::collections::BTreeMap;

use chroma_sync::{
    domain::{document::SkipRule, globs::Globs, invocation::GitReference, source::RepositoryName},
    fetch::{
        Entry, FetchError, GithubOptions, Listed, Snapshot, fetch_repository,
        rules::{self, Examined},
    },
};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::harness::git_server::{Change, GitServer, Repository};

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
const LIMIT: u64 = 1 << 20;

/// A git root, a directory for fetches, and options that join them.
struct Bench {
    root: tempfile::TempDir,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            scratch: tempfile::tempdir().unwrap(),
        }
    }

    fn repository(&self) -> Repository {
        Repository::create(self.root.path(), "octo/hello")
    }

    fn options(&self, git_url: &str) -> GithubOptions {
        GithubOptions::new(git_url.parse().unwrap(), self.scratch.path().to_owned())
    }

    fn file_options(&self) -> GithubOptions {
        self.options(Url::from_directory_path(self.root.path()).unwrap().as_str())
    }

    fn leftovers(&self) -> usize {
        std::fs::read_dir(self.scratch.path()).unwrap().count()
    }
}

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse("repository", text).unwrap()
}

fn branch(text: &str) -> GitReference {
    GitReference::branch("branch", text).unwrap()
}

fn sha(text: &str) -> GitReference {
    GitReference::sha("sha", text).unwrap()
}

async fn fetch(options: &GithubOptions, reference: Option<GitReference>) -> Result<Snapshot, FetchError> {
    fetch_repository(
        options,
        &name("octo/hello"),
        reference.as_ref(),
        None,
        CancellationToken::new(),
    )
    .await
}

/// What becomes of each file: its text, or the rule.
fn contents(snapshot: &Snapshot) -> BTreeMap<String, Result<String, SkipRule>> {
    let mut reader = snapshot.reader();
    let load = |entry: &Entry| {
        let content = match entry.decision {
            Listed::Load => match rules::examine(reader.read(entry).unwrap()) {
                Examined::Text(text) => Ok(text),
                Examined::Skipped(rule) => Err(rule),
            },
            Listed::Skip(rule) => Err(rule),
            Listed::Unchanged | Listed::Failed(_) => panic!("a repository lists no such file: {entry:?}"),
        };
        (entry.document_key.clone(), content)
    };
    snapshot.entries().iter().map(load).collect()
}

fn one_text(key: &str, text: &str) -> BTreeMap<String, Result<String, SkipRule>> {
    BTreeMap::from([(key.to_owned(), Ok(text.to_owned()))])
}

/// A file for each rule, and some that no rule leaves out.
fn every_kind_of_file() -> Vec<Change> {
    let limit = usize::try_from(LIMIT).unwrap();
    vec![
        Change::file("README.md", "# Hello\n"),
        Change::file("src/deep/er/lib.rs", "fn main() {}\n"),
        Change::file("src/ünï \"quoted\" \n.txt", "grüße\n"),
        Change::file("just-fits.txt", "x".repeat(limit)),
        Change::file("too-large.txt", "y".repeat(limit + 1)),
        Change::file("image.png", b"\x89PNG\0\0"),
        Change::file("latin1.txt", b"gr\xfc\xdfe\n"),
        Change::file("empty.txt", ""),
        Change::file("blank.txt", " \n\n"),
        Change::file("model.bin", POINTER),
        Change::file(b"caf\xe9.txt", "text under a name that is not\n"),
        Change::Link(b"link".to_vec(), b"/etc/passwd".to_vec()),
        Change::Submodule(b"vendor/lib".to_vec(), "1".repeat(40)),
    ]
}

fn assert_every_rule(snapshot: &Snapshot) {
    let mut contents = contents(snapshot);
    let odd = contents
        .keys()
        .find(|key| key.starts_with("caf\u{fffd}.txt#"))
        .unwrap()
        .clone();
    assert_eq!(contents.remove(&odd), Some(Err(SkipRule::InvalidKey)));
    let expected = [
        ("README.md", Ok("# Hello\n".to_owned())),
        ("src/deep/er/lib.rs", Ok("fn main() {}\n".to_owned())),
        ("src/ünï \"quoted\" \n.txt", Ok("grüße\n".to_owned())),
        ("just-fits.txt", Ok("x".repeat(usize::try_from(LIMIT).unwrap()))),
        ("too-large.txt", Err(SkipRule::TooLarge)),
        ("image.png", Err(SkipRule::Binary)),
        ("latin1.txt", Err(SkipRule::NotUtf8)),
        ("empty.txt", Err(SkipRule::Empty)),
        ("blank.txt", Err(SkipRule::Empty)),
        ("model.bin", Err(SkipRule::LfsPointer)),
        ("link", Err(SkipRule::Symlink)),
        ("vendor/lib", Err(SkipRule::Submodule)),
    ];
    assert_eq!(
        contents,
        expected.map(|(key, outcome)| (key.to_owned(), outcome)).into()
    );
}

/// Text that does not compress, the same each time.
fn random_text(length: usize) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = std::iter::from_fn(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from_u32(u32::try_from(state % 94).unwrap() + 33)
    });
    next.take(length).collect()
}

#[tokio::test]
async fn every_file_of_a_commit_is_read_or_left_out_by_its_rule_over_file_urls() {
    let bench = Bench::new();
    let commit = bench.repository().commit("main", &every_kind_of_file());

    let snapshot = fetch(&bench.file_options(), None).await.unwrap();

    assert_eq!(snapshot.commit(), commit);
    assert_every_rule(&snapshot);
}

#[tokio::test]
async fn every_file_of_a_commit_is_read_or_left_out_by_its_rule_over_http() {
    let bench = Bench::new();
    let commit = bench.repository().commit("main", &every_kind_of_file());
    let server = GitServer::start(bench.root.path()).await;

    let snapshot = fetch(&bench.options(&server.url()), None).await.unwrap();

    assert_eq!(snapshot.commit(), commit);
    assert_every_rule(&snapshot);
    let authorizations: Vec<_> = server
        .received()
        .into_iter()
        .filter_map(|request| request.authorization)
        .collect();
    assert_eq!(authorizations, Vec::<String>::new());
}

#[tokio::test]
async fn entries_are_sorted_and_carry_blob_ids_sizes_and_early_decisions() {
    let bench = Bench::new();
    let repository = bench.repository();
    repository.commit("main", &every_kind_of_file());
    let server = GitServer::start(bench.root.path()).await;

    let snapshot = fetch(&bench.options(&server.url()), None).await.unwrap();

    let entries = snapshot.entries();
    assert!(entries.is_sorted_by(|one, other| one.document_key < other.document_key));
    let find = |key: &str| entries.iter().find(|entry| entry.document_key == key).unwrap();
    let readme = find("README.md");
    assert_eq!(readme.version_key, repository.id("main:README.md"));
    assert_eq!(
        (readme.size_bytes, readme.decision.clone()),
        (Some(8), Listed::Load)
    );
    let large = find("too-large.txt");
    assert_eq!(
        (large.size_bytes, large.decision.clone()),
        (Some(LIMIT + 1), Listed::Skip(SkipRule::TooLarge))
    );
    let submodule = find("vendor/lib");
    assert_eq!(submodule.version_key, "1".repeat(40));
    assert_eq!(
        (submodule.size_bytes, submodule.decision.clone()),
        (None, Listed::Skip(SkipRule::Submodule))
    );
    assert_eq!(find("link").decision, Listed::Skip(SkipRule::Symlink));
}

#[tokio::test]
async fn globs_decide_which_files_are_listed_at_all() {
    let bench = Bench::new();
    bench.repository().commit("main", &every_kind_of_file());
    let globs = Globs::parse("include_globs", &["*.rs".to_owned(), "too-*".to_owned()]).unwrap();

    let options = bench.file_options();
    let cancel = CancellationToken::new();
    let snapshot = fetch_repository(&options, &name("octo/hello"), None, Some(&globs), cancel)
        .await
        .unwrap();

    let keys: Vec<&str> = snapshot
        .entries()
        .iter()
        .map(|entry| entry.document_key.as_str())
        .collect();
    assert_eq!(keys, ["src/deep/er/lib.rs", "too-large.txt"]);
}
