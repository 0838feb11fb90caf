//! Who may be a rank, and whom to ask for an epoch: as plain channels, whatever stands behind them.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::cluster::Member;

/// Who may be a rank.
#[derive(Debug, Clone)]
pub struct Roster {
    /// Who is there, the preferred ones first.
    pub members: watch::Receiver<Arc<[Member]>>,
    /// Ranks that are wanted; none: as many as there are members. Whoever is left over is a spare.
    pub world: Option<usize>,
    /// Members come and go: one that cannot take part is left out, instead of ending it all.
    pub open: bool,
    /// Whom to ask for an epoch; none: nobody else decides, and the next one is ours.
    pub epochs: Option<mpsc::Sender<EpochAsked>>,
}

/// A group that is about to form asks for its epoch.
#[derive(Debug)]
pub struct EpochAsked {
    /// The newest epoch that any of its ranks knows of.
    pub newest: u64,
    /// Names, in order of rank.
    pub ranks: Vec<String>,
    /// Answered once: the epoch, or why nothing may be decided here any more.
    pub reply: oneshot::Sender<Result<u64, String>>,
}

impl Roster {
    /// Always the same members, in order of rank.
    #[must_use]
    pub fn fixed(members: Vec<Member>) -> Self {
        let (_, members) = watch::channel(Arc::from(members));
        Self { members, world: None, open: false, epochs: None }
    }

    /// Who is there now.
    pub(crate) fn there(&self) -> Arc<[Member]> {
        Arc::clone(&self.members.borrow())
    }

    /// Ranks that are wanted now.
    pub(crate) fn wanted(&self) -> usize {
        self.world.unwrap_or_else(|| self.members.borrow().len()).max(1)
    }
}

impl From<Vec<Member>> for Roster {
    fn from(members: Vec<Member>) -> Self {
        Self::fixed(members)
    }
}
