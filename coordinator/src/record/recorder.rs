//! A scheduler, and a record of what it is told and plans.

use std::collections::{BTreeMap, VecDeque};

use scheduler::{
    CancelReason, Event, GroupId, Limits, LimitsError, NewGroup, Outcome, Rates, Refusal,
    Scheduler, SequenceId, Stats, StepPlan, Time, TokenId,
};

use crate::record::line::{Header, Line, PlanLine, SubmitLine, nanoseconds};
use crate::record::veil::{Link, Veil};
use crate::record::writer::Recording;

/// The scheduler, with a recording or without.
#[derive(Debug)]
pub(crate) struct Recorded {
    scheduler: Scheduler,
    recorder: Option<Recorder>,
}

/// What it takes to veil tokens.
#[derive(Debug)]
struct Recorder {
    recording: Recording,
    veil: Veil,
    /// Groups that have not ended.
    groups: BTreeMap<GroupId, Veiled>,
    /// Whose tokens the steps in flight bring, in order.
    sampled: VecDeque<Vec<SequenceId>>,
    rates: Rates,
}

#[derive(Debug)]
struct Veiled {
    /// By sequence: what stands for its tokens.
    links: Vec<Link>,
    stop_tokens: Vec<TokenId>,
}

impl Recorded {
    pub(crate) fn new(limits: Limits, recording: Option<Recording>) -> Result<Self, LimitsError> {
        let scheduler = Scheduler::new(limits)?;
        let recorder = recording.map(|recording| Recorder {
            recording,
            veil: Veil::new(scheduler.limits().end_tokens.clone()),
            groups: BTreeMap::new(),
            sampled: VecDeque::new(),
            rates: Rates::default(),
        });
        let mut recorded = Self { scheduler, recorder };
        let header = Line::Recording(Header::new(recorded.scheduler.limits()));
        recorded.record(|_| header);
        Ok(recorded)
    }

    /// See [`Scheduler::submit`].
    pub(crate) fn submit(&mut self, new: NewGroup, now: Time) -> Result<GroupId, Refusal> {
        if self.recorder.is_none() {
            return self.scheduler.submit(new, now);
        }
        let id = self.scheduler.submit(new.clone(), now)?;
        self.record(|recorder| Line::Submit(recorder.submitted(id, &new, now)));
        Ok(id)
    }

    /// See [`Scheduler::cancel`].
    pub(crate) fn cancel(&mut self, id: GroupId, reason: CancelReason, now: Time) -> Vec<Event> {
        let events = self.scheduler.cancel(id, reason, now);
        self.record(|recorder| {
            recorder.groups.remove(&id);
            Line::Cancel { at: nanoseconds(now.0), group: id.0, reason: reason.into() }
        });
        events
    }

    /// See [`Scheduler::plan`].
    pub(crate) fn plan(&mut self, now: Time) -> Option<StepPlan> {
        let plan = self.scheduler.plan(now)?;
        self.record(|recorder| Line::Plan(recorder.planned(&plan, now)));
        Some(plan)
    }

    /// See [`Scheduler::ahead`]. Where it declines nothing has happened, so nothing is recorded.
    pub(crate) fn ahead(&mut self, now: Time) -> Option<StepPlan> {
        let plan = self.scheduler.ahead()?;
        self.record(|recorder| Line::Ahead(recorder.planned(&plan, now)));
        Some(plan)
    }

    /// See [`Scheduler::commit`].
    pub(crate) fn commit(&mut self, outcome: Outcome, now: Time) -> Vec<Event> {
        self.record(|recorder| match &outcome {
            Outcome::Done(tokens) => recorder.done(tokens, now),
            Outcome::Lost => {
                recorder.sampled.clear();
                Line::Lost { at: nanoseconds(now.0) }
            }
        });
        let events = self.scheduler.commit(outcome, now);
        if let Some(recorder) = &mut self.recorder {
            for event in &events {
                if let Event::GroupFinished { group, .. } = event {
                    recorder.groups.remove(group);
                }
            }
        }
        events
    }

    /// See [`Scheduler::measured`].
    pub(crate) fn measured(&mut self, rates: Rates) {
        self.scheduler.measured(rates);
        if self.recorder.as_ref().is_some_and(|recorder| recorder.rates != rates) {
            self.record(|recorder| {
                recorder.rates = rates;
                Line::rates(rates)
            });
        }
    }

    /// See [`Scheduler::stats`].
    pub(crate) fn stats(&self) -> Stats {
        self.scheduler.stats()
    }

    fn record(&mut self, line: impl FnOnce(&mut Recorder) -> Line) {
        let Some(recorder) = &mut self.recorder else { return };
        let line = line(recorder);
        if !recorder.recording.line(line) {
            self.recorder = None;
        }
    }
}

impl Recorder {
    fn submitted(&mut self, id: GroupId, new: &NewGroup, now: Time) -> SubmitLine {
        let (link, prompt) = self.veil.prompt(&new.prompt);
        let links = vec![link; new.sequences.max(1) as usize];
        self.groups.insert(id, Veiled { links, stop_tokens: new.stop_tokens.clone() });
        SubmitLine::new(id, new, prompt, now)
    }

    fn planned(&mut self, plan: &StepPlan, now: Time) -> PlanLine {
        let sampled = plan.slices.iter().filter(|slice| slice.sampling.is_some());
        self.sampled.push_back(sampled.map(|slice| slice.sequence).collect());
        PlanLine::new(plan, now)
    }

    fn done(&mut self, tokens: &[TokenId], now: Time) -> Line {
        let mut shown = Vec::with_capacity(tokens.len());
        let mut stops = Vec::new();
        let sampled = self.sampled.pop_front().unwrap_or_default();
        for (place, (sequence, token)) in (0..).zip(sampled.into_iter().zip(tokens)) {
            // A group that was cancelled meanwhile gets none.
            let group = self.groups.get_mut(&sequence.group);
            let link = group.and_then(|group| {
                stops.extend(group.stop_tokens.contains(token).then_some(place));
                group.links.get_mut(sequence.index as usize)
            });
            let followed = link.map(|link| {
                let (next, shown) = self.veil.follow(*link, *token);
                *link = next;
                shown
            });
            shown.push(followed.unwrap_or(u32::MAX));
        }
        Line::Commit { at: nanoseconds(now.0), tokens: shown, stops }
    }
}
