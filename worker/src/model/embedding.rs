//! Tokens to vectors, on the host, straight from the mapped file: the device holds no table.

use std::sync::Arc;

use checkpoint::{Checkpoint, CheckpointError, Matrix, TensorName};

/// The embedding table.
#[derive(Debug)]
pub(crate) struct Embedding {
    checkpoint: Arc<Checkpoint>,
}

impl Embedding {
    /// The table of a checkpoint.
    ///
    /// # Errors
    /// Where it has none.
    pub(crate) fn new(checkpoint: Arc<Checkpoint>) -> Result<Self, CheckpointError> {
        checkpoint.matrix(TensorName::Embedding)?;
        Ok(Self { checkpoint })
    }

    /// `out` becomes `(T, hidden)`.
    pub(crate) fn rows(&self, tokens: &[u32], out: &mut Vec<f32>) {
        let table = self.table(); // (vocabulary, hidden)
        let scale = self.checkpoint.config().embedding_scale;
        out.resize(tokens.len() * table.columns, 0.0);
        for (&token, row) in tokens.iter().zip(out.chunks_exact_mut(table.columns)) {
            table.dequantize_row(token as usize, row);
            if scale != 1.0 {
                row.iter_mut().for_each(|number| *number *= scale);
            }
        }
    }

    fn table(&self) -> Matrix<'_> {
        self.checkpoint.matrix(TensorName::Embedding).expect("it was there when this was made")
    }
}
