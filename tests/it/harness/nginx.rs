//! A real nginx before the service, as operators put one there.

use std::{
    fs::{self, File},
    io::Read,
    net::{Ipv4Addr, TcpListener},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use tempfile::TempDir;

use super::{process::die_with_parent, service::project_file};

/// How long nginx has to end before it is told to again, in milliseconds.
const TOLD_AGAIN_AFTER_MS: libc::c_int = 20;

/// A reverse proxy with one port for gRPC and one for REST. Every setting that is not given has nginx's
/// default. Dropping it ends it.
pub struct Nginx {
    /// `http://` URL that speaks HTTP/2 without TLS and hands on by `grpc_pass`.
    pub grpc_url: String,
    /// `http://` URL that speaks HTTP/1.1 and hands on by `proxy_pass`.
    pub rest_url: String,
    _process: NginxProcess,
}

impl Nginx {
    /// Before the service at `upstream`, an `http://` URL. The lines are put into the location of either
    /// port, as an operator would: `proxy_read_timeout 1h;` changes REST alone, `grpc_read_timeout 1h;`
    /// gRPC alone.
    pub fn start(upstream: &str, lines: &[&str]) -> Self {
        let (grpc, rest) = (listener(), listener());
        let configuration = configuration(upstream, lines, &address(&grpc), &address(&rest));
        let process = NginxProcess::start(tempfile::tempdir().unwrap(), &configuration, &[&grpc, &rest]);
        Self {
            grpc_url: format!("http://{}", address(&grpc)),
            rest_url: format!("http://{}", address(&rest)),
            _process: process,
        }
    }
}

/// A running nginx. Dropping it ends it.
pub struct NginxProcess {
    child: Child,
    directory: TempDir,
    /// The process ends with the thread that waits for this to be dropped.
    _owner: mpsc::Sender<()>,
}

impl NginxProcess {
    /// Runs in `directory` with this configuration.
    pub fn start(directory: TempDir, configuration: &str, listeners: &[&TcpListener]) -> Self {
        let program = project_file(".peers/nginx");
        assert!(
            program.exists(),
            "{} is missing; run `make peers`",
            program.display()
        );
        fs::write(directory.path().join("nginx.conf"), configuration).unwrap();
        check(&program, directory.path());

        // nginx takes these over as it does those of a process that it replaces, so nobody can take the ports
        // in between, and a client that connects before it has started waits.
        let sockets: Vec<RawFd> = listeners.iter().map(|listener| listener.as_raw_fd()).collect();
        let inherited: String = sockets.iter().map(|socket| format!("{socket};")).collect();
        let mut command = command(&program, directory.path());
        command.env("NGINX", inherited);
        command.stderr(File::create(directory.path().join("output")).unwrap());
        let (spawned_in, spawned) = mpsc::channel();
        let (owner, owned) = mpsc::channel::<()>();
        thread::spawn(move || {
            // Not SIGKILL, which would leave the process that serves behind.
            die_with_parent(&mut command, libc::SIGTERM);
            inherit(&mut command, sockets);
            spawned_in.send(command.spawn().unwrap()).unwrap();
            // Ends with an error when the owner is dropped.
            owned.recv().ok();
        });
        Self {
            child: spawned.recv().unwrap(),
            directory,
            _owner: owner,
        }
    }

    /// Where it runs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for NginxProcess {
    fn drop(&mut self) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: the process is a child that has not been waited for, so its id is its own; a descriptor that was
        // just opened belongs to nobody else.
        let process = unsafe {
            let opened = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            OwnedFd::from_raw_fd(RawFd::try_from(opened).unwrap())
        };
        let mut end = libc::pollfd {
            fd: process.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // nginx forgets a signal that comes while it starts, so it is told until it has heard.
        loop {
            // SAFETY: as above, and there is one entry.
            let ended = unsafe {
                libc::kill(pid, libc::SIGTERM);
                libc::poll(&raw mut end, 1, TOLD_AGAIN_AFTER_MS)
            };
            if ended > 0 {
                break;
            }
        }
        self.child.wait().ok();
        if thread::panicking() {
            for name in ["output", "error.log"] {
                let mut text = String::new();
                if let Ok(mut file) = File::open(self.directory.path().join(name)) {
                    file.read_to_string(&mut text).ok();
                }
                eprintln!("{name} of nginx:\n{text}");
            }
        }
    }
}

/// A free port of the loopback interface.
pub fn listener() -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// `host:port`.
pub fn address(listener: &TcpListener) -> String {
    listener.local_addr().unwrap().to_string()
}

/// In the foreground, and writes nowhere but into its directory.
fn configuration(upstream: &str, lines: &[&str], grpc: &str, rest: &str) -> String {
    let upstream = upstream.strip_prefix("http://").unwrap();
    let lines_of = |prefix: &str| -> String {
        let own = lines.iter().filter(|line| {
            let other = ["grpc_", "proxy_"]
                .into_iter()
                .find(|other| line.starts_with(other));
            other.is_none_or(|other| other == prefix)
        });
        own.map(|line| format!("            {line}\n")).collect()
    };
    let (grpc_lines, proxy_lines) = (lines_of("grpc_"), lines_of("proxy_"));
    let user = user_line();
    format!(
        "daemon off;
worker_processes 1;
{user}pid nginx.pid;
error_log error.log info;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {grpc} http2;
        location / {{
            grpc_pass grpc://{upstream};
{grpc_lines}        }}
    }}
    server {{
        listen {rest};
        location / {{
            proxy_pass http://{upstream};
{proxy_lines}        }}
    }}
}}
"
    )
}

/// Run by root it would serve as another account, which cannot write into the directory.
pub fn user_line() -> &'static str {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } == 0 {
        "user root;\n"
    } else {
        ""
    }
}

fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg("-p")
        .arg(directory)
        .args(["-e", "error.log", "-c", "nginx.conf"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Fails with what nginx says about a line that it does not take.
fn check(program: &Path, directory: &Path) {
    // With `-t` it binds no port that is bound already.
    let output = command(program, directory).arg("-t").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "nginx refuses its configuration: {errors}"
    );
}

/// Leaves the descriptors open in the child.
fn inherit(command: &mut Command, sockets: Vec<RawFd>) {
    // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            for socket in &sockets {
                if libc::fcntl(*socket, libc::F_SETFD, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}
