//! Matrices spread over ranks: the only place of the model that knows there are other ranks.
//!
//! A column-parallel matrix needs nothing from here: each rank has some of its rows and computes
//! those outputs. What follows it is row-parallel: each rank has the columns that meet its own
//! outputs, and the total of all ranks' parts is the result.

use crate::backend::Backend;
use crate::collective::{Collective, CollectiveError};
use crate::model::error::Fault;

/// A matrix of which every rank has some columns.
pub(crate) struct RowParallel<B: Backend> {
    /// This rank's columns; none where it has none.
    pub(crate) weight: Option<B::Weight>,
    /// Rows, on every rank.
    pub(crate) outputs: usize,
}

impl<B: Backend> RowParallel<B> {
    /// `x` is `(T, columns of this rank)`. `(T, outputs)`, summed over ranks. `sums` is working memory.
    ///
    /// # Errors
    /// A peer that did not come, or the device.
    pub(crate) fn forward(
        &self,
        b: &mut B,
        c: &mut dyn Collective,
        x: Option<&B::Tensor>,
        tokens: usize,
        sums: &mut Vec<f64>,
    ) -> Result<B::Tensor, Fault> {
        match (x, &self.weight) {
            (Some(x), Some(weight)) if c.world() == 1 => {
                return Ok(b.whole(x, weight, self.outputs)?); // (T, outputs)
            }
            (Some(x), Some(weight)) => {
                b.partial(x, weight, sums)?; // (T, outputs) of this rank
                own_finite(sums, self.outputs)?;
            }
            _ => {
                sums.clear();
                sums.resize(tokens * self.outputs, 0.0);
            }
        }
        c.all_reduce(sums)?; // (T, outputs), summed over ranks
        Ok(b.sum(sums, self.outputs)) // (T, outputs)
    }
}

/// Once it is added to the others' nobody can tell any more who brought it.
fn own_finite(sums: &[f64], outputs: usize) -> Result<(), Fault> {
    match sums.iter().position(|sum| !sum.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Fault::Numeric { row: at / outputs.max(1) }),
    }
}

/// The output head, of which every rank has some rows: a stretch of the vocabulary.
pub(crate) struct Head<B: Backend> {
    /// This rank's rows; none where it has none.
    pub(crate) weight: Option<B::Weight>,
}

impl<B: Backend> Head<B> {
    /// This rank's logits of some rows of `x`, `(T, hidden)`: `out` becomes `(rows, vocabulary of this
    /// rank)`.
    ///
    /// # Errors
    /// The device.
    pub(crate) fn forward(
        &self,
        b: &mut B,
        x: &B::Tensor,
        rows: &[usize],
        out: &mut Vec<f32>,
    ) -> Result<(), Fault> {
        out.clear();
        if let Some(weight) = &self.weight {
            b.logits(x, rows, weight, out)?; // (rows, vocabulary of this rank)
        }
        Ok(())
    }
}

/// What an idle group does: every rank says 1, and all hear how many they are.
///
/// # Errors
/// A peer that did not come, or one that is in another step.
pub(crate) fn heartbeat(c: &mut dyn Collective) -> Result<(), Fault> {
    let mut present = [1.0];
    c.all_reduce(&mut present)?;
    let mut parts = Vec::new();
    c.gather(&[], &mut parts)?;
    #[expect(clippy::cast_precision_loss, reason = "a world is small")]
    let expected = c.world() as f64;
    if present[0] == expected {
        return Ok(());
    }
    Err(Fault::Collective(CollectiveError::Mismatch {
        peer: c.rank(),
        expected: format!("{expected} ranks"),
        got: present[0].to_string(),
    }))
}
