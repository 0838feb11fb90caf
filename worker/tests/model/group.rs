//! A toy on the disk, and ranks of it in one process.

use std::sync::Arc;
use std::thread;

use checkpoint::Checkpoint;
use fixture::{Architecture, Toy};
use proto::worker::{KvDtype, Sampling, Slice, StepReply, StepRequest};
use worker::backend::opencl::{DeviceChoice, OpenClConfig};
use worker::collective::local;
use worker::shard::Shard;
use worker::{BackendChoice, LoadError, LoadOrder, Runner};

/// Every backend that this machine has; of OpenCL devices those that tests were given.
pub(crate) fn backends() -> Vec<BackendChoice> {
    [BackendChoice::Candle, BackendChoice::Cpu].into_iter().chain(opencl()).collect()
}

/// OpenCL devices to test with.
pub(crate) fn opencl() -> Vec<BackendChoice> {
    let choice = |(_, library)| {
        BackendChoice::OpenCl(Box::leak(Box::new(OpenClConfig {
            library: Some(library),
            device: DeviceChoice::Cpu,
            programs: Some(std::env::temp_dir().join("arcmesh-test-programs")),
        })))
    };
    fixture::device::opencl().into_iter().map(choice).collect()
}

/// Tokens of a block in these tests.
pub(crate) const BLOCK_SIZE: usize = 8;

/// Opens a toy; its folder is gone with the test, the mapping stays.
pub(crate) fn open(toy: &Toy) -> Arc<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    Arc::new(Checkpoint::open(&fixture::gguf(folder.path(), toy)).unwrap())
}

/// A toy whose heads and widths divide by next to nothing.
pub(crate) fn odd(architecture: Architecture) -> Toy {
    Toy {
        hidden: 96,
        intermediate: 288,
        query_heads: 6,
        kv_heads: 3,
        layers: 3,
        full_every: 3,
        window: 7,
        vocabulary: 330,
        ..Toy::new(architecture)
    }
}

/// The same noise for the same seed: tokens of a prompt.
pub(crate) fn prompt(length: usize, seed: u32) -> Vec<u32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % 300
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn order(shard: Shard) -> LoadOrder {
    LoadOrder {
        epoch: 3,
        ranks_here: shard.world(),
        place_here: shard.rank(),
        shard,
        block_size: BLOCK_SIZE,
        kv_blocks: 40,
        kv_cache_bytes: 0,
        kv_dtype: KvDtype::F16,
        swap_blocks: 6,
        swap_bytes: Some(0),
        model_len_max: 0,
        step_tokens_max: 64,
        step_sequences_max: 8,
    }
}

/// All ranks of a group.
pub(crate) struct Group {
    pub(crate) runners: Vec<Runner>,
    step: u64,
}

impl Group {
    pub(crate) fn solo(choice: BackendChoice, checkpoint: &Arc<Checkpoint>) -> Self {
        Self::new(choice, checkpoint, &[1])
    }

    pub(crate) fn new(choice: BackendChoice, checkpoint: &Arc<Checkpoint>, shares: &[u32]) -> Self {
        Self::keeping(KvDtype::F16, choice, checkpoint, shares)
    }

    /// With keys and values kept as `kv_dtype`.
    pub(crate) fn keeping(
        kv_dtype: KvDtype,
        choice: BackendChoice,
        checkpoint: &Arc<Checkpoint>,
        shares: &[u32],
    ) -> Self {
        let collectives = local::group(shares.len());
        let load = |(rank, collective): (usize, local::LocalCollective)| {
            let shard = Shard::new(rank, shares.to_vec()).unwrap();
            let order = LoadOrder { kv_dtype, ..order(shard) };
            let collective = Box::new(collective);
            Runner::load(choice, 2.into(), checkpoint, &order, collective, &mut |_, _| {})
        };
        let runners: Result<Vec<Runner>, LoadError> =
            collectives.into_iter().enumerate().map(load).collect();
        Self { runners: runners.unwrap(), step: 0 }
    }

    /// Every rank's reply to the next step.
    pub(crate) fn replies(&mut self, mut request: StepRequest) -> Vec<StepReply> {
        self.step += 1;
        request.epoch = 3;
        request.step = self.step;
        let request = &request;
        thread::scope(|scope| {
            let runners = self.runners.iter_mut();
            let ranks: Vec<_> =
                runners.map(|runner| scope.spawn(move || runner.step(request))).collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    /// Rank 0's reply to the next step, in which all ranks agree and succeed.
    pub(crate) fn step(&mut self, request: StepRequest) -> StepReply {
        let mut replies = self.replies(request);
        for (rank, reply) in replies.iter().enumerate() {
            assert_eq!(reply.failure, None, "rank {rank}");
            assert_eq!(reply.digest, replies[0].digest, "rank {rank} has other bits than rank 0");
            assert!(rank == 0 || reply.tokens.is_empty(), "rank {rank} sampled");
        }
        replies.swap_remove(0)
    }

    /// Logits after the last token of a prompt.
    pub(crate) fn logits(&mut self, tokens: &[u32]) -> Vec<f32> {
        self.step += tokens.len().div_ceil(64) as u64;
        thread::scope(|scope| {
            let runners = self.runners.iter_mut();
            let ranks: Vec<_> =
                runners.map(|runner| scope.spawn(move || runner.logits(tokens))).collect();
            let mut all = ranks.into_iter().map(|rank| rank.join().unwrap().unwrap());
            let logits = all.next().unwrap();
            assert!(all.all(|of_others| of_others.is_empty()), "logits are gathered to rank 0");
            logits
        })
    }
}

pub(crate) fn greedy() -> Sampling {
    Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0 }
}

/// A step of these slices.
pub(crate) fn step_of(slices: Vec<Slice>) -> StepRequest {
    StepRequest { slices, ..Default::default() }
}

/// `tokens` of a sequence from `start` on, in `blocks`.
pub(crate) fn slice(
    tokens: &[u32],
    start: usize,
    blocks: &[u32],
    sampling: Option<Sampling>,
) -> Slice {
    let start = u32::try_from(start).unwrap();
    Slice { tokens: tokens.to_vec(), start, blocks: blocks.to_vec(), sampling, ..Slice::default() }
}
