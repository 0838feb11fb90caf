//! Where a tensor lies.

use std::ops::Range;

use crate::block::BlockKind;

/// A tensor of a file, by place and kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Which of the files.
    pub(crate) file: usize,
    /// Outermost first.
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: BlockKind,
    /// Within that file.
    pub(crate) bytes: Range<usize>,
}
