//! Who waits for which group: where events go, and what is observed of them on the way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use scheduler::{
    CancelReason, Event, FinishReason, GroupId, GroupTimes, LengthLimit, NewGroup, StepPlan, Time,
    TokenCount,
};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::cluster::{Likelihood, SliceWish, StepDone};
use crate::engine::choice::{Choice, Told};
use crate::engine::due::{Bound, DueTimes, Until};
use crate::engine::handle::{AnswerEvent, Failure};
use crate::engine::look::{GroupLook, Stage};
use crate::metrics::{FirstTokenSeen, GroupSeen, Metrics};

/// A group is given up after so many steps that came out wrong with it: one, its replay, and a replay
/// without the rank that is suspected.
const WRONG_MAX: u32 = 3;
/// A group is given up after it was part of so many steps in a row, none of which gave it a token, that
/// cost a rank: it may be the reason.
const LOST_MAX: u32 = 5;

/// The groups that have not ended.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<GroupId, Waiting>,
    due: DueTimes,
}

/// Someone who waits for a group's events.
#[derive(Debug)]
pub(super) struct Waiting {
    /// None: cut off.
    events: Option<mpsc::Sender<AnswerEvent>>,
    request_id: String,
    /// How its tokens are chosen, and what is told of them.
    choice: Choice,
    arrival: Time,
    /// When it is given up.
    until: Until,
    /// It was part of a plan.
    begun: bool,
    /// It came before this group of workers had run any step.
    cold: bool,
    prompt_tokens: u32,
    tokens_max: u32,
    /// That is the operator's wish, and less than what was asked for.
    cut: bool,
    sequences: Vec<Sequence>,
    /// Of these, those that its reader keeps.
    choices: u32,
    /// The commit that brought its last token, and when.
    last: Option<(u64, Time)>,
    /// Said instead of `Finished`.
    failure: Option<(Failure, String)>,
    /// All steps that it was part of.
    stepped: Duration,
    /// In them, the busiest rank's device at work.
    computed: Duration,
    /// Steps that came out wrong with it since its last token.
    wrong: u32,
    /// Steps that cost a rank with it since its last token.
    lost: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sequence {
    last_token: Option<Time>,
    generated: u32,
}

/// A group that is to be cancelled since nobody reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CutOff {
    pub(super) group: GroupId,
    pub(super) reason: CancelReason,
}

impl Waiting {
    /// Someone who waits for this group. `tokens_max`: most tokens a sequence can get.
    pub(super) fn new(
        group: &NewGroup,
        choice: Choice,
        tokens_max: u32,
        (arrival, until): (Time, Until),
        (request_id, events): (String, mpsc::Sender<AnswerEvent>),
    ) -> Self {
        let sequences = usize::try_from(group.sequences).unwrap_or(0);
        Self {
            events: Some(events),
            request_id,
            choice,
            arrival,
            until,
            begun: false,
            cold: false,
            prompt_tokens: TokenCount::of(&group.prompt).0,
            tokens_max,
            cut: false,
            sequences: vec![Sequence::default(); sequences],
            choices: group.sequences,
            last: None,
            failure: None,
            stepped: Duration::ZERO,
            computed: Duration::ZERO,
            wrong: 0,
            lost: 0,
        }
    }

    /// The same, of a group that came before any step was run.
    pub(super) fn cold(self, cold: bool) -> Self {
        Self { cold, ..self }
    }

    /// The operator lets it have fewer tokens than it asked for.
    pub(super) fn cut(self, cut: bool) -> Self {
        Self { cut, ..self }
    }

    /// Its reader keeps so many of its sequences.
    pub(super) fn choices(self, choices: u32) -> Self {
        Self { choices, ..self }
    }

    /// Why a sequence ended: of the scheduler's view, the limit that the operator has set is the
    /// request's.
    fn told(&self, reason: FinishReason) -> FinishReason {
        match reason {
            FinishReason::Length(LengthLimit::Request) if self.cut => {
                FinishReason::Length(LengthLimit::Operator)
            }
            reason => reason,
        }
    }

