//! A headless Chromium, driven through its DevTools protocol over a pipe.

use std::{path::Path, process::Stdio, time::Duration};

use axum::{Router, extract, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::{service::project_file, wait_for};

/// How long the browser may take for one answer.
const DEADLINE: Duration = Duration::from_secs(60);
/// The protocol is spoken on the descriptors 3 and 4.
const LAUNCH: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#;
const FLAGS: [&str; 13] = [
    "--remote-debugging-pipe",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--window-size=1100,1000",
    "about:blank",
];

/// One page in a browser of its own. The browser ends when this is dropped.
pub struct Page {
    _browser: Child,
    _profile: TempDir,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    session: Option<String>,
    calls: u64,
}

impl Page {
    /// Opens a page; returns once it is loaded.
    pub async fn open(url: &str) -> Self {
        let chromium = project_file(".peers/chromium");
        assert!(
            chromium.exists(),
            "{} is missing; run `make peers`",
            chromium.display()
        );
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Command::new("sh")
            .args(["-c", LAUNCH])
            .arg(chromium)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(FLAGS)
            // What it would leave in the common directory goes with its profile.
            .env("TMPDIR", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut page = Self {
            requests: browser.stdin.take().unwrap(),
            answers: BufReader::new(browser.stdout.take().unwrap()),
            _browser: browser,
            _profile: profile,
            session: None,
            calls: 0,
        };
        let made = page.call("Target.createTarget", json!({"url": url})).await;
        let target = json!({"targetId": made["targetId"], "flatten": true});
        let attached = page.call("Target.attachToTarget", target).await;
        page.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        let loaded = format!("location.href === {} && document.readyState", json!(url));
        page.wait_until(&loaded, &json!("complete")).await;
        page
    }

    /// The value of a JavaScript expression.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", parameters).await;
        assert_eq!(answer["exceptionDetails"], Value::Null, "{expression}");
        answer["result"]["value"].clone()
    }

    /// Waits until a JavaScript expression has this value.
    pub async fn wait_until(&mut self, expression: &str, wanted: &Value) {
        wait_for(expression, async || {
            let value = self.evaluate(expression).await;
            if value == *wanted { Ok(()) } else { Err(value) }
        })
        .await;
    }

    /// The text that is shown of the elements that a selector finds, in their order.
    pub async fn texts(&mut self, selector: &str) -> Vec<String> {
        let expression = format!(
            "[...document.querySelectorAll({})].map((element) => element.innerText)",
            json!(selector)
        );
        serde_json::from_value(self.evaluate(&expression).await).unwrap()
    }

    /// Replaces the content of a field by typing.
    pub async fn fill(&mut self, selector: &str, text: &str) {
        self.evaluate(&format!("document.querySelector({}).select()", json!(selector)))
            .await;
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Clicks on the middle of an element, with the mouse.
    pub async fn click(&mut self, selector: &str) {
        let middle = format!(
            "(() => {{ const element = document.querySelector({}); element.scrollIntoView();
             const box = element.getBoundingClientRect();
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()",
            json!(selector)
        );
        let middle = self.evaluate(&middle).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({"type": kind, "x": middle[0], "y": middle[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut request = json!({"id": self.calls, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        let mut bytes = request.to_string().into_bytes();
        bytes.push(0);
        self.requests.write_all(&bytes).await.unwrap();
        loop {
            let mut answer = Vec::new();
            timeout(DEADLINE, self.answers.read_until(0, &mut answer))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(answer.pop(), Some(0), "the browser ended at {method}");
            let mut answer: Value = serde_json::from_slice(&answer).unwrap();
            // What has no id of ours is an event.
            if answer["id"] == json!(self.calls) {
                assert_eq!(answer["error"], Value::Null, "{method}");
                return answer["result"].take();
            }
        }
    }
}

/// Serves the files of a directory to the browser; returns the URL.
pub async fn serve_files(directory: &'static Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let file = async move |extract::Path(name): extract::Path<String>| {
        let kind = match name.rsplit('.').next() {
            Some("html") => "text/html",
            Some("css") => "text/css",
            Some("js") => "text/javascript",
            _ => "application/octet-stream",
        };
        let content = tokio::fs::read(directory.join(name)).await.unwrap();
        ([(CONTENT_TYPE, kind)], content).into_response()
    };
    let files = Router::new().route("/{name}", get(file));
    tokio::spawn(async move { axum::serve(listener, files).await });
    format!("http://{address}")
}
