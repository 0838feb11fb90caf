//! A rank without arithmetic: it keeps the tokens themselves in its KV blocks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use coordinator::{Member, MemberError, MemberRequest};
use proto::worker::step_failure::Kind;
use proto::worker::{
    Description, LoadRequest, Loaded, Loading, Slice, StepFailure, StepReply, StepRequest,
    StepTimes,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// Tokens there are. 0 ends an answer.
const VOCABULARY: u64 = 40;
/// What an oracle says it loaded.
pub(crate) const WEIGHT_BYTES: u64 = 1000;

/// What goes wrong, and when. Steps are counted over the rank's whole life, heartbeats included.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Not there: everything is answered with a loss.
    pub(crate) away: bool,
    /// There, and says nothing to anything.
    pub(crate) silent: bool,
    /// Dies in this step, and is back at once, with nothing in its cache.
    pub(crate) dies_in: Option<u64>,
    /// Says nothing to this step.
    pub(crate) silent_in: Option<u64>,
    /// Computes other numbers in this step.
    pub(crate) differs_in: Option<u64>,
    /// Gives a token too many in this step.
    pub(crate) garbles_in: Option<u64>,
    /// Ends in this step, as a thread does that panics.
    pub(crate) ends_in: Option<u64>,
    /// Dies whenever a slice has this token.
    pub(crate) dies_of: Option<u32>,
    /// Finds a NaN whenever a slice has this token.
    pub(crate) nan_of: Option<u32>,
    /// Computes for this long in each step, by its own clock.
    pub(crate) computes: Duration,
    /// Says that it has so much memory; 0: says nothing of it.
    pub(crate) memory_bytes: u64,
    /// Says that it is of this version.
    pub(crate) version: Option<String>,
    /// Says that its model is this.
    pub(crate) digest: Option<Vec<u8>>,
}

/// One rank; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Oracle {
    state: Arc<Mutex<State>>,
    step_time: Duration,
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    load: LoadRequest,
    step: u64,
    /// Steps asked for, ever.
    steps: u64,
    /// Of those, heartbeats.
    heartbeats: u64,
    /// (block, offset) → token.
    device: BTreeMap<(u32, u32), u32>,
    host: BTreeMap<(u32, u32), u32>,
    /// What the last step sampled, and where it left off: the place of the token before.
    sampled: Vec<(u32, (u32, u32))>,
    /// When the last step of this epoch was done.
    done: Option<Instant>,
}

/// The token that follows these.
pub(crate) fn next_token(tokens: &[u32], seed: u64) -> u32 {
    let mix = |hash: u64, n: u64| (hash ^ n).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    let hash = tokens.iter().fold(seed, |hash, token| mix(hash, u64::from(*token) + 1));
    u32::try_from(mix(hash, 7) % VOCABULARY).unwrap()
}

impl Oracle {
    pub(crate) fn new(step_time: Duration) -> Self {
        Self { state: Arc::default(), step_time }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
    }

    fn is_silent(&self) -> bool {
        self.state().faults.silent
    }

    /// Steps asked for, ever, and how many of them were heartbeats.
    pub(crate) fn steps(&self) -> (u64, u64) {
        let state = self.state();
        (state.steps, state.heartbeats)
    }

    /// The shares that it was told last, of all ranks.
    pub(crate) fn shares(&self) -> Vec<u32> {
        self.state().load.shard.clone().unwrap_or_default().shares
    }

    /// This rank as a member that lives in this process.
    pub(crate) fn member(&self, rank: usize) -> Member {
        let (requests, asked) = mpsc::channel(1);
        tokio::spawn(self.clone().serve(asked));
        Member { name: format!("oracle {rank}"), address: None, requests }
    }

    async fn serve(self, mut asked: mpsc::Receiver<MemberRequest>) {
        while let Some(request) = asked.recv().await {
            match request {
                MemberRequest::Describe { mut reply } if self.is_silent() => reply.closed().await,
                MemberRequest::Describe { reply } => drop(reply.send(self.describe())),
                MemberRequest::Step { mut reply, .. } if self.is_silent() => reply.closed().await,
                MemberRequest::Load { request, progress, reply } => {
                    for done in [0, WEIGHT_BYTES] {
                        let loading = Loading { bytes_done: done, bytes_total: WEIGHT_BYTES };
                        progress.send(loading).await.unwrap();
                    }
                    drop(reply.send(self.load(&request)));
                }
                MemberRequest::Step { request, mut reply } => {
                    let answer = self.step(&request).await;
                    match answer {
                        _ if self.has_ended() => return,
                        Some(answer) => drop(reply.send(answer)),
                        None => reply.closed().await,
                    }
                }
            }
        }
    }

