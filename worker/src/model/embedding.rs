//! Tokens to vectors, on the host, straight from the mapped file: the device holds no table.

use std::sync::Arc;

use checkpoint::{Checkpoint, CheckpointError, MatrixPlace, TensorName};

/// The embedding table.
#[derive(Debug)]
pub(crate) struct Embedding {
    checkpoint: Arc<Checkpoint>,
    place: MatrixPlace,
}

impl Embedding {
    /// The table of a checkpoint.
    ///
    /// # Errors
    /// Where it has none.
    pub(crate) fn new(checkpoint: Arc<Checkpoint>) -> Result<Self, CheckpointError> {
        let place = checkpoint.place(TensorName::Embedding)?;
        Ok(Self { checkpoint, place })
    }

    /// `out` becomes `(T, hidden)`.
    pub(crate) fn rows(&self, tokens: &[u32], out: &mut Vec<f32>) {
        let table = self.checkpoint.at(&self.place); // (vocabulary, hidden)
        let scale = self.checkpoint.config().embedding_scale;
        out.resize(tokens.len() * table.columns, 0.0);
        for (&token, row) in tokens.iter().zip(out.chunks_exact_mut(table.columns)) {
            table.dequantize_row(token as usize, row);
            if scale != 1.0 {
                row.iter_mut().for_each(|number| *number *= scale);
            }
        }
    }
}
