//! Groups to test with, of every kind.

use std::path::Path;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tls::Guard;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::TcpIncoming;
use worker::collective::grpc::{Desk, Switchboard, tuned_server};
use worker::collective::local::{self, LocalCollective};
use worker::collective::{Collective, CollectiveError, Lane, LaneChoice};

/// Longer than any test takes: waits that are not under test.
pub(crate) const PATIENT: Duration = Duration::from_secs(60);

/// So short that a test can wait for it.
pub(crate) const HASTY: Duration = Duration::from_millis(100);

/// Workers' gRPC servers on loopback, one for each rank.
pub(crate) struct Site {
    pub(crate) runtime: Runtime,
    pub(crate) boards: Vec<Switchboard>,
    pub(crate) peers: Vec<String>,
    _stop: DropGuard,
    /// Where they share memory.
    pub(crate) folder: TempDir,
}

impl Site {
    /// Over gRPC.
    pub(crate) fn new(world: usize) -> Self {
        Self::with(world, |_, _| LaneChoice::Grpc)
    }

    /// On one host.
    pub(crate) fn sharing(world: usize) -> Self {
        Self::with(world, |_, folder| LaneChoice::Auto(folder.to_owned()))
    }

    /// With a choice for each rank, and a folder that it may name.
    pub(crate) fn with(world: usize, choose: impl Fn(usize, &Path) -> LaneChoice) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let board = |rank| Switchboard::guarded(Guard::Open, choose(rank, folder.path())).unwrap();
        let boards: Vec<Switchboard> = (0..world).map(board).collect();
        let serving = boards.iter().map(|board| {
            let serving = board.driver().handle().spawn(serve(board.desk().clone(), stop.clone()));
            runtime.block_on(serving).unwrap()
        });
        let peers = serving.collect();
        Self { runtime, boards, peers, _stop: stop.drop_guard(), folder }
    }

    /// All ranks of a group at this epoch.
    pub(crate) fn form(&self, epoch: u64) -> Vec<Box<dyn Collective>> {
        let forming: Vec<_> = (0..self.boards.len())
            .map(|rank| {
                let (board, peers) = (self.boards[rank].clone(), self.peers.clone());
                self.runtime.spawn(async move { board.form(epoch, rank, &peers, PATIENT).await })
            })
            .collect();
        forming.into_iter().map(|end| self.runtime.block_on(end).unwrap().unwrap()).collect()
    }
}

/// Serves on loopback and says where.
async fn serve(desk: Desk, stop: CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tuned_server().add_service(desk.service());
    tokio::spawn(server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()));
    address
}

pub(crate) fn local_group(world: usize) -> Vec<Box<dyn Collective>> {
    let ends: Vec<LocalCollective> = local::group(world);
    ends.into_iter().map(|end| Box::new(end) as Box<dyn Collective>).collect()
}

/// Runs the test with groups of all kinds.
pub(crate) fn with_all(world: usize, test: impl Fn(Vec<Box<dyn Collective>>)) {
    test(local_group(world));
    for (site, lane) in [(Site::new(world), Lane::Grpc), (Site::sharing(world), Lane::Shared)] {
        let ends = site.form(1);
        assert!(ends.iter().all(|end| end.lane() == lane));
        test(ends);
    }
}

/// Runs every rank on a thread of its own and gives what each returned, in order of rank. No end is
/// dropped before all are done.
pub(crate) fn on_every_rank<T: Send>(
    mut ends: Vec<Box<dyn Collective>>,
    run: impl Fn(&mut dyn Collective) -> T + Sync,
) -> Vec<T> {
    let run = &run;
    thread::scope(|scope| {
        let threads: Vec<_> =
            ends.iter_mut().map(|end| scope.spawn(move || run(end.as_mut()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Who an error says did not come.
pub(crate) fn blamed(error: &CollectiveError) -> usize {
    match error {
        CollectiveError::Deadline { peer, .. }
        | CollectiveError::PeerLost { peer, .. }
        | CollectiveError::Mismatch { peer, .. } => *peer,
    }
}
