//! The loop that owns the scheduler: wait for one thing, apply it, start a step if idle.
//!
//! One task, and at most one thing under way with the ranks: a step, a heartbeat, or forming the group. Behind a
//! step there may be the next, planned and sent ahead, which begins when it is done.
//! Everything else is synchronous. A failed step is never repeated as it was: the scheduler is told that
//! everything in the caches is gone, the group forms anew, and the running groups are computed
//! again from the tokens that they have, which gives the same tokens as if nothing had happened.

mod choice;
mod due;
mod ending;
mod first;
mod groups;
mod handle;
mod learned;
mod look;
mod lookout;
mod reform;
mod setup;
mod speeds;
mod state;
mod step;
mod suspects;
mod wishes;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, pending};
use futures::stream::{FuturesOrdered, StreamExt as _};
use scheduler::{CancelReason, Event, GroupId, NewGroup, Outcome, Refusal, Time, TokenCount};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::cluster::{ClusterError, Deadlines, Group, StepDone};
use crate::engine::choice::Choice;
use crate::engine::due::Until;
use crate::engine::first::first_group;
use crate::engine::groups::{Groups, Waiting};
use crate::engine::learned::Learned;
use crate::engine::lookout::{Lookout, Sighting};
use crate::engine::reform::Reform;
use crate::engine::speeds::Speeds;
use crate::engine::step::Step;
use crate::engine::suspects::Suspects;
use crate::metrics::{CacheSeen, MembersSeen, Metrics};
use crate::record::Recorded;

pub(crate) use handle::Input;
pub use handle::{Answer, AnswerEvent, EngineHandle, Failure, Submission, SubmitError};
pub(crate) use look::{GroupLook, Stage};
pub use setup::{EngineError, EngineSetup, ModelFacts};
pub use state::{Capacity, EngineState};
pub use wishes::{Likelihoods, Wishes};

/// Questions that may wait for the engine, which takes microseconds for each.
const INPUTS_MAX: usize = 256;

/// The task's state.
struct Engine {
    setup: EngineSetup,
    metrics: Arc<Metrics>,
    scheduler: Recorded,
    groups: Groups,
    deadlines: Deadlines,
    learned: Learned,
    capacity: Capacity,
    phase: Phase,
    /// What is under way with the ranks: one thing, or two steps.
    work: FuturesOrdered<BoxFuture<'static, Done>>,
    /// Who might join.
    lookout: Lookout,
    /// How fast the ranks are.
    speeds: Speeds,
    /// Who computed what cannot be.
    suspects: Suspects,
    /// The group is to form anew before the next step, for this reason.
    regroup: Option<ClusterError>,
    inputs: mpsc::Receiver<Input>,
    state: watch::Sender<EngineState>,
    shutdown: CancellationToken,
    /// The scheduler's time 0.
    origin: Instant,
    commits: u64,
    /// This group of workers has run a step that was no heartbeat.
    warm: bool,
    heartbeat_at: Instant,
    /// The last step left work, which has not been sent: what the ranks wait now counts.
    between_steps: bool,
    /// Draining until then.
    drain_until: Option<Instant>,
}

/// Whether there is a group.
enum Phase {
    Serving(Group),
    Reforming(Reform),
}

/// What was under way has come to its end.
enum Done {
    Step(Box<Step>, Result<StepDone, ClusterError>),
    Heartbeat(Duration, Result<StepDone, ClusterError>),
    Formed(Result<Group, ClusterError>),
}

/// The one thing that the loop waited for.
enum Happened {
    Asked(Input),
    Done(Done),
    Shutdown,
    Seen(Sighting),
    Tick,
}

/// Starts an engine on the current runtime. It forms its group first; `state` says how far it is.
/// Its task ends after `shutdown`, once all groups have ended; or at once, when it cannot begin.
#[must_use = "the task says why the engine ended"]
pub fn start(
    setup: EngineSetup,
    state: watch::Sender<EngineState>,
    shutdown: CancellationToken,
) -> (EngineHandle, JoinHandle<Result<(), EngineError>>) {
    let (sender, inputs) = mpsc::channel(INPUTS_MAX);
    let handle = EngineHandle {
        inputs: sender,
        state: state.subscribe(),
        unread_max: setup.limits.unread_max,
    };
    let task = tokio::spawn(async move {
        let ended = run(setup, inputs, state.clone(), shutdown).await;
        state.send_replace(EngineState::Stopped);
        ended
    });
    (handle, task)
}

