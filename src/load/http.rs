//! HTTP/1.1 to one server, over TCP or TLS; a connection at a time, used again and again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a page that is fetched whole may take.
const PAGE_MAX: Duration = Duration::from_secs(30);
/// Longest page that is fetched whole, in bytes.
const PAGE_BYTES_MAX: usize = 64 << 20;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The address is not one.
    #[error("{0}")]
    Address(String),
    /// No connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Nothing came in time.
    #[error("no answer in time")]
    Late,
    /// An answer, but not the one that was wanted.
    #[error("{path} answered {status}: {text}")]
    Status {
        /// Where.
        path: String,
        /// Its status.
        status: u16,
        /// Its beginning.
        text: String,
    },
}

/// Where a server is, and how it wants to be asked.
#[derive(Clone)]
pub(crate) struct Origin {
    host: String,
    port: u16,
    /// What is in front of every path.
    base: String,
    tls: Option<TlsConnector>,
    key: Option<String>,
}

/// A connection.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

impl std::fmt::Debug for Origin {
    /// The key is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Origin({}:{}{})", self.host, self.port, self.base)
    }
}

impl Origin {
    /// Of `http://HOST:PORT/BASE` or `https://…`.
    pub(crate) fn new(url: &str, key: Option<String>) -> Result<Self, HttpError> {
        let parsed = Url::parse(url).map_err(|error| HttpError::Address(error.to_string()))?;
        let wrong = |what: &str| HttpError::Address(format!("{url} has no {what}"));
        let tls = match parsed.scheme() {
            "http" => None,
            "https" => Some(tls()?),
            _ => return Err(HttpError::Address(format!("{url} is neither http nor https"))),
        };
        Ok(Self {
            host: parsed.host_str().ok_or_else(|| wrong("host"))?.to_owned(),
            port: parsed.port_or_known_default().ok_or_else(|| wrong("port"))?,
            base: parsed.path().trim_end_matches('/').to_owned(),
            tls,
            key,
        })
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> Result<Connection, HttpError> {
        let failed = |why: String| HttpError::Connect(format!("{}:{}", self.host, self.port), why);
        match timeout(CONNECT_MAX, self.shake_hands()).await {
            Ok(connected) => connected.map_err(failed),
            Err(_) => Err(failed("it took too long".to_owned())),
        }
    }

    async fn shake_hands(&self) -> Result<Connection, String> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.port)).await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let Some(tls) = &self.tls else { return speak(TokioIo::new(stream)).await };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = tls.connect(name, stream).await.map_err(|error| error.to_string())?;
        speak(TokioIo::new(stream)).await
    }

    /// A request for a path below the base.
    pub(crate) fn request(&self, path: &str, json: Option<Bytes>) -> Request<Full<Bytes>> {
        let method = if json.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        request.body(Full::new(json.unwrap_or_default())).expect("paths and keys are checked ASCII")
    }

    /// A page, whole, as text.
    pub(crate) async fn page(&self, path: &str) -> Result<String, HttpError> {
        let request = self.request(path, None);
        self.whole(path, request).await
    }

    /// What comes back for a JSON body, whole, as text.
    pub(crate) async fn post(&self, path: &str, json: Bytes) -> Result<String, HttpError> {
        let request = self.request(path, Some(json));
        self.whole(path, request).await
    }

    async fn whole(&self, path: &str, request: Request<Full<Bytes>>) -> Result<String, HttpError> {
        let fetched = async {
            let mut connection = self.connect().await?;
            let response = connection.send(request).await?;
            let status = response.status().as_u16();
            let text = text(response).await?;
            if status == 200 {
                return Ok(text);
            }
            let text = text.chars().take(300).collect();
            Err(HttpError::Status { path: path.to_owned(), status, text })
        };
        timeout(PAGE_MAX, fetched).await.map_err(|_| HttpError::Late)?
    }
}

impl Connection {
    /// Sends a request; its status and headers, while the body still comes.
    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, HttpError> {
        let broken = |error: hyper::Error| HttpError::Broken(error.to_string());
        self.0.ready().await.map_err(broken)?;
        self.0.send_request(request).await.map_err(broken)
    }

    /// Whether another request can be sent now.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.is_ready()
    }
}

/// A body, whole, within a bound.
pub(crate) async fn text(response: Response<Incoming>) -> Result<String, HttpError> {
    let body = Limited::new(response.into_body(), PAGE_BYTES_MAX).collect().await;
    let bytes = body.map_err(|error| HttpError::Broken(error.to_string()))?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn speak<S>(stream: TokioIo<S>) -> Result<Connection, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended");
        }
    });
    Ok(Connection(sender))
}

/// Trusts whom this machine trusts.
fn tls() -> Result<TlsConnector, HttpError> {
    let failed = |error: rustls::Error| HttpError::Address(format!("TLS cannot be used: {error}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_platform_verifier()
        .map_err(failed)?
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
