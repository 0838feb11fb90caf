//! When groups are given up: those that have waited too long to begin, and those whose client said how
//! long it would wait.

use std::collections::BTreeSet;

use scheduler::GroupId;
use tokio::time::Instant;

use crate::engine::Failure;

/// Whose bound of time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bound {
    /// The operator's, for the wait until a group first runs.
    Queue,
    /// The request's own, for all of it.
    Request,
}

impl Bound {
    /// How a request fails that met it.
    pub(crate) fn said(self) -> (Failure, &'static str) {
        match self {
            Self::Queue => {
                (Failure::Queue, "the server is busy: the request waited too long for its turn")
            }
            Self::Request => {
                (Failure::Timeout, "the time that the request gave its answer is over")
            }
        }
    }
}

/// A moment at which a group is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    at: Instant,
    group: GroupId,
    bound: Bound,
}

/// Such moments of all groups: at most two for each that has not ended.
#[derive(Debug, Default)]
pub(super) struct DueTimes(BTreeSet<Due>);

/// Those of one group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    /// It must have begun by then.
    pub(super) begin: Instant,
    /// It must have ended by then.
    pub(super) end: Option<Instant>,
}

impl DueTimes {
    /// A group was accepted.
    pub(super) fn insert(&mut self, group: GroupId, until: Until) {
        self.0.insert(Due { at: until.begin, group, bound: Bound::Queue });
        self.0.extend(until.end.map(|at| Due { at, group, bound: Bound::Request }));
    }

    /// A group has begun.
    pub(super) fn begun(&mut self, group: GroupId, until: Until) {
        self.0.remove(&Due { at: until.begin, group, bound: Bound::Queue });
    }

    /// A group has ended.
    pub(super) fn ended(&mut self, group: GroupId, until: Until) {
        self.begun(group, until);
        if let Some(at) = until.end {
            self.0.remove(&Due { at, group, bound: Bound::Request });
        }
    }

    /// The first of them.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|due| due.at)
    }

    /// Takes out the first of those that have come.
    pub(super) fn take(&mut self, now: Instant) -> Option<(GroupId, Bound)> {
        let due = self.0.first().copied().filter(|due| due.at <= now)?;
        self.0.remove(&due);
        Some((due.group, due.bound))
    }
}
