//! The forward pass, top to bottom, for every model, device and world there is.
//!
//! Llama, Mistral, Qwen2, Qwen3 and Gemma 3 differ in what a [`Layer`] has: biases lie in the weights,
//! norms are there or not, a shape has a window, a layer has one rotary table or the other.

use checkpoint::Activation;

use crate::backend::{AttentionShape, Backend, QueryKeyNorm};
use crate::batch::Batch;
use crate::collective::Collective;
use crate::model::error::{During, Operation, StepError};
use crate::model::linear::RowParallel;

/// All layers, as this rank has them.
pub(crate) struct Decoder<B: Backend> {
    /// From the bottom up.
    pub(crate) layers: Vec<Layer<B>>,
    /// `(hidden)`: before the head.
    pub(crate) output_norm: B::Vector,
    /// Rotary tables: of full layers, and of sliding ones where that differs.
    pub(crate) ropes: Vec<B::Rope>,
    /// For each query head of this rank, the KV head of this rank that it reads.
    pub(crate) kv_of_query: Vec<usize>,
    /// Of the feed-forward.
    pub(crate) activation: Activation,
    /// Added to the mean square in every norm.
    pub(crate) epsilon: f32,
    /// Numbers in the residual stream.
    pub(crate) hidden: usize,
    /// Working memory of the partial sums.
    pub(crate) sums: Vec<f64>,
}

/// One layer.
pub(crate) struct Layer<B: Backend> {
    /// `(hidden)`
    pub(crate) attention_norm: B::Vector,
    /// None where this rank has no heads.
    pub(crate) attention: Option<Attention<B>>,
    /// `(hidden, heads × head size)`
    pub(crate) attention_output: RowParallel<B>,
    /// `(hidden)`: norm of what attention gives (Gemma 3).
    pub(crate) post_attention_norm: Option<B::Vector>,
    /// `(hidden)`
    pub(crate) feed_forward_norm: B::Vector,
    /// `(2 × intermediate, hidden)`, column-parallel; none where this rank has no columns.
    pub(crate) gate_up: Option<B::Weight>,
    /// `(hidden, intermediate)`
    pub(crate) down: RowParallel<B>,
    /// `(hidden)`: norm of what the feed-forward gives (Gemma 3).
    pub(crate) post_feed_forward_norm: Option<B::Vector>,
}

/// The heads that this rank has of a layer.
pub(crate) struct Attention<B: Backend> {
    /// `((query heads + 2 × KV heads) × head size, hidden)`, column-parallel.
    pub(crate) query_key_value: B::Weight,
    /// `(head size)` each: norms of the heads of q and of k (Qwen3, Gemma 3).
    pub(crate) query_key_norm: Option<(B::Vector, B::Vector)>,
    /// Which of the rotary tables.
    pub(crate) rope: usize,
    /// Heads, window, scale.
    pub(crate) shape: AttentionShape,
}

impl<B: Backend> Decoder<B> {
    /// The residual stream of `rows` after the last layer and the last norm: `(rows, hidden)`, the same
    /// bits on every rank. What comes after the last attention concerns each row alone, so it is
    /// computed for these only; they are told once each, in order. `embedded` is `(T, hidden)`.
    ///
    /// # Errors
    /// A peer that did not come, or the device; with the layer's name.
    pub(crate) fn forward(
        &mut self,
        b: &mut B,
        c: &mut dyn Collective,
        mut cache: Option<&mut B::Cache>,
        batch: &Batch,
        (embedded, rows): (&[f32], &[usize]),
    ) -> Result<B::Tensor, StepError> {
        let mut tokens = batch.tokens.len();
        let mut sums = std::mem::take(&mut self.sums);
        let first_norm =
            self.layers.first().map_or(&self.output_norm, |layer| &layer.attention_norm);
        let mut residual = b.upload(embedded, self.hidden); // (T, hidden)
        let mut x = b.norm(&residual, first_norm, self.epsilon); // (T, hidden)
        for (index, layer) in self.layers.iter().enumerate() {
            let mut attended = match (&layer.attention, cache.as_deref_mut()) {
                (Some(attention), Some(cache)) => {
                    Some(self.attend(b, attention, cache, batch, &x)) // (T, heads of this rank × head size)
                }
                _ => None,
            };
            if index + 1 == self.layers.len() {
                // Rows are told in order: where they are as many as tokens, they are all.
                if rows.len() < tokens {
                    attended = attended.map(|it| b.select(&it, rows)); // (rows, heads of this rank × head size)
                    residual = b.select(&residual, rows); // (rows, hidden)
                }
                tokens = rows.len();
                if rows.is_empty() {
                    x = residual;
                    break;
                }
            }
            let sum = layer
                .attention_output
                .forward(b, c, attended.as_ref(), tokens, &mut sums) // (T, hidden), summed over ranks
                .during(Operation::Attention(index))?;
            let post = layer.post_attention_norm.as_ref();
            x = b.add_norm(&mut residual, sum, post, &layer.feed_forward_norm, self.epsilon); // (T, hidden)

            let gate_up = layer.gate_up.as_ref();
            let gated = gate_up.map(|weight| b.glu(&x, weight, self.activation)); // (T, columns of this rank)
            let sum = layer
                .down
                .forward(b, c, gated.as_ref(), tokens, &mut sums) // (T, hidden), summed over ranks
                .during(Operation::FeedForward(index))?;
            let post = layer.post_feed_forward_norm.as_ref();
            x = b.add_norm(&mut residual, sum, post, self.norm_after(index), self.epsilon); // (T, hidden)
        }
        self.sums = sums;
        Ok(x)
    }

    fn attend(
        &self,
        b: &mut B,
        attention: &Attention<B>,
        cache: &mut B::Cache,
        batch: &Batch,
        x: &B::Tensor,
    ) -> B::Tensor {
        let shape = &attention.shape;
        let norms = attention.query_key_norm.as_ref();
        let norms = norms.map(|(query, key)| QueryKeyNorm { query, key, epsilon: self.epsilon });
        let rope = &self.ropes[attention.rope];
        let qkv = b.linear(x, &attention.query_key_value); // (T, (query heads + 2 × KV heads) × head size)
        let q = b.rope_append(qkv, norms, rope, shape, cache, batch); // (T, query heads × head size)
        b.attend(&q, shape, &self.kv_of_query, cache, batch) // (T, query heads × head size)
    }

    /// What norms the residual once layer `index` is done: the next layer's norm, or the last one.
    fn norm_after(&self, index: usize) -> &B::Vector {
        self.layers.get(index + 1).map_or(&self.output_norm, |next| &next.attention_norm)
    }
}
