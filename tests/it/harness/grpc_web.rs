//! gRPC-Web as a browser speaks it: over HTTP/1.1, with the trailers as the last frame of the body.

use std::collections::BTreeMap;

use prost::Message;
use reqwest::Response;

use super::service::Service;

/// A gRPC message as it goes over the wire: flags, length, bytes.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// Posts a frame as a browser does: gRPC-Web over HTTP/1.1.
pub async fn post(service: &Service, token: &str, method: &str, body: Vec<u8>) -> Response {
    post_with(service, token, method, body, &[]).await
}

/// The same with further headers.
pub async fn post_with(
    service: &Service,
    token: &str,
    method: &str,
    body: Vec<u8>,
    headers: &[(&str, &str)],
) -> Response {
    let client = reqwest::Client::builder().http1_only().build().unwrap();
    let mut request = client
        .post(format!("{}/{method}", service.url))
        .header("content-type", "application/grpc-web+proto")
        .header("x-grpc-web", "1")
        .header("x-chroma-token", token)
        .header("origin", "https://example.com")
        .body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_11);
    assert_eq!(response.status(), 200);
    response
}

/// Takes frames off a body as they arrive.
pub struct Frames {
    response: Response,
    rest: Vec<u8>,
}

impl Frames {
    pub fn new(response: Response) -> Self {
        assert_eq!(response.headers()["content-type"], "application/grpc-web+proto");
        Self {
            response,
            rest: Vec::new(),
        }
    }

    /// The next message; the error is the trailers, which come last.
    pub async fn next<M: Message + Default>(&mut self) -> Result<M, BTreeMap<String, String>> {
        let (flags, bytes) = self.next_frame().await;
        if flags == 0 {
            return Ok(M::decode(&bytes[..]).unwrap());
        }
        assert_eq!(flags, 0x80);
        assert!(self.response.chunk().await.unwrap().is_none() && self.rest.is_empty());
        let trailers = String::from_utf8(bytes).unwrap();
        Err(trailers
            .lines()
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect())
    }

    async fn next_frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some((head, rest)) = self.rest.split_at_checked(5) {
                let length = u32::from_be_bytes(head[1..].try_into().unwrap());
                if let Some((bytes, rest)) = rest.split_at_checked(length as usize) {
                    let found = (head[0], bytes.to_vec());
                    self.rest = rest.to_vec();
                    return found;
                }
            }
            let chunk = self.response.chunk().await.unwrap();
            self.rest
                .extend_from_slice(&chunk.expect("trailers end the body"));
        }
    }
}
