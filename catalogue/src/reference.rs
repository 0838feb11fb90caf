//! What a person types to name a model.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::entries::{ENTRIES, Entry};
use crate::store::is_inner_path;

/// What a person typed to name a model, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelReference {
    /// A name of the catalogue.
    Entry(&'static Entry),
    /// A GGUF file or a folder on this machine.
    Path(PathBuf),
    /// A repository of the Hugging Face hub.
    Hub {
        /// `ORG/REPO`.
        repository: String,
        /// One file of it; without, what is needed to run the model.
        file: Option<String>,
    },
}

/// Why a text names no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Neither a name of the catalogue nor a path.
    #[error("there is no model '{name}'{}; there are {}, and hf:ORG/REPO[:FILE] or a path", suggestion(*nearest), names())]
    Unknown {
        /// What was typed.
        name: String,
        /// The name that is most like it.
        nearest: Option<&'static str>,
    },
    /// A path that leads nowhere.
    #[error("there is no file or folder '{}'{}", .0.display(), hub_hint(.0))]
    Missing(PathBuf),
    /// `hf:` followed by something else than a repository and a file.
    #[error("'{0}' is not of the form hf:ORG/REPO or hf:ORG/REPO:FILE")]
    Malformed(String),
}

/// Below this likeness a name is no suggestion.
const LIKENESS_MIN: f64 = 0.6;

impl ModelReference {
    /// Understands what a person typed. Looks at the disk only to see whether a path exists.
    ///
    /// # Errors
    ///
    /// The text is no name, no existing path and no repository.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if let Some(address) = text.strip_prefix("hf:") {
            return parse_hub(address).ok_or_else(|| ReferenceError::Malformed(text.to_owned()));
        }
        let name = text.to_ascii_lowercase();
        if let Some(entry) = ENTRIES.iter().find(|entry| entry.name == name) {
            return Ok(Self::Entry(entry));
        }
        let path = Path::new(text);
        if path.exists() {
            return Ok(Self::Path(path.to_path_buf()));
        }
        if text.contains(std::path::is_separator) || name.ends_with(".gguf") {
            return Err(ReferenceError::Missing(path.to_path_buf()));
        }
        Err(ReferenceError::Unknown { name: text.to_owned(), nearest: nearest(&name) })
    }

    /// The name under which the model is served unless another is given.
    #[must_use]
    pub fn served_name(&self) -> String {
        match self {
            Self::Entry(entry) => entry.name.to_owned(),
            Self::Hub { repository, .. } => repository.clone(),
            Self::Path(path) => {
                let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
                name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
            }
        }
    }
}

impl Default for ModelReference {
    fn default() -> Self {
        Self::Entry(&ENTRIES[0])
    }
}

impl fmt::Display for ModelReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(entry) => formatter.write_str(entry.name),
            Self::Path(path) => path.display().fmt(formatter),
            Self::Hub { repository, file: None } => write!(formatter, "hf:{repository}"),
            Self::Hub { repository, file: Some(file) } => {
                write!(formatter, "hf:{repository}:{file}")
            }
        }
    }
}

/// Whether `name` can be one part of a repository's name: it cannot leave a folder.
fn is_part(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 96
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn parse_hub(address: &str) -> Option<ModelReference> {
    let (repository, file) = match address.split_once(':') {
        Some((repository, file)) => (repository, Some(file)),
        None => (address, None),
    };
    let (organisation, name) = repository.split_once('/')?;
    let sound = is_part(organisation) && is_part(name) && file.is_none_or(is_inner_path);
    sound.then(|| ModelReference::Hub {
        repository: repository.to_owned(),
        file: file.map(str::to_owned),
    })
}

fn nearest(name: &str) -> Option<&'static str> {
    ENTRIES
        .iter()
        .map(|entry| (strsim::jaro_winkler(entry.name, name), entry.name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

/// A repository is easily typed without `hf:`.
fn hub_hint(path: &Path) -> String {
    match path.to_str() {
        Some(text) if parse_hub(text).is_some() && !text.ends_with(".gguf") => {
            format!("; for a repository of the Hugging Face hub say hf:{text}")
        }
        _ => String::new(),
    }
}

fn names() -> String {
    ENTRIES.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_catalogue_is_found_in_any_case() {
        let reference = ModelReference::parse("SmolLM2-135M-Instruct").unwrap();
        assert_eq!(reference, ModelReference::default());
        assert_eq!(reference.served_name(), "smollm2-135m-instruct");
    }

    #[test]
    fn an_unknown_name_lists_the_names_and_the_nearest() {
        let message = ModelReference::parse("smolm2").unwrap_err().to_string();
        assert_eq!(
            message,
            "there is no model 'smolm2' (did you mean smollm2-135m-instruct?); there are \
             smollm2-135m-instruct, gemma-3-270m, and hf:ORG/REPO[:FILE] or a path"
        );
        let message = ModelReference::parse("gema-270m").unwrap_err().to_string();
        assert!(message.contains("did you mean gemma-3-270m?"), "{message}");
        let message = ModelReference::parse("qqq").unwrap_err().to_string();
        assert!(!message.contains("did you mean"), "{message}");
    }

    #[test]
    fn a_path_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tiny.q8.gguf");
        std::fs::write(&file, "").unwrap();
        let reference = ModelReference::parse(file.to_str().unwrap()).unwrap();
        assert_eq!(reference.served_name(), "tiny.q8");
        assert_eq!(reference, ModelReference::Path(file));
        for missing in ["absent.gguf", "./absent", "../../absent", "/absent/absent"] {
            let refused = ModelReference::parse(missing);
            assert_eq!(refused, Err(ReferenceError::Missing(missing.into())));
            assert!(!refused.unwrap_err().to_string().contains("hf:"));
        }
        let message = ModelReference::parse("Qwen/Qwen3-0.6B").unwrap_err().to_string();
        assert!(message.ends_with("say hf:Qwen/Qwen3-0.6B"), "{message}");
    }

    #[test]
    fn a_repository_is_an_organisation_a_name_and_perhaps_a_file() {
        let whole = ModelReference::parse("hf:Qwen/Qwen3-0.6B").unwrap();
        assert_eq!(whole.to_string(), "hf:Qwen/Qwen3-0.6B");
        assert_eq!(whole.served_name(), "Qwen/Qwen3-0.6B");
        let file = ModelReference::parse("hf:a/b:sub/c d.gguf").unwrap();
        assert_eq!(
            file,
            ModelReference::Hub {
                repository: "a/b".to_owned(),
                file: Some("sub/c d.gguf".to_owned())
            }
        );
    }

    #[test]
    fn a_repository_cannot_lead_out_of_the_cache() {
        for hostile in [
            "hf:",
            "hf:a",
            "hf:a/",
            "hf:/b",
            "hf:a/b/c",
            "hf:../b",
            "hf:a/..",
            "hf:a/.b",
            "hf:a/b?x",
            "hf:a/b:",
            "hf:a/b:/etc/passwd",
            "hf:a/b:../c",
            "hf:a/b:c/../../d",
            "hf:a/b:c//d",
            "hf:a/b:c\\d",
            "hf:a/b:c\n",
            "hf:a b/c",
            "hf:https://x/y",
        ] {
            let refused = ModelReference::parse(hostile);
            assert_eq!(refused, Err(ReferenceError::Malformed(hostile.to_owned())), "{hostile:?}");
        }
    }
}
