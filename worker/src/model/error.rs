//! What can go wrong in a step, and where in the model it did.

use std::fmt;

use crate::backend::BackendError;
use crate::batch::Refusal;
use crate::collective::CollectiveError;

/// Why a step gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It was not begun.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It was begun and did not come to an end.
    #[error("{operation}: {fault}")]
    Failed {
        /// Where.
        operation: Operation,
        /// Why.
        fault: Fault,
    },
}

/// Where in the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Saving or restoring KV blocks.
    Swap,
    /// The step of an idle group.
    Heartbeat,
    /// Telling the tokens that the step before sampled.
    Feed,
    /// Attention of a layer.
    Attention(usize),
    /// Feed-forward of a layer.
    FeedForward(usize),
    /// The head.
    Logits,
}

/// What happened there.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The ranks did not come together.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// This rank's device failed.
    #[error(transparent)]
    Device(#[from] BackendError),
    /// A NaN or an infinity where none may be.
    #[error("a NaN or an infinity in row {row} of the step")]
    Numeric {
        /// Which row of the batch.
        row: usize,
    },
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Swap => f.write_str("swap"),
            Self::Heartbeat => f.write_str("heartbeat"),
            Self::Feed => f.write_str("feeding tokens back"),
            Self::Attention(layer) => write!(f, "attention of layer {layer}"),
            Self::FeedForward(layer) => write!(f, "feed-forward of layer {layer}"),
            Self::Logits => f.write_str("logits"),
        }
    }
}

/// Says where something happened.
pub(crate) trait During<T> {
    /// The same, with the operation named.
    fn during(self, operation: Operation) -> Result<T, StepError>;
}

impl<T, E: Into<Fault>> During<T> for Result<T, E> {
    fn during(self, operation: Operation) -> Result<T, StepError> {
        self.map_err(|error| StepError::Failed { operation, fault: error.into() })
    }
}
