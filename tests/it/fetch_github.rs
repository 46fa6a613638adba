//! Fetching repositories from real git: over `file://` and over smart HTTP.

use std::{collections::BTreeMap, time::Duration};

use chroma_sync::{
    domain::{document::SkipRule, globs::Globs, invocation::GitReference, source::RepositoryName},
    fetch::{Egress, Entry, FetchError, GithubOptions, Listed, Loaded, Snapshot, fetch_repository},
    secret::Secret,
};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::harness::git_server::{Change, Fault, GitServer, Repository};

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
    let load = |entry: &Entry| match reader.load(entry).unwrap() {
        Loaded::Text(text) => (entry.document_key.clone(), Ok(text)),
        Loaded::Skipped(rule) => (entry.document_key.clone(), Err(rule)),
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
    assert_eq!((readme.size_bytes, readme.decision), (Some(8), Listed::Load));
    let large = find("too-large.txt");
    assert_eq!(
        (large.size_bytes, large.decision),
        (Some(LIMIT + 1), Listed::Skip(SkipRule::TooLarge))
    );
    let submodule = find("vendor/lib");
    assert_eq!(submodule.version_key, "1".repeat(40));
    assert_eq!(
        (submodule.size_bytes, submodule.decision),
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

#[tokio::test]
async fn branches_tags_and_commits_lead_to_their_own_files() {
    let bench = Bench::new();
    let repository = bench.repository();
    let first = repository.commit("main", &[Change::file("a", "first")]);
    let second = repository.commit("main", &[Change::file("a", "second")]);
    let side = repository.commit("feature/x", &[Change::file("a", "side")]);
    repository.run(&["tag", "light", &first], b"");
    repository.annotated_tag("heavy", &first);
    repository.annotated_tag("heavier", "heavy");
    repository.run(&["update-ref", "refs/tags/feature/x", &first], b"");
    repository.run(&["update-ref", "refs/heads/feature/xy", &second], b"");
    let heavy = repository.id("refs/tags/heavy");
    let server = GitServer::start(bench.root.path()).await;

    for options in [bench.file_options(), bench.options(&server.url())] {
        for (reference, commit, text) in [
            (None, &second, "second"),
            (Some(branch("main")), &second, "second"),
            (Some(branch("feature/x")), &side, "side"),
            (Some(branch("light")), &first, "first"),
            (Some(branch("heavy")), &first, "first"),
            (Some(branch("heavier")), &first, "first"),
            (Some(sha(&first)), &first, "first"),
            (Some(sha(&second)), &second, "second"),
            (Some(sha(&heavy)), &first, "first"),
        ] {
            let snapshot = fetch(&options, reference.clone()).await.unwrap();
            assert_eq!(snapshot.commit(), commit, "{reference:?}");
            assert_eq!(contents(&snapshot), one_text("a", text), "{reference:?}");
        }
    }
}

#[tokio::test]
async fn the_default_branch_is_the_one_that_head_names() {
    let bench = Bench::new();
    let repository = bench.repository();
    repository.commit("main", &[Change::file("a", "main")]);
    repository.commit("trunk", &[Change::file("a", "trunk")]);
    repository.run(&["symbolic-ref", "HEAD", "refs/heads/trunk"], b"");

    let snapshot = fetch(&bench.file_options(), None).await.unwrap();

    assert_eq!(contents(&snapshot), one_text("a", "trunk"));
}

#[tokio::test]
async fn a_host_that_speaks_the_oldest_protocol_alone_is_fetched_from() {
    let bench = Bench::new();
    let repository = bench.repository();
    let first = repository.commit("main", &[Change::file("a", "first")]);
    repository.commit("main", &[Change::file("a", "second")]);
    repository.run(&["tag", "v1", &first], b"");
    repository.configure("uploadpack.allowReachableSHA1InWant", "true");
    let server = GitServer::start(bench.root.path()).await;
    server.hide_protocol_version();
    let options = bench.options(&server.url());

    for (reference, text) in [
        (None, "second"),
        (Some(branch("v1")), "first"),
        (Some(sha(&first)), "first"),
    ] {
        let snapshot = fetch(&options, reference.clone()).await.unwrap();
        assert_eq!(contents(&snapshot), one_text("a", text), "{reference:?}");
    }
}

#[tokio::test]
async fn what_does_not_exist_is_named_and_not_tried_again() {
    let bench = Bench::new();
    let repository = bench.repository();
    repository.commit("main", &[Change::file("a", "text")]);
    let blob = repository.id("main:a");
    Repository::create(bench.root.path(), "octo/empty");
    std::fs::create_dir_all(bench.root.path().join("octo/other.git")).unwrap();
    let server = GitServer::start(bench.root.path()).await;
    let unknown = "d".repeat(40);

    for options in [bench.file_options(), bench.options(&server.url())] {
        for (repository, reference, reason, named) in [
            ("octo/absent", None, "REPOSITORY_NOT_FOUND", "octo/absent"),
            ("octo/other", None, "REPOSITORY_NOT_FOUND", "octo/other"),
            ("octo/empty", None, "REPOSITORY_EMPTY", "octo/empty"),
            (
                "octo/hello",
                Some(branch("absent")),
                "REFERENCE_NOT_FOUND",
                "branch or tag 'absent'",
            ),
            (
                "octo/hello",
                Some(branch("mai")),
                "REFERENCE_NOT_FOUND",
                "branch or tag 'mai'",
            ),
            (
                "octo/hello",
                Some(sha(&unknown)),
                "REFERENCE_NOT_FOUND",
                unknown.as_str(),
            ),
            (
                "octo/hello",
                Some(sha(&blob)),
                "REFERENCE_NOT_FOUND",
                blob.as_str(),
            ),
        ] {
            let cancel = CancellationToken::new();
            let error = fetch_repository(&options, &name(repository), reference.as_ref(), None, cancel)
                .await
                .unwrap_err();
            assert_eq!(error.reason(), reason, "{repository} {reference:?}: {error:?}");
            assert!(error.to_string().contains(named), "{error}");
            assert!(error.to_string().contains(repository), "{error}");
            assert!(!error.is_transient(), "{error}");
            assert_eq!(error.failure().reason, reason);
        }
    }
    assert_eq!(bench.leftovers(), 0);
}

#[tokio::test]
async fn a_private_repository_needs_the_right_token() {
    let bench = Bench::new();
    bench.repository().commit("main", &[Change::file("a", "secret")]);
    let server = GitServer::start_with_token(bench.root.path(), Some("s3cret")).await;
    let mut options = bench.options(&server.url());

    let error = fetch(&options, None).await.unwrap_err();
    assert_eq!(error.reason(), "AUTHENTICATION_FAILED");
    assert!(
        error
            .to_string()
            .contains("octo/hello does not exist or is private"),
        "{error}"
    );
    assert!(!error.is_transient());

    options.token = Some(Secret::new("wrong"));
    let error = fetch(&options, None).await.unwrap_err();
    assert_eq!(error.reason(), "AUTHENTICATION_FAILED");
    assert!(
        error
            .to_string()
            .contains("refused access to repository octo/hello"),
        "{error}"
    );
    assert!(!format!("{error:?}{options:?}").contains("wrong"));

    options.token = Some(Secret::new("s3cret"));
    let snapshot = fetch(&options, Some(branch("main"))).await.unwrap();
    assert_eq!(contents(&snapshot), one_text("a", "secret"));
}

#[tokio::test]
async fn answers_that_pass_are_transient_and_say_when_to_come_back() {
    let bench = Bench::new();
    bench.repository().commit("main", &[Change::file("a", "text")]);
    let server = GitServer::start(bench.root.path()).await;
    let options = bench.options(&server.url());
    let wait = || Some(("retry-after", "7".to_owned()));

    for (fault, reason, transient, retry_after) in [
        (Fault::Status(503, None), "NETWORK_ERROR", true, None),
        (Fault::Status(503, wait()), "NETWORK_ERROR", true, Some(7)),
        (Fault::Status(500, None), "NETWORK_ERROR", true, None),
        (Fault::Status(429, wait()), "NETWORK_ERROR", true, Some(7)),
        (Fault::Status(403, wait()), "NETWORK_ERROR", true, Some(7)),
        (Fault::Status(403, None), "AUTHENTICATION_FAILED", false, None),
        (Fault::Status(404, None), "REPOSITORY_NOT_FOUND", false, None),
        (Fault::Status(400, None), "UNEXPECTED_ANSWER", false, None),
        (Fault::Page, "UNEXPECTED_ANSWER", false, None),
    ] {
        server.fail_next([fault.clone()]);
        let error = fetch(&options, None).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{fault:?}: {error:?}");
        assert_eq!(error.is_transient(), transient, "{fault:?}");
        assert_eq!(
            error.retry_after(),
            retry_after.map(Duration::from_secs),
            "{fault:?}"
        );
    }
    // A later request of the same fetch may fail as well.
    server.fail_next([Fault::None, Fault::Status(502, None)]);
    assert!(fetch(&options, None).await.unwrap_err().is_transient());
    server.fail_next([Fault::None, Fault::None, Fault::Status(502, None)]);
    assert!(fetch(&options, None).await.unwrap_err().is_transient());

    let snapshot = fetch(&options, None).await.unwrap();
    assert_eq!(contents(&snapshot), one_text("a", "text"));
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_or_that_breaks_is_transient() {
    let bench = Bench::new();
    bench
        .repository()
        .commit("main", &[Change::file("a", random_text(200_000))]);
    let server = GitServer::start(bench.root.path()).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();

    let error = fetch(&bench.options(&format!("http://{closed}")), None)
        .await
        .unwrap_err();
    assert_eq!(
        (error.reason(), error.is_transient()),
        ("NETWORK_ERROR", true),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("cannot connect to 127.0.0.1"),
        "{error}"
    );

    let error = fetch(&bench.options("http://host.invalid"), None)
        .await
        .unwrap_err();
    assert_eq!(
        (error.reason(), error.is_transient()),
        ("NETWORK_ERROR", true),
        "{error:?}"
    );
    assert!(error.to_string().contains("host.invalid"), "{error}");

    for bytes in [0, 10, 600, 100_000] {
        server.fail_next([Fault::None, Fault::None, Fault::BreakAfter(bytes)]);
        let error = fetch(&bench.options(&server.url()), None).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.is_transient()),
            ("NETWORK_ERROR", true),
            "{bytes}: {error:?}"
        );
    }
    assert_eq!(bench.leftovers(), 0);
}

#[tokio::test]
async fn a_renamed_repository_is_followed_and_the_token_stays_with_its_origin() {
    let bench = Bench::new();
    bench.repository().commit("main", &[Change::file("a", "text")]);
    let server = GitServer::start_with_token(bench.root.path(), Some("s3cret")).await;
    let mut options = bench.options(&format!("{}/old", server.url()));
    options.token = Some(Secret::new("s3cret"));
    let new = format!(
        "{}/octo/hello.git/info/refs?service=git-upload-pack",
        server.url()
    );
    server.fail_next([Fault::Status(301, Some(("location", new)))]);

    let snapshot = fetch(&options, None).await.unwrap();

    assert_eq!(contents(&snapshot), one_text("a", "text"));
    let received = server.received();
    let paths: Vec<&str> = received.iter().map(|request| request.path.as_str()).collect();
    let refs = "/info/refs?service=git-upload-pack";
    let expected = [
        format!("/old/octo/hello.git{refs}"),
        format!("/octo/hello.git{refs}"),
        "/octo/hello.git/git-upload-pack".to_owned(),
        "/octo/hello.git/git-upload-pack".to_owned(),
    ];
    assert_eq!(paths, expected);
    assert!(received.iter().all(|request| request.authorization.is_some()));
}

#[tokio::test]
async fn a_redirect_to_an_address_inside_is_refused_and_never_requested() {
    let bench = Bench::new();
    bench.repository().commit("main", &[Change::file("a", "text")]);
    let front = GitServer::start(bench.root.path()).await;
    let inside = GitServer::start(bench.root.path()).await;
    let mut options = bench.options(&front.url());
    options.token = Some(Secret::new("s3cret"));

    for target in [
        inside.url(),
        format!("http://localhost:{}", inside.port()),
        format!("http://[::ffff:127.0.0.1]:{}", inside.port()),
        format!("http://2130706433:{}", inside.port()),
        "http://169.254.169.254".to_owned(),
    ] {
        front.fail_next([Fault::Redirect(target.clone())]);
        let error = fetch(&options, None).await.unwrap_err();
        assert_eq!(error.reason(), "EGRESS_FORBIDDEN", "{target}: {error:?}");
        assert!(!error.is_transient());
    }
    assert_eq!(inside.received(), []);
}

#[tokio::test]
async fn a_redirect_that_the_operator_allowed_is_followed_without_the_token() {
    let bench = Bench::new();
    bench.repository().commit("main", &[Change::file("a", "text")]);
    let front = GitServer::start(bench.root.path()).await;
    let mirror = GitServer::start(bench.root.path()).await;
    let mut options = bench.options(&front.url());
    options.token = Some(Secret::new("s3cret"));
    options.egress = Egress::parse(&[format!("127.0.0.1:{}", mirror.port())]).unwrap();
    front.fail_next([Fault::Redirect(mirror.url())]);

    let snapshot = fetch(&options, None).await.unwrap();

    assert_eq!(contents(&snapshot), one_text("a", "text"));
    assert!(
        front
            .received()
            .iter()
            .all(|request| request.authorization.is_some())
    );
    assert_eq!(mirror.received().len(), 3);
    assert!(
        mirror
            .received()
            .iter()
            .all(|request| request.authorization.is_none())
    );
}

#[tokio::test]
async fn redirects_without_end_or_sense_are_given_up() {
    let bench = Bench::new();
    let server = GitServer::start(bench.root.path()).await;
    let options = bench.options(&server.url());

    server.fail_always(Fault::Redirect(server.url()));
    let error = fetch(&options, None).await.unwrap_err();
    assert_eq!(error.reason(), "UNEXPECTED_ANSWER", "{error:?}");
    assert_eq!(server.received().len(), 6);

    for target in [
        "/login",
        "ftp://127.0.0.1/octo/hello.git/info/refs?service=git-upload-pack",
    ] {
        server.fail_always(Fault::Status(302, Some(("location", target.to_owned()))));
        let error = fetch(&options, None).await.unwrap_err();
        assert!(
            matches!(error.reason(), "UNEXPECTED_ANSWER" | "EGRESS_FORBIDDEN"),
            "{target}: {error:?}"
        );
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_repository_above_the_limit_is_stopped_and_leaves_nothing() {
    let bench = Bench::new();
    bench
        .repository()
        .commit("main", &[Change::file("a", random_text(900_000))]);
    let server = GitServer::start(bench.root.path()).await;

    for mut options in [bench.file_options(), bench.options(&server.url())] {
        options.max_repository_bytes = 200_000;
        let error = fetch(&options, None).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.is_transient()),
            ("REPOSITORY_TOO_LARGE", false),
            "{error:?}"
        );
        assert!(error.to_string().contains("200000 bytes"), "{error}");
        assert_eq!(bench.leftovers(), 0);
    }
}

#[tokio::test]
async fn files_above_the_limit_are_not_even_transferred_where_the_host_can_leave_them_out() {
    let bench = Bench::new();
    let repository = bench.repository();
    repository.commit(
        "main",
        &[
            Change::file("large", random_text(3_000_000)),
            Change::file("fits", "x".repeat(1_000)),
            Change::file("one-more", "x".repeat(1_001)),
        ],
    );
    repository.configure("uploadpack.allowFilter", "true");
    let server = GitServer::start(bench.root.path()).await;
    let mut options = bench.options(&server.url());
    options.max_file_bytes = 1_000;

    let snapshot = fetch(&options, None).await.unwrap();

    let expected = [
        ("fits".to_owned(), Ok("x".repeat(1_000))),
        ("large".to_owned(), Err(SkipRule::TooLarge)),
        ("one-more".to_owned(), Err(SkipRule::TooLarge)),
    ];
    assert_eq!(contents(&snapshot), expected.into());
    assert!(server.sent_bytes() < 10_000, "{}", server.sent_bytes());
}

#[tokio::test]
async fn a_cancelled_fetch_ends_at_once_and_leaves_nothing() {
    let bench = Bench::new();
    bench
        .repository()
        .commit("main", &[Change::file("a", random_text(400_000))]);
    let server = GitServer::start(bench.root.path()).await;
    let options = bench.options(&server.url());
    let silent = [
        vec![Fault::Silence],
        vec![Fault::None, Fault::Silence],
        vec![Fault::None, Fault::None, Fault::Silence],
        vec![Fault::None, Fault::None, Fault::StallAfter(100_000)],
    ];

    for faults in silent {
        let requests = server.received().len() + faults.len();
        server.fail_next(faults.clone());
        let cancel = CancellationToken::new();
        let repository = name("octo/hello");
        let fetching = fetch_repository(&options, &repository, None, None, cancel.clone());
        let cancelling = async {
            until(|| server.received().len() == requests).await;
            cancel.cancel();
        };
        let (outcome, ()) = tokio::time::timeout(Duration::from_secs(10), async {
            tokio::join!(fetching, cancelling)
        })
        .await
        .expect("it ends at once");
        let error = outcome.unwrap_err();
        assert_eq!(
            (error.reason(), error.is_transient()),
            ("CANCELLED", false),
            "{faults:?}: {error:?}"
        );
        assert_eq!(bench.leftovers(), 0);
    }
}

#[tokio::test]
async fn a_fetch_whose_caller_goes_away_stops_and_leaves_nothing() {
    let bench = Bench::new();
    bench.repository().commit("main", &[Change::file("a", "text")]);
    let server = GitServer::start(bench.root.path()).await;
    server.fail_always(Fault::Silence);
    let options = bench.options(&server.url());

    let fetching = tokio::spawn(async move { fetch(&options, None).await.map(|_| ()) });
    until(|| server.received().len() == 1).await;
    assert!(bench.leftovers() > 0);
    fetching.abort();

    until(|| bench.leftovers() == 0).await;
}

#[tokio::test]
async fn a_fetch_that_takes_too_long_or_a_host_that_falls_silent_is_given_up() {
    let bench = Bench::new();
    bench
        .repository()
        .commit("main", &[Change::file("a", random_text(400_000))]);
    let server = GitServer::start(bench.root.path()).await;
    server.fail_always(Fault::StallAfter(50));
    let mut options = bench.options(&server.url());

    options.timeout = Duration::from_millis(100);
    let error = fetch(&options, None).await.unwrap_err();
    assert_eq!(
        (error.reason(), error.is_transient()),
        ("FETCH_TIMED_OUT", false),
        "{error:?}"
    );

    options.timeout = Duration::from_secs(60);
    options.idle_timeout = Duration::from_millis(100);
    let error = fetch(&options, None).await.unwrap_err();
    assert_eq!(
        (error.reason(), error.is_transient()),
        ("NETWORK_ERROR", true),
        "{error:?}"
    );
    assert!(error.to_string().contains("sent nothing"), "{error}");
    assert_eq!(bench.leftovers(), 0);
}

#[tokio::test]
async fn the_directory_lives_as_long_as_the_snapshot_or_a_reader_and_readers_work_on_threads() {
    let bench = Bench::new();
    let files: Vec<Change> = (0..200)
        .map(|n| Change::file(format!("d{}/f{n}", n % 7), format!("text {n}")))
        .collect();
    bench.repository().commit("main", &files);
    let snapshot = fetch(&bench.file_options(), None).await.unwrap();
    let entries = snapshot.entries().to_vec();
    assert_eq!(entries.len(), 200);

    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (mut reader, entries) = (snapshot.reader(), entries.clone());
            std::thread::spawn(move || {
                entries
                    .iter()
                    .map(|entry| reader.load(entry).unwrap())
                    .collect::<Vec<Loaded>>()
            })
        })
        .collect();
    drop(snapshot);
    for thread in threads {
        let texts = thread.join().unwrap();
        for (entry, loaded) in entries.iter().zip(texts) {
            let number = entry.document_key.rsplit('f').next().unwrap();
            assert_eq!(loaded, Loaded::Text(format!("text {number}")));
        }
    }
    assert_eq!(bench.leftovers(), 0);
}

