//! The keys of which a request must show one: some that stay, and some that a file says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use scheduler::TenantId;
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tls::Reread;

/// Bytes of the longest key that a request can show.
const KEY_BYTES_MAX: usize = 512;
/// Keys of a file: each is compared with what every request shows.
const FILE_KEYS_MAX: usize = 1000;

/// Keys of which a request must have one; none: no key is needed. Never shown.
#[derive(Clone, Default)]
pub struct ApiKeys {
    fixed: Arc<[Key]>,
    file: Option<Reread<Arc<[Key]>>>,
}

/// Why keys are none. None is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It is one that no request can show.
    #[error("a key has 1 to {KEY_BYTES_MAX} visible ASCII characters, without blanks")]
    Key,
    /// A line of a file is none.
    #[error("{}, line {line}: {}", path.display(), Self::Key)]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A file cannot be read, or says nothing.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A key, padded with zeros, which no key has, to the length of the longest, so that comparing it takes the
/// same time whatever it is compared with.
#[derive(Clone)]
struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    tenant: u32,
}

impl ApiKeys {
    /// Keys that stay.
    ///
    /// # Errors
    /// [`KeysError::Key`].
    pub fn new(keys: &[String]) -> Result<Self, KeysError> {
        let keys = (1..).zip(keys).map(|(tenant, key)| Key::new(key, tenant).ok_or(KeysError::Key));
        Ok(Self { fixed: keys.collect::<Result<_, _>>()?, file: None })
    }

    /// These and those of a file: one a line, blank lines and what begins with `#` left out. The file is read
    /// again when it changes; one that makes no sense leaves the keys as they are, with a warning.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn and_file(self, path: &Path) -> Result<Self, KeysError> {
        let fixed = u32::try_from(self.fixed.len()).unwrap_or(u32::MAX);
        let from = path.to_owned();
        let read = move |before: Option<&Arc<[Key]>>| {
            let bytes = tls::bytes(&from)
                .map_err(|reason| KeysError::File { path: from.clone(), reason })?;
            keys(&bytes, &from, before.map_or(&[], |keys| keys), fixed).map(Arc::from)
        };
        let file = Reread::load("API keys", vec![path.to_owned()], read)?;
        Ok(Self { file: Some(file), ..self })
    }

    /// Whether no key is needed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.fixed.is_empty() && self.file.is_none()
    }

    /// Whose key it is: the first key's is tenant 1.
    pub(crate) fn accept(&self, given: &str) -> Option<TenantId> {
        let given = Key::new(given, 0)?;
        let file = self.file.as_ref().map(Reread::current);
        let mut tenant = 0;
        // Every key is looked at, whichever fits.
        for key in self.fixed.iter().chain(file.iter().flat_map(|keys| keys.iter())) {
            tenant.conditional_assign(&key.tenant, key.bytes.ct_eq(&given.bytes));
        }
        (tenant > 0).then_some(TenantId(tenant))
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({} and {:?})", self.fixed.len(), self.file)
    }
}

impl Key {
    fn new(text: &str, tenant: u32) -> Option<Self> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let mut bytes = [0; KEY_BYTES_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, tenant })
    }
}

/// The keys of a file. One that was there before keeps its tenant, and its place among those who take
/// turns; each new one is a new tenant behind all before.
fn keys(bytes: &[u8], path: &Path, before: &[Key], fixed: u32) -> Result<Vec<Key>, KeysError> {
    let wrong = |reason: String| KeysError::File { path: path.to_owned(), reason };
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is no text".to_owned()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let known: BTreeMap<&[u8], u32> =
        before.iter().map(|key| (&key.bytes[..], key.tenant)).collect();
    let mut newest = before.iter().map(|key| key.tenant).fold(fixed, u32::max);
    let mut seen = BTreeSet::new();
    let mut keys = Vec::new();
    for (line, key) in (1..).zip(text.lines().map(str::trim)) {
        if key.is_empty() || key.starts_with('#') || !seen.insert(key) {
            continue;
        }
        if keys.len() == FILE_KEYS_MAX {
            return Err(wrong(format!("it has more than {FILE_KEYS_MAX} keys")));
        }
        let none = || KeysError::Line { path: path.to_owned(), line };
        let mut key = Key::new(key, newest.saturating_add(1)).ok_or_else(none)?;
        match known.get(&key.bytes[..]) {
            Some(tenant) => key.tenant = *tenant,
            None => newest = key.tenant,
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err(wrong("there is no key in it".to_owned()));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, before: &[Key]) -> Result<Vec<Key>, KeysError> {
        keys(text.as_bytes(), Path::new("keys"), before, 2)
    }

    fn tenants(keys: &[Key]) -> Vec<u32> {
        keys.iter().map(|key| key.tenant).collect()
    }

    #[test]
    fn a_key_is_accepted_only_whole() {
        let keys = ApiKeys::new(&["one".to_owned(), "zwei".to_owned()]).unwrap();
        assert_eq!(keys.accept("one"), Some(TenantId(1)));
        assert_eq!(keys.accept("zwei"), Some(TenantId(2)));
        for wrong in ["", "on", "onee", "ONE", "one\0", "drei", &"x".repeat(1000)] {
            assert_eq!(keys.accept(wrong), None, "{wrong}");
        }
        assert!(!format!("{keys:?}").contains("zwei"));
    }

    #[test]
    fn a_key_that_no_request_can_show_is_refused_and_none_is_repeated() {
        for key in [String::new(), "k".repeat(513), "two words".to_owned(), "ключ".to_owned()] {
            assert_eq!(ApiKeys::new(std::slice::from_ref(&key)).unwrap_err(), KeysError::Key);
            if !key.is_empty() {
                let error = read(&format!("fine\n{key}\n"), &[]).err().unwrap().to_string();
                assert!(error.starts_with("keys, line 2: ") && !error.contains(&key), "{error}");
            }
        }
    }

    #[test]
    fn a_file_has_a_key_a_line_and_comments() {
        let found = read("\u{feff}# ours\r\n\r\n  first \r\n#second\nthird\nfirst", &[]).unwrap();
        assert_eq!(tenants(&found), [3, 4]);
        for (text, reason) in [("", "no key"), ("# first\n\n", "no key")] {
            let error = read(text, &[]).err().unwrap().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let many = |count: usize| (0..count).map(|n| format!("key-{n}\n")).collect::<String>();
        assert_eq!(read(&many(FILE_KEYS_MAX), &[]).unwrap().len(), FILE_KEYS_MAX);
        assert!(read(&many(FILE_KEYS_MAX + 1), &[]).is_err());
        assert!(keys(b"\xff\xfe", Path::new("keys"), &[], 0).is_err());
    }

    #[test]
    fn whose_key_stays_keeps_his_turn() {
        let before = read("a\nb\nc", &[]).unwrap();
        let after = read("d\nc\na", &before).unwrap();
        assert_eq!(tenants(&after), [6, 5, 3]);
        // A tenant that has gone is not another's.
        assert_eq!(tenants(&read("b\nd", &after).unwrap()), [7, 6]);
    }
}
