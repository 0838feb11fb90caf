//! A step like the one before allocates nothing in the backend, nor anywhere in a layer.
//!
//! Counted is what the thread that steps allocates, in a step from request to reply. What is left is
//! the request as flat arrays and the reply: a handful for a step, whatever the model.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(unsafe_code, reason = "an allocator is counted by standing in front of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use checkpoint::Checkpoint;
use fixture::{Architecture, Toy};
use proto::worker::{KvDtype, Sampling, Slice, StepRequest};
use worker::collective::solo::SoloCollective;
use worker::shard::Shard;
use worker::{BackendChoice, LoadOrder, Runner};

/// Most that a step may allocate for its request and its reply.
const OF_A_STEP_MAX: usize = 16;

/// A fresh page of positions is tabulated every so often; warm steps stay within the first.
const STEPS: u32 = 24;

const BLOCK_SIZE: usize = 16;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: the system's allocator does everything; a count beside it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(start, layout, bytes) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn runner(layers: usize, threads: usize) -> Runner {
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy { layers, ..Toy::new(Architecture::Llama) };
    let checkpoint = Checkpoint::open(&fixture::gguf(folder.path(), &toy)).unwrap();
    let order = LoadOrder {
        epoch: 1,
        ranks_here: 1,
        place_here: 0,
        shard: Shard::solo(),
        block_size: BLOCK_SIZE,
        kv_blocks: 40,
        kv_cache_bytes: 0,
        kv_dtype: KvDtype::F16,
        swap_blocks: 0,
        swap_bytes: 0,
        model_len_max: 0,
        step_tokens_max: 64,
        step_sequences_max: 8,
    };
    let solo = Box::new(SoloCollective);
    Runner::load(
        BackendChoice::Cpu,
        threads.into(),
        &Arc::new(checkpoint),
        &order,
        solo,
        &mut |_, _| {},
    )
    .unwrap()
}

/// What each step of `tokens` tokens in each of two sequences allocates; the first step is a prefill
/// of the largest size.
fn allocated(runner: &mut Runner, tokens: u32) -> Vec<usize> {
    let greedy = Sampling { top_p: 1.0, ..Default::default() };
    let slice = |sequence: u32, start: u32, tokens: u32| Slice {
        tokens: vec![7; tokens as usize],
        start,
        blocks: (0..8).map(|block| 8 * sequence + block).collect(),
        sampling: Some(greedy),
        ..Default::default()
    };
    let step = |step: u64, start: u32, tokens: u32| StepRequest {
        epoch: 1,
        step,
        slices: vec![slice(0, start, tokens), slice(1, start, tokens)],
        ..Default::default()
    };
    let requests = (0..STEPS).map(|at| step(u64::from(at) + 2, 32 + at * tokens, tokens));
    let requests: Vec<StepRequest> = [step(1, 0, 32)].into_iter().chain(requests).collect();
    let mut counts = Vec::with_capacity(requests.len());
    for request in &requests {
        let before = ALLOCATED.get();
        let reply = runner.step(request);
        counts.push(ALLOCATED.get() - before);
        assert_eq!(reply.failure, None);
    }
    counts
}

#[test]
fn a_warm_step_allocates_for_its_request_and_reply_only_whatever_the_number_of_layers() {
    for threads in [1, 2] {
        for tokens in [1, 3] {
            let counts = [2, 5].map(|layers| {
                let counts = allocated(&mut runner(layers, threads), tokens);
                // The second step of a shape finds all that the first one left.
                let warm = counts[counts.len() / 2..].to_vec();
                assert!(warm.iter().all(|&count| count == warm[0]), "{counts:?}");
                warm[0]
            });
            assert_eq!(counts[0], counts[1], "a layer allocates; {threads} threads");
            assert!(counts[0] <= OF_A_STEP_MAX, "{counts:?}");
        }
    }
}
