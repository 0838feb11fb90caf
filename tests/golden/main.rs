//! Logits and greedy text of models, held against passes that share no code with ours: numpy over
//! dequantised weights for the real ones (`scripts/golden.py`), candle-transformers for the rest.
//!
//! The `candle` backend computes in f32 as the references do: 2e-3 of the logits' root mean square
//! is allowed, the sum of some ten thousand roundings. The `cpu` backend quantises activations to
//! int8, which costs about half a percent in each product: 0.15 of the root mean square is allowed
//! for a single logit, 0.04 for their mean, and text is compared where the best token leads by more
//! than one logit.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod candle_transformers;
mod group;
mod real;
mod reference;
