//! Connections between nodes: plain, or both ends proved to each other.

use std::io;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::codegen::http::uri::Authority;
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::service_fn;

use crate::identity::Identity;

/// Who connects proves within this time who it is.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Who is still proving it; more wait in the system's queue.
const HANDSHAKES_MAX: usize = 64;
/// After a connection that could not be taken: the system lacks something.
const PAUSE: Duration = Duration::from_millis(50);

/// Who may connect.
#[derive(Debug, Clone, Default)]
pub enum Guard {
    /// Anybody.
    #[default]
    Open,
    /// Who belongs to the cluster.
    Mutual(Identity),
}

impl Guard {
    /// A channel to `http://host:port`, connected when it is used.
    #[must_use]
    pub fn lazy(&self, endpoint: &Endpoint) -> Channel {
        match self {
            Self::Open => endpoint.connect_lazy(),
            Self::Mutual(identity) => endpoint.connect_with_connector_lazy(connector(identity)),
        }
    }

    /// A channel to `http://host:port`, connected.
    ///
    /// # Errors
    /// When it cannot be.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        match self {
            Self::Open => endpoint.connect().await,
            Self::Mutual(identity) => endpoint.connect_with_connector(connector(identity)).await,
        }
    }
}

impl Identity {
    /// Who has connected and proved to belong to the cluster. Others are turned away, with a warning.
    pub fn incoming(
        &self,
        listener: TcpListener,
    ) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> + Send + use<> {
        let identity = self.clone();
        stream::unfold(listener, |listener| async {
            loop {
                match listener.accept().await {
                    Ok((stream, from)) => return Some(((stream, from), listener)),
                    Err(error) => {
                        tracing::warn!("a connection could not be taken: {error}");
                        sleep(PAUSE).await;
                    }
                }
            }
        })
        .map(move |(stream, from)| {
            let acceptor = TlsAcceptor::from(identity.server());
            async move {
                let proved = async {
                    stream.set_nodelay(true)?;
                    acceptor.accept(stream).await
                };
                match timeout(HANDSHAKE_MAX, proved).await {
                    Ok(Ok(stream)) => Some(Ok(stream)),
                    Ok(Err(error)) => {
                        tracing::warn!(%from, "turned away: {error}");
                        None
                    }
                    Err(_) => {
                        tracing::warn!(%from, "turned away: it proved nothing in time");
                        None
                    }
                }
            }
        })
        .buffer_unordered(HANDSHAKES_MAX)
        .filter_map(std::future::ready)
    }
}

/// Connects to where a URI leads, proves who we are, and has the other end prove it.
fn connector(
    identity: &Identity,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>,
    Error = io::Error,
    Future: Send,
>
+ Send
+ 'static
+ use<> {
    let identity = identity.clone();
    service_fn(move |to: Uri| {
        let connector = TlsConnector::from(identity.client());
        async move {
            let proving = async {
                let address = to.authority().map_or("", Authority::as_str);
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(crate::NAME).map_err(io::Error::other)?;
                connector.connect(name, stream).await
            };
            let late = || io::Error::new(io::ErrorKind::TimedOut, "it proved nothing in time");
            timeout(HANDSHAKE_MAX, proving).await.map_err(|_| late())?.map(TokioIo::new)
        }
    })
}
