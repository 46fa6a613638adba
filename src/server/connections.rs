//! Accepts connections: a limited number, and none that says nothing.
//!
//! One beyond the limit is closed at once, so that whoever asks knows; it costs no memory and no task. A
//! connection that sends nothing after it was opened is closed as well. Later silence is a matter of HTTP:
//! of HTTP/2's pings, and of the limits on watches.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::Connected;

/// One connection and its place among those that are open.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// Runs until the first bytes have come.
    silence: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// At most `limit` connections of `listener` at a time, as `setting` says. One that sends nothing within `silence`
/// fails.
pub(super) fn accept(
    listener: TcpListener,
    limit: usize,
    setting: &'static str,
    silence: Duration,
) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
    TcpListenerStream::new(listener).filter_map(move |accepted| {
        let places = Arc::clone(&places);
        async move {
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => return Some(Err(error)),
            };
            let Ok(place) = places.try_acquire_owned() else {
                tracing::warn!("a connection was closed: as many as {setting} are open");
                return None;
            };
            // Whoever is gone already is found out by the first read.
            stream.set_nodelay(true).ok();
            Some(Ok(Connection {
                stream,
                silence: Some(Box::pin(tokio::time::sleep(silence))),
                _place: place,
            }))
        }
    })
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(silence) = &mut self.silence else {
            return read;
        };
        if read.is_ready() {
            self.silence = None;
            return read;
        }
        ready!(silence.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
