//! Memory that ranks of one host share: a file that has a name only while a group forms, mapped by all.
//!
//! Whoever can write to it runs as the same user and could write to our memory anyway. All the same it is read
//! as atomic words and never as anything that has an invariant: whatever a peer does, we read some number.
#![expect(unsafe_code, reason = "memory that other processes write to")]

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::collective::lane::layout;

/// What every name begins with.
const PREFIX: &str = "arcmesh-lane-";

/// A name that is older is of a group that never formed: forming takes seconds.
const NAME_AGE_MAX: Duration = Duration::from_secs(60);

/// Mapped memory of a group.
pub(crate) struct Segment {
    map: MmapRaw,
    world: usize,
}

/// What peers find a segment by. The file loses its name when this is dropped.
#[derive(Debug)]
pub(crate) struct Name {
    path: PathBuf,
    /// Its last part.
    pub(crate) name: String,
    /// What is written inside.
    pub(crate) mark: [u64; layout::MARK_WORDS],
}

impl Segment {
    /// Makes a file of its own in `folder` for `world` ranks; says why it cannot.
    pub(crate) fn create(folder: &Path, world: usize) -> Result<(Self, Name), String> {
        sweep(folder);
        let (mark, [high, low]) = (random()?, random()?);
        let name = format!("{PREFIX}{high:016x}{low:016x}");
        let path = folder.join(&name);
        let cannot = |what: &str, error: &dyn fmt::Display| {
            format!("cannot {what} {}: {error}", path.display())
        };
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| cannot("make", &error))?;
        let named = Name { path: path.clone(), name, mark };
        // Where there is no room this fails; a hole would kill whoever first wrote to it.
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, layout::bytes(world) as u64)
            .map_err(|error| cannot("find room for", &error))?;
        let segment = Self::map(&File::from(file), world).map_err(|error| cannot("map", &error))?;
        for (word, mark) in segment.words().iter().zip(named.mark) {
            word.store(mark, Ordering::SeqCst);
        }
        Ok((segment, named))
    }

    /// Maps what another rank made in `folder`; says why it cannot.
    pub(crate) fn open(
        folder: &Path,
        name: &str,
        mark: &[u64],
        world: usize,
    ) -> Result<Self, String> {
        let random = name.strip_prefix(PREFIX).unwrap_or_default();
        if random.len() != 32 || !random.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("'{name}' is not the name of a lane"));
        }
        let path = folder.join(name);
        let cannot = |what: &str| format!("{}: {what}", path.display());
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|error| cannot(&error.to_string()))?;
        let file = File::from(file);
        let found = file.metadata().map_err(|error| cannot(&error.to_string()))?;
        if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() {
            return Err(cannot("it is not a file of ours"));
        }
        if found.len() != layout::bytes(world) as u64 {
            return Err(cannot(&format!("it has {} bytes", found.len())));
        }
        let segment = Self::map(&file, world).map_err(|error| cannot(&error.to_string()))?;
        let marked = segment.words()[..layout::MARK_WORDS].iter();
        if !marked.map(|word| word.load(Ordering::SeqCst)).eq(mark.iter().copied()) {
            return Err(cannot("it bears another mark"));
        }
        Ok(segment)
    }

    fn map(file: &File, world: usize) -> std::io::Result<Self> {
        let map = MmapOptions::new().len(layout::bytes(world)).populate().map_raw(file)?;
        Ok(Self { map, world })
    }

    /// For how many ranks it is.
    pub(super) fn world(&self) -> usize {
        self.world
    }

    /// Everything but the bells.
    pub(super) fn words(&self) -> &[AtomicU64] {
        let bells = self.world * layout::BELL_BYTES;
        let start = self.map.as_mut_ptr().wrapping_add(bells).cast::<AtomicU64>();
        // SAFETY: the mapping has as many bytes as the layout says, lives as long as `self`, begins at a page and
        // so is aligned; its words are atomic, any bits are a number, and nobody looks at them in other sizes.
        unsafe { slice::from_raw_parts(start, layout::words(self.world)) }
    }

    /// The word at which `rank` sleeps.
    ///
    /// # Panics
    /// When there is no such rank.
    pub(super) fn bell(&self, rank: usize) -> &AtomicU32 {
        assert!(rank < self.world, "a rank of the group");
        let bell =
            self.map.as_mut_ptr().wrapping_add(rank * layout::BELL_BYTES).cast::<AtomicU32>();
        // SAFETY: it lies before the words of the mapping, which lives as long as `self`, and is aligned as they
        // are; it is atomic, and nobody looks at it in another size.
        unsafe { &*bell }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("world", &self.world).finish_non_exhaustive()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a lane keeps its name");
        }
    }
}

