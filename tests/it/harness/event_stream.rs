//! Server-sent events, as curl receives them.

use std::process::Stdio;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// One event as it came: its fields, and the comments before it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct SentEvent {
    pub id: String,
    pub event: String,
    pub data: Value,
    pub retry: String,
    pub comments: Vec<String>,
}

/// Server-sent events as curl receives them.
pub struct Curl {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Curl {
    /// Opens a stream; the answer's status and headers come first.
    pub fn open(url: &str, headers: &[String]) -> Self {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--no-buffer", "--include"]);
        for header in headers {
            command.args(["--header", header]);
        }
        let mut process = command
            .arg(url)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// The status line and the headers, in lower case.
    pub async fn head(&mut self) -> Vec<String> {
        let mut head = Vec::new();
        loop {
            let line = self.lines.next_line().await.unwrap().expect("a head");
            if line.trim().is_empty() {
                return head;
            }
            head.push(line.trim().to_ascii_lowercase());
        }
    }

    /// The next event; none at the end of the stream.
    pub async fn next(&mut self) -> Option<SentEvent> {
        let mut event = SentEvent::default();
        let mut empty = true;
        while let Some(line) = self.lines.next_line().await.unwrap() {
            let Some((field, value)) = line.split_once(':') else {
                assert_eq!(line, "", "every line of an event has a colon");
                if empty {
                    continue;
                }
                return Some(event);
            };
            empty = false;
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => event.comments.push(value.to_owned()),
                "id" => event.id = value.to_owned(),
                "event" => event.event = value.to_owned(),
                "retry" => event.retry = value.to_owned(),
                "data" => event.data = serde_json::from_str(value).unwrap(),
                other => panic!("unknown field {other}"),
            }
        }
        assert!(self.process.wait().await.unwrap().success());
        None
    }

    /// The next event that is not a heartbeat.
    pub async fn next_change(&mut self) -> Option<SentEvent> {
        loop {
            let event = self.next().await?;
            if !event.event.is_empty() {
                return Some(event);
            }
        }
    }
}
