//! Credentials, failures of the host and of the connection, redirects.

use std::time::Duration;

use chroma_sync::{fetch::Egress, secret::Secret};

use super::{Bench, branch, contents, fetch, one_text, random_text};
use crate::harness::git_server::{Change, Fault, GitServer};

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
        (Fault::Status(429, wait()), "RATE_LIMITED", true, Some(7)),
        (Fault::Status(429, None), "RATE_LIMITED", true, Some(60)),
        (Fault::Status(403, wait()), "RATE_LIMITED", true, Some(7)),
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
