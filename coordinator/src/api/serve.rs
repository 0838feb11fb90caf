//! Connections: accepting them, and what each may cost.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::limits::ApiLimits;
use crate::api::line::Line;
use crate::api::stall::Stalling;

/// Header lines of a request.
const HEADERS_MAX: usize = 100;
/// When no connection can be accepted (too many files are open), it is tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `shutdown`, then lets those that are open finish, within a bound.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &ApiLimits,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.connections_max.max(1)));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            // Takes away what has ended.
            Some(_) = connections.join_next() => {}
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let connection = connection(stream, router.clone(), limits, &shutdown);
                    connections.spawn(async move {
                        let _place = place;
                        connection.await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.drain_max, all).await.is_err() {
        tracing::warn!(open = connections.len(), "connections are cut off");
    }
}

fn connection(
    stream: TcpStream,
    router: Router,
    limits: &ApiLimits,
    shutdown: &CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_wait_max)
        .max_headers(HEADERS_MAX)
        // The least that hyper takes.
        .max_buf_size(limits.head_bytes_max.max(8192));
    // Tokens are small, and each is waited for.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot turn off Nagle's algorithm");
    }
    let line = Line::default();
    let stream = TokioIo::new(Stalling::new(stream, limits.write_stall_max, line.clone()));
    let shutdown = shutdown.clone();
    async move {
        let answers = TowerToHyperService::new(router);
        let answers = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(line.clone());
            answers.call(request)
        });
        let served = builder.serve_connection(stream, answers);
        let mut served = std::pin::pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = shutdown.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
    }
}
