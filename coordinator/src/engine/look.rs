//! What goes on at this moment, for people who look: which groups there are, and how far each is.

use std::time::Duration;

use crate::cluster::RankLook;
use crate::engine::{Engine, Phase};

/// Groups that are told of; the oldest come first, and of the others their number is known.
const GROUPS_MAX: usize = 200;

/// What goes on at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Look {
    /// Groups that have not ended, the oldest first; not all where there are many.
    pub(crate) groups: Vec<GroupLook>,
    /// How many there are.
    pub(crate) groups_total: usize,
    /// The ranks, in order; none while they form a group.
    pub(crate) ranks: Vec<RankLook>,
}

/// A group that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupLook {
    /// The request's id.
    pub(crate) request: String,
    /// How far it is.
    pub(crate) stage: Stage,
    /// Since it came.
    pub(crate) age: Duration,
    /// Tokens of its prompt.
    pub(crate) prompt_tokens: u32,
    /// Sequences.
    pub(crate) sequences: usize,
    /// Tokens generated so far, for the longest of them.
    pub(crate) generated: u32,
    /// Most tokens that a sequence can get.
    pub(crate) tokens_max: u32,
}

/// How far a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No step has had a part of it yet.
    Waiting,
    /// Its prompt is being computed.
    Prefill,
    /// It has tokens.
    Decode,
}

impl Engine {
    pub(super) fn look(&self) -> Look {
        Look {
            groups: self.groups.look(self.now()).take(GROUPS_MAX).collect(),
            groups_total: self.groups.count(),
            ranks: match &self.phase {
                Phase::Serving(group) => group.described.clone(),
                Phase::Reforming(_) => Vec::new(),
            },
        }
    }
}
