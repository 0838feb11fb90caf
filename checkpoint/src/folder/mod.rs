//! A folder as `transformers` writes it: JSON beside safetensors.

pub(crate) mod json;
pub(crate) mod tensors;
pub(crate) mod vocabulary;

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::CheckpointError;
use crate::folder::tensors::Tensors;

/// Files beside the tensors that make a difference, all but the first optional.
const SIDE_FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// An opened folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// `config.json`.
    pub(crate) config: Value,
    /// `generation_config.json`, or null.
    pub(crate) generation: Value,
    /// `tokenizer_config.json`, or null.
    pub(crate) tokenizer_config: Value,
    pub(crate) tensors: Tensors,
    /// SHA-256 of the side files.
    side_digest: [u8; 32],
}

impl Folder {
    /// Reads the JSON and the tensors' headers.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let config = json::read(&path.join("config.json"))?;
        let optional = |name: &str| json::read_optional(&path.join(name));
        Ok(Self {
            config,
            generation: optional("generation_config.json")?.unwrap_or_default(),
            tokenizer_config: optional("tokenizer_config.json")?.unwrap_or_default(),
            tensors: Tensors::open(path)?,
            side_digest: side_digest(path)?,
            path: path.to_path_buf(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All files that make a difference.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let beside = SIDE_FILES.iter().chain([&tensors::INDEX]).map(|name| self.path.join(name));
        let tensors = self.tensors.files().iter().map(|file| file.path().to_path_buf());
        beside.filter(|path| path.is_file()).chain(tensors).collect()
    }

    /// Where `config.json` is, for messages.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// Why a tensor that is needed can't be had.
    pub(crate) fn missing(&self, name: &str) -> CheckpointError {
        match self.tensors.foreign(name) {
            None => CheckpointError::damaged(&self.path, format!("tensor {name} is missing")),
            Some(dtype) => CheckpointError::unsupported(
                &self.path,
                format!("tensor {name} is of type {dtype:?}; served are F32, F16 and BF16"),
            ),
        }
    }

    /// Feeds everything that is not tensor data.
    pub(crate) fn hash_headers(&self, hash: &mut Sha256) {
        hash.update(self.side_digest);
        for index in 0..self.tensors.files().len() {
            hash.update(self.tensors.header(index));
        }
    }
}

fn side_digest(folder: &Path) -> Result<[u8; 32], CheckpointError> {
    let mut hash = Sha256::new();
    for name in SIDE_FILES {
        if let Some(bytes) = json::read_bytes_optional(&folder.join(name))? {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
        } else {
            hash.update(u64::MAX.to_le_bytes());
        }
    }
    Ok(hash.finalize().into())
}
