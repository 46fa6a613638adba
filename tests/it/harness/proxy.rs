//! A TCP proxy before a server, which answers the first connections with faults.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What happens to one connection.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Answers the request with this status line and these headers, and an empty body.
    Answer(&'static str),
    /// Resets the connection once the request has come.
    Reset,
    /// Hands the request on, then resets the connection instead of returning the answer.
    LoseAnswer,
    /// Takes the request and never answers.
    Hang,
}

/// The proxy; it ends when dropped.
pub struct FaultProxy {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    /// Before `server` (`host:port`): one fault for each of the first connections, then none.
    pub async fn start(server: &str, faults: &[Fault]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let faults = Arc::new(Mutex::new(VecDeque::from(faults.to_vec())));
        let (server, counter) = (server.to_owned(), connections.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let fault = faults.lock().unwrap().pop_front();
                tokio::spawn(serve(connection, server.clone(), fault));
            }
        });
        Self { address, connections, accepting }
    }

    /// `http://` URL of the proxy.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut connection: TcpStream, server: String, fault: Option<Fault>) {
    match fault {
        None => {
            let mut onward = TcpStream::connect(server).await.unwrap();
            copy_bidirectional(&mut connection, &mut onward).await.ok();
        }
        Some(Fault::Answer(head)) => {
            read_message(&mut connection).await;
            let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            connection.write_all(answer.as_bytes()).await.ok();
        }
        Some(Fault::Reset) => {
            read_message(&mut connection).await;
            connection.set_zero_linger().unwrap();
        }
        Some(Fault::LoseAnswer) => {
            let request = read_message(&mut connection).await;
            let mut onward = TcpStream::connect(server).await.unwrap();
            onward.write_all(&request).await.unwrap();
            assert!(!read_message(&mut onward).await.is_empty(), "the server did not answer");
            connection.set_zero_linger().unwrap();
        }
        Some(Fault::Hang) => {
            read_message(&mut connection).await;
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
    }
}

/// Reads one HTTP message whose body, if any, has a content-length.
async fn read_message(connection: &mut TcpStream) -> Vec<u8> {
    let mut message = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = connection.read(&mut buffer).await.unwrap_or(0);
        message.extend_from_slice(&buffer[..count]);
        if count == 0 || is_whole(&message) {
            return message;
        }
    }
}

fn is_whole(message: &[u8]) -> bool {
    let Some(end) = message.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&message[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    message.len() >= end + 4 + length
}
