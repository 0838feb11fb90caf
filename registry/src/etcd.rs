//! Reaching etcd: a client that has answered, the keys, a bound on every call.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, GetResponse, Identity, ResponseHeader,
    TlsOptions, WatchOptions,
};
use tls::Files;
use tokio::time::{sleep, timeout};

/// Longest wait for an answer of etcd.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(2);
/// Time that etcd waits for a sign of life before it counts whoever holds a lease as gone.
pub(crate) const LEASE_SECONDS: i64 = 5;
/// A sign of life is given this often.
pub(crate) const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// Where workers are announced.
pub(crate) const WORKERS: &str = "workers/";
/// More workers than this are not looked at: no group is that large.
pub(crate) const WORKERS_MAX: i64 = 1024;
/// Pause after the first failure; doubles with each one after.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two attempts to reach etcd.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Another look, should no news come through.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
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
        let is_secure = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        if let Some(Files { ca, certificate, key }) = certificates.as_ref().filter(|_| is_secure) {
            let tls = TlsOptions::new()
                .ca_certificate(Certificate::from_pem(read(ca)?))
                .identity(Identity::from_pem(read(certificate)?, read(key)?));
            options = options.with_tls(tls);
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

/// Something in etcd that is read again whenever it may have changed. A watch that ended, was cancelled,
/// or was to begin with what has been compacted away, is a failed attempt: after a pause all is read
/// anew, and watched from there. So no change is missed, and none is made up.
pub(crate) struct Watched {
    etcd: Etcd,
    /// What cannot be done without it, for a warning.
    what: &'static str,
    key: String,
    read: GetOptions,
    watch: WatchOptions,
    attempts: Attempts,
    /// A client, and the revision that was read with it.
    seen: Option<(Box<Client>, i64)>,
}

impl Watched {
    /// What stands at a key.
    pub(crate) fn key(etcd: &Etcd, key: &str, what: &'static str) -> Self {
        let (read, watch) = (GetOptions::new(), WatchOptions::new());
        let (etcd, key) = (etcd.clone(), etcd.key(key));
        Self { etcd, what, key, read, watch, attempts: Attempts::new(), seen: None }
    }

    /// All that stands behind a prefix, as `read` says.
    pub(crate) fn prefix(etcd: &Etcd, key: &str, read: GetOptions, what: &'static str) -> Self {
        let (read, watch) = (read.with_prefix(), WatchOptions::new().with_prefix());
        Self { read, watch, ..Self::key(etcd, key, what) }
    }

    /// What stands there: at once when it is asked for the first time, and then as soon as it has changed,
    /// or after a while. Waits for an etcd that is away.
    pub(crate) async fn news(&mut self) -> GetResponse {
        loop {
            let error = match self.attempt().await {
                Ok(found) => return found,
                Err(error) => error,
            };
            sleep(self.attempts.failed(self.what, &error)).await;
        }
    }

    async fn attempt(&mut self) -> Result<GetResponse, RegistryError> {
        let mut client = match self.seen.take() {
            None => self.etcd.client().await?,
            Some((mut client, revision)) => {
                let changed = self.changed(&mut client, revision);
                timeout(LOOK_AGAIN, changed).await.unwrap_or(Ok(()))?;
                // A watch that can be had, but does not last, is none.
                self.attempts.well();
                client
            }
        };
        let found = bounded(client.get(self.key.as_str(), Some(self.read.clone()))).await?;
        let revision = found.header().map_or(0, ResponseHeader::revision);
        self.seen = Some((client, revision));
        Ok(found)
    }

    /// Waits for a change after a revision.
    async fn changed(&self, client: &mut Client, revision: i64) -> Result<(), RegistryError> {
        let options = self.watch.clone().with_start_revision(revision + 1);
        let mut watching = bounded(client.watch(self.key.as_str(), Some(options))).await?;
        loop {
            let ended = |why: &str| RegistryError::Ended(why.to_owned());
            let news = watching.message().await?.ok_or_else(|| ended("a watch"))?;
            if news.compact_revision() > 0 {
                return Err(ended("what was to be watched has been compacted"));
            }
            if news.canceled() {
                return Err(ended(news.cancel_reason()));
            }
            if !news.events().is_empty() {
                return Ok(());
            }
        }
    }
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
