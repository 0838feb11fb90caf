//! Who may be a rank, and whom to ask for an epoch: as plain channels, whatever stands behind them.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::cluster::Member;

/// Who may be a rank.
#[derive(Debug, Clone)]
pub struct Roster {
    /// Who is there, the preferred ones first.
    pub members: watch::Receiver<Arc<[Member]>>,
    /// Names of those who are there and shall be ranks no more.
    pub leaving: watch::Receiver<Arc<[String]>>,
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
        let (_, leaving) = watch::channel(Arc::from([]));
        Self { members, leaving, world: None, open: false, epochs: None }
    }

    /// Who is there now, and is not about to leave.
    pub(crate) fn there(&self) -> Vec<Member> {
        let members = self.members.borrow();
        members.iter().filter(|member| !self.is_leaving(&member.name)).cloned().collect()
    }

    /// Whether somebody shall be a rank no more.
    pub(crate) fn is_leaving(&self, name: &str) -> bool {
        self.leaving.borrow().iter().any(|leaving| leaving == name)
    }

    /// Ranks that are wanted now.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted_without(0)
    }

    /// Ranks that are wanted when so many members take no part.
    pub(crate) fn wanted_without(&self, out: usize) -> usize {
        let there = self.there().len();
        self.world.unwrap_or_else(|| there.saturating_sub(out)).max(1)
    }
}

impl From<Vec<Member>> for Roster {
    fn from(members: Vec<Member>) -> Self {
        Self::fixed(members)
    }
}
