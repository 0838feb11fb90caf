//! The one thread that owns a rank's model, cache, collective and sampler: steps in, tokens out.

mod choose;
mod device;
mod feed;
mod load;
mod order;
mod room;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checkpoint::{Checkpoint, CheckpointError};
use proto::worker::{StepFailure, StepReply, StepRequest, StepTimes, step_failure::Kind};

use crate::backend::candle::Candle;
use crate::backend::cpu::{CpuBackend, Threads};
use crate::backend::opencl::{OpenClBackend, OpenClConfig};
use crate::backend::{Backend, BackendError, Capabilities, DeviceMemory};
use crate::batch::{Refusal, Step, StepLimits};
use crate::collective::Collective;
use crate::model::{Fault, Outputs, StepError};
use crate::runner::choose::{Choosing, Memory};
use crate::runner::device::Device;
use crate::runner::feed::Feed;
pub use crate::runner::load::Loaded;
use crate::runner::load::load;
pub use crate::runner::order::{LoadOrder, OrderError};
use crate::sampler::{Likelihood, Sampler};

/// Which backend computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// The reference: plain f32.
    Candle,
    /// The fast path on a machine without a GPU.
    Cpu,
    /// A GPU, through OpenCL: which one, for the rest of the process.
    OpenCl(&'static OpenClConfig),
}

impl BackendChoice {
    /// What the device is, without loading anything.
    #[must_use]
    pub fn capabilities(self, threads: usize) -> Capabilities {
        let host = || Candle::new(threads).capabilities();
        match self {
            Self::Candle => host(),
            // One thread is ours: nothing is started to ask.
            Self::Cpu => match CpuBackend::new(1) {
                Ok(cpu) => Capabilities { threads, ..cpu.capabilities() },
                Err(_) => Capabilities { backend: "cpu", ..host() },
            },
            Self::OpenCl(config) => config
                .capabilities()
                .unwrap_or_else(|_| Capabilities { backend: "opencl", ..host() }),
        }
    }
}

/// Why a rank could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The order makes no sense.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The device does not serve this model, or has no room for it.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The model's files cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Nothing can be kept.
    #[error(
        "not one KV block of {block_bytes} bytes fits in the {offered} bytes there are for the cache"
    )]
    NoBlock {
        /// Bytes of a block, over all layers.
        block_bytes: u64,
        /// Bytes that the cache may have.
        offered: u64,
    },
    /// The cache does not fit beside the weights on a device of its own memory.
    #[error(
        "{blocks} KV blocks of {block_bytes} bytes do not fit: of the device's {} bytes weights take {} and {} \
         are kept free, which leaves {}; lower --kv-blocks or --kv-cache-memory, or share the model among \
         more ranks",
        memory.total_bytes, memory.taken_bytes, memory.kept_free_bytes, memory.free_bytes()
    )]
    NoDeviceRoom {
        /// Blocks asked for, at least one.
        blocks: usize,
        /// Bytes of a block, over all layers.
        block_bytes: u64,
        /// What the device has.
        memory: DeviceMemory,
    },
    /// More was asked for than the machine has.
    #[error(
        "{blocks} KV blocks and {swap_blocks} swap blocks need {bytes} bytes and this machine has {memory_bytes}"
    )]
    NoRoom {
        /// Blocks on the device.
        blocks: usize,
        /// Blocks in host memory.
        swap_blocks: usize,
        /// Bytes they need.
        bytes: u64,
        /// Bytes there are.
        memory_bytes: u64,
    },
}

/// One rank at work. Belongs to one thread; see the module's documentation.
pub struct Runner {
    device: Device,
    collective: Box<dyn Collective>,
    sampler: Sampler,
    limits: StepLimits,
    /// The last that was begun. Of one that failed nothing is sampled.
    step: Step,
    /// Working memory for the one that is read next.
    coming: Step,
    feed: Feed,
    loaded: Loaded,
    epoch: u64,
    /// Number of the step that is due.
    next: u64,
    /// The step in which the group fell apart.
    ended: Option<u64>,
    outputs: Outputs,
    /// The first token of this rank's stretch of the vocabulary.
    first_token: usize,
    choosing: Memory,
}

/// What a step came to.
#[derive(Debug, Default)]
struct Outcome {
    tokens: Vec<u32>,
    likelihoods: Vec<Likelihood>,
    digest: u64,
    sampling: Duration,
}