    /// Hands an event over; what to do if that is not possible.
    fn hand(&mut self, event: AnswerEvent) -> Option<CancelReason> {
        let sent = self.events.as_ref()?.try_send(event);
        let reason = match sent {
            Ok(()) => return None,
            Err(TrySendError::Full(_)) => CancelReason::Error,
            Err(TrySendError::Closed(_)) => CancelReason::Abort,
        };
        self.events = None;
        Some(reason)
    }

    /// What was wanted of the prompt, once all of it is known.
    fn hand_prompt(&mut self) {
        if let Some(likelihoods) = self.choice.prompt() {
            // Whoever does not read is cut off by the token that follows.
            self.hand(AnswerEvent::Prompt { likelihoods });
        }
    }

    fn token(&mut self, index: u32, commit: u64, now: Time, metrics: &Metrics) {
        match self.last {
            None => metrics.first_token(FirstTokenSeen {
                since_arrival: now.since(self.arrival),
                prompt_tokens: self.prompt_tokens,
                cold: self.cold,
            }),
            Some((before, at)) if before != commit => metrics.group_gap(now.since(at)),
            Some(_) => {}
        }
        self.last = Some((commit, now));
        (self.wrong, self.lost) = (0, 0);
        let sequence = usize::try_from(index).ok().and_then(|i| self.sequences.get_mut(i));
        let Some(sequence) = sequence else { return };
        if let Some(at) = sequence.last_token {
            metrics.token_gap(now.since(at));
        }
        sequence.last_token = Some(now);
        sequence.generated += 1;
    }

    fn look(&self, now: Time) -> GroupLook {
        let generated = self.sequences.iter().map(|it| it.generated).max().unwrap_or(0);
        let stage = match (generated, self.begun) {
            (0, false) => Stage::Waiting,
            (0, true) => Stage::Prefill,
            _ => Stage::Decode,
        };
        GroupLook {
            request: self.request_id.clone(),
            stage,
            age: now.since(self.arrival),
            prompt_tokens: self.prompt_tokens,
            sequences: self.sequences.len(),
            generated,
            tokens_max: self.tokens_max,
        }
    }

    fn seen(&self, times: &GroupTimes) -> GroupSeen {
        let span =
            |from: Option<Time>, to: Option<Time>| -> Option<Duration> { Some(to?.since(from?)) };
        let finished = Some(times.finished);
        GroupSeen {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: times.cached_tokens.0,
            sequences: u32::try_from(self.sequences.len()).unwrap_or(u32::MAX),
            choices: self.choices,
            tokens_max: self.tokens_max,
            generated_max: self.sequences.iter().map(|s| s.generated).max().unwrap_or(0),
            preemptions: times.preemptions,
            e2e: times.finished.since(self.arrival),
            queue: span(Some(self.arrival), times.first_scheduled),
            prefill: span(times.first_scheduled, times.first_token),
            decode: span(times.first_token, finished),
            inference: span(times.first_scheduled, finished),
            stepped: self.stepped,
            computed: self.computed,
            failed: self.failure.is_some(),
        }
    }
}

impl Groups {
    /// How many have not ended.
    pub(super) fn count(&self) -> usize {
        self.groups.len()
    }

    /// How far each is, the oldest first.
    pub(super) fn look(&self, now: Time) -> impl Iterator<Item = GroupLook> {
        self.groups.values().map(move |waiting| waiting.look(now))
    }

    /// None is left.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// All of them, the oldest first.
    pub(super) fn ids(&self) -> Vec<GroupId> {
        self.groups.keys().copied().collect()
    }

    /// Has this group not ended?
    pub(super) fn contains(&self, group: GroupId) -> bool {
        self.groups.contains_key(&group)
    }

    /// A group was accepted.
    pub(super) fn insert(&mut self, group: GroupId, waiting: Waiting) {
        self.due.insert(group, waiting.until);
        self.groups.insert(group, waiting);
    }

    /// What its reader is told in the end, instead of `Finished`.
    pub(super) fn fail(&mut self, group: GroupId, failure: Failure, message: String) {
        if let Some(waiting) = self.groups.get_mut(&group) {
            tracing::warn!(request = waiting.request_id, "an answer ends with an error: {message}");
            waiting.failure.get_or_insert((failure, message));
        }
    }

