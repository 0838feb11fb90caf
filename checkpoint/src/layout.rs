//! The two layouts, where they differ in what things are called and how they are stored.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::config::{self, ModelConfig};
use crate::error::CheckpointError;
use crate::folder::{self, Folder};
use crate::gguf::{self, Gguf};
use crate::mapped::Mapped;
use crate::names::{LayerTensor, TensorName};
use crate::stored::Stored;
use crate::vocabulary::{TemplateTokens, VocabularySource};

/// What lies on the disk.
#[derive(Debug)]
pub(crate) enum Layout {
    Gguf(Gguf),
    Folder(Box<Folder>),
}

impl Layout {
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        if path.is_dir() {
            Folder::open(path).map(Box::new).map(Self::Folder)
        } else {
            Gguf::open(path).map(Self::Gguf)
        }
    }

    pub(crate) fn config(&self) -> Result<ModelConfig, CheckpointError> {
        match self {
            Self::Gguf(gguf) => {
                let config = config::gguf::read(gguf)?.validate(gguf.path())?;
                let tokens = gguf::vocabulary::token_count(gguf).unwrap_or(0);
                if tokens > config.vocabulary {
                    return Err(gguf.damaged(format!(
                        "it has {tokens} tokens and an embedding for {}",
                        config.vocabulary
                    )));
                }
                Ok(config)
            }
            Self::Folder(folder) => {
                config::hugging_face::read(folder)?.validate(&folder.config_path())
            }
        }
    }

    /// Files that hold tensors.
    pub(crate) fn files(&self) -> &[Mapped] {
        match self {
            Self::Gguf(gguf) => std::slice::from_ref(gguf.file()),
            Self::Folder(folder) => folder.tensors.files(),
        }
    }

    pub(crate) fn hash_headers(&self, hash: &mut Sha256) {
        match self {
            Self::Gguf(gguf) => hash.update(gguf.header()),
            Self::Folder(folder) => folder.hash_headers(hash),
        }
    }

    /// What the files call a tensor.
    pub(crate) fn name(&self, name: TensorName, config: &ModelConfig) -> String {
        let tensors = match self {
            Self::Gguf(_) => return name.gguf(),
            Self::Folder(folder) => &folder.tensors,
        };
        let plain = name.hugging_face(config.post_norms);
        if name != TensorName::Output {
            return format!("{}{plain}", tensors.prefix());
        }
        // The head stands beside the decoder, not in it.
        let nested = format!("language_model.{plain}");
        if tensors.find(&nested).is_some() { nested } else { plain }
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Stored> {
        match self {
            Self::Gguf(gguf) => gguf.tensor(name),
            Self::Folder(folder) => folder.tensors.find(name),
        }
    }

    pub(crate) fn bytes(&self, stored: &Stored) -> &[u8] {
        &self.files()[stored.file].bytes()[stored.bytes.clone()]
    }

    /// Why a tensor that is needed can't be had.
    pub(crate) fn missing(&self, name: &str) -> CheckpointError {
        match self {
            Self::Gguf(gguf) => gguf.damaged(format!("tensor {name} is missing")),
            Self::Folder(folder) => folder.missing(name),
        }
    }

    /// Names of all tensors of the decoder, but for tables that it does without.
    pub(crate) fn decoder_tensor_names(&self) -> Vec<&str> {
        match self {
            // Has gone into the rotary frequencies.
            Self::Gguf(gguf) => {
                gguf.tensor_names().filter(|name| *name != "rope_freqs.weight").collect()
            }
            Self::Folder(folder) => {
                let (prefix, layers) = (folder.tensors.prefix(), "layers.");
                let start = if prefix.is_empty() { layers } else { prefix };
                let wanted = |name: &&str| {
                    name.starts_with(start) && !name.ends_with("rotary_emb.inv_freq")
                        || name.ends_with("lm_head.bias")
                };
                folder.tensors.names().filter(wanted).collect()
            }
        }
    }

    /// Rows of a head where the file interleaves them, else 0.
    pub(crate) fn interleaved_head(&self, name: TensorName, config: &ModelConfig) -> usize {
        let TensorName::Layer(_, tensor) = name else { return 0 };
        let rotated = matches!(
            tensor,
            LayerTensor::Query | LayerTensor::Key | LayerTensor::QueryBias | LayerTensor::KeyBias
        );
        let interleaves = matches!(self, Self::Gguf(_)) && config.architecture == "llama";
        if interleaves && rotated { config.head_size } else { 0 }
    }

    /// What has to be added to a stored vector.
    pub(crate) fn stored_less(&self, name: TensorName, config: &ModelConfig) -> f32 {
        let norm = match name {
            TensorName::OutputNorm => true,
            TensorName::Layer(_, tensor) => tensor.is_norm(),
            TensorName::Embedding | TensorName::Output => false,
        };
        let folder = matches!(self, Self::Folder(_));
        if folder && norm && config.architecture == "gemma3" { 1.0 } else { 0.0 }
    }

    pub(crate) fn vocabulary(&self) -> Result<VocabularySource, CheckpointError> {
        match self {
            Self::Gguf(gguf) => gguf::vocabulary::source(gguf),
            Self::Folder(folder) => folder::vocabulary::source(folder),
        }
    }

    pub(crate) fn chat_template(&self) -> Option<String> {
        match self {
            Self::Gguf(gguf) => {
                gguf.text("tokenizer.chat_template").ok().flatten().map(str::to_owned)
            }
            Self::Folder(folder) => folder::vocabulary::chat_template(folder),
        }
    }

    pub(crate) fn template_tokens(&self) -> TemplateTokens {
        match self {
            Self::Gguf(gguf) => gguf::vocabulary::template_tokens(gguf).unwrap_or_default(),
            Self::Folder(folder) => folder::vocabulary::template_tokens(folder),
        }
    }
}
