//! After a loss: everything is computed again by a new group, or given up after a while.

use std::time::Duration;

use futures::FutureExt;
use scheduler::{GroupId, Outcome};
use tokio::time::Instant;

use crate::cluster::{ClusterError, DESCRIBE_MAX, Draft, Group, LATE_MAX, Member, Roster, form};
use crate::engine::speeds::Speeds;
use crate::engine::suspects::Suspects;
use crate::engine::{Capacity, Done, Engine, EngineState, Failure, Phase};
use crate::metrics::MembersSeen;

/// Before the second attempt to form; doubles with each one after.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
/// The pause between attempts grows to this: a rank that is back is noticed within it.
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// A group that is to form anew.
#[derive(Debug)]
pub(super) struct Reform {
    /// Which rank was lost, and how.
    cause: String,
    /// The next attempt.
    pub(super) retry_at: Instant,
    back_off: Duration,
    /// The newest epoch there may have been.
    epoch: u64,
    /// Who was in the group; its ranks are preferred for the next.
    before: Vec<Member>,
    /// From then on fewer ranks than wanted will do.
    shrink_at: Instant,
    /// The groups that wait for it are given up then; none: they have been.
    give_up_at: Option<Instant>,
}

impl Reform {
    /// When the groups that wait are given up, unless they have been.
    pub(super) const fn give_up_at(&self) -> Option<Instant> {
        self.give_up_at
    }

    /// Who may be in the next group: its ranks before all others, also those that nobody knows of any
    /// more. Whether they live is asked of them, and not of who keeps the list.
    fn draft(&self, roster: &Roster, suspects: &Suspects, speeds: &Speeds) -> Draft {
        let there = roster.there();
        let is_before = |member: &&Member| self.before.iter().any(|b| b.name == member.name);
        let others = there.iter().filter(|member| !is_before(member));
        let all = self.before.iter().chain(others);
        let candidates: Vec<Member> = all
            .filter(|m| !suspects.is_out(&m.name) && !roster.is_leaving(&m.name))
            .cloned()
            .collect();
        let wanted = roster.wanted_without(|name| suspects.is_out(name));
        let (least, silence_max) = match self.shrink_at.checked_duration_since(Instant::now()) {
            Some(left) if left > LATE_MAX => (wanted, left.min(DESCRIBE_MAX)),
            _ => (1, DESCRIBE_MAX),
        };
        Draft { candidates, wanted, least, silence_max, open: roster.open, speeds: speeds.known() }
    }
}

impl Engine {
    /// A step or a heartbeat failed: nothing in the caches counts any more.
    pub(super) fn lost(&mut self, error: &ClusterError, in_step: &[GroupId]) {
        let Phase::Serving(group) = &self.phase else { return };
        let epoch = group.epoch;
        self.speeds.ended(group, &self.setup.roster);
        self.warm = false;
        self.between_steps = false;
        // A step that was sent ahead is lost with the one before it.
        self.work.clear();
        let stats = self.scheduler.stats();
        let replayed = u64::try_from(stats.running + stats.swapped).unwrap_or(u64::MAX);
        if let ClusterError::Planned(why) = error {
            tracing::info!(epoch, replayed, "the group of workers forms anew: {why}");
        } else {
            tracing::error!(epoch, replayed, "the group of workers is lost: {error}");
        }
        self.metrics.reforming(error.cause(), replayed);
        self.metrics.members(MembersSeen::Lost(group.world()));
        let now = Instant::now();
        self.phase = Phase::Reforming(Reform {
            cause: error.to_string(),
            retry_at: now,
            back_off: BACK_OFF_MIN,
            epoch,
            before: group.members().to_vec(),
            // Who is to join is there, and who is to leave shall not be waited for.
            shrink_at: match error {
                ClusterError::Planned(_) => now,
                _ => now + self.setup.patience.shrink_after,
            },
            give_up_at: Some(now + self.setup.patience.reform_max),
        });
        if self.drain_until.is_none() {
            let state =
                EngineState::Reforming { cause: error.to_string(), capacity: self.capacity };
            self.state.send_replace(state);
        }
        self.commit(Outcome::Lost);
        let wrong = matches!(error, ClusterError::Wrong { .. });
        if let ClusterError::Wrong { check, .. } = error {
            self.metrics.check_failed(check);
        }
        if let ClusterError::Wrong { suspect: Some(name), what, .. } = error {
            let candidates = self.setup.roster.candidates(|name| self.suspects.is_out(name));
            if self.suspects.suspect(name, in_step, candidates) {
                tracing::error!(rank = name, "put out, as it went wrong twice: {what}");
            }
        }
        for group in self.groups.blame(in_step, wrong) {
            for name in self.suspects.given_up(group) {
                tracing::warn!(rank = name, "welcome again: others fail with that request too");
            }
            self.metrics.given_up(wrong);
            self.fail(group, Failure::Broken, "the workers could not compute this answer");
        }
    }

