//! One rank, whatever carries its calls: what it is, the group it is in, the thread that computes.
//!
//! A rank is in one epoch at a time. A newer load ends the one before; a peer or a device that fails in
//! a step ends its epoch too, and what it held is freed. Between epochs a rank holds nothing.

mod meeting;
mod stay;
mod thread;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use checkpoint::Checkpoint;
use proto::worker::step_failure::Kind;
use proto::worker::{Description, LoadProgress, LoadRequest, StepFailure, StepReply, StepRequest};
use tls::Guard;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use crate::backend::Capabilities;
use crate::collective::grpc::{FormError, Switchboard};
use crate::config::WorkerConfig;
use crate::metrics::{Outcome, RankMetrics, WorkerMetrics};
use crate::rank::meeting::Meeting;
use crate::rank::stay::{Stay, Stays};
use crate::rank::thread::{Job, Seat};
use crate::runner::{self, LoadOrder, OrderError};

/// Progress messages that may be unread; more are left out, the last never is.
const PROGRESS_UNREAD_MAX: usize = 16;

/// Steps that may be waiting while one runs. The coordinator sends one ahead of the one that runs; a message that
/// comes twice may be one more.
const JOBS_MAX: usize = 2;

/// How a load goes on. The last message is `loaded`, or the failure.
pub type Progress = mpsc::Receiver<Result<LoadProgress, LoadFailure>>;

