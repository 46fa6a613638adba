//! A web site: files that a real nginx serves, with what it logged of each request.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use url::Url;

use super::{
    nginx::{NginxProcess, address, listener, user_line},
    wait_for,
};

/// A request as nginx logged it.
#[derive(Debug, Clone, PartialEq)]
pub struct Logged {
    /// When its answer was sent, in seconds.
    pub at: f64,
    /// Path and query.
    pub path: String,
    pub status: u16,
    /// `If-None-Match`; `-` without.
    pub if_none_match: String,
    pub user_agent: String,
}

/// Serves a directory. Dropping it ends it.
pub struct Site {
    pub port: u16,
    root: PathBuf,
    process: NginxProcess,
}

impl Site {
    /// Serves `files` by path with nginx's defaults.
    pub fn start(files: &[(&str, &str)]) -> Self {
        Self::with(files, "", "")
    }

    /// The same with lines in the sections `http` and `server` of its configuration.
    pub fn with(files: &[(&str, &str)], http: &str, server: &str) -> Self {
        Self::listening(&listener(), files, http, server)
    }

    /// The same at a port that is taken already.
    pub fn listening(listener: &TcpListener, files: &[(&str, &str)], http: &str, server: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        for (path, content) in files {
            write(&root, path, content.as_bytes());
        }
        let configuration = configuration(&address(listener), http, server);
        Self {
            port: listener.local_addr().unwrap().port(),
            root,
            process: NginxProcess::start(directory, &configuration, &[listener]),
        }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> Url {
        format!("http://127.0.0.1:{}{path}", self.port).parse().unwrap()
    }

    /// Writes a file.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        write(&self.root, path, content.as_ref());
    }

    /// Removes a file.
    pub fn remove(&self, path: &str) {
        fs::remove_file(self.root.join(path.trim_start_matches('/'))).unwrap();
    }

    /// All requests so far, in the order of their answers.
    pub async fn requests(&self) -> Vec<Logged> {
        let log = self.process.directory().join("access.log");
        let end = format!("/end-of-log-{}", uuid::Uuid::now_v7().simple());
        // nginx logs a request after its answer was sent. It has one process, so when this one is there, all
        // that were answered before are.
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(self.url(&end)).send().await.unwrap();
        let lines = wait_for("the log to be written", async || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains(&end) { Ok(text) } else { Err(text) }
        })
        .await;
        lines
            .lines()
            .map(parse)
            .filter(|request| !request.path.starts_with("/end-of-log-"))
            .collect()
    }

    /// The paths of all requests so far but that for robots.txt and sitemaps.
    pub async fn paths(&self) -> Vec<String> {
        let requests = self.requests().await;
        let paths = requests.into_iter().map(|request| request.path);
        paths
            .filter(|path| path != "/robots.txt" && path != "/sitemap.xml")
            .collect()
    }
}

fn write(root: &Path, path: &str, content: &[u8]) {
    let path = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn parse(line: &str) -> Logged {
    let fields: Vec<&str> = line.split('\t').collect();
    Logged {
        at: fields[0].parse().unwrap(),
        path: fields[1].to_owned(),
        status: fields[2].parse().unwrap(),
        if_none_match: fields[3].to_owned(),
        user_agent: fields[4].to_owned(),
    }
}

fn configuration(listen: &str, http: &str, server: &str) -> String {
    format!(
        "daemon off;
worker_processes 1;
{}pid nginx.pid;
error_log error.log info;
events {{ worker_connections 1024; }}
http {{
    log_format fields '$msec\\t$request_uri\\t$status\\t$http_if_none_match\\t$http_user_agent';
    access_log access.log fields;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    types {{
        text/html html;
        text/plain txt;
        text/markdown md;
        text/css css;
        text/xml xml;
        application/pdf pdf;
        image/png png;
    }}
    default_type application/octet-stream;
    {http}
    server {{
        listen {listen};
        root root;
        index index.html;
        {server}
    }}
}}
",
        user_line()
    )
}
