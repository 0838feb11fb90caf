//! An authority for a cluster, and certificates for its nodes.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// What the authority is called; the same for every cluster, told apart by their keys.
const AUTHORITY: &str = "arcmesh cluster authority";
/// Files of the authority.
const CA: &str = "ca";
/// For the owner alone.
const SECRET_MODE: u32 = 0o600;

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file cannot be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// A name is none that a certificate can have, or a key is none.
    #[error("{0}")]
    Wrong(#[from] rcgen::Error),
    /// A name would be a path, or the authority's.
    #[error("'{0}' cannot be the name of a node: it becomes the name of a file")]
    Name(String),
}

/// Makes `ca.pem` and `ca.key` in a folder unless they are there, and `NAME.pem` and `NAME.key` for each
/// node, anew if they are there. Gives the files that were written. Of these a node needs `ca.pem` and its
/// own two; `ca.key` belongs in a safe.
///
/// # Errors
/// [`CertsError`].
pub fn init(folder: &Path, nodes: &[String]) -> Result<Vec<PathBuf>, CertsError> {
    if let Some(name) = nodes.iter().find(|name| !is_file_name(name)) {
        return Err(CertsError::Name(name.clone()));
    }
    fs::create_dir_all(folder).map_err(|reason| file(folder, reason))?;
    let mut written = Vec::new();
    let authority = authority(folder, &mut written)?;
    for name in nodes {
        let mut params = CertificateParams::new([crate::NAME.to_owned(), name.clone()])?;
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        write(folder, &format!("{name}.key"), &key.serialize_pem(), &mut written)?;
        write(folder, &format!("{name}.pem"), &certificate.pem(), &mut written)?;
    }
    Ok(written)
}

/// The one that is there, or a new one.
fn authority(
    folder: &Path,
    written: &mut Vec<PathBuf>,
) -> Result<Issuer<'static, KeyPair>, CertsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let path = folder.join(format!("{CA}.key"));
    let key = match fs::read_to_string(&path) {
        Ok(pem) => KeyPair::from_pem(&pem)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate()?;
            write(folder, &format!("{CA}.key"), &key.serialize_pem(), written)?;
            write(folder, &format!("{CA}.pem"), &params.self_signed(&key)?.pem(), written)?;
            key
        }
        Err(reason) => return Err(file(&path, reason)),
    };
    Ok(Issuer::new(params, key))
}

fn is_file_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    name != CA && !name.starts_with('.') && !name.is_empty() && name.bytes().all(fits)
}

/// Whole or not at all: who reads it meanwhile sees what was there before.
fn write(
    folder: &Path,
    name: &str,
    text: &str,
    written: &mut Vec<PathBuf>,
) -> Result<(), CertsError> {
    let path = folder.join(name);
    let new = folder.join(format!(".{name}.new"));
    let mode = if name.ends_with(".key") { SECRET_MODE } else { 0o644 };
    let put = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    put().map_err(|reason| file(&path, reason))?;
    written.push(path);
    Ok(())
}

fn file(path: &Path, reason: io::Error) -> CertsError {
    CertsError::File { path: path.to_owned(), reason }
}