impl Runner {
    /// Takes a rank: loads its slices, reserves its KV blocks. `progress` hears of bytes done and
    /// bytes in all.
    ///
    /// # Errors
    /// An order that makes no sense, files that cannot be read, or too little memory.
    ///
    /// # Panics
    /// When `collective` is of another rank or world than the order.
    pub fn load(
        choice: BackendChoice,
        threads: Threads,
        checkpoint: &Arc<Checkpoint>,
        order: &LoadOrder,
        collective: Box<dyn Collective>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, LoadError> {
        order.check(checkpoint.config())?;
        assert_eq!(collective.rank(), order.shard.rank(), "the collective is of this rank");
        assert_eq!(collective.world(), order.shard.world(), "the collective is of this world");
        let place = (order.place_here, order.ranks_here);
        let (device, loaded) = match choice {
            BackendChoice::Candle => {
                let (model, loaded) =
                    load(Candle::new(threads.count), checkpoint, order, progress)?;
                (Device::Candle(model), loaded)
            }
            BackendChoice::Cpu => {
                let backend = CpuBackend::of_rank(threads, place)?;
                let (model, loaded) = load(backend, checkpoint, order, progress)?;
                (Device::Cpu(model), loaded)
            }
            BackendChoice::OpenCl(config) => {
                let backend = OpenClBackend::new(config, place)?;
                let (model, loaded) = load(backend, checkpoint, order, progress)?;
                (Device::OpenCl(model), loaded)
            }
        };
        let config = checkpoint.config();
        let limits = StepLimits {
            vocabulary: config.vocabulary,
            block_size: order.block_size,
            blocks: loaded.kv_blocks,
            swap_blocks: loaded.swap_blocks,
            model_len_max: order.positions(config),
            step_tokens_max: order.step_tokens_max,
            step_sequences_max: order.step_sequences_max,
        };
        Ok(Self {
            device,
            collective,
            sampler: Sampler::default(),
            limits,
            step: Step::default(),
            coming: Step::default(),
            feed: Feed::default(),
            loaded,
            epoch: order.epoch,
            next: 1,
            ended: None,
            outputs: Outputs::default(),
            first_token: order.shard.slices(config).vocabulary.start,
            choosing: Memory::default(),
        })
    }

    /// What this rank holds.
    #[must_use]
    pub fn loaded(&self) -> Loaded {
        self.loaded
    }

    /// What its device is.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    /// Kernels that its device's queue took so far; 0 where there is no queue.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.device.launches()
    }

    /// One step, together with all other ranks. Whatever the request says, this returns a reply. A
    /// step that was refused is still due; one that failed is over, and where a peer or the device
    /// failed, so is the group.
    pub fn step(&mut self, request: &StepRequest) -> StepReply {
        let begun = Instant::now();
        let advanced = self.advance(request);
        let all = begun.elapsed();
        let mut reply = StepReply { epoch: self.epoch, step: request.step, ..Default::default() };
        match advanced {
            Ok(outcome) => {
                let collective = self.collective.times();
                let swapping = self.outputs.swapping;
                let other = collective.transfer + collective.wait + outcome.sampling + swapping;
                reply.tokens = outcome.tokens;
                reply.likelihoods = outcome.likelihoods.into_iter().map(choose::to_wire).collect();
                reply.digest = outcome.digest;
                reply.times = Some(StepTimes {
                    compute_ns: nanoseconds(all.saturating_sub(other)),
                    collective_transfer_ns: nanoseconds(collective.transfer),
                    collective_wait_ns: nanoseconds(collective.wait),
                    sample_ns: nanoseconds(outcome.sampling),
                    swap_ns: nanoseconds(swapping),
                    // Whoever brings the steps knows.
                    idle_ns: 0,
                });
            }
            Err(error) => reply.failure = Some(self.failure(&error)),
        }
        reply
    }