async fn run(
    mut setup: EngineSetup,
    mut inputs: mpsc::Receiver<Input>,
    state: watch::Sender<EngineState>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    setup.metrics.limits(setup.limits.queue_max, setup.limits.ceiling.sequence);
    let Some(group) = first_group(&setup, &mut inputs, &state, &shutdown).await? else {
        return Ok(());
    };
    let capacity = setup.capacity(&group)?;
    let scheduler = Recorded::new(setup.scheduler_limits(&capacity), setup.recording.take())?;
    let now = Instant::now();
    let mut engine = Engine {
        metrics: Arc::clone(&setup.metrics),
        scheduler,
        groups: Groups::default(),
        deadlines: Deadlines::new(setup.patience.step_max),
        learned: Learned::default(),
        capacity,
        phase: Phase::Serving(group),
        work: FuturesOrdered::new(),
        lookout: Lookout::default(),
        speeds: Speeds::default(),
        suspects: Suspects::default(),
        regroup: None,
        inputs,
        state,
        shutdown,
        origin: now,
        commits: 0,
        warm: false,
        heartbeat_at: now + setup.patience.heartbeat_every,
        between_steps: false,
        drain_until: None,
        setup,
    };
    engine.say_ready();
    engine.run().await
}

impl Engine {
    async fn run(&mut self) -> Result<(), EngineError> {
        while !(self.drain_until.is_some() && self.groups.is_empty()) {
            match self.next().await {
                Happened::Asked(input) => self.asked(input),
                Happened::Done(Done::Step(step, result)) => self.stepped(&step, result),
                Happened::Done(Done::Heartbeat(deadline, result)) => self.beaten(deadline, result),
                Happened::Done(Done::Formed(result)) => self.formed(result)?,
                Happened::Shutdown => self.drain(),
                Happened::Seen(sighting) => self.seen(sighting),
                Happened::Tick => self.tick(),
            }
            self.start_work();
            self.look_out();
            self.tell_stats();
        }
        Ok(())
    }

