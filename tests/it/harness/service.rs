//! The service itself: the real binary, started with a configuration of its own.

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use chroma_sync::proto::{
    credential_service_client::CredentialServiceClient, embedding_service_client::EmbeddingServiceClient,
    file_service_client::FileServiceClient, invocation_service_client::InvocationServiceClient,
    search_service_client::SearchServiceClient, source_service_client::SourceServiceClient,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::{models_directory, process::die_with_parent};

/// How long the binary may take until it says that it is ready.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The binary that was built with the tests; `CHROMA_SYNC_TEST_BINARY` names another one.
pub fn binary() -> PathBuf {
    std::env::var_os("CHROMA_SYNC_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_chroma-sync").into(), PathBuf::from)
}

/// Configuration of one deployment: every process started from it shares the database and Chroma.
#[derive(Debug, Clone)]
pub struct Deployment {
    options: Vec<(String, String)>,
}

impl Deployment {
    /// A deployment on this store and this Chroma server; repositories come from `git_url`.
    pub fn new(store_url: &str, chroma_url: &str, git_url: &str, scratch: &Path) -> Self {
        let deployment = Self { options: Vec::new() };
        deployment
            .with("store.url", store_url)
            .with("chroma.url", chroma_url)
            .with("github.git_url", git_url)
            .with("worker.directory", scratch.to_str().unwrap())
            // Only a webhook or mode `chroma` makes it.
            .with(
                "encryption.key_file",
                scratch.with_extension("key").to_str().unwrap(),
            )
            .with(
                "uploads.directory",
                scratch.with_extension("uploads").to_str().unwrap(),
            )
            .with("models.dir", models_directory().to_str().unwrap())
            .with("server.listen", "127.0.0.1:0")
            .with("embedding.threads", "1")
            .with("log.filter", "info,chroma_sync=debug")
    }

    /// Listens where it did before whenever it is started again.
    pub fn on_one_port(self) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        self.with("server.listen", &free.to_string())
    }

    /// Sets one option, `section.key`.
    pub fn with(mut self, option: &str, value: &str) -> Self {
        let name = format!("CHROMA_SYNC__{}", option.to_ascii_uppercase().replace('.', "__"));
        self.options.retain(|(known, _)| *known != name);
        self.options.push((name, value.to_owned()));
        self
    }

    /// The options as variables of the environment.
    pub fn environment(&self) -> impl Iterator<Item = (String, String)> {
        self.options.iter().cloned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .envs(self.environment())
            .env_remove("RUST_LOG");
        command
    }

    /// Runs a subcommand to its end and returns its standard output; fails the test unless it exits 0.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{arguments:?} exited with {}: {errors}",
            output.status
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a subcommand that must not succeed and returns its status and standard error.
    pub fn run_refused(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let output = self.command(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?} exited with 0");
        (output.status, String::from_utf8(output.stderr).unwrap())
    }

    /// Runs a subcommand against a running service and returns exit code and standard output.
    pub fn run_against(&self, service: &Service, token: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self
            .client_command(&service.url, token, arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// A subcommand that calls the service at `url`.
    pub fn client_command(&self, url: &str, token: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command
            .env("CHROMA_SYNC_SERVER", url)
            .env("CHROMA_SYNC_TOKEN", token);
        command
    }

    /// Creates an API key with these arguments of `keys create`; returns the token.
    pub fn create_key(&self, arguments: &[&str]) -> String {
        let mut all = vec!["keys", "create", "--name", "test"];
        all.extend_from_slice(arguments);
        self.run(&all).trim().to_owned()
    }

    /// Starts `serve` with both roles.
    pub fn start(&self) -> Service {
        self.start_role("all")
    }

    /// Starts `serve --role ROLE`; returns once it is ready.
    pub fn start_role(&self, role: &str) -> Service {
        let mut command = self.command(&["serve", "--role", role]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (spawned_in, spawned) = mpsc::channel();
        // The kernel kills the child when the thread that made it ends, so that thread lives as long as
        // the child is wanted: it waits for the channel of its owner to close.
        let (owner, owned) = mpsc::channel::<()>();
        thread::spawn(move || {
            die_with_parent(&mut command, libc::SIGKILL);
            spawned_in.send(command.spawn().unwrap()).unwrap();
            // Ends with an error when the owner is dropped.
            owned.recv().ok();
        });
        let mut child = spawned.recv().unwrap();
        let log = drain(child.stderr.take().unwrap());
        let ready = first_line(child.stdout.take().unwrap());
        let line = match ready.recv_timeout(START_DEADLINE) {
            Ok(line) => line,
            Err(_) => {
                child.kill().ok();
                panic!("serve --role {role} did not get ready:\n{}", log.join().unwrap());
            }
        };
        let url = match line.trim().strip_prefix("listening on ") {
            Some(url) => url.to_owned(),
            None => {
                assert_eq!(line.trim(), "worker ready");
                String::new()
            }
        };
        Service {
            child,
            url,
            log: Some(log),
            _owner: owner,
        }
    }
}

/// Reads everything in the background, so that the child never blocks on a full pipe.
fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).ok();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn first_line(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = String::new();
        if reader.read_line(&mut line).is_ok_and(|read| read > 0) {
            send.send(line).ok();
        }
        std::io::copy(&mut reader, &mut std::io::sink()).ok();
    });
    receive
}

