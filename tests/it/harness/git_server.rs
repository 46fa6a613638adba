//! A git host made of git's own parts: repositories built by `git fast-import`, served by the real
//! `git http-backend` as CGI behind a small HTTP server, with faults on demand.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// The oldest time in these repositories, so that the same content has the same commit id.
const EPOCH: u64 = 1_700_000_000;

/// Runs git without the configuration of the machine, and returns what it prints.
pub fn git<A: AsRef<OsStr>>(
    directory: &Path,
    arguments: impl IntoIterator<Item = A>,
    input: &[u8],
) -> Vec<u8> {
    let mut child = Command::new("git")
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tests need git: apt-get install git");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(
        status.success(),
        "git failed: {}",
        String::from_utf8_lossy(&stderr)
    );
    stdout
}

/// One change of a commit.
pub enum Change {
    /// A file with its content.
    File(Vec<u8>, Vec<u8>),
    /// A symbolic link with its target.
    Link(Vec<u8>, Vec<u8>),
    /// A submodule with its commit, 40 hexadecimal digits.
    Submodule(Vec<u8>, String),
    /// The path is removed.
    Removal(Vec<u8>),
}

impl Change {
    /// A file.
    pub fn file(path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        Self::File(path.as_ref().to_vec(), content.as_ref().to_vec())
    }
}

/// A bare repository, `{root}/{owner}/{name}.git`.
pub struct Repository {
    /// Its directory.
    pub path: PathBuf,
}

impl Repository {
    /// An empty repository whose default branch is `main`.
    pub fn create(root: &Path, name: &str) -> Self {
        let path = root.join(format!("{name}.git"));
        std::fs::create_dir_all(&path).unwrap();
        git(
            &path,
            ["init", "--quiet", "--bare", "--initial-branch=main", "."],
            b"",
        );
        Self { path }
    }

    /// Commits `changes` on top of `branch`, which is made where it is absent, and returns the id.
    pub fn commit(&self, branch: &str, changes: &[Change]) -> String {
        let reference = format!("refs/heads/{branch}");
        let parent = Command::new("git")
            .args(["rev-parse", "--verify", "--quiet", &reference])
            .current_dir(&self.path)
            .output()
            .unwrap();
        let mut stream = format!(
            "commit {reference}\ncommitter Tester <tester@example.org> {EPOCH} +0000\ndata 4\ntest\n"
        )
        .into_bytes();
        if parent.status.success() {
            stream.extend_from_slice(format!("from {reference}^0\n").as_bytes());
        }
        for change in changes {
            let (mode, path, data) = match change {
                Change::File(path, content) => ("100644", path, content),
                Change::Link(path, target) => ("120000", path, target),
                Change::Submodule(path, commit) => {
                    stream.extend_from_slice(format!("M 160000 {commit} {}\n", quoted(path)).as_bytes());
                    continue;
                }
                Change::Removal(path) => {
                    stream.extend_from_slice(format!("D {}\n", quoted(path)).as_bytes());
                    continue;
                }
            };
            let head = format!("M {mode} inline {}\ndata {}\n", quoted(path), data.len());
            stream.extend_from_slice(head.as_bytes());
            stream.extend_from_slice(data);
            stream.push(b'\n');
        }
        git(&self.path, ["fast-import", "--quiet", "--force"], &stream);
        self.id(&reference)
    }

    /// Runs git in the repository and returns the first line it prints.
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> String {
        let output = String::from_utf8(git(&self.path, arguments, input)).unwrap();
        output.lines().next().unwrap_or_default().to_owned()
    }

    /// The id that a revision leads to.
    pub fn id(&self, revision: &str) -> String {
        self.run(&["rev-parse", "--verify", revision], b"")
    }

    /// Makes an annotated tag.
    pub fn annotated_tag(&self, name: &str, target: &str) {
        let tagger = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"];
        self.run(
            &[&tagger[..], &["tag", "-a", "-m", "test", name, target]].concat(),
            b"",
        );
    }

    /// Sets a configuration value, such as `uploadpack.allowFilter`.
    pub fn configure(&self, key: &str, value: &str) {
        self.run(&["config", key, value], b"");
    }
}

