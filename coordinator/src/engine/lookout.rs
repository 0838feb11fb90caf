//! A group that is smaller than it should be looks out for who might join.

use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all, pending};
use tokio::time::sleep;

use crate::cluster::{ClusterError, DESCRIBE_MAX, describe};
use crate::engine::{Engine, Phase};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A look that is under way.
#[derive(Default)]
pub(super) struct Lookout(Option<BoxFuture<'static, Sighting>>);

/// Who was seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sighting {
    /// For the epoch's group.
    epoch: u64,
    /// Members outside the group that answer.
    spare: usize,
}

impl Lookout {
    /// What was seen, when it was.
    pub(super) async fn next(&mut self) -> Sighting {
        let Some(look) = self.0.as_mut() else { return pending().await };
        let sighting = look.await;
        self.0 = None;
        sighting
    }
}

impl Engine {
    /// Begins to look, if somebody is missing and nobody looks yet.
    pub(super) fn look_out(&mut self) {
        let Phase::Serving(group) = &self.phase else { return };
        if self.lookout.0.is_some()
            || group.world() >= self.setup.roster.wanted_without(|name| self.suspects.is_out(name))
        {
            return;
        }
        let epoch = group.epoch;
        let inside = group.members().iter().map(|member| &member.name);
        let not_asked: Vec<String> = inside.chain(self.suspects.names()).cloned().collect();
        let roster = self.setup.roster.clone();
        let look = async move {
            sleep(LOOK_EVERY).await;
            let there = roster.there();
            let outside = there.iter().filter(|member| !not_asked.contains(&member.name));
            let asked = outside.enumerate().map(|(at, member)| describe(at, member, DESCRIBE_MAX));
            let spare = join_all(asked).await.iter().filter(|described| described.is_ok()).count();
            Sighting { epoch, spare }
        };
        self.lookout.0 = Some(look.boxed());
    }

    /// A rank shall leave, and others can go on: the group forms anew between two steps.
    pub(super) fn let_leave(&mut self) {
        let Phase::Serving(group) = &self.phase else { return };
        let roster = &self.setup.roster;
        let leaving = group.members().iter().find(|member| roster.is_leaving(&member.name));
        let Some(leaving) = leaving else { return };
        if roster.candidates(|name| self.suspects.is_out(name)) > 0 {
            let what = format!("{} is drained", leaving.name);
            self.regroup = Some(ClusterError::Planned(what));
        }
    }

    /// Somebody can join: the group forms anew between two steps.
    pub(super) fn seen(&mut self, sighting: Sighting) {
        let Phase::Serving(group) = &self.phase else { return };
        if sighting.epoch != group.epoch || sighting.spare == 0 {
            return;
        }
        let what = format!("{} of {} ranks", group.world(), self.setup.roster.wanted());
        self.regroup = Some(ClusterError::Planned(format!("{what}, and a worker has come")));
    }
}
