//! Fetching from a `file://` URL: `git upload-pack` as a child process.
//!
//! gix would start it, too, but could not stop it: a child that computes without writing would block
//! the fetch beyond its deadline. Here the child is killed as soon as its pipes are dropped. It runs
//! without the configuration and environment of the server's user, and with the two settings that a
//! host gives its repositories: any commit may be asked for, and large files may be left out.

use std::{
    ffi::OsString,
    io::{self, BufReader, Read, Write},
    path::Path,
    process::Stdio,
    sync::Arc,
};

use gix::protocol::transport::{
    Protocol,
    client::git::{ConnectMode, blocking_io::Connection},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::session::Session;
use crate::fetch::error::FetchError;

/// The program, found on the `PATH` of the server.
pub(super) const GIT: &str = "git";
/// The most bytes logged of what the child complains.
const MAX_COMPLAINT_BYTES: u64 = 4_096;

/// gix reads lines of a few bytes, each of which would be a system call.
const OUTPUT_BUFFER_BYTES: usize = 64 << 10;

/// Starts `program`, which is git, for the bare repository in `directory`. Needs a runtime's context.
///
/// # Errors
/// [`FetchError::RepositoryNotFound`] when it holds no repository, [`FetchError::Misconfigured`]
/// without the program.
pub(super) fn start(
    session: &Arc<Session>,
    program: &str,
    directory: &Path,
) -> Result<Connection<BufReader<ChildOutput>, ChildInput>, FetchError> {
    // What git itself looks for; the child would only complain on its standard error.
    let directory = match directory.canonicalize() {
        Ok(directory) if directory.join("HEAD").exists() && directory.join("objects").is_dir() => directory,
        Ok(_) | Err(_) => {
            return Err(FetchError::RepositoryNotFound {
                repository: session.repository.clone(),
                host: session.host.clone(),
            });
        }
    };
    let mut safe_directory = OsString::from("safe.directory=");
    safe_directory.push(&directory);
    let spawned = Command::new(program)
        // The operator chose this directory, so its owner need not be the server's user.
        .arg("-c")
        .arg(safe_directory)
        .args([
            "-c",
            "uploadpack.allowAnySHA1InWant=true",
            "-c",
            "uploadpack.allowFilter=true",
        ])
        .args(["upload-pack", "--strict"])
        .arg(&directory)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("GIT_PROTOCOL", "version=2")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FetchError::Misconfigured {
            problem: "file:// URLs need the git program; install git, or use an http(s):// URL".to_owned(),
            source: Some(error.into()),
        },
        _ => FetchError::Internal { source: error.into() },
    })?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(FetchError::Internal {
            source: "the git program has no pipes".into(),
        });
    };
    tokio::spawn(log_complaints(stderr, session.repository.to_string()));
    let output = ChildOutput {
        session: Arc::clone(session),
        stdout,
        _child: child,
    };
    let output = BufReader::with_capacity(OUTPUT_BUFFER_BYTES, output);
    let input = ChildInput {
        session: Arc::clone(session),
        stdin,
    };
    let path = directory.to_string_lossy().into_owned();
    let host = None::<(String, Option<u16>)>;
    Ok(Connection::new(
        output,
        input,
        Protocol::V2,
        path,
        host,
        ConnectMode::Process,
        false,
    ))
}

/// Reads the child's standard error to its end, so that it never blocks, and logs the beginning.
async fn log_complaints(mut stderr: impl tokio::io::AsyncRead + Unpin, repository: String) {
    let mut complaint = Vec::new();
    let read = (&mut stderr)
        .take(MAX_COMPLAINT_BYTES)
        .read_to_end(&mut complaint)
        .await;
    if read.is_ok_and(|bytes| bytes > 0) {
        tracing::debug!(%repository, complaint = %String::from_utf8_lossy(&complaint), "git upload-pack");
    }
    // Nothing is lost when this fails: the pipe is gone then.
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
}

/// What the child says. Dropping it kills the child.
pub(super) struct ChildOutput {
    session: Arc<Session>,
    stdout: ChildStdout,
    _child: Child,
}

impl Read for ChildOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { session, stdout, .. } = self;
        let bytes =
            session.wait(async { stdout.read(buffer).await.map_err(|error| broken(session, error)) })?;
        session.receive(bytes)?;
        Ok(bytes)
    }
}

/// What the child is told. One that has ended hears no more, which is no failure: it ends early to say
/// why on its output, and that must be read. If it says nothing, reading fails.
pub(super) struct ChildInput {
    session: Arc<Session>,
    stdin: ChildStdin,
}

impl Write for ChildInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { session, stdin } = self;
        session.wait(async {
            match stdin.write(bytes).await {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
                written => written.map_err(|error| broken(session, error)),
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        let Self { session, stdin } = self;
        session.wait(async {
            match stdin.flush().await {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                flushed => flushed.map_err(|error| broken(session, error)),
            }
        })
    }
}

fn broken(session: &Session, error: io::Error) -> FetchError {
    session.network("the git program ended early".to_owned(), Some(error.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::Duration;

    use super::*;
    use crate::domain::source::RepositoryName;

    fn session(max_bytes: u64) -> Arc<Session> {
        let repository = RepositoryName::parse("repository", "a/b").unwrap();
        let runtime = tokio::runtime::Handle::current();
        let limit = Duration::from_secs(10);
        let session = Session::new(
            repository,
            "here".to_owned(),
            Arc::default(),
            runtime,
            limit,
            max_bytes,
        );
        Arc::new(session)
    }

    fn start_in(program: &str, directory: &Path) -> FetchError {
        start(&session(0), program, directory).map(|_| ()).unwrap_err()
    }

    #[tokio::test]
    async fn a_server_without_git_says_that_file_urls_need_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("HEAD"), "ref: refs/heads/main\n").unwrap();
        std::fs::create_dir(directory.path().join("objects")).unwrap();

        let error = start_in("git-is-not-installed-here", directory.path());

        assert_eq!(
            (error.reason(), error.is_transient()),
            ("GIT_URL_UNUSABLE", false)
        );
        assert!(
            error
                .to_string()
                .contains("file:// URLs need the git program; install git"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_last_words_of_a_child_that_ended_are_read_although_it_is_told_more() {
        let mut child = Command::new("sh")
            .args(["-c", "printf 'not our ref'"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        child.wait().await.unwrap();
        let session = session(1_000);
        let mut input = ChildInput {
            session: Arc::clone(&session),
            stdin,
        };
        let mut output = ChildOutput {
            session: Arc::clone(&session),
            stdout,
            _child: child,
        };

        let words = tokio::task::spawn_blocking(move || {
            input.write_all(b"done").unwrap();
            input.flush().unwrap();
            let mut words = String::new();
            output.read_to_string(&mut words).unwrap();
            words
        });

        assert_eq!(words.await.unwrap(), "not our ref");
        assert!(session.take_fault().is_none());
    }

    #[tokio::test]
    async fn a_directory_that_holds_no_repository_is_not_one() {
        let directory = tempfile::tempdir().unwrap();
        let error = start_in("git-is-not-installed-here", directory.path());
        assert_eq!(error.reason(), "REPOSITORY_NOT_FOUND");
    }
}
