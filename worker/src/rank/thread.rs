//! The thread that computes for one rank in one epoch: it loads, takes steps, and frees what it held.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use checkpoint::Checkpoint;
use proto::worker::load_progress::State;
use proto::worker::step_failure::Kind;
use proto::worker::{LoadProgress, Loaded, Loading, StepFailure, StepReply, StepRequest};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::backend::BackendError;
use crate::collective::Collective;
use crate::config::WorkerConfig;
use crate::metrics::{Outcome, RankMetrics};
use crate::rank::meeting::{Meeting, Metered};
use crate::rank::stay::Stay;
use crate::rank::{JOBS_MAX, LoadFailure, Shared};
use crate::runner::{LoadError, LoadOrder, Runner};

/// While an earlier epoch is not over yet, the coordinator hears this often that we are alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A step and where its reply goes.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: StepRequest,
    pub(super) reply: oneshot::Sender<StepReply>,
}

/// A rank's place in a group, from the order to the end of the epoch.
pub(super) struct Seat {
    order: LoadOrder,
    config: WorkerConfig,
    checkpoint: Arc<Checkpoint>,
    metrics: RankMetrics,
    meeting: Meeting,
    progress: mpsc::Sender<Result<LoadProgress, LoadFailure>>,
    /// Weak: the thread must not keep alive what keeps it alive.
    shared: Weak<Shared>,
    begun: Instant,
    /// Last, so that it is dropped last.
    stay: Stay,
}

impl Seat {
    pub(super) fn new(
        shared: &Arc<Shared>,
        order: LoadOrder,
        progress: mpsc::Sender<Result<LoadProgress, LoadFailure>>,
        stay: Stay,
    ) -> Self {
        Self {
            order,
            config: shared.config.clone(),
            checkpoint: Arc::clone(&shared.checkpoint),
            metrics: shared.metrics.clone(),
            meeting: shared.meeting.clone(),
            progress,
            shared: Arc::downgrade(shared),
            begun: Instant::now(),
            stay,
        }
    }

    /// Goes on in a thread of its own.
    pub(super) fn start(self, collective: Box<dyn Collective>) {
        let name = format!("rank-{}", self.order.shard.rank());
        let spawned = thread::Builder::new().name(name).spawn(move || self.live(collective));
        if let Err(error) = spawned {
            // The seat is gone with the closure: the load ends without a last message.
            error!(%error, "cannot start the thread of a rank");
        }
    }

    /// Ends before it has begun.
    pub(super) fn fail(self, failure: LoadFailure) {
        warn!(epoch = self.order.epoch, rank = self.order.shard.rank(), %failure, "not loaded");
        self.metrics.load_failed();
        self.end(failure.to_string());
        // There is room: see `told`.
        drop(self.progress.try_send(Err(failure)));
    }

    fn live(self, collective: Box<dyn Collective>) {
        self.stay.alone(SIGN_OF_LIFE, || self.told(0, 0));
        let loaded = catch_unwind(AssertUnwindSafe(|| self.load(collective)));
        let rank = self.order.shard.rank();
        let runner = match loaded {
            Ok(Ok(runner)) => runner,
            Ok(Err(failure)) => {
                if matches!(failure, LoadError::Backend(BackendError::Device(_))) {
                    self.lose(&failure.to_string());
                }
                return self.fail(failure.into());
            }
            Err(panic) => return self.fail(LoadFailure::Died { rank, panic: said(&*panic) }),
        };
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let loaded = wire(&runner);
        self.metrics.loaded(&loaded, self.begun.elapsed());
        info!(epoch = self.order.epoch, rank, ?loaded, "loaded");
        if let Some(shared) = self.shared.upgrade() {
            shared.ready(self.order.epoch, jobs);
        }
        drop(self.progress.try_send(Ok(LoadProgress { state: Some(State::Loaded(loaded)) })));
        let reason = self.work(runner, queue);
        self.metrics.ended();
        self.end(reason);
    }

    fn load(&self, collective: Box<dyn Collective>) -> Result<Runner, LoadError> {
        let collective = Box::new(Metered { collective, metrics: self.metrics.clone() });
        let WorkerConfig { backend, threads, .. } = self.config;
        let mut told = |done, total| self.told(done, total);
        Runner::load(backend, threads, &self.checkpoint, &self.order, collective, &mut told)
    }