/// Why a rank was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LoadFailure {
    /// The epoch is not newer than the last.
    #[error("epoch {epoch} is over: this worker is at epoch {newest}")]
    Stale {
        /// Which was asked for.
        epoch: u64,
        /// The newest that was.
        newest: u64,
    },
    /// The group serves another model.
    #[error("this worker has {model}, whose files are {own}; the group is for files {wanted}")]
    Model {
        /// What it was started with.
        model: String,
        /// Digest of its files, the beginning.
        own: String,
        /// Digest that was asked for, the beginning.
        wanted: String,
    },
    /// The order makes no sense.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The group did not form.
    #[error(transparent)]
    Group(#[from] FormError),
    /// The model could not be loaded.
    #[error(transparent)]
    Load(#[from] runner::LoadError),
    /// The thread that loads has died: a bug.
    #[error("the thread of rank {rank} died: {panic}")]
    Died {
        /// Which rank.
        rank: usize,
        /// What it said.
        panic: String,
    },
}

/// A rank. Cheap to clone; all clones are one. Its thread ends with the last.
#[derive(Clone)]
pub struct Rank {
    shared: Arc<Shared>,
}

struct Shared {
    config: WorkerConfig,
    checkpoint: Arc<Checkpoint>,
    digest: [u8; 32],
    capabilities: Capabilities,
    meeting: Meeting,
    metrics: RankMetrics,
    state: Mutex<State>,
    stays: Arc<Stays>,
    /// Why the device is of no use any more.
    lost: watch::Sender<Option<String>>,
}

struct State {
    /// The newest that we were told of.
    epoch: u64,
    phase: EpochPhase,
}

enum EpochPhase {
    Loading,
    Ready(mpsc::Sender<Job>),
    Ended(String),
}

impl Rank {
    /// A rank that meets its peers over gRPC, at [`Rank::switchboard`].
    ///
    /// # Errors
    /// When the operating system does not give the thread that drives the streams.
    pub fn start(
        config: WorkerConfig,
        checkpoint: Arc<Checkpoint>,
        metrics: &WorkerMetrics,
    ) -> io::Result<Self> {
        let meeting =
            Meeting::Grpc(Switchboard::guarded(config.guard.clone(), config.lane.clone())?);
        Ok(Self::new(config, checkpoint, metrics.rank(None), meeting))
    }

    /// Ranks that share this process and meet in its memory.
    #[must_use]
    pub fn start_local(
        config: &WorkerConfig,
        checkpoint: &Arc<Checkpoint>,
        metrics: &WorkerMetrics,
        world: usize,
    ) -> Vec<Self> {
        let meeting = Meeting::local();
        (0..world)
            .map(|rank| {
                let metrics = metrics.rank(Some(rank));
                Self::new(config.clone(), Arc::clone(checkpoint), metrics, meeting.clone())
            })
            .collect()
    }

    fn new(
        config: WorkerConfig,
        checkpoint: Arc<Checkpoint>,
        metrics: RankMetrics,
        meeting: Meeting,
    ) -> Self {
        let capabilities = config.backend.capabilities(config.threads.count);
        metrics.identify(capabilities.backend, &capabilities.device, &config.node);
        let digest = checkpoint.digest();
        let phase = EpochPhase::Ended("no group was formed yet".to_owned());
        let state = Mutex::new(State { epoch: 0, phase });
        let (stays, (lost, _)) = (Arc::default(), watch::channel(None));
        let shared = Shared {
            config,
            checkpoint,
            digest,
            capabilities,
            meeting,
            metrics,
            state,
            stays,
            lost,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Where higher ranks call; none for ranks that share a process.
    #[must_use]
    pub fn switchboard(&self) -> Option<&Switchboard> {
        match &self.shared.meeting {
            Meeting::Grpc(switchboard) => Some(switchboard),
            Meeting::Local(_) => None,
        }
    }

    /// Who may call it.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.shared.config.guard
    }

    /// Where everything of this process is counted.
    #[must_use]
    pub fn metrics(&self) -> &WorkerMetrics {
        self.shared.metrics.all()
    }

    /// The model that it was started with.
    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.shared.checkpoint
    }

    /// Identifies that model's files.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.shared.digest
    }

    /// What it is and has.
    #[must_use]
    pub fn describe(&self) -> Description {
        let Shared { config, digest, capabilities, .. } = self.shared.as_ref();
        Description {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: config.node.clone(),
            backend: capabilities.backend.to_owned(),
            device: capabilities.device.clone(),
            threads: u32::try_from(capabilities.threads).unwrap_or(u32::MAX),
            memory_bytes: capabilities.memory_bytes,
            model: config.model.clone(),
            model_digest: digest.to_vec(),
            epoch: self.shared.lock().epoch,
            metrics: config.metrics.clone(),
        }
    }

    /// Takes a rank in a group at an epoch, and ends whatever an earlier epoch left. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// At once, when the order cannot be followed; later failures come as the last progress.
    pub fn load(&self, request: &LoadRequest) -> Result<Progress, LoadFailure> {
        let order = self.order(request).inspect_err(|_| self.shared.metrics.load_failed())?;
        let stay = self.shared.begin(order.epoch)?;
        let (rank, world) = (order.shard.rank(), order.shard.world());
        self.shared.metrics.took(rank, world, order.epoch);
        let (progress, told) = mpsc::channel(PROGRESS_UNREAD_MAX);
        let (meeting, peers) = (self.shared.meeting.clone(), request.peers.clone());
        let seat = Seat::new(&self.shared, order.clone(), progress, stay);
        let metrics = self.shared.metrics.clone();
        tokio::spawn(async move {
            match meeting.form(&order, &peers).await {
                Ok(collective) => {
                    metrics.joined(collective.lane());
                    seat.start(collective);
                }
                Err(error) => seat.fail(error.into()),
            }
        });
        Ok(told)
    }

    /// Asks for a step, which runs when those that were asked for before are done. Whatever the request says
    /// and whatever happens, the future gives a reply; the step is run also if it is dropped.
    pub fn step(&self, request: StepRequest) -> impl Future<Output = StepReply> + Send + 'static {
        let (epoch, step) = (request.epoch, request.step);
        let shared = Arc::clone(&self.shared);
        let (reply, answer) = oneshot::channel();
        let asked = match shared.jobs(epoch) {
            // A thread that has ended in between answers nothing: its epoch has ended, then.
            Ok(jobs) => match jobs.try_send(Job { request, reply }) {
                Err(TrySendError::Full(Job { request, .. })) => {
                    Err((request, format!("{JOBS_MAX} steps are waiting already")))
                }
                Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            },
            Err(reason) => Err((request, reason)),
        };
        let asked = asked.map_err(|(request, reason)| {
            let none = Default::default();
            shared.metrics.step(&request, Outcome::Refused, Duration::ZERO, &none);
            reason
        });
        async move {
            let reason = match asked {
                Ok(()) => match answer.await {
                    Ok(reply) => return reply,
                    Err(_) => shared.jobs(epoch).err(),
                },
                Err(reason) => Some(reason),
            };
            let message = reason.unwrap_or_else(|| "the epoch is ending".to_owned());
            let failure = Some(StepFailure { kind: Kind::Refused.into(), message });
            StepReply { epoch, step, failure, ..StepReply::default() }
        }
    }

    /// Leaves the group after the step that is running, if any: peers are told by their streams.
    pub(crate) fn leave(&self, reason: &str) {
        self.shared.lock().phase = EpochPhase::Ended(reason.to_owned());
    }

    /// Waits until the device is lost: then only another process can take the rank. Gives the reason.
    pub async fn lost(&self) -> String {
        let mut told = self.shared.lost.subscribe();
        let reason = told.wait_for(Option::is_some).await.map(|it| it.clone().unwrap_or_default());
        match reason {
            Ok(reason) => reason,
            // Whoever waits keeps the sender alive.
            Err(_) => std::future::pending().await,
        }
    }

    /// What a request for a load says, when it can be followed.
    fn order(&self, request: &LoadRequest) -> Result<LoadOrder, LoadFailure> {
        let Shared { config, checkpoint, digest, .. } = self.shared.as_ref();
        if request.model_digest != digest {
            return Err(LoadFailure::Model {
                model: config.model.clone(),
                own: hex(digest),
                wanted: hex(&request.model_digest),
            });
        }
        Ok(LoadOrder::from_wire(request, checkpoint.config())?)
    }
}

