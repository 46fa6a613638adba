//! A gate before a server: while it is closed, the peer behind it is away.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixStream},
    sync::Notify,
};

/// A running gate; it ends with the test's runtime.
pub struct Gate {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    closing: Notify,
    freezing: Notify,
}

impl Gate {
    /// A gate to `http://HOST:PORT`, or to a socket that is a file, open.
    pub async fn start(target: &str) -> Self {
        let target = target
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((inbound, _)) = listener.accept().await {
                tokio::spawn(pass(inbound, target.clone(), Arc::clone(&state)));
            }
        });
        Self { port, shared }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Breaks all connections and refuses new ones.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.closing.notify_waiters();
    }

    /// Passes nothing on any more and says nothing: the connections stay open, as they do when a machine is
    /// gone.
    pub fn freeze(&self) {
        self.shared.freezing.notify_waiters();
    }

    /// Lets connections through again.
    pub fn open(&self) {
        self.shared.closed.store(false, Ordering::SeqCst);
    }
}

async fn pass(mut inbound: TcpStream, target: String, shared: Arc<Shared>) {
    let closing = shared.closing.notified();
    // A connection to a closed gate is dropped: the client sees it break.
    if shared.closed.load(Ordering::SeqCst) {
        return;
    }
    let passing = async {
        if target.starts_with('/') {
            let mut outbound = UnixStream::connect(&target).await?;
            copy_bidirectional(&mut inbound, &mut outbound).await
        } else {
            let mut outbound = TcpStream::connect(&target).await?;
            copy_bidirectional(&mut inbound, &mut outbound).await
        }
    };
    let freezing = shared.freezing.notified();
    // Pinned outside of the choice, so that what was opened stays open.
    let mut passing = std::pin::pin!(passing);
    tokio::select! {
        _ = &mut passing => return,
        () = closing => return,
        () = freezing => {}
    }
    shared.closing.notified().await;
}
