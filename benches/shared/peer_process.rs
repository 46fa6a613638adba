//! Another engine in a process of its own, which a Python script beside the bench runs.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// A script that reads one JSON value a line and answers each with one. It ends with this value.
pub struct PeerProcess {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl PeerProcess {
    /// Starts a script, its path from the repository's `root`, in the Python of `CHROMA_SYNC_BENCH_PYTHON`, else of
    /// target/encoder-peers, or says that there is none.
    pub fn start<A: AsRef<OsStr>>(root: &Path, script: &str, arguments: &[A]) -> Option<Self> {
        let python = env::var_os("CHROMA_SYNC_BENCH_PYTHON")
            .map_or_else(|| root.join("target/encoder-peers/bin/python"), PathBuf::from);
        let spawned = Command::new(&python)
            .arg(root.join(script))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = spawned else {
            println!("no peers: {} cannot be run, see {script}", python.display());
            return None;
        };
        Some(Self {
            requests: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        })
    }

    /// The script's answer, or nothing if it has ended, about which it wrote to standard error.
    pub fn ask<A: serde::de::DeserializeOwned>(&mut self, request: &impl serde::Serialize) -> Option<A> {
        // A script that has ended reads nothing, which its missing answer tells.
        let _ = writeln!(self.requests, "{}", serde_json::to_string(request).unwrap());
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        (!answer.is_empty()).then(|| serde_json::from_str(&answer).unwrap())
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
