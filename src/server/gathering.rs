//! Gathers what is written to a connection, so that small messages of many streams go out together.
//!
//! A change that ten thousand watches wait for is ten thousand small messages on a few connections. Each by itself,
//! they are as many calls of the system, and as many wake-ups of the client, which cost more than everything else
//! about them. Two rules join them:
//!
//! - A flush of little lets the other tasks of the thread have their turn once before it writes, and writes what they
//!   have added with it. Otherwise the first message of a connection would go out as soon as it is there, since
//!   tokio runs a task that was just woken before all others, and so would the second. Source of the rule: the
//!   writer of grpc-go (`loopyWriter`), which yields once before it flushes a small batch.
//! - It takes one slice at a time (`is_write_vectored`). To a stream that takes several, h2 hands every payload of 256
//!   bytes or more by itself, to save the copy; to another one it copies payloads of up to 1 KiB into its buffer of
//!   16 KiB. Of larger ones it writes the beginning with that buffer and the rest by itself; the beginning is held
//!   here until the rest comes, so that they go out in one call as well.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Bytes that are held at most; the beginning of a large message, with its head and a few small frames before it.
const HELD_BYTES: usize = 2 * 1024;

/// A connection on which what is written shortly before more goes out together with that. It has to be flushed, as
/// HTTP does after each turn of writing, and a flush is pending once before it writes what is held.
#[derive(Debug)]
pub(super) struct Gathering<S> {
    stream: S,
    held: Vec<u8>,
    /// Whether the others had their turn since something was last written.
    waited: bool,
}

impl<S> Gathering<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            held: Vec::new(),
            waited: false,
        }
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    /// Writes what is held and `bytes` after it until something of `bytes` is written, or until nothing is held
    /// where there are none. Returns how many of `bytes` were.
    fn poll_write_held(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        while !self.held.is_empty() {
            let slices = [IoSlice::new(&self.held), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_held = written.min(self.held.len());
            self.held.drain(..of_held);
            if written > of_held {
                return Poll::Ready(Ok(written - of_held));
            }
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() + bytes.len() <= HELD_BYTES {
            self.held.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_write_held(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() && !self.waited {
            self.waited = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_write_held(context, &[]))?;
        self.waited = false;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_held(context, &[]))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    /// Whoever writes gathers by itself then; see the module.
    fn is_write_vectored(&self) -> bool {
        false
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: Connected> Connected for Gathering<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Takes `most` bytes at a time.
    #[derive(Debug)]
    struct Calls {
        written: Vec<Vec<u8>>,
        most: usize,
    }

    impl AsyncWrite for Calls {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(context, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied());
            let written: Vec<u8> = bytes.take(self.most).collect();
            let count = written.len();
            self.written.push(written);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn over(most: usize) -> Gathering<Calls> {
        let written = Vec::new();
        Gathering::new(Calls { written, most })
    }

    fn lengths(gathering: &Gathering<Calls>) -> Vec<usize> {
        gathering.stream.written.iter().map(Vec::len).collect()
    }

    #[tokio::test]
    async fn small_writes_go_out_together_when_they_are_flushed() {
        let mut gathering = over(usize::MAX);
        gathering.write_all(b"head").await.unwrap();
        gathering.write_all(b"body").await.unwrap();
        assert_eq!(lengths(&gathering), [0; 0]);
        gathering.flush().await.unwrap();
        assert_eq!(gathering.stream.written, [b"headbody"]);
        gathering.flush().await.unwrap();
        assert_eq!(lengths(&gathering), [8]);
    }

    #[tokio::test]
    async fn a_flush_lets_other_tasks_add_something_once_before_it_writes() {
        let mut gathering = over(usize::MAX);
        let mut context = Context::from_waker(std::task::Waker::noop());
        for turn in 1..=3 {
            gathering.write_all(b"one").await.unwrap();
            assert!(Pin::new(&mut gathering).poll_flush(&mut context).is_pending());
            assert_eq!(gathering.stream.written.len(), turn - 1);
            gathering.write_all(b"two").await.unwrap();
            assert!(Pin::new(&mut gathering).poll_flush(&mut context).is_ready());
            assert_eq!(gathering.stream.written.len(), turn);
            assert_eq!(gathering.stream.written[turn - 1], b"onetwo");
        }
    }

    #[tokio::test]
    async fn the_beginning_of_a_large_message_goes_out_with_its_rest() {
        let mut gathering = over(usize::MAX);
        gathering.write_all(&[1; 1_033]).await.unwrap();
        gathering.write_all(&[2; 15_000]).await.unwrap();
        gathering.flush().await.unwrap();
        assert_eq!(lengths(&gathering), [16_033]);
        gathering.write_all(&[3; 16_384]).await.unwrap();
        assert_eq!(lengths(&gathering), [16_033, 16_384]);
    }

    #[tokio::test]
    async fn what_is_held_goes_out_before_the_end() {
        let (near, mut far) = tokio::io::duplex(3);
        let mut gathering = Gathering::new(near);
        let writing = async {
            gathering.write_all(b"goodbye").await.unwrap();
            gathering.shutdown().await.unwrap();
        };
        let mut read = String::new();
        let (_, count) = tokio::join!(writing, far.read_to_string(&mut read));
        assert_eq!((count.unwrap(), read.as_str()), (7, "goodbye"));
    }

    #[tokio::test]
    async fn a_connection_that_takes_nothing_is_an_error() {
        let mut gathering = over(0);
        gathering.write_all(b"x").await.unwrap();
        let refused = gathering.flush().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WriteZero);
    }

    proptest! {
        #[test]
        fn every_byte_goes_out_once_and_in_order(
            lengths in proptest::collection::vec((0_usize..5_000, any::<bool>()), 0..20),
            most in 1_usize..4_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut gathering = over(most);
            let mut expected = Vec::new();
            runtime.block_on(async {
                for (place, (length, flush)) in lengths.into_iter().enumerate() {
                    let bytes = vec![u8::try_from(place).unwrap(); length];
                    gathering.write_all(&bytes).await.unwrap();
                    expected.extend(bytes);
                    if flush {
                        gathering.flush().await.unwrap();
                    }
                }
                gathering.flush().await.unwrap();
            });
            prop_assert_eq!(gathering.stream.written.concat(), expected);
        }
    }
}