#[tokio::test]
async fn a_tree_that_spells_out_endless_paths_is_refused() {
    let bench = Bench::new();
    let repository = bench.repository();
    let blob = repository.run(&["hash-object", "-w", "--stdin"], b"x");
    let level = |mode: &str, kind: &str, id: &str| {
        let lines: String = (0..40).map(|n| format!("{mode} {kind} {id}\tn{n}\n")).collect();
        repository.run(&["mktree"], lines.as_bytes())
    };
    let mut tree = level("100644", "blob", &blob);
    for _ in 0..5 {
        tree = level("040000", "tree", &tree);
    }
    commit_tree(&repository, &tree);

    let error = fetch(&bench.file_options(), None).await.unwrap_err();

    assert_eq!(
        (error.reason(), error.is_transient()),
        ("REPOSITORY_TOO_LARGE", false),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("1000000 files and directories"),
        "{error}"
    );
}

#[tokio::test]
async fn directories_nested_without_end_are_refused() {
    let bench = Bench::new();
    let repository = bench.repository();
    let blob = repository.run(&["hash-object", "-w", "--stdin"], b"x");
    let mut tree = repository.run(&["mktree"], format!("100644 blob {blob}\tx\n").as_bytes());
    for _ in 0..300 {
        tree = repository.run(&["mktree"], format!("040000 tree {tree}\td\n").as_bytes());
    }
    commit_tree(&repository, &tree);

    let error = fetch(&bench.file_options(), None).await.unwrap_err();

    assert_eq!(error.reason(), "REPOSITORY_TOO_LARGE", "{error:?}");
    assert!(error.to_string().contains("nest deeper than 256"), "{error}");
}

