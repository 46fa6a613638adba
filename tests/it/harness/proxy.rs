//! A TCP proxy before a server, which answers the first connections with faults and seen requests.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What happens to one connection.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// None: hands one request on, returns its answer and closes the connection.
    PassOnce,
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
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    handed_on: AtomicUsize,
    first_request: OnceLock<Vec<u8>>,
}

impl FaultProxy {
    /// Before `server` (`host:port`): one fault for each of the first connections, then none.
    pub async fn start(server: &str, faults: &[Fault]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let faults = Arc::new(Mutex::new(VecDeque::from(faults.to_vec())));
        let (server, sees) = (server.to_owned(), seen.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                sees.connections.fetch_add(1, Ordering::Relaxed);
                let fault = faults.lock().unwrap().pop_front();
                tokio::spawn(serve(connection, server.clone(), fault, sees.clone()));
            }
        });
        Self {
            address,
            seen,
            accepting,
        }
    }

    /// `http://` URL of the proxy.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// The first request it took, as it came.
    pub fn first_request(&self) -> String {
        String::from_utf8_lossy(self.seen.first_request.get().unwrap()).into_owned()
    }

    /// How many requests it has handed on without a fault.
    pub fn handed_on(&self) -> usize {
        self.seen.handed_on.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut connection: TcpStream, server: String, fault: Option<Fault>, seen: Arc<Seen>) {
    let request = read_message(&mut connection).await;
    seen.first_request.get_or_init(|| request.clone());
    match fault {
        None => {
            let mut onward = TcpStream::connect(server).await.unwrap();
            let mut request = request;
            while !request.is_empty() && hand_on(&mut connection, &request, &mut onward, &seen).await {
                request = read_message(&mut connection).await;
            }
        }
        Some(Fault::PassOnce) => {
            let mut onward = TcpStream::connect(server).await.unwrap();
            hand_on(&mut connection, &request, &mut onward, &seen).await;
        }
        Some(Fault::Answer(head)) => {
            let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            connection.write_all(answer.as_bytes()).await.ok();
        }
        Some(Fault::Reset) => connection.set_zero_linger().unwrap(),
        Some(Fault::LoseAnswer) => {
            let mut onward = TcpStream::connect(server).await.unwrap();
            onward.write_all(&request).await.unwrap();
            assert!(
                !read_message(&mut onward).await.is_empty(),
                "the server did not answer"
            );
            connection.set_zero_linger().unwrap();
        }
        // Until the client gives up.
        Some(Fault::Hang) => drop(connection.read(&mut [0]).await),
    }
}

/// Hands one request on and its answer back; false when the client is gone.
async fn hand_on(connection: &mut TcpStream, request: &[u8], onward: &mut TcpStream, seen: &Seen) -> bool {
    seen.handed_on.fetch_add(1, Ordering::Relaxed);
    onward.write_all(request).await.unwrap();
    let answer = read_message(onward).await;
    connection.write_all(&answer).await.is_ok()
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
    let Some(end) = message.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&message[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    message.len() >= end + 4 + length
}
