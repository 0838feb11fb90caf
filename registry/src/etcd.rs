//! Reaching etcd: a client that has answered, the keys, a bound on every call.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tls::Files;
use tokio::time::timeout;

/// Longest wait for an answer of etcd.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(2);
/// Time that etcd waits for a sign of life before it counts whoever holds a lease as gone.
pub(crate) const LEASE_SECONDS: i64 = 5;
/// A sign of life is given this often.
pub(crate) const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// Pause after the first failure; doubles with each one after.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two attempts to reach etcd.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// etcd allows a ping every 5 s, and ends connections that ask more often.
const PING_EVERY: Duration = Duration::from_secs(6);

/// Something that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where etcd is, and who we are to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `http://host:port`; any of them will do.
    pub endpoints: Vec<String>,
    /// Name and password; none: etcd asks for none.
    pub user: Option<(String, Secret)>,
    /// How we and an `https` etcd prove who we are; read anew for every connection.
    pub certificates: Option<Files>,
    /// Clusters of different names do not see each other.
    pub cluster: String,
}

/// An etcd, reached or not.
#[derive(Debug, Clone)]
pub struct Etcd {
    config: EtcdConfig,
}

/// Why etcd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It answered with an error, or not at all.
    #[error("etcd: {0}")]
    Etcd(#[from] etcd_client::Error),
    /// It was silent.
    #[error("etcd: no answer within {} s", CALL_MAX.as_secs())]
    Silent,
    /// It ended a stream.
    #[error("etcd ended the stream: {0}")]
    Ended(String),
    /// A certificate or its key cannot be read.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    /// The lease ran out.
    #[error("the lease ran out")]
    Expired,
}

impl Etcd {
    /// An etcd that is reached when it is needed.
    #[must_use]
    pub const fn new(config: EtcdConfig) -> Self {
        Self { config }
    }

    /// Whether it can be reached with what we were given, to be asked once at the start.
    ///
    /// # Errors
    /// [`RegistryError`]: it is away, or it does not know us.
    pub async fn probe(&self) -> Result<(), RegistryError> {
        self.client().await.map(drop)
    }

    /// A client of an etcd that answers.
    pub(crate) async fn client(&self) -> Result<Box<Client>, RegistryError> {
        let EtcdConfig { endpoints, user, certificates, .. } = &self.config;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CALL_MAX)
            .with_keep_alive(PING_EVERY, CALL_MAX)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((name, Secret(password))) = user {
            options = options.with_user(name, password);
        }
        if let Some(Files { ca, certificate, key }) = certificates {
            let tls = TlsOptions::new()
                .ca_certificate(Certificate::from_pem(read(ca)?))
                .identity(Identity::from_pem(read(certificate)?, read(key)?));
            if endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
                options = options.with_tls(tls);
            }
        }
        // Both are large, and are held in many a future.
        let connecting = Box::pin(Client::connect(endpoints, Some(options)));
        let mut client = Box::new(bounded(connecting).await?);
        // Connecting asks nothing of etcd; this does, and needs no rights.
        bounded(client.get(self.key("leader"), None)).await?;
        Ok(client)
    }

    /// The name of something of this cluster.
    pub(crate) fn key(&self, what: &str) -> String {
        format!("/arcmesh/{}/{what}", self.config.cluster)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    std::fs::read(path).map_err(|error| RegistryError::File(path.display().to_string(), error))
}

/// A call, but not for ever.
pub(crate) async fn bounded<T>(
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, RegistryError> {
    Ok(timeout(CALL_MAX, call).await.map_err(|_| RegistryError::Silent)??)
}

/// Pauses between attempts, and says once what is wrong.
#[derive(Debug)]
pub(crate) struct Attempts {
    pause: Duration,
    said: String,
}

impl Attempts {
    pub(crate) const fn new() -> Self {
        Self { pause: PAUSE_MIN, said: String::new() }
    }

    /// An attempt came off.
    pub(crate) fn well(&mut self) {
        *self = Self::new();
    }

    /// An attempt failed: how long to wait before the next.
    pub(crate) fn failed(&mut self, what: &str, error: &RegistryError) -> Duration {
        let text = error.to_string();
        if text != self.said {
            tracing::warn!("{what}: {text}; trying again");
            self.said = text;
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        pause
    }
}
