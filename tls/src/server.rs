//! What a server proves to whoever asks, who need prove nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::pem::{TlsError, certificates, key};
use crate::reread::Reread;

/// What is spoken inside.
const PROTOCOL: &[u8] = b"http/1.1";

/// A server's certificate and its key, read again when they change. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct ServerCertificate {
    config: Reread<Arc<ServerConfig>>,
}

impl ServerCertificate {
    /// Reads the files, which are PEM: the certificate with what leads from it to an authority, and its key.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let files = vec![certificate.clone(), key.clone()];
        let config =
            Reread::load("certificates of HTTP", files, move |_| read(&certificate, &key))?;
        Ok(Self { config })
    }

    /// Proves to a client who we are, with what the files say now.
    ///
    /// # Errors
    /// The client speaks something else, or has gone.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsAcceptor::from(self.config.current()).accept(stream).await
    }
}

fn read(certificate: &Path, key_file: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let together = |error: rustls::Error| TlsError::Together(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(together)?
        .with_no_client_auth()
        .with_single_cert(certificates(certificate)?, key(key_file)?)
        .map_err(together)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}
