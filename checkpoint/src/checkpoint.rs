//! A model's files, whatever their layout, behind one face.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config::ModelConfig;
use crate::dequantize::dequantize;
use crate::error::{CheckpointError, shown};
use crate::layout::Layout;
use crate::mapped::Mapped;
use crate::matrix::{Matrix, MatrixPlace, stored_row};
use crate::names::TensorName;
use crate::shapes::{self, Shape};
use crate::stored::Stored;
use crate::vocabulary::{TemplateTokens, VocabularySource};

/// An opened model: every tensor that [`Checkpoint::config`] implies is there and has its shape.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    layout: Layout,
    config: ModelConfig,
}

/// One of a model's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Within the model's folder.
    pub name: String,
    /// How long it is.
    pub bytes: u64,
    /// Where it is.
    pub path: PathBuf,
}

impl Checkpoint {
    /// Opens a GGUF file, or a folder of safetensors with `config.json` and `tokenizer.json`.
    ///
    /// The files are mapped and their headers checked; tensor data is not read.
    ///
    /// # Errors
    /// [`CheckpointError`]: unreadable, damaged, or of a kind that is not served.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let layout = Layout::open(path)?;
        let config = layout.config()?;
        let checkpoint = Self { path: path.to_path_buf(), layout, config };
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
        self.layout.files().iter().map(|file| file.bytes().len() as u64).sum()
    }

    /// Whether the model is a folder of files; else it is one file.
    #[must_use]
    pub const fn is_folder(&self) -> bool {
        matches!(self.layout, Layout::Folder(_))
    }

    /// Every file that makes a difference to the model, tensors or not: together they are all that another
    /// machine needs to open the same.
    ///
    /// # Errors
    /// A file cannot be looked at.
    pub fn model_files(&self) -> io::Result<Vec<ModelFile>> {
        let paths = match &self.layout {
            Layout::Gguf(gguf) => vec![gguf.file().path().to_path_buf()],
            Layout::Folder(folder) => folder.paths(),
        };
        let file = |path: PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(ModelFile { name, bytes: fs::metadata(&path)?.len(), path })
        };
        paths.into_iter().map(file).collect()
    }

    /// Gives the memory of what was read back to the system: after copies were made of it, say. What
    /// is read again comes again, from the system's cache or from the disk.
    pub fn release(&self) {
        self.layout.files().iter().for_each(Mapped::release);
    }

    /// Identifies the files: SHA-256 of their lengths, everything in them but tensor data, and a few
    /// samples of that. Cheap; the same on every machine.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        const SAMPLES: usize = 16;
        const SAMPLE_BYTES: usize = 64;
        let mut hash = Sha256::new();
        self.layout.hash_headers(&mut hash);
        for file in self.layout.files() {
            let bytes = file.bytes();
            hash.update((bytes.len() as u64).to_le_bytes());
            // Two trainings of one model differ in tensor data alone, but there nearly everywhere.
            for nth in 1..=SAMPLES {
                let start = bytes.len() / (SAMPLES + 1) * nth;
                hash.update(&bytes[start..bytes.len().min(start + SAMPLE_BYTES)]);
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
        self.place(name).map(|place| self.at(&place))
    }

    /// Where a matrix lies, for [`Checkpoint::at`].
    ///
    /// # Errors
    /// As [`Checkpoint::matrix`].
    pub fn place(&self, name: TensorName) -> Result<MatrixPlace, CheckpointError> {
        let stored = self.need(name)?.clone();
        let [rows, columns] = *stored.shape else {
            return Err(self.damaged(format!("tensor {} is not a matrix", self.stored_name(name))));
        };
        let interleaved_head = self.layout.interleaved_head(name, &self.config);
        Ok(MatrixPlace { stored, rows, columns, interleaved_head })
    }

    /// The matrix at a place, without looking for it.
    ///
    /// # Panics
    /// When the place is another checkpoint's.
    #[must_use]
    pub fn at(&self, place: &MatrixPlace) -> Matrix<'_> {
        let MatrixPlace { stored, rows, columns, interleaved_head } = place;
        let bytes = self.layout.bytes(stored);
        Matrix::interleaved(*rows, *columns, stored.kind, bytes, *interleaved_head)
    }

    /// A vector, as numbers: a norm's weight or a bias.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] when the model has no such vector.
    pub fn vector(&self, name: TensorName) -> Result<Vec<f32>, CheckpointError> {
        let tensor = self.need(name)?;
        let [numbers] = *tensor.shape else {
            return Err(self.damaged(format!("tensor {} is not a vector", self.stored_name(name))));
        };
        let mut stored = vec![0.0; numbers];
        dequantize(tensor.kind, self.layout.bytes(tensor), &mut stored);
        let head = self.layout.interleaved_head(name, &self.config);
        let less = self.layout.stored_less(name, &self.config);
        Ok((0..numbers).map(|i| stored[stored_row(i, head)] + less).collect())
    }

    /// What the files say about tokens.
    ///
    /// # Errors
    /// [`CheckpointError`] when there is no tokenizer, or none that is served.
    pub fn vocabulary(&self) -> Result<VocabularySource, CheckpointError> {
        self.layout.vocabulary()
    }

    /// The Jinja template that turns messages into a prompt, where there is one.
    #[must_use]
    pub fn chat_template(&self) -> Option<String> {
        self.layout.chat_template()
    }

    /// Texts that chat templates refer to.
    #[must_use]
    pub fn template_tokens(&self) -> TemplateTokens {
        self.layout.template_tokens()
    }

    fn damaged(&self, what: impl Into<String>) -> CheckpointError {
        CheckpointError::damaged(&self.path, what)
    }

    fn stored_name(&self, name: TensorName) -> String {
        self.layout.name(name, &self.config)
    }

    fn find(&self, name: TensorName) -> Option<&Stored> {
        // A head beside a tied embedding is a copy that nobody asked for.
        if name == TensorName::Output && self.config.tied_head {
            return None;
        }
        self.layout.find(&self.stored_name(name))
    }

    fn need(&self, name: TensorName) -> Result<&Stored, CheckpointError> {
        self.find(name).ok_or_else(|| self.layout.missing(&self.stored_name(name)))
    }

    /// Everything needed is there with its shape, and nothing else is that we would have to ignore.
    fn check_tensors(&self) -> Result<(), CheckpointError> {
        let needed = shapes::needed(&self.config);
        for &(name, shape) in &needed {
            self.check_tensor(name, shape)?;
        }
        let known: HashSet<String> =
            needed.iter().map(|&(name, _)| self.stored_name(name)).collect();
        let names = self.layout.decoder_tensor_names().into_iter();
        let Some(strange) = names.filter(|name| !known.contains(*name)).min() else {
            return Ok(());
        };
        let (strange, architecture) = (shown(strange), &self.config.architecture);
        let what = format!("tensor {strange} has no place in architecture {architecture}");
        Err(CheckpointError::unsupported(&self.path, what))
    }

    fn check_tensor(&self, name: TensorName, shape: Shape) -> Result<(), CheckpointError> {
        let found = &self.need(name)?.shape;
        if shape.is(found) {
            return Ok(());
        }
        let stored = self.stored_name(name);
        Err(self.damaged(format!("tensor {stored} has shape {found:?}, and {shape} is needed")))
    }
}
