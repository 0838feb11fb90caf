//! One file from a server to the disk: it may be cut off at any time, and goes on where it was.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use ureq::http::StatusCode;
use url::Url;

use crate::client::{Client, Response, Trouble, accept_status, text};
use crate::error::CatalogueError;
use crate::progress::{Phase, Progress};
use crate::store;

/// Bytes moved at once.
const CHUNK: usize = 128 << 10;

/// A file that is wanted.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// What a person calls it.
    pub(crate) name: &'a str,
    /// Where it is.
    pub(crate) url: &'a Url,
    /// How long it is, where that is known.
    pub(crate) size: Option<u64>,
    /// Its SHA-256, where that is known.
    pub(crate) sha256: Option<&'a str>,
}

/// Brings `wanted` to `target`. Until it is whole and checked it is `target.part`.
pub(crate) fn download(
    client: &Client<'_>,
    wanted: &Wanted<'_>,
    target: &Path,
) -> Result<(), CatalogueError> {
    let part = store::part(target);
    client.patiently(wanted.name, || attempt(client, wanted, &part))?;
    if let Some(expected) = wanted.sha256 {
        let found = sha256(&part, wanted.name, client.progress)?;
        if found != expected {
            store::remove(&part)?;
            let reason = format!("its SHA-256 is {found}, not {expected}; it was deleted");
            return Err(CatalogueError::damaged(wanted.name, reason));
        }
    }
    store::publish(&part, target)
}

/// One try: asks for what is missing and appends it.
fn attempt(client: &Client<'_>, wanted: &Wanted<'_>, part: &Path) -> Result<(), Trouble> {
    let mut have = fs::metadata(part).map_or(0, |metadata| metadata.len());
    if wanted.size.is_some_and(|size| have > size) {
        store::remove(part)?;
        have = 0;
    }
    if have > 0 && wanted.size == Some(have) {
        return Ok(());
    }
    let response = client.bytes(wanted.url, have)?;
    let start = match response.status() {
        StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(have) => have,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
            store::remove(part)?;
            return Err(Trouble::passing("the server cannot go on from here; starting over"));
        }
        status => {
            accept_status(status, wanted.name)?;
            0 // The server sent the whole file: start over.
        }
    };
    check_length(&response, wanted, start)?;
    receive(response, wanted, &Destination { part, start }, client.progress)
}

/// Where received bytes go.
struct Destination<'a> {
    part: &'a Path,
    start: u64,
}

fn receive(
    response: Response,
    wanted: &Wanted<'_>,
    to: &Destination<'_>,
    progress: &dyn Fn(Progress<'_>),
) -> Result<(), Trouble> {
    let disk = |reason| CatalogueError::Disk { path: to.part.to_path_buf(), reason };
    let mut file = store::open(to.part, to.start)?;
    let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
    let mut chunk = vec![0; CHUNK];
    let mut done = to.start;
    let step = |done| Progress::Step {
        phase: Phase::Downloading,
        name: wanted.name,
        done,
        total: wanted.size,
    };
    progress(step(done));
    let cut_off = |reason: String, done| Trouble::Passing { reason, gained: done - to.start };
    loop {
        let count = match body.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(cut_off(format!("the connection broke ({error})"), done)),
        };
        done += count as u64;
        if wanted.size.is_some_and(|size| done > size) {
            store::remove(to.part)?;
            return Err(
                CatalogueError::damaged(wanted.name, "it is longer than it should be").into()
            );
        }
        file.write_all(&chunk[..count]).map_err(disk)?;
        progress(step(done));
    }
    if wanted.size.is_some_and(|size| done < size) {
        return Err(cut_off("the server ended early".to_owned(), done));
    }
    Ok(())
}

/// What the server announces must be what is wanted; nothing is reserved on its word.
fn check_length(response: &Response, wanted: &Wanted<'_>, start: u64) -> Result<(), Trouble> {
    let (Some(rest), Some(size)) = (response.body().content_length(), wanted.size) else {
        return Ok(());
    };
    if start.checked_add(rest) == Some(size) {
        return Ok(());
    }
    let reason = format!("the server offers {rest} bytes from byte {start} on, of {size}");
    Err(CatalogueError::damaged(wanted.name, reason).into())
}

/// First byte of a partial answer: `Content-Range: bytes 5-9/10`.
fn range_start(response: &Response) -> Option<u64> {
    let range = text(response.headers(), "content-range")?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// The SHA-256 of a file, in lower-case hexadecimal.
pub(crate) fn sha256(
    path: &Path,
    name: &str,
    progress: &dyn Fn(Progress<'_>),
) -> Result<String, CatalogueError> {
    let disk = |reason| CatalogueError::Disk { path: PathBuf::from(path), reason };
    let mut file = File::open(path).map_err(disk)?;
    let total = Some(file.metadata().map_err(disk)?.len());
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    loop {
        let count = file.read(&mut chunk).map_err(disk)?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&chunk[..count]);
        done += count as u64;
        progress(Progress::Step { phase: Phase::Checking, name, done, total });
    }
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
