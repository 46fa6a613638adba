//! A real Chroma server (`chroma run`) of the test process's own.
//!
//! One server a process, on a free port and with a directory of its own. Each test gets a fresh database
//! in it, so nothing is shared but the processor. The server dies with the process, however that ends;
//! what it leaves on the disk is removed by the next run.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use chroma_sync::{
    domain::names::{CollectionName, DatabaseName, TenantName},
    index::{
        ChromaClient, ChromaOptions, Collection, DOCUMENT_KEY, Metadata, PageFields, START_LINE, StoredRecord,
    },
};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::{process::die_with_parent, service::project_file};

/// How long the server may take until it answers.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Directories of servers are called this, followed by the id of the process that made them.
const DIRECTORY_PREFIX: &str = "chroma-sync-chroma-";

/// A fresh database of the server, and a client for looking into it.
pub struct ChromaDatabase {
    pub client: ChromaClient,
    pub tenant: TenantName,
    name: DatabaseName,
}

impl ChromaDatabase {
    /// Creates a database with a name of its own.
    pub async fn create() -> Self {
        let client = ChromaClient::new(options()).unwrap();
        let tenant = TenantName::default_tenant();
        let name = DatabaseName::parse("name", &format!("test-{}", Uuid::now_v7().simple())).unwrap();
        client.create_database(&tenant, &name).await.unwrap();
        Self { client, tenant, name }
    }

