//! Logits and greedy text of models, held against passes that share no code with ours: numpy over
//! dequantised weights for the real ones (`scripts/golden.py`), candle-transformers for the rest.
//!
//! The `candle` backend computes in f32 as the references do: 2e-3 of the logits' root mean square
//! is allowed, the sum of some ten thousand roundings. The `cpu` backend quantises activations to
//! int8 in groups of 32. The reference itself, with its activations rounded that way and nothing else
//! changed, is off by up to 0.18 for a single logit of SmolLM2 and 0.105 on average over a prompt's, so
//! 0.3 and 0.13 are allowed; text is compared where the best token leads by more than one logit.
//!
//! With keys and values in `q8_0` (codes of 8 bits, a scale for 32 of them) the reference itself, with nothing
//! else changed, is off by up to 0.094 for a single logit of SmolLM2 and 0.058 on average over a prompt's, of
//! Gemma 3 by 0.052 and 0.015 (`scripts/golden.py --against`). The two roundings know nothing of each other, so
//! their squares add up: to 0.2 and 0.12, and half and a quarter more, 0.3 and 0.15, are allowed. The `cpu`
//! backend, whose bits are the same everywhere, is off by 0.175 and 0.087, and no logit of a prompt that has a text
//! by more than 0.8. Two may move towards one another, so text is compared where the best token leads by more
//! than two.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::print_stdout, reason = "how near we came is worth reading")]

mod candle_transformers;
mod group;
mod real;
mod reference;
mod schedules;