    /// Progress. Left out when nobody reads, except for one place that is kept for the last message.
    fn told(&self, bytes_done: u64, bytes_total: u64) {
        if self.progress.capacity() > 1 {
            let state = State::Loading(Loading { bytes_done, bytes_total });
            drop(self.progress.try_send(Ok(LoadProgress { state: Some(state) })));
        }
    }

    /// Takes steps until the rank leaves the epoch or the epoch fails; says why it ended.
    fn work(&self, mut runner: Runner, mut queue: mpsc::Receiver<Job>) -> String {
        let mut ended: Option<Instant> = None;
        while let Some(Job { request, reply }) = queue.blocking_recv() {
            let (begun, before) = (Instant::now(), runner.launches());
            let idle = ended.map_or(Duration::ZERO, |ended| begun - ended);
            let stepped = catch_unwind(AssertUnwindSafe(|| runner.step(&request)));
            // The reply leaves by the same thread as what goes to the peers.
            self.meeting.rest();
            self.metrics.launched(runner.launches() - before);
            let died = stepped.is_err();
            let mut answer = stepped.unwrap_or_else(|panic| self.died(&request, &*panic));
            if let Some(times) = &mut answer.times {
                times.idle_ns = u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX);
            }
            let outcome = outcome_of(&answer);
            if outcome != Outcome::Refused {
                self.metrics.held(&request);
            }
            let times = answer.times.unwrap_or_default();
            self.metrics.step(&request, outcome, begun.elapsed(), &times);
            let failed = answer.failure.as_ref().map(|failure| failure.message.clone());
            // A rank that found a wrong number has left its peers waiting for it.
            let over = matches!(outcome, Outcome::PeerLost | Outcome::Device | Outcome::Numeric);
            // Nobody may be waiting any more; the step has happened all the same.
            ended = Some(Instant::now());
            drop(reply.send(answer));
            if let Some(message) = failed {
                warn!(epoch = self.order.epoch, step = request.step, message, "step failed");
                if outcome == Outcome::Device && !died {
                    self.lose(&message);
                }
                if over {
                    // The runner goes now, and with it the streams: peers need not wait.
                    return message;
                }
            }
        }
        "nobody sends it steps any more".to_owned()
    }

    /// A step died of a bug. Whatever the runner holds is not to be trusted any more.
    fn died(&self, request: &StepRequest, panic: &(dyn Any + Send)) -> StepReply {
        let rank = self.order.shard.rank();
        let message = format!("the thread of rank {rank} died: {}", said(panic));
        error!(epoch = request.epoch, step = request.step, message, "a step panicked");
        StepReply {
            epoch: request.epoch,
            step: request.step,
            failure: Some(StepFailure { kind: Kind::Device.into(), message }),
            ..StepReply::default()
        }
    }

    fn lose(&self, reason: &str) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lose(reason);
        }
    }

    fn end(&self, reason: String) {
        if let Some(shared) = self.shared.upgrade() {
            shared.end(self.order.epoch, reason);
        }
    }
}

fn outcome_of(reply: &StepReply) -> Outcome {
    match reply.failure.as_ref().map(StepFailure::kind) {
        None => Outcome::Done,
        Some(Kind::Refused) => Outcome::Refused,
        Some(Kind::PeerLost) => Outcome::PeerLost,
        Some(Kind::Numeric) => Outcome::Numeric,
        Some(Kind::Device | Kind::Unspecified) => Outcome::Device,
    }
}

fn wire(runner: &Runner) -> Loaded {
    let loaded = runner.loaded();
    let blocks = |blocks: usize| u32::try_from(blocks).unwrap_or(u32::MAX);
    Loaded {
        kv_blocks: blocks(loaded.kv_blocks),
        weight_bytes: loaded.weight_bytes,
        kv_cache_bytes: loaded.kv_cache_bytes,
        swap_blocks: blocks(loaded.swap_blocks),
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_said_is_kept() {
        assert_eq!(said(&*catch_unwind(|| panic!("plain")).unwrap_err()), "plain");
        let number = 3;
        assert_eq!(said(&*catch_unwind(move || panic!("with {number}")).unwrap_err()), "with 3");
    }
}
