//! What files say, read again when they change.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The files are looked at no more often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What files say, as of a moment ago: they are looked at when it is asked for, and read again if they
/// have changed. Files that make no sense leave all as it is. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Reread<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    /// What they say, for the log.
    what: &'static str,
    files: Vec<PathBuf>,
    read: Box<Read<T>>,
    state: Mutex<State<T>>,
}

/// Makes of the files what they say; with what they said before, if they did.
type Read<T> = dyn Fn(Option<&T>) -> Result<T, String> + Send + Sync;

struct State<T> {
    looked: Instant,
    seen: Vec<Option<Seen>>,
    value: T,
}

/// What is different once a file is another.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T: Clone> Reread<T> {
    /// Reads files for the first time, and remembers how: `read` is given what they said before.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn load<E: fmt::Display>(
        what: &'static str,
        files: Vec<PathBuf>,
        read: impl Fn(Option<&T>) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        // Looked at first: a change meanwhile is one more reading, and not one less.
        let seen = look(&files);
        let state = Mutex::new(State { looked: Instant::now(), seen, value: read(None)? });
        let read =
            Box::new(move |before: Option<&T>| read(before).map_err(|error| error.to_string()));
        Ok(Self { shared: Arc::new(Shared { what, files, read, state }) })
    }

    /// What they say now.
    #[must_use]
    pub fn current(&self) -> T {
        let Shared { what, files, read, state } = &*self.shared;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK_EVERY {
            state.looked = Instant::now();
            let seen = look(files);
            if seen != state.seen {
                // Said once, until they change again.
                state.seen = seen;
                match read(Some(&state.value)) {
                    Ok(value) => {
                        tracing::info!("{what} were read again");
                        state.value = value;
                    }
                    Err(error) => tracing::warn!("the {what} before stay in use: {error}"),
                }
            }
        }
        state.value.clone()
    }
}

impl<T> fmt::Debug for Reread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reread").field(&self.shared.files).finish()
    }
}

fn look(files: &[PathBuf]) -> Vec<Option<Seen>> {
    let seen = |path: &PathBuf| {
        let data = fs::metadata(path).ok()?;
        Some(Seen {
            inode: data.ino(),
            bytes: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    };
    files.iter().map(seen).collect()
}

/// The bytes of a file that is not too long.
///
/// # Errors
/// Why it cannot be read; it does not name the file.
pub fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?.take(FILE_BYTES_MAX + 1);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= FILE_BYTES_MAX) {
        return Ok(bytes);
    }
    Err(format!("it is longer than {FILE_BYTES_MAX} bytes"))
}