/// A path as fast-import reads it, with every byte escaped that may need it.
fn quoted(path: &[u8]) -> String {
    let escaped: String = path
        .iter()
        .map(|byte| match byte {
            b'"' | b'\\' | 0..=31 | 127..=255 => format!("\\{byte:03o}"),
            byte => char::from(*byte).to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

/// What happens to one request instead of a good answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing: the answer is good.
    None,
    /// This status and header.
    Status(u16, Option<(&'static str, String)>),
    /// A redirect to this URL, to which the path and query of the request are added.
    Redirect(String),
    /// A web page.
    Page,
    /// No answer at all, for ever.
    Silence,
    /// So many bytes of the body, then nothing, for ever.
    StallAfter(usize),
    /// So many bytes of the body, then the connection breaks.
    BreakAfter(usize),
}

/// A request that the server received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// `GET` or `POST`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
}

/// Whether a request with this `Authorization` header and path is answered.
type Access = Box<dyn Fn(Option<&str>, &str) -> bool + Send + Sync>;

/// The running server. It ends when dropped.
pub struct GitServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    backend: PathBuf,
    root: PathBuf,
    access: Access,
    faults: Mutex<VecDeque<Fault>>,
    every: Mutex<Fault>,
    hides_version: AtomicBool,
    received: Mutex<Vec<Received>>,
    sent_bytes: AtomicU64,
}

impl GitServer {
    /// Serves the repositories below `root` to everybody.
    pub async fn start(root: &Path) -> Self {
        Self::start_with_token(root, None).await
    }

    /// Serves the repositories below `root` to those who send `token`, as GitHub wants it.
    pub async fn start_with_token(root: &Path, token: Option<&str>) -> Self {
        let expected =
            token.map(|token| format!("Basic {}", STANDARD.encode(format!("x-access-token:{token}"))));
        let access = move |authorization: Option<&str>, _: &str| {
            expected.is_none() || authorization == expected.as_deref()
        };
        Self::start_with_access(root, access).await
    }

    /// Serves the repositories below `root` to those whose `Authorization` header opens a path.
    pub async fn start_with_access(
        root: &Path,
        access: impl Fn(Option<&str>, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let exec_path = String::from_utf8(git(root, ["--exec-path"], b"")).unwrap();
        let backend = Path::new(exec_path.trim()).join("git-http-backend");
        assert!(
            backend.is_file(),
            "the tests need git http-backend: apt-get install git"
        );
        let shared = Arc::new(Shared {
            backend,
            root: root.to_owned(),
            access: Box::new(access),
            faults: Mutex::default(),
            every: Mutex::new(Fault::None),
            hides_version: AtomicBool::new(false),
            received: Mutex::default(),
            sent_bytes: AtomicU64::new(0),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            shared,
            task,
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The next requests meet these faults, one each.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().extend(faults);
    }

    /// Every request meets this fault from now on, unless one of [`Self::fail_next`] is left.
    pub fn fail_always(&self, fault: Fault) {
        *self.shared.every.lock().unwrap() = fault;
    }

    /// Requests are answered as by a host that knows no version of the protocol but the first.
    pub fn hide_protocol_version(&self) {
        self.shared.hides_version.store(true, Ordering::Relaxed);
    }

    /// The requests received so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Bytes of bodies sent so far.
    pub fn sent_bytes(&self) -> u64 {
        self.shared.sent_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let path = request
        .uri
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    let text = |name: HeaderName| {
        request
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let authorization = text(header::AUTHORIZATION);
    let method = request.method.to_string();
    let received = Received {
        method,
        path: path.clone(),
        authorization: authorization.clone(),
    };
    shared.received.lock().unwrap().push(received);

    let queued = shared.faults.lock().unwrap().pop_front();
    let fault = queued.unwrap_or_else(|| shared.every.lock().unwrap().clone());
    let limit = match fault {
        Fault::None => None,
        Fault::Status(code, extra) => {
            let mut response = StatusCode::from_u16(code).unwrap().into_response();
            if let Some((name, value)) = extra {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            return response;
        }
        Fault::Redirect(base) => {
            let location = [(header::LOCATION, format!("{base}{path}"))];
            return (StatusCode::MOVED_PERMANENTLY, location).into_response();
        }
        Fault::Page => {
            return ([(header::CONTENT_TYPE, "text/html")], "<html>Welcome</html>").into_response();
        }
        Fault::Silence => std::future::pending().await,
        Fault::StallAfter(bytes) => Some((bytes, false)),
        Fault::BreakAfter(bytes) => Some((bytes, true)),
    };

    if !(shared.access)(authorization.as_deref(), &path) {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    run_backend(shared, request, body, limit).await
}

/// Runs `git http-backend` for one request (RFC 3875), streaming both ways.
async fn run_backend(
    shared: Arc<Shared>,
    request: Parts,
    body: Body,
    limit: Option<(usize, bool)>,
) -> Response {
    let text = |name: &str| {
        request
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let hides_version = shared.hides_version.load(Ordering::Relaxed);
    let version = text("git-protocol")
        .filter(|_| !hides_version)
        .unwrap_or_default();
    let mut child = tokio::process::Command::new(&shared.backend)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_PROJECT_ROOT", &shared.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_PROTOCOL", version)
        .env("REQUEST_METHOD", request.method.as_str())
        .env("PATH_INFO", request.uri.path())
        .env("QUERY_STRING", request.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", text("content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", text("content-length").unwrap_or_default())
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut body = body.into_data_stream();
    tokio::spawn(async move {
        while let Some(Ok(chunk)) = body.next().await {
            // The backend may answer without reading everything.
            if stdin.write_all(&chunk).await.is_err() {
                break;
            }
        }
    });

    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut status = StatusCode::OK;
    let mut headers = HeaderMap::new();
    loop {
        let mut line = String::new();
        stdout.read_line(&mut line).await.unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            status = value.split(' ').next().unwrap().parse().unwrap();
        } else {
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
    }
    let state = (stdout, child, shared, limit);
    let body = futures::stream::unfold(state, |(mut stdout, child, shared, limit)| async move {
        let mut chunk = vec![0; 64 << 10];
        let wanted = match limit {
            None => chunk.len(),
            Some((0, false)) => std::future::pending().await,
            Some((0, true)) => {
                let error = std::io::Error::other("broken on demand");
                return Some((Err(error), (stdout, child, shared, limit)));
            }
            Some((left, _)) => left.min(chunk.len()),
        };
        let read = stdout.read(&mut chunk[..wanted]).await.unwrap();
        chunk.truncate(read);
        shared.sent_bytes.fetch_add(read as u64, Ordering::Relaxed);
        let limit = limit.map(|(left, breaks)| (left - read, breaks));
        (read > 0).then(|| (Ok(Bytes::from(chunk)), (stdout, child, shared, limit)))
    });
    (status, headers, Body::from_stream(body)).into_response()
}
