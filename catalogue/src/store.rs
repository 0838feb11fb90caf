//! The cache on the disk: locks, partial files, and the moment when a file becomes whole.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::CatalogueError;
use crate::progress::Progress;

/// How often a lock that another process holds is tried.
const LOCK_PAUSE: Duration = Duration::from_millis(200);
/// Longest time to wait for another process that fetches the same.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// Whether `path` names a file inside a folder, and nothing else.
pub(crate) fn is_inner_path(path: &str) -> bool {
    path.len() <= 512
        && !path.contains(|letter: char| letter.is_control() || "\\:".contains(letter))
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Whether `path` is a file of `size` bytes. Its sum was checked when it was written.
pub(crate) fn is_whole(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

/// The name of `target` until it is whole.
pub(crate) fn part(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// Keeps other processes from fetching `name` until the result is dropped.
pub(crate) fn lock(
    cache: &Path,
    name: &str,
    progress: &dyn Fn(Progress<'_>),
) -> Result<File, CatalogueError> {
    let path = cache.join("locks").join(format!("{name}.lock"));
    let file = open(&path, 0)?;
    let begin = Instant::now();
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(reason)) => return Err(CatalogueError::Disk { path, reason }),
            Err(TryLockError::WouldBlock) if begin.elapsed() > LOCK_WAIT_MAX => {
                return Err(CatalogueError::Busy { path, minutes: LOCK_WAIT_MAX.as_secs() / 60 });
            }
            Err(TryLockError::WouldBlock) => {}
        }
        if !said {
            progress(Progress::Notice(&format!("another process is fetching {name}; waiting")));
            said = true;
        }
        std::thread::sleep(LOCK_PAUSE);
    }
}

/// Opens `path` for writing from byte `start` on, and makes its folder.
pub(crate) fn open(path: &Path, start: u64) -> Result<File, CatalogueError> {
    make_folder_of(path)?;
    let mut options = OpenOptions::new();
    if start == 0 {
        options.write(true).truncate(true);
    } else {
        options.append(true);
    }
    options.create(true).open(path).map_err(CatalogueError::disk(path))
}

/// Gives a whole file its final name.
pub(crate) fn publish(part: &Path, target: &Path) -> Result<(), CatalogueError> {
    make_folder_of(target)?;
    // A name that survives a power cut must not be that of a file that did not.
    File::open(part).and_then(|file| file.sync_all()).map_err(CatalogueError::disk(part))?;
    fs::rename(part, target).map_err(CatalogueError::disk(target))?;
    // So that the name survives a power cut. A file system that can't is no reason to fail.
    if let Some(folder) = target.parent()
        && let Ok(folder) = File::open(folder)
    {
        folder.sync_all().ok();
    }
    Ok(())
}

/// Makes the folder that `path` lies in.
pub(crate) fn make_folder_of(path: &Path) -> Result<(), CatalogueError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(CatalogueError::disk(folder))
}

/// Removes a file that may be gone already.
pub(crate) fn remove(path: &Path) -> Result<(), CatalogueError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CatalogueError::disk(path)(error))
        }
        _ => Ok(()),
    }
}