/// A process of the service. Dropping it kills it.
#[derive(Debug)]
pub struct Service {
    child: Child,
    /// `http://127.0.0.1:PORT`; empty for a worker.
    pub url: String,
    log: Option<thread::JoinHandle<String>>,
    _owner: mpsc::Sender<()>,
}

/// A gRPC client with a token.
pub type Authenticated = InterceptedService<Channel, Token>;

/// Puts a token into every call.
#[derive(Debug, Clone)]
pub struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("x-chroma-token", token.clone());
        }
        Ok(request)
    }
}

/// A connection to a URL that sends a token with each call; an empty one sends none.
pub fn channel(url: &str, token: &str) -> Authenticated {
    let channel = Endpoint::from_shared(url.to_owned()).unwrap().connect_lazy();
    let token = (!token.is_empty()).then(|| token.parse().unwrap());
    InterceptedService::new(channel, Token(token))
}

impl Service {
    /// A connection that sends a token with each call; an empty one sends none.
    pub fn channel(&self, token: &str) -> Authenticated {
        channel(&self.url, token)
    }

    /// A client of `SourceService`; an empty token sends none.
    pub fn sources(&self, token: &str) -> SourceServiceClient<Authenticated> {
        SourceServiceClient::new(self.channel(token))
    }

    /// A client of `InvocationService`; an empty token sends none.
    pub fn invocations(&self, token: &str) -> InvocationServiceClient<Authenticated> {
        InvocationServiceClient::new(self.channel(token))
    }

    /// A client of `EmbeddingService`; an empty token sends none.
    pub fn embeddings(&self, token: &str) -> EmbeddingServiceClient<Authenticated> {
        EmbeddingServiceClient::new(self.channel(token))
    }

    /// A client of `SearchService`; an empty token sends none.
    pub fn searches(&self, token: &str) -> SearchServiceClient<Authenticated> {
        SearchServiceClient::new(self.channel(token))
    }

    /// A client of `FileService`; an empty token sends none.
    pub fn files(&self, token: &str) -> FileServiceClient<Authenticated> {
        FileServiceClient::new(self.channel(token))
    }

    /// A client of `CredentialService`; an empty token sends none.
    pub fn credentials(&self, token: &str) -> CredentialServiceClient<Authenticated> {
        CredentialServiceClient::new(self.channel(token))
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = libc::pid_t::try_from(self.process_id()).unwrap();
        // SAFETY: the process is a child that has not been waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    }

    /// Waits for the end of the process; returns its status and what it logged.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking()
            && let Some(log) = self.log.take()
        {
            eprintln!(
                "log of the service at {:?}:\n{}",
                self.url,
                log.join().unwrap_or_default()
            );
        }
    }
}

/// The reason in `ErrorInfo`, which every error has.
#[track_caller]
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.unwrap_or_else(|| panic!("no ErrorInfo: {status:?}")).reason
}

/// The path of a file in the repository.
pub fn project_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
