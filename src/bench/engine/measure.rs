//! The steps that are timed, and the clock beside them.

use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use proto::worker::{Sampling, Slice, StepRequest};
use worker::Runner;

use crate::config::BenchLoad;

/// Steps of decode that nobody counts.
const WARM_UP_STEPS: u32 = 4;

/// The likeliest token.
const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0 };

/// A rank and its sequences.
pub(crate) struct Bench {
    runner: Runner,
    load: BenchLoad,
    vocabulary: usize,
    /// Number of the next step.
    next: u64,
    /// Where the tokens of the next prompt come from.
    random: u32,
}

/// What one repetition took.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// All prompts; zero without.
    pub(crate) prefill: Duration,
    /// From the start until each sequence's first token, in order.
    pub(crate) first_tokens: Vec<Duration>,
    /// All steps of one token for each sequence.
    pub(crate) decode: Duration,
    /// How many of them.
    pub(crate) decode_steps: u32,
}

/// A sequence under way.
struct Sequence {
    /// Prompt tokens; without a prompt the one token that starts it.
    prompt: Vec<u32>,
    /// Tokens in the cache.
    done: u32,
    /// The newest token, which is not in the cache yet.
    last: u32,
    /// KV blocks.
    blocks: Vec<u32>,
}

impl Bench {
    pub(crate) fn new(runner: Runner, load: BenchLoad, vocabulary: usize) -> Self {
        Self { runner, load, vocabulary, next: 1, random: 1 }
    }

    /// A chunk of a prompt and a few steps, so that every buffer is there and every page was touched.
    pub(crate) fn warm_up(&mut self) -> anyhow::Result<()> {
        let load = self.load;
        let prompt = load.prompt.min(load.step_tokens_max / load.batch);
        self.measure(BenchLoad { prompt, generate: load.generate.min(WARM_UP_STEPS), ..load })?;
        Ok(())
    }

    /// Prefill, then decode.
    pub(crate) fn run(&mut self) -> anyhow::Result<Run> {
        self.measure(self.load)
    }

    fn measure(&mut self, load: BenchLoad) -> anyhow::Result<Run> {
        let mut sequences: Vec<Sequence> =
            (0..load.batch).map(|nth| self.sequence(nth, load)).collect();
        let begun = Instant::now();
        let mut first_tokens = Vec::new();
        if load.prompt > 0 {
            self.prefill(&mut sequences, begun, &mut first_tokens)?;
        }
        let prefill = if load.prompt > 0 { begun.elapsed() } else { Duration::ZERO };
        let decode_steps = load.generate.saturating_sub(u32::from(load.prompt > 0));
        let decoding = Instant::now();
        for _ in 0..decode_steps {
            self.decode(&mut sequences)?;
            if first_tokens.is_empty() {
                first_tokens = vec![begun.elapsed(); sequences.len()];
            }
        }
        Ok(Run { prefill, first_tokens, decode: decoding.elapsed(), decode_steps })
    }

    /// A prompt of its own for each sequence and each run: nothing may be remembered.
    fn sequence(&mut self, nth: u32, load: BenchLoad) -> Sequence {
        let each = (self.load.prompt + self.load.generate).div_ceil(load.block_size);
        let prompt: Vec<u32> = (0..load.prompt.max(1)).map(|_| self.token()).collect();
        let last = prompt[0];
        Sequence { prompt, done: 0, last, blocks: (nth * each..(nth + 1) * each).collect() }
    }

    fn token(&mut self) -> u32 {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let vocabulary = u32::try_from(self.vocabulary).unwrap_or(u32::MAX);
        (self.random >> 8) % vocabulary
    }

    /// Every prompt, in order, as many tokens a step as a step may have.
    fn prefill(
        &mut self,
        sequences: &mut [Sequence],
        begun: Instant,
        first_tokens: &mut Vec<Duration>,
    ) -> anyhow::Result<()> {
        while first_tokens.len() < sequences.len() {
            let first = first_tokens.len();
            let mut room = self.load.step_tokens_max;
            let mut slices = Vec::new();
            let mut ended = 0;
            for sequence in &mut sequences[first..] {
                if room == 0 {
                    break;
                }
                let length = u32::try_from(sequence.prompt.len()).unwrap_or(u32::MAX);
                let end = length.min(sequence.done + room);
                room -= end - sequence.done;
                let tokens = sequence.prompt[sequence.done as usize..end as usize].to_vec();
                slices.push(sequence.slice(tokens, end == length));
                sequence.done = end;
                ended += usize::from(end == length);
            }
            let tokens = self.step(slices, ended)?;
            for (sequence, token) in sequences[first..].iter_mut().zip(tokens) {
                sequence.last = token;
                first_tokens.push(begun.elapsed());
            }
        }
        Ok(())
    }

    /// One token for each sequence.
    fn decode(&mut self, sequences: &mut [Sequence]) -> anyhow::Result<()> {
        let slices = sequences.iter().map(|it| it.slice(vec![it.last], true)).collect();
        let tokens = self.step(slices, sequences.len())?;
        for (sequence, token) in sequences.iter_mut().zip(tokens) {
            sequence.done += 1;
            sequence.last = token;
        }
        Ok(())
    }

    /// A step, and the tokens of the slices that asked.
    fn step(&mut self, slices: Vec<Slice>, asked: usize) -> anyhow::Result<Vec<u32>> {
        let request = StepRequest { epoch: 1, step: self.next, slices, ..StepRequest::default() };
        let reply = self.runner.step(&request);
        if let Some(failure) = reply.failure {
            return Err(anyhow!("step {} failed: {}", self.next, failure.message));
        }
        ensure!(reply.tokens.len() == asked, "{} tokens for {asked} rows", reply.tokens.len());
        self.next += 1;
        Ok(reply.tokens)
    }
}

impl Sequence {
    /// The next tokens of this sequence; sampled where the row after the last is wanted.
    fn slice(&self, tokens: Vec<u32>, sampled: bool) -> Slice {
        let sampling = sampled.then_some(GREEDY);
        Slice {
            tokens,
            start: self.done,
            blocks: self.blocks.clone(),
            sampling,
            ..Slice::default()
        }
    }
}
