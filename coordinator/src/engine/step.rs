//! A step from plan to commit, and the heartbeat of an idle group.

use std::time::Duration;

use futures::FutureExt;
use scheduler::{GroupId, Outcome, StepPlan};
use tokio::time::Instant;

use crate::cluster::{Begins, ClusterError, RankTimes, StepDone};
use crate::engine::choice::Told;
use crate::engine::{Done, Engine, Phase};
use crate::metrics::StepSeen;

/// What is remembered of a plan while the ranks run it.
#[derive(Debug)]
pub(super) struct Step {
    /// Whose slices it has.
    pub(super) groups: Vec<GroupId>,
    /// Tokens computed.
    pub(super) tokens: usize,
    /// When a silent rank counts as lost.
    pub(super) deadline: Duration,
    /// Whose likelihoods it brings, in order.
    pub(super) told: Vec<Told>,
    phase: &'static str,
    swapped_out: usize,
    swapped_in: usize,
    block_bytes: u64,
    planning: Duration,
    /// A step before left it to do: what ranks waited for it is idle time.
    continues: bool,
}

impl Step {
    fn new(plan: &StepPlan, told: Vec<Told>, deadline: Duration) -> Self {
        let mut groups: Vec<GroupId> = plan.slices.iter().map(|s| s.sequence.group).collect();
        groups.dedup();
        // A slice of one token that is sampled continues an answer, but for a prompt of one token.
        let decodes = plan
            .slices
            .iter()
            .filter(|s| s.count().0 == 1 && s.start.0 > 0 && s.sampling.is_some())
            .count();
        let phase = if decodes == plan.slices.len() {
            "decode"
        } else if decodes == 0 {
            "prefill"
        } else {
            "mixed"
        };
        Self {
            groups,
            tokens: tokens(plan),
            deadline,
            told,
            phase,
            swapped_out: plan.swap_out.len(),
            swapped_in: plan.swap_in.len(),
            block_bytes: 0,
            planning: Duration::ZERO,
            continues: false,
        }
    }
}

fn tokens(plan: &StepPlan) -> usize {
    plan.slices.iter().map(|slice| slice.count().0 as usize).sum()
}

impl Engine {
    /// If nothing is under way with the ranks: a step, or what else is due. Behind a step the next, if it can
    /// be sent ahead and nothing else wants the ranks in between.
    pub(super) fn start_work(&mut self) {
        self.let_leave();
        if self.work.is_empty() {
            if let Some(reason) = self.regroup.take() {
                self.lost(&reason, &[]);
            }
            match self.phase {
                Phase::Serving(_) => self.start_step(),
                Phase::Reforming(_) => self.start_forming(),
            }
        }
        if self.work.len() == 1 && self.regroup.is_none() {
            self.start_ahead();
        }
    }

    fn start_step(&mut self) {
        let (now, began) = (self.now(), Instant::now());
        let continues = std::mem::take(&mut self.between_steps);
        if let Some(plan) = self.scheduler.plan(now) {
            self.send(&plan, Begins::Now, (began.elapsed(), continues));
        } else if self.heartbeat_at <= began {
            let Phase::Serving(group) = &mut self.phase else { return };
            let deadline = self.deadlines.deadline(0);
            let running = group.step(None, deadline, Begins::Now);
            let beating = async move { Done::Heartbeat(deadline, running.await) };
            self.work.push_back(beating.boxed());
        }
    }

    /// The step behind the one that is under way.
    fn start_ahead(&mut self) {
        let (now, began) = (self.now(), Instant::now());
        if let Some(plan) = self.scheduler.ahead(now) {
            self.send(&plan, Begins::AfterTheLast, (began.elapsed(), true));
        }
    }

    /// Sends a plan. `planning`: what it took; `continues`: a step before left it to do.
    fn send(&mut self, plan: &StepPlan, begins: Begins, (planning, continues): (Duration, bool)) {
        let Phase::Serving(group) = &mut self.phase else { return };
        let deadline = self.deadlines.deadline(tokens(plan));
        let (wishes, told) = self.groups.wishes(plan);
        let block_bytes = group.block_bytes;
        let step = Step { block_bytes, planning, continues, ..Step::new(plan, told, deadline) };
        self.groups.begin(&step.groups);
        let running = group.step(Some((plan, &wishes)), deadline, begins);
        self.work.push_back(async move { Done::Step(Box::new(step), running.await) }.boxed());
    }

    /// The ranks ran a step, or did not.
    pub(super) fn stepped(&mut self, step: &Step, result: Result<StepDone, ClusterError>) {
        let now = Instant::now();
        self.heartbeat_at = now + self.setup.patience.heartbeat_every;
        self.between_steps = self.work.is_empty();
        let done = match result {
            Ok(done) => done,
            Err(error) => {
                if error.cause() == "deadline" {
                    self.deadlines.measured(step.tokens, step.deadline);
                }
                return self.lost(&error, &step.groups);
            }
        };
        self.deadlines.measured(step.tokens, done.duration);
        self.suspects.well();
        self.metrics.step(&StepSeen {
            phase: step.phase,
            tokens: step.tokens,
            duration: done.duration,
            skew: done.skew,
            under_way: done.under_way(),
            swapped_out: step.swapped_out,
            swapped_in: step.swapped_in,
            block_bytes: step.block_bytes,
        });
        for (rank, times) in done.ranks.iter().enumerate() {
            let RankTimes { compute, transfer, wait, sample, swap: _, idle: _ } = *times;
            self.metrics.rank(rank, [compute, transfer, wait, sample]);
        }
        if step.continues {
            self.metrics.idled(done.idle());
        }
        self.speeds.step(&done.ranks);
        self.groups.stepped(&step.groups, &done);
        self.warm = true;
        let swapping = done.swapping();
        let computing = done.duration.saturating_sub(swapping);
        let blocks = step.swapped_out + step.swapped_in;
        self.learned.step((step.tokens, computing), (blocks, swapping));
        self.scheduler.measured(self.learned.rates());
        let began = Instant::now();
        self.groups.learn(&step.told, done.likelihoods);
        self.commit(Outcome::Done(done.tokens));
        self.metrics.scheduled(step.planning + began.elapsed());
    }

    /// The ranks ran a heartbeat, or did not.
    pub(super) fn beaten(&mut self, deadline: Duration, result: Result<StepDone, ClusterError>) {
        self.heartbeat_at = Instant::now() + self.setup.patience.heartbeat_every;
        match result {
            Ok(done) => self.deadlines.measured(0, done.duration),
            Err(error) => {
                if error.cause() == "deadline" {
                    self.deadlines.measured(0, deadline);
                }
                self.lost(&error, &[]);
            }
        }
    }
}
