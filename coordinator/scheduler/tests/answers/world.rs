//! A scheduler, an oracle that runs its steps, and what is known about every group.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use scheduler::{
    BlockCount, CancelReason, Event, FinishReason, GroupId, LengthLimit, Limits, NewGroup, Outcome,
    Rates, Refusal, Scheduler, SequenceId, StepId, StepPlan, Time, TokenId,
};

use crate::oracle::{self, Oracle};

/// What may happen. Planning while a step is in flight and committing when none is do nothing, nor does
/// planning ahead where the scheduler would rather not.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Submit(NewGroup),
    Cancel(usize, CancelReason),
    Plan,
    Ahead,
    Commit,
    Lost,
    Measured(Rates),
}

/// How often it came to what the tests are about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Met {
    pub(crate) preemptions: u64,
    pub(crate) swaps: u64,
    pub(crate) swapped_in: usize,
    /// Tokens found in the prefix cache.
    pub(crate) hits: u64,
    pub(crate) losses: u64,
    pub(crate) copies: usize,
    pub(crate) cut_prompts: usize,
    pub(crate) cancelled_in_flight: usize,
    /// Steps planned ahead, while somebody waited, and slices that were void.
    pub(crate) ahead: usize,
    pub(crate) ahead_of_waiting: usize,
    pub(crate) void: u64,
    pub(crate) refusals: [usize; 4],
    pub(crate) stops: usize,
    pub(crate) lengths: [usize; 3],
}

pub(crate) struct World {
    pub(crate) met: Met,
    scheduler: Scheduler,
    oracle: Oracle,
    in_flight: VecDeque<StepPlan>,
    last_step: StepId,
    groups: BTreeMap<GroupId, Known>,
    /// More steps than this can't be needed to end all that was accepted.
    steps_max: usize,
    now: Time,
}

struct Known {
    group: NewGroup,
    answers: Vec<Vec<TokenId>>,
    ends: Vec<Option<FinishReason>>,
    cancelled: bool,
    finished: bool,
}

impl Met {
    pub(crate) fn add(&mut self, other: &Self) {
        self.preemptions += other.preemptions;
        self.swaps += other.swaps;
        self.swapped_in += other.swapped_in;
        self.hits += other.hits;
        self.losses += other.losses;
        self.copies += other.copies;
        self.cut_prompts += other.cut_prompts;
        self.cancelled_in_flight += other.cancelled_in_flight;
        self.ahead += other.ahead;
        self.ahead_of_waiting += other.ahead_of_waiting;
        self.void += other.void;
        self.stops += other.stops;
        for (sum, more) in self.refusals.iter_mut().zip(other.refusals) {
            *sum += more;
        }
        for (sum, more) in self.lengths.iter_mut().zip(other.lengths) {
            *sum += more;
        }
    }

