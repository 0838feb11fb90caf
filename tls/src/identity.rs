//! Who we are and whom we trust, from files that are read again when they change.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::pem::{TlsError, certificates, key};
use crate::reread::Reread;

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

/// Who we are and whom we trust. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Identity {
    configs: Reread<Configs>,
}

#[derive(Clone)]
struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: Files) -> Result<Self, TlsError> {
        let paths = vec![files.ca.clone(), files.certificate.clone(), files.key.clone()];
        Ok(Self { configs: Reread::load("certificates", paths, move |_| read(&files))? })
    }

    /// For who calls us.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.configs.current().server
    }

    /// For whom we call.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.configs.current().client
    }
}

fn read(files: &Files) -> Result<Configs, TlsError> {
    let together = |error: &dyn fmt::Display| TlsError::Together(error.to_string());
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.ca)? {
        roots.add(authority).map_err(|error| together(&error))?;
    }
    let roots = Arc::new(roots);
    let chain = certificates(&files.certificate)?;
    let key = key(&files.key)?;
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
