//! A client that knows an authority, and may prove who it is itself.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use reqwest::Response;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Every connection is a new one.
#[derive(Clone)]
pub(crate) struct Client {
    connector: TlsConnector,
    name: &'static str,
}

impl Client {
    /// Trusts the authority of a folder, and expects a server of this name.
    pub(crate) fn trusting(folder: &Path, name: &'static str) -> Self {
        let config = builder(folder).with_no_client_auth();
        Self { connector: TlsConnector::from(Arc::new(config)), name }
    }

    /// The same, and proves to be this node of the authority.
    pub(crate) fn proving(folder: &Path, node: &str, name: &'static str) -> Self {
        let certificate = certificate(folder, node);
        let key = PrivateKeyDer::from_pem_file(folder.join(format!("{node}.key"))).unwrap();
        let config = builder(folder).with_client_auth_cert(vec![certificate], key).unwrap();
        Self { connector: TlsConnector::from(Arc::new(config)), name }
    }

    async fn connect(&self, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        self.connector.connect(ServerName::try_from(self.name).unwrap(), stream).await
    }

    /// The certificate that a server shows.
    pub(crate) async fn shown(&self, address: &str) -> io::Result<CertificateDer<'static>> {
        let stream = self.connect(address).await?;
        let (_, session) = stream.get_ref();
        Ok(session.peer_certificates().unwrap()[0].clone().into_owned())
    }

    /// One request: a POST where there is a body.
    pub(crate) async fn ask(
        &self,
        address: &str,
        path: &str,
        body: Option<&Value>,
    ) -> io::Result<Response> {
        let stream = TokioIo::new(self.connect(address).await?);
        let (mut sender, driving) =
            hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
        tokio::spawn(driving);
        let method = if body.is_some() { "POST" } else { "GET" };
        let request = Request::builder().method(method).uri(path).header(HOST, self.name);
        let request = request.header(CONTENT_TYPE, "application/json");
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = request.body(Full::new(bytes)).unwrap();
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok(Response::from(response.map(reqwest::Body::wrap)))
    }
}

/// A node's certificate, as it lies in a folder.
pub(crate) fn certificate(folder: &Path, node: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(folder.join(format!("{node}.pem"))).unwrap()
}

fn builder(folder: &Path) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&fs::read(folder.join("ca.pem")).unwrap()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots)
}
