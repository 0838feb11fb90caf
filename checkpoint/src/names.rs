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
