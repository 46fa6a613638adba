//! Forms as a client of `POST /api/v1/add-file` sends them, byte by byte, so that any order can be tried.

use super::{rest::Answer, service::Service};

const BOUNDARY: &str = "boundary-of-a-test";

/// A form that is being written.
#[derive(Debug, Clone, Default)]
pub struct Form {
    body: Vec<u8>,
    size: usize,
}

impl Form {
    /// The fields that every upload needs, before the file.
    pub fn to(database: &str, collection: &str) -> Self {
        Self::default()
            .field("database_name", database)
            .field("collection_name", collection)
    }

    /// Adds a field.
    pub fn field(self, name: &str, value: &str) -> Self {
        self.part(&format!("name=\"{name}\""), None, value.as_bytes())
    }

    /// Adds the file; the size that is declared is its.
    pub fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.size = content.len();
        self.part(&format!("name=\"file\"; filename=\"{name}\""), None, content)
    }

    /// Adds a part with this rest of its Content-Disposition.
    pub fn part(mut self, disposition: &str, content_type: Option<&str>, content: &[u8]) -> Self {
        let mut head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n");
        if let Some(content_type) = content_type {
            head.push_str(&format!("Content-Type: {content_type}\r\n"));
        }
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(b"\r\n");
        self.body.extend_from_slice(content);
        self.body.extend_from_slice(b"\r\n");
        self
    }

    /// The media type of the form.
    pub fn content_type() -> String {
        format!("multipart/form-data; boundary={BOUNDARY}")
    }

    /// The form as far as it goes, without its end.
    pub fn unfinished(self) -> Vec<u8> {
        self.body
    }

    /// The whole form.
    pub fn finished(mut self) -> Vec<u8> {
        self.body
            .extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        self.body
    }

    /// Sends the form with the size of its file.
    pub async fn send(self, service: &Service, token: &str) -> Answer {
        let size = self.size.to_string();
        self.send_with(service, token, &[("x-upload-content-length", &size)])
            .await
    }

    /// Sends the form with these headers.
    pub async fn send_with(self, service: &Service, token: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = reqwest::Client::new()
            .post(format!("{}/api/v1/add-file", service.url))
            .header("content-type", Self::content_type());
        if !token.is_empty() {
            request = request.header("x-chroma-token", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.body(self.finished()).send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }
}
