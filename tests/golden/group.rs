//! A group of ranks as threads of the test.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use checkpoint::Checkpoint;
use proto::worker::{KvDtype, Sampling, Slice, StepReply, StepRequest};
use worker::collective::{Collective, local};
use worker::shard::Shard;
use worker::{BackendChoice, LoadOrder, Runner};

/// Longest sequence that a test asks for.
const LEN_MAX: usize = 1024;
/// Tokens of a step: longer prompts are prefilled in chunks.
const STEP_TOKENS: usize = 256;
/// How long a rank waits for another; a test that is stopped in a debugger will fail.
const PATIENCE_MS: u32 = 120_000;

/// All ranks of one model.
pub(crate) struct Group {
    ranks: Vec<Runner>,
    steps: u64,
}

impl Group {
    /// Loads the model's slices, one thread a rank.
    pub(crate) fn load(path: &Path, choice: BackendChoice, world: usize) -> Self {
        Self::keeping(path, choice, world, KvDtype::F16)
    }

    /// The same, with keys and values kept as `kv_dtype`.
    pub(crate) fn keeping(
        path: &Path,
        choice: BackendChoice,
        world: usize,
        kv_dtype: KvDtype,
    ) -> Self {
        let checkpoint = Arc::new(Checkpoint::open(path).unwrap());
        let ranks = local::group(world)
            .into_iter()
            .map(|collective| rank(&checkpoint, choice, Box::new(collective), kv_dtype))
            .collect();
        Self { ranks, steps: 0 }
    }

    /// Logits after the last token of `prompt`, computed from its beginning.
    pub(crate) fn logits(&mut self, prompt: &[u32]) -> Vec<f32> {
        self.steps += prompt.len().div_ceil(STEP_TOKENS) as u64;
        let mut all = on_every(&mut self.ranks, |rank| rank.logits(prompt).unwrap());
        all.swap_remove(0)
    }

    /// The likeliest continuation, `tokens` long: a prefill in chunks, then one token a step. Fails
    /// where ranks disagree about a bit.
    pub(crate) fn greedy(&mut self, prompt: &[u32], tokens: usize) -> Vec<u32> {
        let mut text = prompt.to_vec();
        let mut computed = 0;
        while text.len() < prompt.len() + tokens {
            let end = text.len().min(computed + STEP_TOKENS);
            let reply = self.step(&text[computed..end], computed, end == text.len());
            computed = end;
            text.extend(reply.tokens);
        }
        text.split_off(prompt.len())
    }

    fn step(&mut self, tokens: &[u32], start: usize, sample: bool) -> StepReply {
        self.steps += 1;
        let blocks = u32::try_from((start + tokens.len()).div_ceil(16)).unwrap();
        let request = StepRequest {
            epoch: 1,
            step: self.steps,
            slices: vec![Slice {
                tokens: tokens.to_vec(),
                start: u32::try_from(start).unwrap(),
                blocks: (0..blocks).collect(),
                sampling: sample.then_some(Sampling { top_p: 1.0, ..Default::default() }),
                ..Default::default()
            }],
            blocks_held: blocks,
            deadline_ms: PATIENCE_MS,
            ..Default::default()
        };
        let mut replies = on_every(&mut self.ranks, |rank| rank.step(&request));
        for reply in &replies {
            assert_eq!(reply.failure, None);
            assert_eq!(reply.digest, replies[0].digest, "ranks hold different bits");
        }
        replies.swap_remove(0)
    }
}

/// What every rank says, in order of rank; all work at the same time.
fn on_every<T: Send>(ranks: &mut [Runner], work: impl Fn(&mut Runner) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let ranks: Vec<_> = ranks.iter_mut().map(|rank| scope.spawn(move || work(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn rank(
    checkpoint: &Arc<Checkpoint>,
    choice: BackendChoice,
    collective: Box<dyn Collective>,
    kv_dtype: KvDtype,
) -> Runner {
    let order = LoadOrder {
        epoch: 1,
        shard: Shard::new(collective.rank(), vec![1; collective.world()]).unwrap(),
        block_size: 16,
        kv_blocks: LEN_MAX / 16,
        kv_cache_bytes: 0,
        kv_dtype,
        swap_blocks: 0,
        swap_bytes: Some(0),
        model_len_max: LEN_MAX.min(checkpoint.config().context),
        step_tokens_max: STEP_TOKENS,
        step_sequences_max: 8,
        ranks_here: collective.world(),
        place_here: collective.rank(),
    };
    Runner::load(choice, 1.into(), checkpoint, &order, collective, &mut |_, _| {}).unwrap()
}