    fn has_ended(&self) -> bool {
        let state = self.state();
        state.faults.ends_in == Some(state.steps)
    }

    pub(crate) fn describe(&self) -> Result<Description, MemberError> {
        let state = self.state();
        here(&state)?;
        let faults = &state.faults;
        Ok(Description {
            version: faults.version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
            model: "an oracle".to_owned(),
            model_digest: faults.digest.clone().unwrap_or_else(|| vec![7; 32]),
            epoch: state.load.epoch,
            memory_bytes: faults.memory_bytes,
            ..Description::default()
        })
    }

    pub(crate) fn load(&self, request: &LoadRequest) -> Result<Loaded, MemberError> {
        let mut state = self.state();
        here(&state)?;
        if request.epoch <= state.load.epoch {
            return Err(MemberError::Refused(format!("epoch {} is not newer", request.epoch)));
        }
        state.begin(request.clone());
        Ok(Loaded {
            kv_blocks: request.kv_blocks,
            weight_bytes: WEIGHT_BYTES,
            kv_cache_bytes: u64::from(request.kv_blocks) * 100,
            swap_blocks: request
                .swap_blocks
                .max(u32::try_from(request.swap_bytes() / 100).unwrap()),
        })
    }

    /// The epoch that it is in.
    pub(crate) fn epoch(&self) -> u64 {
        self.state().load.epoch
    }

    /// It is another process from now on, and knows nothing.
    pub(crate) fn forget(&self) {
        self.state().begin(LoadRequest::default());
    }

    /// Runs a step; none: silence.
    pub(crate) async fn step(
        &self,
        request: &StepRequest,
    ) -> Option<Result<StepReply, MemberError>> {
        let idle;
        let nth = {
            let mut state = self.state();
            idle = state.done.map_or(Duration::ZERO, |done| done.elapsed());
            state.steps += 1;
            state.heartbeats += u64::from(request.slices.is_empty());
            state.steps
        };
        sleep(self.step_time).await;
        let mut state = self.state();
        if let Err(error) = here(&state) {
            return Some(Err(error));
        }
        let fed = |slice: &Slice| {
            let place = usize::try_from(slice.follows?).unwrap();
            state.sampled.get(place).map(|(token, _)| *token)
        };
        let fed = request.slices.iter().filter_map(fed);
        let tokens = request.slices.iter().flat_map(|slice| slice.tokens.iter().copied());
        let tokens: Vec<u32> = tokens.chain(fed).collect();
        let has = |token: Option<u32>| token.is_some_and(|token| tokens.contains(&token));
        let faults = state.faults.clone();
        if faults.dies_in == Some(nth) || has(faults.dies_of) {
            state.load.epoch = 0;
            state.device.clear();
            return Some(Err(MemberError::Lost("the process ended".to_owned())));
        }
        if faults.silent_in == Some(nth) {
            return None;
        }
        let mut reply = state.run(request);
        state.done = Some(Instant::now());
        let idle_ns = u64::try_from(idle.as_nanos()).unwrap();
        let compute_ns = u64::try_from(faults.computes.as_nanos()).unwrap();
        reply.times = Some(StepTimes { compute_ns, idle_ns, ..StepTimes::default() });
        if has(faults.nan_of) {
            reply.failure = Some(failure(Kind::Numeric, "a NaN in layer 3".to_owned()));
        }
        if faults.garbles_in == Some(nth) {
            reply.tokens.push(1);
        }
        reply.digest ^= u64::from(faults.differs_in == Some(nth));
        Some(Ok(reply))
    }
}

fn here(state: &State) -> Result<(), MemberError> {
    if state.faults.away {
        return Err(MemberError::Lost("connection refused".to_owned()));
    }
    Ok(())
}

fn failure(kind: Kind, message: String) -> StepFailure {
    StepFailure { kind: kind.into(), message }
}

