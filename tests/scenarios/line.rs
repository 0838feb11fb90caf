//! A line to a worker that can be cut without either end being told.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes on their way.
const BYTES: usize = 64 << 10;

/// Which ways are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    /// To the worker.
    pub(crate) there: bool,
    /// From it.
    pub(crate) back: bool,
}

/// Passes on what others say to a worker, and what it answers, as long as the ways are open.
#[derive(Debug)]
pub(crate) struct Line {
    /// Where others reach the worker.
    pub(crate) address: SocketAddr,
    open: watch::Sender<Open>,
    task: JoinHandle<()>,
}

impl Line {
    /// A line to this address.
    pub(crate) async fn to(worker: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = watch::Sender::new(Open { there: true, back: true });
        let ways = open.clone();
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                // A worker that is not there is what whoever connected finds.
                let Ok(far) = TcpStream::connect(&worker).await else { continue };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let ((from_near, to_near), (from_far, to_far)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(pass(from_near, to_far, ways.subscribe(), |open| open.there));
                tokio::spawn(pass(from_far, to_near, ways.subscribe(), |open| open.back));
            }
        });
        Self { address, open, task }
    }

    /// Opens and closes the ways. What is said meanwhile waits.
    pub(crate) fn set(&self, there: bool, back: bool) {
        self.open.send_replace(Open { there, back });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut open: watch::Receiver<Open>,
    is_open: fn(&Open) -> bool,
) {
    let mut bytes = vec![0; BYTES];
    // An end that has gone ends the other.
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if open.wait_for(is_open).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
