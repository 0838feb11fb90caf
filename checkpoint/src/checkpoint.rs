//! A model's files, whatever their layout, behind one face.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config::{self, ModelConfig};
use crate::dequantize::dequantize;
use crate::error::CheckpointError;
use crate::gguf::{Gguf, vocabulary};
use crate::matrix::{BlockKind, Matrix, stored_row};
use crate::names::{LayerTensor, TensorName};
use crate::shapes::{self, Shape};
use crate::vocabulary::{TemplateTokens, VocabularySource};

/// An opened model: every tensor that [`Checkpoint::config`] implies is there and has its shape.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    layout: Layout,
    config: ModelConfig,
}

/// What lies on the disk.
#[derive(Debug)]
enum Layout {
    Gguf(Gguf),
}

/// A tensor where it lies.
#[derive(Debug, Clone, Copy)]
struct Tensor<'a> {
    shape: &'a [usize],
    kind: BlockKind,
    bytes: &'a [u8],
}

impl Checkpoint {
    /// Opens a GGUF file, or a folder of safetensors with `config.json` and `tokenizer.json`.
    ///
    /// The files are mapped and their headers checked; tensor data is not read.
    ///
    /// # Errors
    /// [`CheckpointError`]: unreadable, damaged, or of a kind that is not served.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let gguf = Gguf::open(path)?;
        let config = config::gguf::read(&gguf)?.validate(path)?;
        if vocabulary::token_count(&gguf).is_some_and(|tokens| tokens > config.vocabulary) {
            return Err(gguf.damaged("there are more tokens than rows of the embedding"));
        }
        let checkpoint = Self { path: path.to_path_buf(), layout: Layout::Gguf(gguf), config };
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    /// As given to [`Checkpoint::open`].
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the model is.
    #[must_use]
    pub const fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Bytes of all files that hold tensors.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        match &self.layout {
            Layout::Gguf(gguf) => gguf.file().bytes().len() as u64,
        }
    }

    /// Identifies the files: SHA-256 of their headers and lengths. Tensor data does not count.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        match &self.layout {
            Layout::Gguf(gguf) => {
                hash.update(self.file_bytes().to_le_bytes());
                hash.update(gguf.header());
            }
        }
        hash.finalize().into()
    }

    /// Whether the model has this tensor.
    #[must_use]
    pub fn has(&self, name: TensorName) -> bool {
        self.find(name).is_some()
    }

    /// A matrix, as it lies in the file.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] when the model has no such matrix.
    pub fn matrix(&self, name: TensorName) -> Result<Matrix<'_>, CheckpointError> {
        let tensor = self.need(name)?;
        let [rows, columns] = *tensor.shape else {
            return Err(self.damaged(format!("{} is not a matrix", self.stored_name(name))));
        };
        let head = self.interleaved_head(name);
        Ok(Matrix::interleaved(rows, columns, tensor.kind, tensor.bytes, head))
    }

    /// A vector, as numbers: a norm's weight or a bias.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] when the model has no such vector.
    pub fn vector(&self, name: TensorName) -> Result<Vec<f32>, CheckpointError> {
        let tensor = self.need(name)?;
        let [numbers] = *tensor.shape else {
            return Err(self.damaged(format!("{} is not a vector", self.stored_name(name))));
        };
        let mut stored = vec![0.0; numbers];
        dequantize(tensor.kind, tensor.bytes, &mut stored);
        let head = self.interleaved_head(name);
        if head == 0 {
            return Ok(stored);
        }
        Ok((0..numbers).map(|i| stored[stored_row(i, head)]).collect())
    }

    /// What the files say about tokens.
    ///
    /// # Errors
    /// [`CheckpointError`] when there is no tokenizer, or none that is served.
    pub fn vocabulary(&self) -> Result<VocabularySource, CheckpointError> {
        match &self.layout {
            Layout::Gguf(gguf) => vocabulary::source(gguf),
        }
    }

    /// The Jinja template that turns messages into a prompt, where there is one.
    #[must_use]
    pub fn chat_template(&self) -> Option<String> {
        match &self.layout {
            Layout::Gguf(gguf) => {
                gguf.text("tokenizer.chat_template").ok().flatten().map(str::to_owned)
            }
        }
    }

    /// Texts that chat templates refer to.
    #[must_use]
    pub fn template_tokens(&self) -> TemplateTokens {
        match &self.layout {
            Layout::Gguf(gguf) => vocabulary::template_tokens(gguf).unwrap_or_default(),
        }
    }

    fn damaged(&self, what: impl Into<String>) -> CheckpointError {
        CheckpointError::damaged(&self.path, what)
    }

    fn stored_name(&self, name: TensorName) -> String {
        match &self.layout {
            Layout::Gguf(_) => name.gguf(),
        }
    }

    fn find(&self, name: TensorName) -> Option<Tensor<'_>> {
        if name == TensorName::Output && self.config.tied_head {
            return None;
        }
        match &self.layout {
            Layout::Gguf(gguf) => gguf.tensor(&self.stored_name(name)).map(|stored| Tensor {
                shape: &stored.shape,
                kind: stored.kind,
                bytes: &gguf.file().bytes()[stored.bytes.clone()],
            }),
        }
    }

    fn need(&self, name: TensorName) -> Result<Tensor<'_>, CheckpointError> {
        self.find(name)
            .ok_or_else(|| self.damaged(format!("tensor {} is missing", self.stored_name(name))))
    }

    /// Rows of a head where the file interleaves them, else 0.
    fn interleaved_head(&self, name: TensorName) -> usize {
        let rotated = matches!(
            name,
            TensorName::Layer(
                _,
                LayerTensor::Query
                    | LayerTensor::Key
                    | LayerTensor::QueryBias
                    | LayerTensor::KeyBias
            )
        );
        let gguf = matches!(self.layout, Layout::Gguf(_));
        if gguf && rotated && self.config.architecture == "llama" {
            self.config.head_size
        } else {
            0
        }
    }

    /// Everything needed is there with its shape, and the layers hold nothing that we would ignore.
    fn check_tensors(&self) -> Result<(), CheckpointError> {
        let needed = shapes::needed(&self.config);
        for &(name, shape) in &needed {
            self.check_tensor(name, shape)?;
        }
        let known: std::collections::HashSet<String> =
            needed.iter().map(|&(name, _)| self.stored_name(name)).collect();
        let Layout::Gguf(gguf) = &self.layout;
        let mut strange: Vec<&str> = gguf
            .tensor_names()
            .filter(|name| name.starts_with("blk.") && !known.contains(*name))
            .collect();
        strange.sort_unstable();
        match strange.first() {
            None => Ok(()),
            Some(name) => Err(CheckpointError::unsupported(
                &self.path,
                format!(
                    "tensor {} has no place in architecture {}",
                    crate::error::shown(name),
                    self.config.architecture
                ),
            )),
        }
    }

    fn check_tensor(&self, name: TensorName, shape: Shape) -> Result<(), CheckpointError> {
        let found = self.need(name)?.shape;
        if shape.is(found) {
            return Ok(());
        }
        let stored = self.stored_name(name);
        Err(self.damaged(format!("tensor {stored} has shape {found:?}, and {shape} is needed")))
    }
}