impl State {
    /// In this epoch from now on, with nothing in its caches.
    fn begin(&mut self, load: LoadRequest) {
        (self.load, self.step, self.done) = (load, 0, None);
        self.sampled.clear();
        self.device.clear();
        self.host.clear();
    }

    fn run(&mut self, request: &StepRequest) -> StepReply {
        let mut reply =
            StepReply { epoch: request.epoch, step: request.step, ..StepReply::default() };
        match self.run_checked(request) {
            Ok(tokens) => {
                reply.digest = tokens.iter().fold(1, |sum: u64, token| {
                    sum.wrapping_mul(31).wrapping_add(u64::from(*token))
                });
                let first = self.load.shard.as_ref().is_some_and(|shard| shard.rank == 0);
                reply.tokens = if first { tokens } else { Vec::new() };
            }
            Err(what) => reply.failure = Some(failure(Kind::Refused, what)),
        }
        reply
    }

    /// As a worker does it: swaps, copies, then slices; whatever is out of order is refused.
    fn run_checked(&mut self, request: &StepRequest) -> Result<Vec<u32>, String> {
        if (request.epoch, request.step) != (self.load.epoch, self.step + 1) {
            return Err(format!("step {} of epoch {}", request.step, request.epoch));
        }
        self.step += 1;
        let tokens: usize = request.slices.iter().map(|slice| slice.tokens.len()).sum();
        let (tokens_max, slices_max) = (self.load.step_tokens_max, self.load.step_sequences_max);
        if tokens > usize::try_from(tokens_max).unwrap()
            || request.slices.len() > usize::try_from(slices_max).unwrap()
        {
            return Err(format!("{tokens} tokens in {} slices", request.slices.len()));
        }
        for pair in &request.swap_out {
            copy(&self.device, pair.from).into_iter().for_each(|(offset, token)| {
                self.host.insert((pair.to, offset), token);
            });
        }
        for pair in &request.swap_in {
            copy(&self.host, pair.from).into_iter().for_each(|(offset, token)| {
                self.device.insert((pair.to, offset), token);
            });
        }
        for pair in &request.copies {
            copy(&self.device, pair.from).into_iter().for_each(|(offset, token)| {
                self.device.insert((pair.to, offset), token);
            });
        }
        let before = std::mem::take(&mut self.sampled);
        let mut sampled = Vec::new();
        for slice in &request.slices {
            let (tokens, last) = self.slice(slice, &before)?;
            if let Some(sampling) = &slice.sampling {
                sampled.push((next_token(&tokens, sampling.seed), last));
            }
        }
        self.sampled = sampled;
        Ok(self.sampled.iter().map(|(token, _)| *token).collect())
    }

    /// Writes the slice's tokens into its blocks, and reads all of the sequence back from them. Gives the place
    /// of the last, too.
    fn slice(
        &mut self,
        slice: &Slice,
        before: &[(u32, (u32, u32))],
    ) -> Result<(Vec<u32>, (u32, u32)), String> {
        let size = self.load.block_size;
        let place = |position: u32| {
            let block = slice.blocks.get(usize::try_from(position / size).unwrap());
            let block = block.ok_or_else(|| format!("position {position} has no block"))?;
            if *block >= self.load.kv_blocks {
                return Err(format!("block {block} of {}", self.load.kv_blocks));
            }
            Ok((*block, position % size))
        };
        let mut tokens = slice.tokens.clone();
        if let Some(follows) = slice.follows {
            let (token, last) = before.get(usize::try_from(follows).unwrap()).ok_or("no token")?;
            if *last != place(slice.start - 1)? || !tokens.is_empty() {
                return Err(format!("token {follows} is another sequence's"));
            }
            tokens.push(*token);
        }
        let end = slice.start + u32::try_from(tokens.len()).unwrap();
        for (position, token) in (slice.start..end).zip(tokens) {
            self.device.insert(place(position)?, token);
        }
        let tokens = (0..end).map(|position| {
            let token = self.device.get(&place(position)?).copied();
            token.ok_or_else(|| format!("position {position} was never computed"))
        });
        Ok((tokens.collect::<Result<_, String>>()?, place(end - 1)?))
    }
}

fn copy(cache: &BTreeMap<(u32, u32), u32>, block: u32) -> Vec<(u32, u32)> {
    let inside = cache.range((block, 0)..=(block, u32::MAX));
    inside.map(|((_, offset), token)| (*offset, *token)).collect()
}