    /// URL of the server.
    pub fn url(&self) -> &'static str {
        server_url()
    }

    pub fn name(&self) -> &DatabaseName {
        &self.name
    }

    /// The collection, which must exist.
    pub async fn collection(&self, name: &str) -> Collection {
        let name = CollectionName::parse("name", name).unwrap();
        let found = self
            .client
            .find_collection(&self.tenant, &self.name, &name)
            .await
            .unwrap();
        found.unwrap_or_else(|| panic!("collection {name} does not exist"))
    }

    /// All records by id, with text, metadata and vector.
    pub async fn records(&self, collection: &str) -> BTreeMap<String, StoredRecord> {
        const PAGE: usize = 1_000;
        let collection = self.collection(collection).await;
        let fields = PageFields {
            document: true,
            metadata: true,
            vector: true,
        };
        let mut records = BTreeMap::new();
        loop {
            let page = self
                .client
                .get_page(&collection, None, fields, PAGE, records.len())
                .await
                .unwrap();
            let last = page.len() < PAGE;
            records.extend(page.into_iter().map(|record| (record.id.clone(), record)));
            if last {
                return records;
            }
        }
    }

    /// The text of a document, put together from its records as a reader would.
    pub async fn text_of(&self, collection: &str, document_key: &str) -> String {
        let mut parts: Vec<(u64, String)> = self
            .records(collection)
            .await
            .into_values()
            .filter(|record| record.metadata.get(DOCUMENT_KEY) == Some(&json!(document_key)))
            .map(|record| {
                (
                    record.metadata[START_LINE].as_u64().unwrap(),
                    record.document.unwrap(),
                )
            })
            .collect();
        parts.sort();
        let texts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
        texts.join("\n")
    }

    pub async fn collection_metadata(&self, collection: &str) -> Metadata {
        self.collection(collection).await.metadata
    }

    /// Replaces the metadata, as a stock client's `modify` does.
    pub async fn set_collection_metadata(&self, collection: &str, metadata: Value) {
        let collection = self.collection(collection).await;
        let url = self.collection_url(&collection, "");
        let body = json!({"new_metadata": metadata});
        let answer = reqwest::Client::new().put(url).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Adds a record that no sync made, of one text and without metadata of ours.
    pub async fn add_foreign_record(&self, collection: &str, id: &str) {
        let collection = self.collection(collection).await;
        let mut vector = vec![0.0; collection.dimension.unwrap() as usize];
        vector[0] = 1.0;
        let body = json!({
            "ids": [id], "embeddings": [vector], "documents": ["by somebody else"],
            "metadatas": [{"owner": "somebody else"}],
        });
        let url = self.collection_url(&collection, "/upsert");
        let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Deletes one record, as somebody else may.
    pub async fn delete_record(&self, collection: &str, id: &str) {
        let collection = self.collection(collection).await;
        let url = self.collection_url(&collection, "/delete");
        let body = json!({ "ids": [id] });
        let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Runs a script with the stock Python client. It finds `host`, `port`, `tenant`, `database` in `sys.argv`
    /// and prints one JSON value.
    pub fn python(&self, script: &str) -> Value {
        let url = Url::parse(self.url()).unwrap();
        let port = url.port().unwrap().to_string();
        let output = Command::new(peer("python3"))
            .args([
                "-c",
                script,
                url.host_str().unwrap(),
                &port,
                self.tenant.as_str(),
                self.name.as_str(),
            ])
            .env("ANONYMIZED_TELEMETRY", "False")
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the script failed: {errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn collection_url(&self, collection: &Collection, rest: &str) -> String {
        let (url, tenant, database) = (self.url(), &self.tenant, &self.name);
        format!(
            "{url}/api/v2/tenants/{tenant}/databases/{database}/collections/{}{rest}",
            collection.id
        )
    }
}

/// Options of a client of the server.
pub fn options() -> ChromaOptions {
    ChromaOptions::new(Url::parse(server_url()).unwrap())
}

/// URL of the server, which the first call starts.
pub fn server_url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(start)
}

/// A program of the peers' virtual environment.
pub fn peer(name: &str) -> PathBuf {
    let path = project_file(".peers/venv/bin").join(name);
    assert!(path.exists(), "{} is missing; run `make peers`", path.display());
    path
}

fn start() -> String {
    remove_stale_directories();
    let program = peer("chroma");
    let directory = std::env::temp_dir().join(format!("{DIRECTORY_PREFIX}{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    // Another program may take the free port before the server does.
    for _ in 0..5 {
        let address = free_address();
        if wait_until_ready(&program, &directory, address) {
            return format!("http://{address}");
        }
    }
    panic!("chroma did not start:\n{}", log(&directory));
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Starts the server from a thread that lives as long as the process: the signal that ends the server is
/// tied to the thread that started it. False when the server ended instead of answering.
fn wait_until_ready(program: &Path, directory: &Path, address: SocketAddr) -> bool {
    let output = File::create(directory.join("log")).unwrap();
    let mut command = Command::new(program);
    command
        .args([
            "run",
            "--host",
            &address.ip().to_string(),
            "--port",
            &address.port().to_string(),
            "--path",
        ])
        .arg(directory.join("data"))
        .current_dir(directory)
        .env("ANONYMIZED_TELEMETRY", "False")
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output);
    let (ready, is_ready) = mpsc::channel();
    thread::Builder::new()
        .name("chroma".to_owned())
        .spawn(move || {
            die_with_parent(&mut command, libc::SIGKILL);
            let mut child = command.spawn().unwrap();
            ready.send(answers(&mut child, address)).ok();
            child.wait().ok();
        })
        .unwrap();
    is_ready
        .recv()
        .unwrap_or_else(|_| panic!("chroma did not start:\n{}", log(directory)))
}

/// Waits for the server's heartbeat, or its end.
fn answers(child: &mut Child, address: SocketAddr) -> bool {
    let deadline = Instant::now() + START_DEADLINE;
    while child.try_wait().unwrap().is_none() {
        if heartbeat(address).is_ok_and(|answer| answer.contains("heartbeat")) {
            return true;
        }
        assert!(
            Instant::now() < deadline,
            "chroma was not ready within {START_DEADLINE:?}"
        );
        thread::park_timeout(Duration::from_millis(20));
    }
    false
}

fn heartbeat(address: SocketAddr) -> std::io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    connection.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(
        connection,
        "GET /api/v2/heartbeat HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Removes the directories of processes that are gone.
fn remove_stale_directories() {
    for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.strip_prefix(DIRECTORY_PREFIX)) else {
            continue;
        };
        if !Path::new("/proc").join(process).exists() {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap_or_default()
}
