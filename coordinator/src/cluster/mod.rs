//! All ranks as one: form a group at an epoch, step under a deadline, notice a loss.
//!
//! Whatever goes wrong in a group ends it: the reaction is always to form anew, at a newer epoch, and
//! to compute again. So no rank ever has to agree with another about how far a broken step came.

mod deadlines;
mod draft;
mod form;
mod group;
mod grpc;
mod logits;
mod member;
mod roster;
mod shares;
mod wire;

pub(crate) use deadlines::Deadlines;
pub(crate) use draft::{DESCRIBE_MAX, Draft, LATE_MAX, describe};
pub(crate) use form::{Wish, form};
pub(crate) use group::{Begins, Group, RankLook, RankTimes, StepDone};
pub use grpc::connect;
pub use logits::Likelihood;
pub(crate) use logits::{Adjustment, Scores, SliceWish};
pub use member::{Member, MemberError, MemberRequest};
pub use roster::{EpochAsked, Roster};

/// Why there is no group, or why a step did not happen. One variant a reaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// A rank is gone: form anew, compute again.
    #[error("rank {rank} ({name}): {what}")]
    Lost {
        /// Which rank.
        rank: usize,
        /// Its name.
        name: String,
        /// How it was lost, for a metric's label: `lost`, `deadline`, `peer`, `device`.
        cause: &'static str,
        /// One sentence.
        what: String,
    },
    /// The step came out wrong: form anew and compute again, without a rank that is suspected twice;
    /// then give up on its groups.
    #[error("{what}")]
    Wrong {
        /// What was checked, for a metric's label: `hash`, `nan`, `order`, `refused`.
        check: &'static str,
        /// One sentence.
        what: String,
        /// Name of the rank that alone brought it about, if it can be told.
        suspect: Option<String>,
    },
    /// A rank of this process has ended and cannot come back: end too, and be started anew.
    #[error("rank {rank} ({name}) has ended")]
    Ended {
        /// Which rank.
        rank: usize,
        /// Its name.
        name: String,
    },
    /// Not everyone who is needed is there: look again soon.
    #[error("{0}")]
    Waiting(String),
    /// Nothing is wrong: others shall take part.
    #[error("{0}")]
    Planned(String),
    /// Another coordinator decides: end, and leave the ranks to it.
    #[error("{0}")]
    Deposed(String),
    /// These ranks cannot be one group: a person has to change something.
    #[error("{0}")]
    Unusable(String),
}

impl ClusterError {
    /// Trying again will not help.
    pub(crate) const fn is_final(&self) -> bool {
        match self {
            Self::Unusable(_) | Self::Ended { .. } | Self::Deposed(_) => true,
            Self::Lost { .. } | Self::Wrong { .. } | Self::Waiting(_) | Self::Planned(_) => false,
        }
    }

    /// For the label of a metric.
    #[must_use]
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::Lost { cause, .. } => cause,
            Self::Ended { .. } | Self::Waiting(_) | Self::Deposed(_) => "lost",
            Self::Planned(_) => "planned",
            Self::Wrong { .. } | Self::Unusable(_) => "wrong",
        }
    }
}
