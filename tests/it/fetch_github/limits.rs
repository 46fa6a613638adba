//! Limits on size and time, the order to stop, and repositories made to do harm.

use std::time::Duration;

use chroma_sync::{domain::document::SkipRule, fetch::fetch_repository};
use tokio_util::sync::CancellationToken;

use super::{Bench, contents, fetch, name, random_text};
use crate::harness::{
    git_server::{Change, Fault, GitServer, Repository},
    wait_for,
};

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
            received(&server, requests).await;
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
    received(&server, 1).await;
    assert!(bench.leftovers() > 0);
    fetching.abort();

    wait_for("the directory's removal", async || match bench.leftovers() {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
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
                    .map(|entry| reader.read(entry).unwrap())
                    .collect::<Vec<Vec<u8>>>()
            })
        })
        .collect();
    drop(snapshot);
    for thread in threads {
        let texts = thread.join().unwrap();
        for (entry, loaded) in entries.iter().zip(texts) {
            let number = entry.document_key.rsplit('f').next().unwrap();
            assert_eq!(loaded, format!("text {number}").into_bytes());
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
    for name in ["..", "a", "a", "a", "a#2", "b/../../etc"] {
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
        loads("a#2"),
        repeats("a#3"),
        repeats("a#4"),
        loads("b/../../etc"),
    ];
    assert_eq!(contents(&snapshot), expected.into());
    assert_eq!(snapshot.entries().len(), 6);
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

/// Waits until the server has received so many requests.
async fn received(server: &GitServer, requests: usize) {
    wait_for("the request", async || match server.received().len() {
        count if count == requests => Ok(()),
        count => Err(count),
    })
    .await;
}
