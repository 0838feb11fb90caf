//! How nodes know each other: mutual TLS, with certificates that may change while we run; and what the HTTP
//! server proves to its clients.
//!
//! Whoever shows a certificate of the cluster's authority belongs to the cluster; its address does not
//! matter, so that a node may move. All node certificates carry the name [`NAME`] for that.

mod certs;

mod guard;

mod identity;

mod server;

mod pem;

mod reread;

pub use certs::{CertsError, init};
pub use guard::Guard;
pub use identity::{Files, Identity};
pub use pem::TlsError;
pub use reread::{Reread, bytes};
pub use server::ServerCertificate;

/// What every node is called in its certificate.
pub const NAME: &str = "arcmesh";