    /// An attempt to form, when it is due.
    pub(super) fn start_forming(&mut self) {
        let Phase::Reforming(reform) = &mut self.phase else { return };
        if reform.retry_at > Instant::now() {
            return;
        }
        let wish = match self.setup.wish(Some(self.capacity)) {
            Ok(wish) => wish,
            // The same wish was granted before; nothing about it has changed.
            Err(error) => unreachable!("a validated configuration became wrong: {error}"),
        };
        let roster = &self.setup.roster;
        let draft = reform.draft(roster, &self.suspects, &self.speeds);
        let forming = form(draft, wish, reform.epoch, roster.epochs.clone(), |_, _| {});
        // A rank may have taken part in an attempt that failed: the next one is newer.
        reform.epoch += 1;
        self.work.push_back(async move { Done::Formed(forming.await) }.boxed());
    }

    /// An attempt to form has ended. An error ends the engine.
    pub(super) fn formed(
        &mut self,
        result: Result<Group, ClusterError>,
    ) -> Result<(), ClusterError> {
        let enough = |group: Group| {
            let Capacity { blocks, swap_blocks, .. } = self.capacity;
            if group.blocks >= blocks && group.swap_blocks >= swap_blocks {
                return Ok(group);
            }
            Err(ClusterError::Unusable(format!(
                "it has {} of {blocks} KV blocks, and {} of {swap_blocks} to swap to",
                group.blocks, group.swap_blocks
            )))
        };
        match result.and_then(enough) {
            Ok(group) => {
                self.capacity.world = u32::try_from(group.world()).unwrap_or(u32::MAX);
                self.capacity.weight_bytes = group.weight_bytes;
                self.phase = Phase::Serving(group);
                self.heartbeat_at = Instant::now() + self.setup.patience.heartbeat_every;
                self.say_ready();
            }
            Err(error @ (ClusterError::Ended { .. } | ClusterError::Deposed(_))) => {
                tracing::error!("the group of workers cannot form again: {error}");
                self.fail_all(match error {
                    ClusterError::Deposed(_) => "another coordinator has taken over: ask again",
                    _ => "a worker was lost for good",
                });
                self.tell_stats();
                return Err(error);
            }
            Err(error) => {
                let Phase::Reforming(reform) = &mut self.phase else { return Ok(()) };
                tracing::warn!("the group of workers cannot form yet: {error}");
                reform.cause = error.to_string();
                let now = Instant::now();
                reform.retry_at = now + reform.back_off;
                if now < reform.shrink_at {
                    reform.retry_at = reform.retry_at.min(reform.shrink_at);
                }
                reform.back_off = (reform.back_off * 2).min(BACK_OFF_MAX);
            }
        }
        Ok(())
    }

    /// Nobody waits for a rank for ever.
    pub(super) fn give_up_if_due(&mut self, now: Instant) {
        let Phase::Reforming(reform) = &mut self.phase else { return };
        if reform.give_up_at.is_none_or(|at| at > now) {
            return;
        }
        reform.give_up_at = None;
        let cause = reform.cause.clone();
        for _ in self.groups.ids() {
            self.metrics.given_up(false);
        }
        self.fail_all("a worker was lost and has not come back in time");
        if self.drain_until.is_none() {
            self.state.send_replace(EngineState::Away { cause });
        }
    }
}
