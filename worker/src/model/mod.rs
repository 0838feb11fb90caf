//! One model on one rank: weights, cache, and a step through them.

mod decoder;
mod embedding;
mod error;
mod linear;
mod load;

use std::sync::Arc;
use std::time::{Duration, Instant};

use checkpoint::Checkpoint;

use crate::backend::{Backend, BackendError, CacheShape, Capabilities, DeviceMemory};
use crate::batch::Step;
use crate::collective::Collective;
use crate::model::decoder::Decoder;
use crate::model::embedding::Embedding;
pub(crate) use crate::model::error::During;
pub use crate::model::error::{Fault, Operation, StepError};
use crate::model::linear::{Head, heartbeat};
use crate::model::load::Loader;
use crate::shard::Slices;

/// This rank's part of a model, on its device.
pub(crate) struct Model<B: Backend> {
    backend: B,
    decoder: Decoder<B>,
    head: Head<B>,
    embedding: Embedding,
    /// None where this rank has no heads, hence nothing to keep.
    cache: Option<B::Cache>,
    weight_bytes: u64,
    /// Working memory: `(T, hidden)` before the first layer.
    embedded: Vec<f32>,
    /// Working memory: the rows that the head sees.
    rows: Vec<usize>,
}

/// Rows whose logits are in memory at once: a prompt whose every token is scored would need a
/// hundred times that. Weights are unpacked once for so many rows, so fewer would cost time.
const LOGITS_ROWS: usize = 64;

/// What a step gives: of the rows whose logits are wanted, in order.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// `(wanted rows, hidden)`: what the head sees, the same bits on every rank.
    pub(crate) hidden: Vec<f32>,
    /// `(the last of those rows, vocabulary of this rank)`
    pub(crate) logits: Vec<f32>,
    /// Spent on carrying blocks between device and host.
    pub(crate) swapping: Duration,
}

/// Takes in rows of a batch, in order, and this rank's logits: `(rows, vocabulary of this rank)`. Ranks
/// come together in it.
pub(crate) type TakeLogits<'a> =
    dyn FnMut(&mut dyn Collective, &[usize], &[f32]) -> Result<(), Fault> + 'a;

impl<B: Backend> Model<B> {
    /// Loads this rank's slices; `progress` hears of bytes done and bytes in all.
    ///
    /// # Errors
    /// A tensor that cannot be read, or a device that cannot hold it.
    pub(crate) fn load(
        mut backend: B,
        checkpoint: &Arc<Checkpoint>,
        slices: &Slices,
        positions: usize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, BackendError> {
        let embedding = Embedding::new(Arc::clone(checkpoint))?;
        let mut loader = Loader::new(&mut backend, checkpoint, slices, progress)?;
        let weight_bytes = loader.total();
        let decoder = loader.decoder(positions)?;
        let head = loader.head()?;
        let (cache, embedded, rows) = (None, Vec::new(), Vec::new());
        Ok(Self { backend, decoder, head, embedding, cache, weight_bytes, embedded, rows })
    }

    /// Reserves the KV cache, in place of an earlier one.
    ///
    /// # Errors
    /// Too little memory.
    pub(crate) fn reserve(&mut self, shape: &CacheShape) -> Result<(), BackendError> {
        self.cache = if shape.kv_heads == 0 { None } else { Some(self.backend.cache(shape)?) };
        Ok(())
    }

    /// Bytes that a KV block takes, over all layers.
    #[must_use]
    pub(crate) fn block_bytes(&self, shape: &CacheShape) -> u64 {
        if shape.kv_heads == 0 { 0 } else { self.backend.block_bytes(shape) }
    }

    /// Bytes of this rank's slices, as they are in the file.
    #[must_use]
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Memory of a device of its own.
    #[must_use]
    pub(crate) fn memory(&self) -> Option<DeviceMemory> {
        self.backend.memory()
    }

    /// Kernels that the device's queue took so far.
    #[must_use]
    pub(crate) fn launches(&self) -> u64 {
        self.backend.launches()
    }

    /// What the device is.
    #[must_use]
    pub(crate) fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    /// One step: moves blocks, then runs the batch. Every rank of the group does the same step at the
    /// same time. `take` gets this rank's logits of all rows that are wanted, piece by piece.
    ///
    /// # Errors
    /// Where in the model it ended, and why.
    pub(crate) fn step(
        &mut self,
        c: &mut dyn Collective,
        step: &Step,
        out: &mut Outputs,
        take: &mut TakeLogits<'_>,
    ) -> Result<(), StepError> {
        out.hidden.clear();
        out.logits.clear();
        out.swapping = self.swap_blocks(step)?;
        self.copy_blocks(step);
        if step.batch.tokens.is_empty() {
            return heartbeat(c).during(Operation::Heartbeat);
        }
        let Self { backend: b, decoder, head, embedding, cache, embedded, rows, .. } = self;
        embedding.rows(&step.batch.tokens, embedded); // (T, hidden)
        let wanted = &step.batch.wanted;
        let x = decoder.forward(b, c, cache.as_mut(), &step.batch, (embedded, wanted))?; // (wanted rows, hidden)
        rows.clear();
        rows.extend(0..wanted.len());
        if !rows.is_empty() {
            b.rows(&x, rows, &mut out.hidden).during(Operation::Logits)?; // (wanted rows, hidden)
            all_finite(&out.hidden, wanted).during(Operation::Logits)?;
        }
        for (rows, wanted) in rows.chunks(LOGITS_ROWS).zip(wanted.chunks(LOGITS_ROWS)) {
            head.forward(b, &x, rows, &mut out.logits).during(Operation::Logits)?; // (rows, vocabulary of this rank)
            take(c, wanted, &out.logits).during(Operation::Logits)?;
        }
        Ok(())
    }

    /// Gives how long it took.
    fn swap_blocks(&mut self, step: &Step) -> Result<Duration, StepError> {
        let Some(cache) = &mut self.cache else { return Ok(Duration::ZERO) };
        let begun = Instant::now();
        if !step.swap_out.is_empty() {
            self.backend.swap_out(cache, &step.swap_out).during(Operation::Swap)?;
        }
        if !step.swap_in.is_empty() {
            self.backend.swap_in(cache, &step.swap_in);
        }
        Ok(begun.elapsed())
    }

    fn copy_blocks(&mut self, step: &Step) {
        if let (Some(cache), false) = (&mut self.cache, step.copies.is_empty()) {
            self.backend.copy_blocks(cache, &step.copies);
        }
    }
}

/// `numbers` holds as many to each of `rows`.
fn all_finite(numbers: &[f32], rows: &[usize]) -> Result<(), Fault> {
    let width = (numbers.len() / rows.len()).max(1);
    for (row, numbers) in rows.iter().zip(numbers.chunks(width)) {
        if !numbers.iter().all(|number| number.is_finite()) {
            return Err(Fault::Numeric { row: *row });
        }
    }
    Ok(())
}
