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
        self.wanted_without(|_| false)
    }

    /// Ranks that are wanted when members of these names take no part.
    pub(crate) fn wanted_without(&self, is_out: impl Fn(&str) -> bool) -> usize {
        self.world.unwrap_or_else(|| self.candidates(is_out)).max(1)
    }

    /// Members that are there and take part.
    pub(crate) fn candidates(&self, is_out: impl Fn(&str) -> bool) -> usize {
        let members = self.members.borrow();
        members.iter().filter(|it| !self.is_leaving(&it.name) && !is_out(&it.name)).count()
    }
}

impl From<Vec<Member>> for Roster {
    fn from(members: Vec<Member>) -> Self {
        Self::fixed(members)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn whoever_is_out_and_gone_as_well_is_missed_once() {
        let member = |name: &str| Member {
            name: name.to_owned(),
            address: None,
            requests: mpsc::channel(1).0,
        };
        let is_out = |name: &str| name == "c";
        let all = Roster::fixed(vec![member("a"), member("b"), member("c")]);
        assert_eq!((all.wanted(), all.wanted_without(is_out)), (3, 2));
        let left = Roster::fixed(vec![member("a"), member("b")]);
        assert_eq!(left.wanted_without(is_out), 2);
    }
}
