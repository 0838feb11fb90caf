//! A worker process from outside: gRPC for coordinator and peers, HTTP for metrics and health.
//!
//! The gRPC server has a runtime of one thread to itself, which also drives the streams to the peers: a
//! frame then goes from the socket to the rank without changing threads twice.

mod calls;
mod probes;

use std::future::IntoFuture;
use std::io;
use std::thread;
use std::time::Duration;

use proto::MESSAGE_BYTES_MAX;
use proto::collective::peer_server::PeerServer;
use proto::worker::worker_server::WorkerServer;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tracing::info;

use crate::collective::grpc::{FRAME_BYTES_MAX, tuned_server};
use crate::rank::Rank;
use crate::service::calls::{PeerCalls, WorkerCalls};

/// How long what is under way may take to end once the worker is told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Why a worker does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket or a thread could not be had.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The gRPC server ended by itself.
    #[error("the gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// Its thread is gone: a bug.
    #[error("the thread of the gRPC server died")]
    Died,
}

/// Serves until `shutdown`: a rank's calls on `listener`, its metrics on `metrics_listener`. What is
/// under way then has a few seconds to end.
///
/// # Errors
/// [`ServeError`], when it cannot serve or cannot go on.
pub async fn serve(
    listener: TcpListener,
    metrics_listener: TcpListener,
    rank: Rank,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let stop = CancellationToken::new();
    // Whoever drops this future stops the thread, too.
    let _stop_all = stop.clone().drop_guard();
    let probes = axum::serve(metrics_listener, probes::router(rank.metrics().clone()))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut probes = tokio::spawn(probes.into_future());
    let mut grpc = start(listener.into_std()?, rank.clone(), stop.clone())?;
    tokio::select! {
        () = shutdown => {}
        ended = &mut grpc => return ended.unwrap_or(Err(ServeError::Died)),
    }
    info!("stopping");
    rank.leave("the worker is stopping");
    stop.cancel();
    if timeout(DRAIN_MAX, &mut probes).await.is_err() {
        probes.abort();
    }
    grpc.await.unwrap_or(Err(ServeError::Died))
}

/// Starts the gRPC server's thread; tells how it ends.
fn start(
    listener: std::net::TcpListener,
    rank: Rank,
    stop: CancellationToken,
) -> io::Result<oneshot::Receiver<Result<(), ServeError>>> {
    let (tell, ended) = oneshot::channel();
    let run = move || {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(tell.send(Err(error.into()))),
        };
        let result = runtime.block_on(grpc(listener, rank, stop));
        // Streams that are still open end here.
        drop(runtime);
        drop(tell.send(result));
    };
    thread::Builder::new().name("link".to_owned()).spawn(run)?;
    Ok(ended)
}

async fn grpc(
    listener: std::net::TcpListener,
    rank: Rank,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    // It stays in non-blocking mode, as it came from a runtime.
    let incoming = TcpIncoming::from(TcpListener::from_std(listener)?).with_nodelay(Some(true));
    let peers = rank.switchboard().map(|switchboard| {
        let calls = PeerCalls::new(switchboard.clone(), rank.metrics().clone());
        PeerServer::new(calls).max_decoding_message_size(FRAME_BYTES_MAX)
    });
    let worker = WorkerServer::new(WorkerCalls::new(rank, stop.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let server = tuned_server().add_service(worker).add_optional_service(peers);
    let serving = server.serve_with_incoming_shutdown(incoming, stop.cancelled());
    let overdue = async {
        stop.cancelled().await;
        sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = overdue => Ok(()),
    }
}