    /// Logits after the last of `tokens`, for tests and tools: `(vocabulary)` on rank 0, empty
    /// elsewhere. Every rank of the group has to be asked at the same time. Takes the first blocks of
    /// the cache, whoever owns them, and a step's number for every `step_tokens_max` tokens.
    ///
    /// # Errors
    /// As a step of these tokens.
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, StepError> {
        use proto::worker::{Sampling, Slice};

        // Whole rows are gathered where all tokens count.
        let open = Sampling { temperature: 1.0, top_p: 1.0, ..Default::default() };
        let blocks = tokens.len().div_ceil(self.limits.block_size);
        let table = u32::try_from(blocks).unwrap_or(u32::MAX);
        let chunks = tokens.len().div_ceil(self.limits.step_tokens_max).max(1);
        for chunk in 0..chunks {
            let start = chunk * self.limits.step_tokens_max;
            let end = (start + self.limits.step_tokens_max).min(tokens.len());
            let slice = Slice {
                tokens: tokens[start..end].to_vec(),
                start: u32::try_from(start).unwrap_or(u32::MAX),
                blocks: (0..table).collect(),
                sampling: (end == tokens.len()).then_some(open),
                ..Slice::default()
            };
            let (epoch, step) = (self.epoch, self.next);
            self.advance(&StepRequest { epoch, step, slices: vec![slice], ..Default::default() })?;
        }
        Ok(if self.collective.world() == 1 { &self.outputs.logits } else { &self.choosing.whole }
            .clone())
    }

    fn advance(&mut self, request: &StepRequest) -> Result<Outcome, StepError> {
        self.expect(request)?;
        self.coming.read(request, &self.limits, &self.step.batch)?;
        std::mem::swap(&mut self.coming, &mut self.step);
        self.next += 1;
        let run = self.run();
        if let Err(StepError::Failed { fault: Fault::Collective(_) | Fault::Device(_), .. }) = &run
        {
            self.ended = Some(self.step.id);
        }
        match &run {
            Ok(outcome) => self.feed.keep(&outcome.tokens),
            Err(_) => self.step.batch.samples.clear(),
        }
        run
    }

    /// The step that was read.
    fn run(&mut self) -> Result<Outcome, StepError> {
        let (id, patience) = (self.step.id, self.step.patience);
        self.collective.begin(id, patience);
        self.feed.tell(self.collective.as_mut(), &mut self.step.batch, self.limits.vocabulary)?;
        let step = &self.step;
        let (collective, outputs) = (self.collective.as_mut(), &mut self.outputs);
        let (sampler, memory) = (&mut self.sampler, &mut self.choosing);
        let mut choosing = Choosing::new(sampler, &step.batch, self.first_token, memory);
        let mut take =
            |c: &mut dyn Collective, rows: &[usize], logits: &[f32]| choosing.take(c, rows, logits);
        let run = match &mut self.device {
            Device::Candle(model) => model.step(collective, step, outputs, &mut take),
            Device::Cpu(model) => model.step(collective, step, outputs, &mut take),
            Device::OpenCl(model) => model.step(collective, step, outputs, &mut take),
        };
        let chosen = choosing.end();
        run?;
        Ok(Outcome { digest: digest(&self.outputs.hidden), ..chosen })
    }

    /// Whether this is the step that is due.
    fn expect(&self, request: &StepRequest) -> Result<(), Refusal> {
        let (got, expected) = (request.epoch, self.epoch);
        if got != expected {
            return Err(Refusal::Epoch { got, expected });
        }
        if let Some(step) = self.ended {
            return Err(Refusal::Ended { step });
        }
        let (got, expected) = (request.step, self.next);
        if got != expected {
            return Err(Refusal::Order { got, expected });
        }
        Ok(())
    }

    fn failure(&self, error: &StepError) -> StepFailure {
        let kind = match error {
            StepError::Refused(_) => Kind::Refused,
            StepError::Failed { fault: Fault::Collective(_), .. } => Kind::PeerLost,
            StepError::Failed { fault: Fault::Device(_), .. } => Kind::Device,
            StepError::Failed { fault: Fault::Numeric { .. }, .. } => Kind::Numeric,
        };
        let message = format!("rank {}: {error}", self.collective.rank());
        StepFailure { kind: kind.into(), message }
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("epoch", &self.epoch)
            .field("next", &self.next)
            .field("ended", &self.ended)
            .field("loaded", &self.loaded)
            .finish_non_exhaustive()
    }
}

/// FNV-1a over the bits of `numbers`: equal on all ranks, or a rank has computed something else.
fn digest(numbers: &[f32]) -> u64 {
    numbers.iter().fold(0xcbf2_9ce4_8422_2325, |hash, number| {
        (hash ^ u64::from(number.to_bits())).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
