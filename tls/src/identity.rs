//! Who we are and whom we trust, from files that are read again when they change.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The files are looked at no more often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest file that can be a certificate or a key.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What is spoken inside.
const PROTOCOL: &[u8] = b"h2";

/// Where certificates lie, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The authorities that are trusted.
    pub ca: PathBuf,
    /// Our certificate, and what leads from it to an authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One cannot be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// They do not belong together.
    #[error("the certificate, its key and the authority make no sense together: {0}")]
    Together(String),
}

/// Who we are and whom we trust. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Identity {
    shared: Arc<Shared>,
}

struct Shared {
    files: Files,
    state: Mutex<State>,
}

struct State {
    looked: Instant,
    seen: Seen,
    configs: Configs,
}

#[derive(Clone)]
struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// Of each file: when it was changed, and its length.
type Seen = [Option<(SystemTime, u64)>; 3];

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: Files) -> Result<Self, TlsError> {
        let seen = look(&files);
        let state = State { looked: Instant::now(), seen, configs: read(&files)? };
        Ok(Self { shared: Arc::new(Shared { files, state: Mutex::new(state) }) })
    }

    /// For who calls us.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.current().server
    }

    /// For whom we call.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.current().client
    }

    /// What the files say now. Files that make no sense leave all as it is: they are being replaced.
    fn current(&self) -> Configs {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK_EVERY {
            state.looked = Instant::now();
            let seen = look(&self.shared.files);
            if seen != state.seen {
                match read(&self.shared.files) {
                    Ok(configs) => {
                        tracing::info!("certificates were read again");
                        (state.seen, state.configs) = (seen, configs);
                    }
                    Err(error) => tracing::warn!("the certificates before stay in use: {error}"),
                }
            }
        }
        state.configs.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.shared.files).finish()
    }
}

fn look(files: &Files) -> Seen {
    [&files.ca, &files.certificate, &files.key].map(|path| {
        let data = fs::metadata(path).ok()?;
        Some((data.modified().ok()?, data.len()))
    })
}

fn read(files: &Files) -> Result<Configs, TlsError> {
    let together = |error: &dyn fmt::Display| TlsError::Together(error.to_string());
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.ca)? {
        roots.add(authority).map_err(|error| together(&error))?;
    }
    let roots = Arc::new(roots);
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?)
        .map_err(|error| TlsError::File { path: files.key.clone(), reason: error.to_string() })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| together(&error))?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| together(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|error| together(&error))?;
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| together(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| together(&error))?;
    client.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Configs { server: Arc::new(server), client: Arc::new(client) })
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::File { path: path.clone(), reason };
    let text = bytes(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

fn bytes(path: &PathBuf) -> Result<Vec<u8>, TlsError> {
    let wrong = |reason: String| TlsError::File { path: path.clone(), reason };
    let length = fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(wrong(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    fs::read(path).map_err(|error| wrong(error.to_string()))
}
