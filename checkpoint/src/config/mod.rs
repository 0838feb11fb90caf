//! What a model is: one decoder, described by data.

pub(crate) mod gguf;
pub(crate) mod hugging_face;
pub(crate) mod rope;

use std::path::Path;

use crate::error::CheckpointError;

/// For messages about what is not.
pub(crate) const SERVED: &str = "served are Llama, Mistral, Qwen2, Qwen3 and Gemma 3 (text)";

/// The largest model we have heard of has a few hundred.
const LAYERS_MAX: usize = 1024;
const VOCABULARY_MAX: usize = 4 << 20;
const CONTEXT_MAX: usize = 16 << 20;
const WIDTH_MAX: usize = 1 << 22;
const HEADS_MAX: usize = 1 << 14;
pub(crate) const HEAD_SIZE_MAX: usize = 1 << 12;

/// How the gate of a feed-forward is bent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x × sigmoid(x)`: Llama, Mistral, Qwen.
    Silu,
    /// GELU, tanh approximation: Gemma.
    GeluTanh,
}

/// Which tokens a layer attends to, and which rotary table it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// All earlier tokens; [`ModelConfig::rope`].
    Full,
    /// Itself and the `window - 1` tokens before; [`ModelConfig::rope_local`] where there is one.
    Sliding {
        /// Tokens seen, itself included.
        window: usize,
    },
}

/// Rotary embedding, ready to tabulate. Pairs are half-split: `i` with `i + head size / 2`.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Radians a position for each pair, all scaling (linear, llama3, yarn) already applied;
    /// head size / 2 of them.
    pub inverse_frequencies: Vec<f32>,
    /// `cos` and `sin` are multiplied by this (yarn); 1 elsewhere.
    pub attention_factor: f32,
}

/// A model's shape and habits. Validated: no number here is zero that may not be, sizes agree with
/// the tensors, every layer has a kind.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a habit of its own")]
pub struct ModelConfig {
    /// As the file calls it: `llama`, `qwen2`, `qwen3`, `gemma3`, `mistral`.
    pub architecture: String,
    /// A name to show, or the file's own name.
    pub name: String,
    /// Numbers in the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward.
    pub intermediate: usize,
    /// Query heads.
    pub query_heads: usize,
    /// KV heads; divides the query heads.
    pub kv_heads: usize,
    /// Numbers in a head; even.
    pub head_size: usize,
    /// Tokens there are.
    pub vocabulary: usize,
    /// Longest sequence the model was made for, tokens.
    pub context: usize,
    /// Added to the mean square in every RMS norm.
    pub norm_epsilon: f32,
    /// Attention scores are multiplied by this.
    pub attention_scale: f32,
    /// Embeddings are multiplied by this (Gemma: √hidden); 1 elsewhere.
    pub embedding_scale: f32,
    /// Of the feed-forward.
    pub activation: Activation,
    /// One for each layer.
    pub layers: Vec<LayerKind>,
    /// Rotary embedding of full layers, and of sliding ones without their own.
    pub rope: RopeConfig,
    /// Rotary embedding of sliding layers, where it differs (Gemma 3).
    pub rope_local: Option<RopeConfig>,
    /// q, k and v have a bias (Qwen2).
    pub query_key_value_bias: bool,
    /// The heads of q and k are normed (Qwen3, Gemma 3).
    pub query_key_norm: bool,
    /// What attention and feed-forward give is normed before it is added (Gemma 3).
    pub post_norms: bool,
    /// The output head is the embedding table.
    pub tied_head: bool,
    /// Tokens that end an answer; sorted.
    pub end_tokens: Vec<u32>,
    /// The token that begins every sequence, where the model wants one prepended.
    pub begin_token: Option<u32>,
}

impl ModelConfig {
    /// Checks every number on its own, sorts the end tokens, and forgets those that don't exist.
    pub(crate) fn validate(mut self, path: &Path) -> Result<Self, CheckpointError> {
        let bounds = [
            ("hidden size", self.hidden, WIDTH_MAX),
            ("width of the feed-forward", self.intermediate, WIDTH_MAX),
            ("number of query heads", self.query_heads, HEADS_MAX),
            ("number of KV heads", self.kv_heads, HEADS_MAX),
            ("head size", self.head_size, HEAD_SIZE_MAX),
            ("vocabulary", self.vocabulary, VOCABULARY_MAX),
            ("context", self.context, CONTEXT_MAX),
            ("number of layers", self.layers.len(), LAYERS_MAX),
        ];
        for (what, found, max) in bounds {
            check_size(path, what, found, max)?;
        }
        let numbers = [
            ("norm epsilon", self.norm_epsilon),
            ("attention scale", self.attention_scale),
            ("embedding scale", self.embedding_scale),
        ];
        for (what, found) in numbers {
            if !(found > 0.0 && found < 1e6) {
                return Err(CheckpointError::damaged(path, format!("its {what} is {found}")));
            }
        }
        if !self.head_size.is_multiple_of(2) {
            let what = format!("its head size, {}, is odd", self.head_size);
            return Err(CheckpointError::unsupported(path, what));
        }
        if !self.query_heads.is_multiple_of(self.kv_heads) {
            let what = format!("{} KV heads don't divide {}", self.kv_heads, self.query_heads);
            return Err(CheckpointError::damaged(path, what));
        }
        let exists = |id: &u32| usize::try_from(*id).is_ok_and(|id| id < self.vocabulary);
        if let Some(begin) = self.begin_token.filter(|begin| !exists(begin)) {
            let what = format!("its begin token, {begin}, is not in the vocabulary");
            return Err(CheckpointError::damaged(path, what));
        }
        self.end_tokens.retain(exists);
        self.end_tokens.sort_unstable();
        self.end_tokens.dedup();
        Ok(self)
    }
}

/// Whether a size is one that a model may have.
fn check_size(path: &Path, what: &str, found: usize, max: usize) -> Result<(), CheckpointError> {
    if (1..=max).contains(&found) {
        return Ok(());
    }
    let message = format!("its {what} is {found}, and 1 to {max} are possible");
    Err(CheckpointError::damaged(path, message))
}

/// Asked before anything is allocated for each layer.
pub(crate) fn check_layer_count(path: &Path, layers: usize) -> Result<(), CheckpointError> {
    check_size(path, "number of layers", layers, LAYERS_MAX)
}

/// Every `every`th layer is full, the others slide; 0: all slide.
pub(crate) fn pattern(layers: usize, every: usize, window: usize) -> Vec<LayerKind> {
    (1..=layers)
        .map(|nth| match nth.checked_rem(every) {
            Some(0) => LayerKind::Full,
            _ => LayerKind::Sliding { window },
        })
        .collect()
}