#[tokio::test]
async fn names_that_git_forbids_are_plain_keys_and_repeated_ones_are_kept_apart() {
    let bench = Bench::new();
    let repository = bench.repository();
    let blob = repository.run(&["hash-object", "-w", "--stdin"], b"x");
    let id = hex::decode(&blob).unwrap();
    let mut raw = Vec::new();
    for name in ["..", "a", "a", "a", "a#", "b/../../etc"] {
        raw.extend_from_slice(format!("100644 {name}\0").as_bytes());
        raw.extend_from_slice(&id);
    }
    let tree = repository.run(
        &["hash-object", "-t", "tree", "--literally", "-w", "--stdin"],
        &raw,
    );
    commit_tree(&repository, &tree);

    let snapshot = fetch(&bench.file_options(), None).await.unwrap();

    let loads = |key: &str| (key.to_owned(), Ok("x".to_owned()));
    let repeats = |key: &str| (key.to_owned(), Err(SkipRule::InvalidKey));
    let expected = [
        loads(".."),
        loads("a"),
        loads("a#"),
        repeats("a##"),
        repeats("a###"),
        loads("b/../../etc"),
    ];
    assert_eq!(contents(&snapshot), expected.into());
    assert_eq!(snapshot.entries().len(), 6);
}

#[tokio::test]
async fn a_url_that_cannot_be_fetched_from_says_so() {
    let bench = Bench::new();
    for (url, problem) in [
        ("ssh://git@github.com", "no credentials"),
        ("ssh://github.com", "must be an https://"),
        ("https://user:password@github.com", "github.token"),
        ("https://github.com/?a=b", "query"),
        ("file://elsewhere/dir", "directory of this machine"),
    ] {
        let error = fetch(&bench.options(url), None).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.is_transient()),
            ("GIT_URL_UNUSABLE", false),
            "{url}"
        );
        assert!(error.to_string().contains(problem), "{url}: {error}");
        assert!(!error.to_string().contains("password"), "{error}");
    }
}

/// Points the main branch at a commit of `tree`.
fn commit_tree(repository: &Repository, tree: &str) {
    let identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"];
    let commit = repository.run(
        &[&identity[..], &["commit-tree", "-m", "test", tree]].concat(),
        b"",
    );
    repository.run(&["update-ref", "refs/heads/main", &commit], b"");
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

/// Waits for a level that another task reaches soon.
async fn until(reached: impl Fn() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .expect("the level is reached in time");
}
