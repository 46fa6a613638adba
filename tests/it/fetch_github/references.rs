//! Which commit a reference leads to, and what is said when it leads to none.

use chroma_sync::fetch::fetch_repository;
use tokio_util::sync::CancellationToken;

use super::{Bench, branch, contents, fetch, name, one_text, sha};
use crate::harness::git_server::{Change, GitServer, Repository, git};

#[tokio::test]
async fn branches_tags_and_commits_lead_to_their_own_files() {
    let bench = Bench::new();
    let repository = bench.repository();
    let first = repository.commit("main", &[Change::file("a", "first")]);
    repository.commit("main", &[Change::file("b", "for a while")]);
    let second = repository.commit(
        "main",
        &[Change::file("a", "second"), Change::Removal(b"b".to_vec())],
    );
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
async fn a_repository_of_another_object_format_says_so() {
    let bench = Bench::new();
    let path = bench.root.path().join("octo/hello.git");
    std::fs::create_dir_all(&path).unwrap();
    git(
        &path,
        ["init", "--quiet", "--bare", "--object-format=sha256", "."],
        b"",
    );
    let server = GitServer::start(bench.root.path()).await;

    for options in [bench.file_options(), bench.options(&server.url())] {
        let error = fetch(&options, None).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.is_transient()),
            ("UNEXPECTED_ANSWER", false),
            "{error:?}"
        );
        assert!(error.to_string().contains("object format sha256"), "{error}");
    }
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
