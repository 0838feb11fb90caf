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
use tls::ServerCertificate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::api::error::ApiError;
use crate::api::limits::ApiLimits;
use crate::api::line::Line;
use crate::api::stall::Stalling;

/// Header lines of a request.
const HEADERS_MAX: usize = 100;
/// What TLS begins with, and HTTP cannot.
const HANDSHAKE: u8 = 22;
/// When no connection can be accepted (too many files are open), it is tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `shutdown`, then lets those that are open finish, within a bound. With a
/// certificate they are HTTPS, and whoever speaks plain HTTP is told so.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &ApiLimits,
    certificate: Option<ServerCertificate>,
    shutdown: CancellationToken,
) {
    let door = Door::new(router, certificate, limits, shutdown.clone());
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
                    let connection = door.clone().connection(stream);
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

/// What a connection is served with.
#[derive(Clone)]
struct Door {
    router: Router,
    certificate: Option<ServerCertificate>,
    http: http1::Builder,
    head_wait_max: Duration,
    write_stall_max: Duration,
    shutdown: CancellationToken,
}

impl Door {
    fn new(
        router: Router,
        certificate: Option<ServerCertificate>,
        limits: &ApiLimits,
        shutdown: CancellationToken,
    ) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.head_wait_max)
            .max_headers(HEADERS_MAX)
            // The least that hyper takes.
            .max_buf_size(limits.head_bytes_max.max(8192));
        let (head_wait_max, write_stall_max) = (limits.head_wait_max, limits.write_stall_max);
        Self { router, certificate, http, head_wait_max, write_stall_max, shutdown }
    }

    async fn connection(self, stream: TcpStream) {
        // Tokens are small, and each is waited for.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot turn off Nagle's algorithm");
        }
        let line = Line::default();
        let Some(certificate) = self.certificate.clone() else {
            let stream = Stalling::new(stream, self.write_stall_max, line.clone());
            return self.speak(stream, line).await;
        };
        let secured = async {
            let mut first = [0];
            let speaks_tls = stream.peek(&mut first).await? == 0 || first[0] == HANDSHAKE;
            let stream = Stalling::new(stream, self.write_stall_max, line.clone());
            if speaks_tls {
                return certificate.accept(stream).await.map(Either::Left);
            }
            Ok(Either::Right(stream))
        };
        match timeout(self.head_wait_max, secured).await {
            Ok(Ok(Either::Left(stream))) => self.speak(stream, line).await,
            Ok(Ok(Either::Right(stream))) => self.refusing().speak(stream, line).await,
            Ok(Err(error)) => tracing::debug!(%error, "a connection proved nothing"),
            Err(_) => tracing::debug!("a connection proved nothing in time"),
        }
    }

    /// The same, with one answer to whatever is asked.
    fn refusing(mut self) -> Self {
        self.http.keep_alive(false);
        self.router = Router::new().fallback(async || ApiError::NotSecure);
        self
    }

    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin, line: Line) {
        let answers = TowerToHyperService::new(self.router);
        let answers = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(line.clone());
            answers.call(request)
        });
        let served = self.http.serve_connection(TokioIo::new(stream), answers);
        let mut served = std::pin::pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
    }
}
