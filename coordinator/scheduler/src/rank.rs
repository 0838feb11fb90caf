//! Who comes before whom. The order of two groups never changes while they live, so that queues need no
//! sorting, and the first of those that run can always go on.

use std::time::Duration;

use crate::units::{GroupId, Time};

/// In which order groups are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// In order of arrival.
    Fcfs,
    /// By `priority`, and among equals by arrival. A more urgent group that does not fit takes the
    /// place of less urgent ones.
    Priority {
        /// Waiting so long is worth one step of priority: nobody starves.
        level: Duration,
    },
    /// Keys take turns: next is the one that was served the fewest tokens; its groups are in order
    /// as under `Priority`.
    Fair {
        /// As under `Priority`.
        level: Duration,
    },
}

/// A group's place in the order; the least comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// When it would have come if all had the same priority, in nanoseconds.
    due: i128,
    pub(crate) id: GroupId,
}

impl Policy {
    pub(crate) fn rank(self, id: GroupId, priority: i32, arrival: Time) -> Rank {
        let due = match self {
            Self::Fcfs => 0,
            Self::Priority { level } | Self::Fair { level } => {
                nanoseconds(arrival.0) + nanoseconds(level) * i128::from(priority)
            }
        };
        Rank { due, id }
    }
}

fn nanoseconds(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).expect("a duration has fewer than 2⁹⁴ nanoseconds")
}