    /// These groups are part of a plan: they wait no longer to begin.
    pub(super) fn begin(&mut self, groups: &[GroupId]) {
        for group in groups {
            if let Some(waiting) = self.groups.get_mut(group).filter(|waiting| !waiting.begun) {
                waiting.begun = true;
                self.due.begun(*group, waiting.until);
            }
        }
    }

    /// When the next group is to be given up.
    pub(super) fn next_due(&self) -> Option<tokio::time::Instant> {
        self.due.next()
    }

    /// Takes a group that is to be given up now.
    pub(super) fn take_due(&mut self, now: tokio::time::Instant) -> Option<(GroupId, Bound)> {
        self.due.take(now)
    }

    /// These groups were part of a step.
    pub(super) fn stepped(&mut self, groups: &[GroupId], done: &StepDone) {
        let computed = done.computed();
        for group in groups {
            if let Some(waiting) = self.groups.get_mut(group) {
                waiting.stepped += done.duration;
                waiting.computed += computed;
            }
        }
    }

    /// A step with these groups failed; those that have been in too many are to be given up.
    pub(super) fn blame(&mut self, groups: &[GroupId], wrong: bool) -> Vec<GroupId> {
        let mut given_up = Vec::new();
        for group in groups {
            let Some(waiting) = self.groups.get_mut(group) else { continue };
            if wrong {
                waiting.wrong += 1;
            } else {
                waiting.lost += 1;
            }
            if waiting.wrong >= WRONG_MAX || waiting.lost >= LOST_MAX {
                given_up.push(*group);
            }
        }
        given_up
    }

    /// What each slice of a plan asks of its logits, and of whom the answers will tell.
    pub(super) fn wishes(&self, plan: &StepPlan) -> (Vec<SliceWish>, Vec<Told>) {
        let mut wishes = Vec::with_capacity(plan.slices.len());
        let mut told = Vec::new();
        for slice in &plan.slices {
            let waiting = self.groups.get(&slice.sequence.group);
            wishes.push(waiting.map(|it| it.choice.wish(slice, &mut told)).unwrap_or_default());
        }
        (wishes, told)
    }

    /// A step has said how likely tokens were; the events of its commit come next.
    pub(super) fn learn(&mut self, told: &[Told], likelihoods: Vec<Likelihood>) {
        for (told, likelihood) in told.iter().zip(likelihoods) {
            if let Some(waiting) = self.groups.get_mut(&told.sequence.group) {
                waiting.choice.learn(told, likelihood);
            }
        }
    }

    /// Takes in an event of the scheduler's `commit`-th commit, observes it and hands it over.
    pub(super) fn take_in(
        &mut self,
        event: &Event,
        commit: u64,
        now: Time,
        metrics: &Metrics,
    ) -> Option<CutOff> {
        let group = match event {
            Event::Token { sequence, .. } | Event::SequenceFinished { sequence, .. } => {
                sequence.group
            }
            Event::GroupFinished { group, .. } => *group,
        };
        let waiting = self.groups.get_mut(&group)?;
        let reason = match *event {
            Event::Token { sequence, token } => {
                waiting.token(sequence.index, commit, now, metrics);
                waiting.hand_prompt();
                let index = sequence.index;
                let likelihood = waiting.choice.grow(index, token);
                waiting.hand(AnswerEvent::Token { index, token, likelihood })
            }
            Event::SequenceFinished { sequence, reason, generated: TokenCount(generated) } => {
                let reason = waiting.told(reason);
                metrics.sequence_finished(reason, generated);
                waiting.hand(AnswerEvent::SequenceFinished { index: sequence.index, reason })
            }
            Event::GroupFinished { times, .. } => {
                metrics.group_finished(&waiting.seen(&times));
                let last = match waiting.failure.take() {
                    Some((failure, message)) => AnswerEvent::Failed { failure, message },
                    None => AnswerEvent::Finished { times, at: Instant::now() },
                };
                let reason = waiting.hand(last);
                let waiting = self.groups.remove(&group)?;
                self.due.ended(group, waiting.until);
                tracing::debug!(request = waiting.request_id, "the group has ended");
                reason
            }
        };
        let reason = reason?;
        if reason == CancelReason::Error {
            metrics.slow_reader();
            tracing::warn!(?group, "an answer is cut off: it is not read fast enough");
        }
        Some(CutOff { group, reason })
    }
}
