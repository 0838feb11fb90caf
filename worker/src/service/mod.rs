//! A worker process from outside: gRPC for coordinator and peers, HTTP for metrics and health.
//!
//! The gRPC server runs where the streams to the peers are driven: peers call at the same port as the
//! coordinator, and a frame should not change threads on its way to the rank.

mod calls;
mod files;
mod probes;

use std::future::IntoFuture;
use std::io;
use std::time::Duration;

use proto::MESSAGE_BYTES_MAX;
use proto::collective::peer_server::PeerServer;
use proto::files::files_server::FilesServer;
use proto::worker::worker_server::WorkerServer;
use tls::Guard;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::TcpIncoming;
use tracing::info;

use crate::collective::grpc::{FRAME_BYTES_MAX, tuned_server};
use crate::rank::Rank;
use crate::service::calls::{PeerCalls, WorkerCalls};
use crate::service::files::FileCalls;

/// How long what is under way may take to end once the worker is told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Why a worker does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The sockets cannot be used.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The gRPC server ended by itself.
    #[error("the gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// The device is lost: another process has to take this one's place.
    #[error("this worker ends because its device is lost: {0}")]
    Device(String),
    /// Its task is gone: a bug.
    #[error("the gRPC server died")]
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
    // Whoever drops this future stops what it started, too.
    let _stop_all = stop.clone().drop_guard();
    let probes = axum::serve(metrics_listener, probes::router(rank.metrics().clone()))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut probes = tokio::spawn(probes.into_future());
    let runtime = rank.switchboard().map_or_else(Handle::current, |s| s.driver().handle().clone());
    let grpc = grpc(listener.into_std()?, rank.clone(), stop.clone());
    let mut grpc = AbortOnDropHandle::new(runtime.spawn(grpc));
    let lost = tokio::select! {
        () = shutdown => None,
        reason = rank.lost() => Some(reason),
        ended = &mut grpc => return ended.unwrap_or(Err(ServeError::Died)),
    };
    info!("stopping");
    rank.leave("the worker is stopping");
    stop.cancel();
    if timeout(DRAIN_MAX, &mut probes).await.is_err() {
        probes.abort();
    }
    let ended = grpc.await.unwrap_or(Err(ServeError::Died));
    lost.map_or(ended, |reason| Err(ServeError::Device(reason)))
}

async fn grpc(
    listener: std::net::TcpListener,
    rank: Rank,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    // It stays in non-blocking mode, as it came from a runtime.
    let listener = TcpListener::from_std(listener)?;
    let guard = rank.guard().clone();
    let peers = rank.switchboard().map(|switchboard| {
        let calls = PeerCalls::new(switchboard.desk().clone(), rank.metrics().clone());
        PeerServer::new(calls).max_decoding_message_size(FRAME_BYTES_MAX)
    });
    let files = FileCalls::new(rank.clone());
    let worker = WorkerServer::new(WorkerCalls::new(rank, stop.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let server = tuned_server().add_service(worker).add_service(FilesServer::new(files));
    let server = server.add_optional_service(peers);
    let serving = async {
        match guard {
            Guard::Open => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                server.serve_with_incoming_shutdown(incoming, stop.cancelled()).await
            }
            Guard::Mutual(identity) => {
                let incoming = Box::pin(identity.incoming(listener));
                server.serve_with_incoming_shutdown(incoming, stop.cancelled()).await
            }
        }
    };
    let overdue = async {
        stop.cancelled().await;
        sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = overdue => Ok(()),
    }
}
