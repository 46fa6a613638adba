//! The programs of `examples/`, built and run as their pages say.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};

use super::service::project_file;

/// How long a program may take for its next line and for its end.
const DEADLINE: Duration = Duration::from_secs(120);

/// A running program. Dropping it kills it.
pub struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    /// The lines of standard output that were not read before.
    pub lines: Vec<String>,
    pub errors: String,
}

impl Program {
    /// Starts a command with an API key's token; standard input is empty.
    pub fn start(command: Command, token: &str) -> Self {
        let mut command = tokio::process::Command::from(command);
        let mut child = command
            .env("CHROMA_SYNC_TOKEN", token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; run `make peers`"));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line of standard output.
    pub async fn line(&mut self) -> String {
        let line = timeout(DEADLINE, self.lines.next_line()).await.unwrap().unwrap();
        match line {
            Some(line) => line,
            None => panic!("no more lines: {}", self.errors().await),
        }
    }

    /// Waits for the end.
    pub async fn end(mut self) -> Ended {
        let mut lines = Vec::new();
        while let Some(line) = timeout(DEADLINE, self.lines.next_line()).await.unwrap().unwrap() {
            lines.push(line);
        }
        let errors = self.errors().await;
        let status = timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap();
        Ended {
            code: status.code(),
            lines,
            errors,
        }
    }

    async fn errors(&mut self) -> String {
        let mut errors = String::new();
        let pipe = self.child.stderr.as_mut().unwrap();
        timeout(DEADLINE, pipe.read_to_string(&mut errors))
            .await
            .unwrap()
            .unwrap();
        errors
    }
}

/// The Python of the peers.
pub fn python() -> Command {
    let python = project_file(".peers/venv/bin/python3");
    assert!(
        python.exists(),
        "{} is missing; run `make peers`",
        python.display()
    );
    Command::new(python)
}

/// `examples/python-grpc`, with its stubs.
pub fn python_grpc(arguments: &[&str]) -> Command {
    let mut command = python();
    command
        .arg(project_file("examples/python-grpc/sync_repository.py"))
        .args(arguments)
        .env("PYTHONPATH", python_stubs());
    command
}

/// `examples/python-rest`.
pub fn python_rest(arguments: &[&str]) -> Command {
    let mut command = python();
    command
        .arg(project_file("examples/python-rest/sync_repository.py"))
        .args(arguments);
    command
}

/// The command of `examples/web`.
pub fn web_command(arguments: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.arg(web_bundle().join("command.mjs")).args(arguments);
    command
}

/// Directory of the Python stubs, made once a process.
pub fn python_stubs() -> &'static Path {
    static STUBS: OnceLock<PathBuf> = OnceLock::new();
    STUBS.get_or_init(|| {
        let stubs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-stubs");
        std::fs::create_dir_all(&stubs).unwrap();
        let mut command = python();
        command
            .args(["-m", "grpc_tools.protoc", "-I"])
            .arg(project_file("proto"));
        for option in ["--python_out", "--grpc_python_out"] {
            command.arg(format!("{option}={}", stubs.display()));
        }
        let protos = std::fs::read_dir(project_file("proto/chromasync/v1")).unwrap();
        command.args(protos.map(|proto| proto.unwrap().path()));
        run(command);
        stubs
    })
}

/// Directory of the bundles of `examples/web`: generated, type-checked and bundled once a process.
pub fn web_bundle() -> &'static Path {
    static BUNDLE: OnceLock<PathBuf> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        let web = project_file("examples/web");
        assert!(
            web.join("node_modules/.digest").exists(),
            "the packages of examples/web are missing; run `make peers`"
        );
        let mut command = Command::new("npm");
        command
            .args(["run", "--silent", "build"])
            .current_dir(&web)
            .env("PATH", path_with_peers());
        run(command);
        web.join("dist")
    })
}

/// `PATH`, with the programs of the peers and of this project before it.
pub fn path_with_peers() -> OsString {
    let binary = Path::new(env!("CARGO_BIN_EXE_chroma-sync"));
    let directories = [
        project_file(".peers/venv/bin"),
        binary.parent().unwrap().to_owned(),
    ];
    let path = std::env::var_os("PATH").unwrap();
    std::env::join_paths(directories.into_iter().chain(std::env::split_paths(&path))).unwrap()
}

fn run(mut command: Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run `make peers`"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
