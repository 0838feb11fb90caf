//! What a model is: one decoder, described by data.

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