/// Takes the names away that a crash has left in the second in which they are needed. Whoever has mapped
/// such a file keeps it.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let old = |made: SystemTime| made.elapsed().is_ok_and(|age| age > NAME_AGE_MAX);
        if ours && entry.metadata().and_then(|it| it.modified()).is_ok_and(old) {
            // Another user's stays, and another rank may have been faster.
            drop(fs::remove_file(entry.path()));
        }
    }
}

fn random() -> Result<[u64; 2], String> {
    let mut bytes = [0; 16];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty());
    match filled {
        Ok(16) => Ok(bytemuck::cast(bytes)),
        Ok(some) => Err(format!("the system gives {some} random bytes of 16")),
        Err(error) => Err(format!("the system gives no random bytes: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What is in a folder.
    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_one_writes_the_other_reads_and_the_name_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (made, named) = Segment::create(folder.path(), 2).unwrap();
        let mode = fs::metadata(folder.path().join(&named.name)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let opened = Segment::open(folder.path(), &named.name, &named.mark, 2).unwrap();
        drop(named);
        assert!(names(folder.path()).is_empty());
        made.words().last().unwrap().store(5, Ordering::SeqCst);
        assert_eq!(opened.words().last().unwrap().load(Ordering::SeqCst), 5);
        opened.bell(1).store(1, Ordering::SeqCst);
        assert_eq!(
            (made.bell(0).load(Ordering::SeqCst), made.bell(1).load(Ordering::SeqCst)),
            (0, 1)
        );
        drop(made);
        assert_eq!(opened.words()[layout::MARK_WORDS].load(Ordering::SeqCst), 0);
    }

    #[test]
    fn what_was_not_made_for_the_group_is_not_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let (_segment, named) = Segment::create(folder.path(), 2).unwrap();
        let Name { path, name, mark } = &named;
        let why = |name: &str, mark: &[u64], world| {
            Segment::open(folder.path(), name, mark, world).unwrap_err()
        };
        assert!(why(name, &[mark[0], !mark[1]], 2).ends_with("it bears another mark"));
        assert!(why(name, &mark[..1], 2).ends_with("it bears another mark"));
        assert!(why(name, mark, 3).contains("it has "));
        for odd in
            ["", "..", "/etc/passwd", "arcmesh-lane-", "arcmesh-lane-../../../../../../../etc/pass"]
        {
            assert!(why(odd, mark, 2).ends_with("is not the name of a lane"), "{odd}");
        }
        let named_by = |digit: &str| format!("{PREFIX}{}", digit.repeat(32));
        symlink(path, folder.path().join(named_by("1"))).unwrap();
        assert!(why(&named_by("1"), mark, 2).contains("symbolic links"));
        assert!(why(&named_by("2"), mark, 2).contains("No such file"));
        fs::create_dir(folder.path().join(named_by("3"))).unwrap();
        assert!(!why(&named_by("3"), mark, 2).is_empty());
    }

    #[test]
    fn a_folder_that_is_not_there_or_full_is_said_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let why = Segment::create(&folder.path().join("none"), 2).unwrap_err();
        assert!(why.starts_with("cannot make ") && why.contains("No such file"), "{why}");
        // More than any disk has.
        let why = Segment::create(folder.path(), 1 << 40).unwrap_err();
        assert!(why.starts_with("cannot find room for "), "{why}");
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn names_that_a_crash_left_are_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, age: Duration| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        file("arcmesh-lane-old", 2 * NAME_AGE_MAX);
        file("arcmesh-lane-new", NAME_AGE_MAX / 2);
        file("of-somebody-else", 2 * NAME_AGE_MAX);
        drop(Segment::create(folder.path(), 1).unwrap());
        let mut left = names(folder.path());
        left.sort();
        assert_eq!(left, ["arcmesh-lane-new", "of-somebody-else"]);
    }
}