    /// Whether it came to everything, more than a few times.
    pub(crate) fn everything(&self) -> bool {
        let counts = [self.copies, self.cut_prompts, self.cancelled_in_flight, self.stops];
        let ahead = [self.ahead, self.ahead_of_waiting];
        let counts = counts.iter().chain(&ahead).chain(&self.refusals).chain(&self.lengths);
        counts.copied().min() > Some(20)
            && self.void > 20
            && self.preemptions > 20
            && self.losses > 20
            && self.swaps > 20
            && self.swapped_in > 20
            && self.hits > 20
    }
}

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            met: Met::default(),
            oracle: Oracle::new(&limits),
            scheduler: Scheduler::new(limits).unwrap(),
            in_flight: VecDeque::new(),
            last_step: StepId(0),
            groups: BTreeMap::new(),
            steps_max: 0,
            now: Time::default(),
        }
    }

    pub(crate) fn apply(&mut self, action: Action) {
        self.now.0 += Duration::from_millis(1);
        match action {
            Action::Submit(group) => self.submit(group),
            Action::Cancel(which, reason) => self.cancel(which, reason),
            Action::Plan => self.plan(),
            Action::Ahead => self.ahead(),
            Action::Commit => self.commit(),
            Action::Lost => self.lose(),
            Action::Measured(rates) => self.scheduler.measured(rates),
        }
        self.check_stats();
    }

    /// Lets everything end.
    pub(crate) fn drain(&mut self) {
        self.commit();
        self.commit();
        // A step that was planned ahead may be for nobody.
        for _ in 0..=2 * self.steps_max {
            self.now.0 += Duration::from_millis(1);
            self.plan();
            self.ahead();
            self.commit();
        }
        self.commit();
        self.check_stats();
        let stats = self.scheduler.stats();
        let queues = (stats.waiting, stats.running, stats.swapped);
        assert_eq!(queues, (0, 0, 0), "too many steps: {stats:?}");
        assert_eq!(stats.blocks_held, BlockCount(0), "every block comes back");
        assert_eq!(stats.swap_blocks_held, BlockCount(0), "every host block comes back");
        self.met.preemptions = stats.preemptions_recompute;
        self.met.swaps = stats.preemptions_swap;
        self.met.hits = stats.prefix_hits;
        self.met.void = stats.slices_void;
        assert_eq!(stats.steps_ahead, self.met.ahead as u64);
        let limits = self.scheduler.limits();
        for known in self.groups.values() {
            assert!(known.finished, "what was accepted ends");
            for (index, (answer, end)) in (0..).zip(known.answers.iter().zip(&known.ends)) {
                let (expected, expected_end) = oracle::undisturbed(&known.group, index, limits);
                if known.cancelled && answer.len() < expected.len() {
                    assert_eq!(*answer, expected[..answer.len()], "a part of the same answer");
                } else {
                    assert_eq!((answer, *end), (&expected, Some(expected_end)));
                }
            }
        }
    }

    fn submit(&mut self, group: NewGroup) {
        let limits = self.scheduler.limits().clone();
        let length = group.prompt.len() + 1;
        let alone = NewGroup { sequences: 1, ..group.clone() };
        let too_long =
            || length > limits.model_len_max.0 as usize || !oracle::fits(&alone, length, &limits);
        let too_many = || {
            let runs = limits.sequences_max.min(limits.step_tokens_max.0);
            group.sequences > runs || !oracle::fits(&group, length, &limits)
        };
        let full = self.scheduler.stats().waiting >= limits.waiting_max;
        let result = self.scheduler.submit(group.clone(), self.now);
        let refusal = match result {
            Ok(id) => {
                assert!(!group.prompt.is_empty() && !too_long() && !too_many() && !full);
                let sequences = group.sequences as usize;
                self.steps_max += length + limits.model_len_max.0 as usize;
                let answers = vec![Vec::new(); sequences];
                let ends = vec![None; sequences];
                let known = Known { group, answers, ends, cancelled: false, finished: false };
                assert!(self.groups.insert(id, known).is_none(), "an id is never used twice");
                return;
            }
            Err(Refusal::Empty) => (group.prompt.is_empty(), 0),
            Err(Refusal::TooLong { .. }) => (too_long(), 1),
            Err(Refusal::TooManySequences { .. }) => (too_many(), 2),
            Err(Refusal::QueueFull { .. }) => (full, 3),
        };
        assert!(refusal.0, "refused for nothing: {group:?}");
        self.met.refusals[refusal.1] += 1;
    }

    fn cancel(&mut self, which: usize, reason: CancelReason) {
        let Some(id) = self.groups.keys().nth(which % (self.groups.len() + 1)).copied() else {
            return assert!(self.scheduler.cancel(GroupId(u64::MAX), reason, self.now).is_empty());
        };
        let was_finished = self.groups[&id].finished;
        let flies = |plan: &StepPlan| plan.slices.iter().any(|slice| slice.sequence.group == id);
        if !was_finished && self.in_flight.iter().any(flies) {
            self.met.cancelled_in_flight += 1;
        }
        let events = self.scheduler.cancel(id, reason, self.now);
        assert_eq!(events.is_empty(), was_finished, "who has ended is not cancelled");
        let known = self.groups.get_mut(&id).unwrap();
        known.cancelled |= !was_finished;
        self.take(&events);
        assert!(self.groups[&id].finished);
    }

    fn plan(&mut self) {
        if !self.in_flight.is_empty() {
            return;
        }
        let Some(plan) = self.scheduler.plan(self.now) else {
            assert!(self.groups.values().all(|known| known.finished), "somebody could run");
            return;
        };
        self.check_plan(&plan);
        self.last_step = plan.id;
        self.met.copies += plan.copies.len();
        self.met.swapped_in += plan.swap_in.len();
        self.met.cut_prompts += plan.slices.iter().filter(|slice| slice.sampling.is_none()).count();
        self.in_flight.push_back(plan);
    }

    /// The scheduler may decline; then nothing has changed, so that nobody has to know of it.
    fn ahead(&mut self) {
        // To look at all of it takes long, so now and then will do.
        let looks = self.now.0.as_millis().is_multiple_of(16);
        let before = looks.then(|| format!("{:?}", self.scheduler));
        let Some(plan) = self.scheduler.ahead() else {
            let after = looks.then(|| format!("{:?}", self.scheduler));
            return assert_eq!(before, after, "it declined");
        };
        assert_eq!(self.in_flight.len(), 1, "one step ahead");
        self.check_plan(&plan);
        let waiting = self.scheduler.stats().waiting + self.scheduler.stats().swapped;
        self.met.ahead_of_waiting += usize::from(waiting > 0);
        self.met.ahead += 1;
        let moves = [&plan.swap_out, &plan.swap_in, &plan.copies];
        assert!(moves.iter().all(|moves| moves.is_empty()), "it only goes on");
        assert!(plan.slices.iter().all(|slice| slice.follows.is_some()));
        self.last_step = plan.id;
        self.in_flight.push_back(plan);
    }

    /// The step runs as late as it can: after everything that happened while it was in flight.
    fn commit(&mut self) {
        let Some(plan) = self.in_flight.pop_front() else { return };
        let tokens = self.oracle.run(&plan);
        let events = self.scheduler.commit(Outcome::Done(tokens), self.now);
        self.take(&events);
    }

    fn lose(&mut self) {
        self.met.losses += 1;
        self.in_flight.clear();
        self.oracle.lose();
        assert!(self.scheduler.commit(Outcome::Lost, self.now).is_empty());
    }

    fn check_plan(&self, plan: &StepPlan) {
        let limits = self.scheduler.limits();
        assert_eq!(plan.id.0, self.last_step.0 + 1, "steps are counted");
        assert!(!plan.slices.is_empty());
        assert!(plan.slices.len() <= limits.sequences_max as usize);
        let tokens: usize = plan.slices.iter().map(|slice| slice.count().0 as usize).sum();
        assert!(tokens <= limits.step_tokens_max.0 as usize);
        assert!(plan.blocks_held <= limits.blocks);
        let sequences: BTreeSet<_> = plan.slices.iter().map(|slice| slice.sequence).collect();
        assert_eq!(sequences.len(), plan.slices.len(), "one slice a sequence");
        assert!(plan.swap_out.is_empty() || plan.swap_in.is_empty());
        for copy in &plan.copies {
            let used = plan.slices.iter().any(|slice| slice.blocks.contains(&copy.to));
            assert!(used, "{copy:?} is for nobody");
        }
        for slice in &plan.slices {
            let SequenceId { group, index } = slice.sequence;
            let known = &self.groups[&group];
            assert!(known.ends[index as usize].is_none(), "who has ended does not run");
            let prompt = known.group.prompt.len();
            let follows = usize::from(slice.follows.is_some());
            let length = prompt + known.answers[index as usize].len() + follows;
            let count = slice.count().0 as usize;
            let end = slice.start.0 as usize + count;
            assert!(count > 0 && end <= length);
            assert!(follows == 0 || count == 1);
            let (answer, _) = oracle::undisturbed(
                &NewGroup { ignore_end: true, stop_tokens: vec![], ..known.group.clone() },
                index,
                limits,
            );
            assert!(
                known.answers[index as usize].len() + follows < answer.len(),
                "who certainly ends is left out"
            );
            let seed = known.group.sampling.seed.wrapping_add(u64::from(index));
            let sampled = slice.sampling.map(|sampling| sampling.seed);
            assert_eq!(sampled, (end == length).then_some(seed), "the last token is followed");
        }
    }

    fn check_stats(&self) {
        let stats = self.scheduler.stats();
        let live = self.groups.values().filter(|known| !known.finished).count();
        let queued = stats.waiting + stats.running + stats.swapped;
        assert_eq!(queued, live, "a group is in one queue");
        assert!(stats.blocks_held <= stats.blocks);
        assert!(stats.running > 0 || stats.blocks_held == BlockCount(0));
        assert_eq!(stats.oldest_waiting.is_some(), stats.waiting > 0);
    }

    fn take(&mut self, events: &[Event]) {
        for event in events {
            match *event {
                Event::Token { sequence: SequenceId { group, index }, token } => {
                    let known = self.groups.get_mut(&group).unwrap();
                    assert!(known.ends[index as usize].is_none(), "no token after the end");
                    known.answers[index as usize].push(token);
                }
                Event::SequenceFinished { sequence, reason, generated } => {
                    self.end(sequence, reason, generated.0 as usize);
                }
                Event::GroupFinished { group, times } => {
                    let known = self.groups.get_mut(&group).unwrap();
                    assert!(known.ends.iter().all(Option::is_some), "the sequences end first");
                    assert!(!known.finished, "a group ends once");
                    assert!(times.arrival <= times.finished);
                    known.finished = true;
                }
            }
        }
    }

    fn end(&mut self, sequence: SequenceId, reason: FinishReason, generated: usize) {
        let known = self.groups.get_mut(&sequence.group).unwrap();
        let index = sequence.index as usize;
        assert_eq!(known.answers[index].len(), generated);
        let before = known.ends[index].replace(reason);
        assert!(before.is_none(), "a sequence ends once");
        match reason {
            FinishReason::Stop(Some(_)) => self.met.stops += 1,
            FinishReason::Length(LengthLimit::Request) => self.met.lengths[0] += 1,
            FinishReason::Length(LengthLimit::Operator) => self.met.lengths[1] += 1,
            FinishReason::Length(LengthLimit::Context) => self.met.lengths[2] += 1,
            FinishReason::Stop(None) | FinishReason::Abort | FinishReason::Error => {}
        }
    }
}
