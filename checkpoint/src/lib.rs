//! A model's files, opened and checked: what the model is, where its tensors lie, how it tokenises.
//!
//! Nothing is converted or copied here: a [`Checkpoint`] maps the files and hands out borrowed bytes.
//! Two layouts are understood: one GGUF file, and a folder of safetensors with `config.json`. Both
//! come out as the same [`ModelConfig`] and the same tensor names, so nobody above knows which it was.
//! Files are not trusted: every count, offset and length is checked before it is used.
//!
//! Modules stand in reading order; each uses only those below it. Blank lines keep the formatter from
//! sorting them.

mod checkpoint;

mod layout;

mod shapes;

mod config;

mod folder;

mod gguf;

mod mapped;

mod error;

mod names;

mod matrix;

mod stored;

mod dequantize;

mod block;

mod vocabulary;

pub use block::BlockKind;
pub use checkpoint::{Checkpoint, ModelFile};
pub use config::{Activation, LayerKind, ModelConfig, RopeConfig};
pub use dequantize::dequantize;
pub use error::CheckpointError;
pub use matrix::{Matrix, MatrixPlace};
pub use names::{LayerTensor, TensorName};
pub use vocabulary::{TemplateTokens, TokenKind, VocabularySource};
