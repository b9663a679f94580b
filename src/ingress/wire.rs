//! The socket under hyper: two deadlines that hyper does not have, and when a request began.
//!
//! A sender that asks and never reads would hold its connection for ever, because an answer that
//! cannot be written has no deadline. And an answer that is sent while a body is still coming would
//! be lost: a close with bytes unread makes the kernel send a reset, and the reset throws the 413
//! away before it is read. So a write that makes no progress ends the connection, and a close lets
//! the peer finish for a moment.
//!
//! hyper tells of a request when its head is complete. How long the head took belongs to how long the
//! request took, so its first byte is noted here.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::stream::clock::Stopwatch;

/// How long a close lets the peer finish what it is sending.
const LINGER: Duration = Duration::from_secs(1);
/// The most that is read then, and thrown away: more than any vendor's cap, or its 413 would be
/// lost.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// When the request began that is being received on a connection.
#[derive(Default)]
pub(super) struct Ear(Mutex<Heard>);

#[derive(Default)]
enum Heard {
    /// Nothing since the last answer.
    #[default]
    Nothing,
    /// The first byte of a head.
    Head(Stopwatch),
    /// A whole head: what is heard now is its body, or a request that is told of later.
    Request,
}

impl Ear {
    fn bytes(&self) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*heard, Heard::Nothing) {
            *heard = Heard::Head(Stopwatch::start());
        }
    }

    /// A request begins: since when. One that came together with the one before begins now.
    pub(super) fn request(&self) -> Stopwatch {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *heard, Heard::Request) {
            Heard::Head(since) => since,
            Heard::Nothing | Heard::Request => Stopwatch::start(),
        }
    }

    /// It is answered.
    pub(super) fn answered(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Heard::Nothing;
    }
}

/// A stream with deadlines for its writes and its close.
pub(super) struct Wire<S> {
    stream: S,
    ear: Arc<Ear>,
    stall_max: Duration,
    /// Running while a write makes no progress.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Running from the close of our side on.
    lingering: Option<Pin<Box<Sleep>>>,
    lingered_bytes: usize,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, stall_max: Duration, ear: Arc<Ear>) -> Self {
        Self { stream, ear, stall_max, stalled: None, lingering: None, lingered_bytes: 0 }
    }

    /// Passes on what a write did, and ends it where it did nothing for too long.
    fn watched<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled =
            self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.stall_max)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.ear.bytes();
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watched(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watched(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let lingering = match &mut this.lingering {
            Some(lingering) => lingering,
            None => {
                if ready!(Pin::new(&mut this.stream).poll_shutdown(context)).is_err() {
                    // The peer is gone already, which is what a close is for.
                    return Poll::Ready(Ok(()));
                }
                this.lingering.insert(Box::pin(tokio::time::sleep(LINGER)))
            }
        };
        let mut scrap = [0; 4096];
        loop {
            if lingering.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut scrap);
            let read = ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer));
            this.lingered_bytes += buffer.filled().len();
            let ended = read.is_err() || buffer.filled().is_empty();
            if ended || this.lingered_bytes > LINGER_BYTES_MAX {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const STALL: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_request_begins_with_its_first_byte() {
        let (ours, mut theirs) = duplex(64);
        let ear = Arc::new(Ear::default());
        let mut wire = Wire::new(ours, STALL, Arc::clone(&ear));
        let mut read = [0; 1];
        let pause = Duration::from_millis(20);
        for _ in 0..2 {
            theirs.write_all(b"he").await.expect("written");
            wire.read_exact(&mut read).await.expect("read");
            tokio::time::sleep(pause).await;
            wire.read_exact(&mut read).await.expect("read");
            assert!(ear.request().elapsed() >= pause, "while the head came");
            theirs.write_all(b"b").await.expect("written");
            wire.read_exact(&mut read).await.expect("read");
            assert!(ear.request().elapsed() < pause, "a body begins no request");
            ear.answered();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_is_let_go() {
        let (ours, theirs) = duplex(16);
        let mut wire = Wire::new(ours, STALL, Arc::default());
        let written = tokio::time::timeout(STALL * 2, wire.write_all(&[0; 64])).await;
        let error = written.expect("before the test's patience ends").expect_err("let go");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(theirs);
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_is_not() {
        let (ours, mut theirs) = duplex(16);
        let mut wire = Wire::new(ours, STALL, Arc::default());
        let reader = async {
            let mut read = [0; 8];
            for _ in 0..8 {
                tokio::time::sleep(STALL / 2).await;
                theirs.read_exact(&mut read).await.expect("read");
            }
        };
        let (written, ()) = tokio::join!(wire.write_all(&[0; 64]), reader);
        assert!(written.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_waits_for_the_peer_and_not_for_ever() {
        let (ours, mut theirs) = duplex(16);
        let mut wire = Wire::new(ours, STALL, Arc::default());
        let peer = async {
            theirs.write_all(&[0; 64]).await.expect("taken while we close");
            drop(theirs);
        };
        let (closed, ()) = tokio::join!(wire.shutdown(), peer);
        assert!(closed.is_ok());

        let (ours, theirs) = duplex(16);
        let mut wire = Wire::new(ours, STALL, Arc::default());
        let closed = tokio::time::timeout(LINGER * 2, wire.shutdown()).await;
        assert!(closed.expect("within a second").is_ok());
        drop(theirs);

        let (ours, mut theirs) = duplex(64 * 1024);
        let mut wire = Wire::new(ours, STALL, Arc::default());
        let endless = async { while theirs.write_all(&[0; 4096]).await.is_ok() {} };
        tokio::select! {
            closed = wire.shutdown() => assert!(closed.is_ok()),
            () = endless => panic!("a peer that never stops"),
        }
        assert!(wire.lingered_bytes <= LINGER_BYTES_MAX + 4096);
    }
}