    /// Waits for exactly one thing. Questions come first: a step that is started after this one
    /// takes in everybody who has asked by then.
    async fn next(&mut self) -> Happened {
        let wake_at = self.wake_at();
        let tick = async {
            match wake_at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        let draining = self.drain_until.is_some();
        tokio::select! {
            biased;
            () = self.shutdown.cancelled(), if !draining => Happened::Shutdown,
            Some(input) = self.inputs.recv() => Happened::Asked(input),
            Some(done) = self.work.next() => Happened::Done(done),
            sighting = self.lookout.next() => Happened::Seen(sighting),
            () = tick => Happened::Tick,
        }
    }

    /// When something is due, if nothing happens before.
    fn wake_at(&self) -> Option<Instant> {
        let idle = self.work.is_empty();
        let (due, give_up) = match &self.phase {
            Phase::Serving(_) => (idle.then_some(self.heartbeat_at), None),
            Phase::Reforming(reform) => (idle.then_some(reform.retry_at), reform.give_up_at()),
        };
        [due, give_up, self.drain_until, self.groups.next_due()].into_iter().flatten().min()
    }

    fn asked(&mut self, input: Input) {
        match input {
            Input::Submit { submission, events, accepted } => {
                let Submission { mut group, wishes, arrival, timeout, request_id, choices } =
                    *submission;
                let arrival = Instant::from_std(arrival);
                let queue_max = self.setup.patience.queue_max;
                let end = timeout.map(|timeout| arrival + timeout);
                let until = Until { begin: arrival + queue_max, end };
                let cut = self.cut(&mut group);
                let choice = Choice::new(&group, wishes, &self.setup.model.end_tokens);
                let waiting = Waiting::new(
                    &group,
                    choice,
                    self.tokens_max(&group),
                    (self.time(arrival), until),
                    (request_id, events),
                );
                let waiting = waiting.cold(!self.warm).cut(cut).choices(choices);
                let answer = self.submit(group, waiting);
                let id = answer.as_ref().ok().copied();
                // Whoever asked may have gone away meanwhile.
                if let (Err(_), Some(id)) = (accepted.send(answer), id) {
                    self.cancel(id, CancelReason::Abort);
                }
            }
            Input::Cancel { group, reason } => self.cancel(group, reason),
            // Whoever looked may have gone away meanwhile.
            Input::Look { reply } => drop(reply.send(self.look())),
        }
    }

    fn submit(&mut self, group: NewGroup, waiting: Waiting) -> Result<GroupId, SubmitError> {
        let state = self.state.borrow().clone();
        if state.capacity().is_none() {
            return Err(SubmitError::NotReady(state.sentence()));
        }
        if group.tokens_max == Some(TokenCount(0)) {
            // The ceiling of the group, dealt out, leaves nothing.
            let capacity = self.setup.limits.ceiling.group.unwrap_or(0);
            return Err(Refusal::TooManySequences { wanted: group.sequences, capacity }.into());
        }
        let prompt = TokenCount::of(&group.prompt).0;
        let submitted = self.scheduler.submit(group, self.now());
        let id = submitted.inspect_err(|_| self.metrics.refused(prompt))?;
        self.groups.insert(id, waiting);
        Ok(id)
    }

    /// The gate that every group goes through: none gets more than the operator lets it have. Says
    /// whether this is less than it asked for.
    fn cut(&self, group: &mut NewGroup) -> bool {
        let asked = group.tokens_max.map(|most| most.0);
        let most = self.setup.limits.ceiling.of(asked, group.sequences);
        let cut = most.filter(|most| asked.is_none_or(|asked| *most < asked));
        group.tokens_max = cut.map(TokenCount).or(group.tokens_max);
        cut.is_some()
    }

    /// Most tokens that a sequence of this group can get, all limits considered.
    fn tokens_max(&self, group: &NewGroup) -> u32 {
        let prompt = TokenCount::of(&group.prompt).0;
        let room = self.capacity.model_len_max.saturating_sub(prompt);
        group.tokens_max.map_or(room, |most| most.0.min(room))
    }

    fn cancel(&mut self, group: GroupId, reason: CancelReason) {
        if self.groups.contains(group) {
            let now = self.now();
            let events = self.scheduler.cancel(group, reason, now);
            self.deliver(events, now);
        }
    }

    /// Hands events over. A group that nobody reads is cancelled, which makes more events.
    fn deliver(&mut self, mut events: Vec<Event>, now: Time) {
        while !events.is_empty() {
            let mut more = Vec::new();
            for event in &events {
                if let Some(cut) = self.groups.take_in(event, self.commits, now, &self.metrics) {
                    more.extend(self.scheduler.cancel(cut.group, cut.reason, now));
                }
            }
            events = more;
        }
    }

    fn commit(&mut self, outcome: Outcome) {
        let now = self.now();
        self.commits += 1;
        let events = self.scheduler.commit(outcome, now);
        self.deliver(events, now);
    }

    fn say_ready(&self) {
        let Phase::Serving(group) = &self.phase else { return };
        self.metrics.members(MembersSeen::Ready(group.world(), group.epoch));
        let targets = group.described.iter().filter_map(|rank| rank.target.clone());
        self.metrics.targets(targets.collect());
        let shares: Vec<u32> = group.described.iter().map(|rank| rank.share).collect();
        self.metrics.shares(&shares);
        self.metrics.cache(CacheSeen {
            block_size: self.capacity.block_size,
            dtype: self.setup.limits.kv_dtype,
            blocks: group.blocks,
            prefix_cache: self.setup.limits.prefix_cache,
            swap_blocks: group.swap_blocks,
            blocks_wanted: self.setup.limits.kv_blocks.unwrap_or(0),
            swap_bytes: group.block_bytes.saturating_mul(group.swap_blocks.into()),
        });
        if self.drain_until.is_none() {
            self.state.send_replace(EngineState::Ready(self.capacity));
        }
        tracing::info!(
            epoch = group.epoch,
            world = group.world(),
            blocks = group.blocks,
            "the group of workers is ready"
        );
    }

    fn tell_stats(&self) {
        let stats = self.scheduler.stats();
        let oldest = stats.oldest_waiting.map(|time| self.origin + time.0);
        self.metrics.stats(stats, oldest);
    }

    fn now(&self) -> Time {
        self.time(Instant::now())
    }

    fn time(&self, at: Instant) -> Time {
        Time(at.saturating_duration_since(self.origin))
    }
}