impl Shared {
    /// Goes on to a newer epoch.
    fn begin(&self, epoch: u64) -> Result<Stay, LoadFailure> {
        let mut state = self.lock();
        if epoch <= state.epoch {
            return Err(LoadFailure::Stale { epoch, newest: state.epoch });
        }
        state.epoch = epoch;
        // The thread of the epoch before ends when nobody can send it steps.
        state.phase = EpochPhase::Loading;
        Ok(Stay::begin(&self.stays, epoch))
    }

    /// The epoch takes steps from now on, unless it is over.
    fn ready(&self, epoch: u64, jobs: mpsc::Sender<Job>) {
        let mut state = self.lock();
        if state.epoch == epoch {
            state.phase = EpochPhase::Ready(jobs);
        }
    }

    /// The device is lost.
    fn lose(&self, reason: &str) {
        self.lost.send_replace(Some(reason.to_owned()));
    }

    /// The first reason counts.
    fn end(&self, epoch: u64, reason: String) {
        let mut state = self.lock();
        if state.epoch == epoch && !matches!(state.phase, EpochPhase::Ended(_)) {
            state.phase = EpochPhase::Ended(reason);
        }
    }

    /// Where steps of an epoch go, or why there are none.
    fn jobs(&self, epoch: u64) -> Result<mpsc::Sender<Job>, String> {
        let state = self.lock();
        let current = state.epoch;
        if epoch != current {
            return Err(format!("a step of epoch {epoch} at epoch {current}"));
        }
        match &state.phase {
            EpochPhase::Ready(jobs) => Ok(jobs.clone()),
            EpochPhase::Loading => Err(format!("epoch {epoch} is still loading")),
            EpochPhase::Ended(reason) => Err(format!("epoch {epoch} is over: {reason}")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rank")
            .field("config", &self.shared.config)
            .field("epoch", &self.shared.lock().epoch)
            .finish_non_exhaustive()
    }
}

/// The first bytes of a digest.
fn hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
