//! Tensors by what they are for, whatever a file calls them.

/// A tensor of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TensorName {
    /// `(vocabulary, hidden)`
    Embedding,
    /// `(hidden)`: norm before the head.
    OutputNorm,
    /// `(vocabulary, hidden)`: the head; absent when tied.
    Output,
    /// A tensor of a layer.
    Layer(usize, LayerTensor),
}

/// A tensor of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LayerTensor {
    /// `(hidden)`: norm before attention.
    AttentionNorm,
    /// `(query heads × head size, hidden)`
    Query,
    /// `(KV heads × head size, hidden)`
    Key,
    /// `(KV heads × head size, hidden)`
    Value,
    /// `(query heads × head size)`
    QueryBias,
    /// `(KV heads × head size)`
    KeyBias,
    /// `(KV heads × head size)`
    ValueBias,
    /// `(head size)`
    QueryNorm,
    /// `(head size)`
    KeyNorm,
    /// `(hidden, query heads × head size)`
    AttentionOutput,
    /// `(hidden)`: norm of what attention gives (Gemma 3).
    PostAttentionNorm,
    /// `(hidden)`: norm before the feed-forward.
    FeedForwardNorm,
    /// `(intermediate, hidden)`
    Gate,
    /// `(intermediate, hidden)`
    Up,
    /// `(hidden, intermediate)`
    Down,
    /// `(hidden)`: norm of what the feed-forward gives (Gemma 3).
    PostFeedForwardNorm,
}

impl TensorName {
    /// What GGUF files call it.
    pub(crate) fn gguf(self) -> String {
        match self {
            Self::Embedding => "token_embd.weight".to_owned(),
            Self::OutputNorm => "output_norm.weight".to_owned(),
            Self::Output => "output.weight".to_owned(),
            Self::Layer(layer, tensor) => format!("blk.{layer}.{}", tensor.gguf()),
        }
    }

    /// What `transformers` calls it, without the prefix that all tensors of the decoder have;
    /// `post_norms` as in [`crate::ModelConfig::post_norms`].
    pub(crate) fn hugging_face(self, post_norms: bool) -> String {
        match self {
            Self::Embedding => "embed_tokens.weight".to_owned(),
            Self::OutputNorm => "norm.weight".to_owned(),
            Self::Output => "lm_head.weight".to_owned(),
            Self::Layer(layer, tensor) => {
                format!("layers.{layer}.{}", tensor.hugging_face(post_norms))
            }
        }
    }
}

impl LayerTensor {
    const fn gguf(self) -> &'static str {
        match self {
            Self::AttentionNorm => "attn_norm.weight",
            Self::Query => "attn_q.weight",
            Self::Key => "attn_k.weight",
            Self::Value => "attn_v.weight",
            Self::QueryBias => "attn_q.bias",
            Self::KeyBias => "attn_k.bias",
            Self::ValueBias => "attn_v.bias",
            Self::QueryNorm => "attn_q_norm.weight",
            Self::KeyNorm => "attn_k_norm.weight",
            Self::AttentionOutput => "attn_output.weight",
            Self::PostAttentionNorm => "post_attention_norm.weight",
            Self::FeedForwardNorm => "ffn_norm.weight",
            Self::Gate => "ffn_gate.weight",
            Self::Up => "ffn_up.weight",
            Self::Down => "ffn_down.weight",
            Self::PostFeedForwardNorm => "post_ffw_norm.weight",
        }
    }

    const fn hugging_face(self, post_norms: bool) -> &'static str {
        match self {
            Self::AttentionNorm => "input_layernorm.weight",
            Self::Query => "self_attn.q_proj.weight",
            Self::Key => "self_attn.k_proj.weight",
            Self::Value => "self_attn.v_proj.weight",
            Self::QueryBias => "self_attn.q_proj.bias",
            Self::KeyBias => "self_attn.k_proj.bias",
            Self::ValueBias => "self_attn.v_proj.bias",
            Self::QueryNorm => "self_attn.q_norm.weight",
            Self::KeyNorm => "self_attn.k_norm.weight",
            Self::AttentionOutput => "self_attn.o_proj.weight",
            // Without post norms this is what the norm before the feed-forward is called.
            Self::PostAttentionNorm => "post_attention_layernorm.weight",
            Self::FeedForwardNorm if post_norms => "pre_feedforward_layernorm.weight",
            Self::FeedForwardNorm => "post_attention_layernorm.weight",
            Self::Gate => "mlp.gate_proj.weight",
            Self::Up => "mlp.up_proj.weight",
            Self::Down => "mlp.down_proj.weight",
            Self::PostFeedForwardNorm => "post_feedforward_layernorm.weight",
        }
    }

    /// A norm's weight, which Gemma's own files store less one.
    pub(crate) const fn is_norm(self) -> bool {
        matches!(
            self,
            Self::AttentionNorm
                | Self::QueryNorm
                | Self::KeyNorm
                | Self::PostAttentionNorm
                | Self::FeedForwardNorm
                | Self::PostFeedForwardNorm
        )
    }
}
