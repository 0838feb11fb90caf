//! A step like the one before allocates for its reply alone: nothing in the backend or anywhere in a layer,
//! on none of the threads that compute.
//!
//! Counted is what the thread that steps and all that were started for it allocate in a step, from request to
//! reply. What is left is the reply's tokens, which leave with it. `ALLOCATIONS=1` shows from where the last
//! step of each case allocates.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(unsafe_code, reason = "an allocator is counted by standing in front of it")]
#![expect(clippy::print_stdout, reason = "where something was allocated is worth reading")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use checkpoint::Checkpoint;
use fixture::{Architecture, Toy};
use proto::worker::{KvDtype, Sampling, Slice, StepRequest};
use worker::collective::solo::SoloCollective;
use worker::shard::Shard;
use worker::{BackendChoice, LoadOrder, Runner};

/// The tokens of the reply.
const OF_A_STEP: usize = 1;

/// The first half of them warms up: buffers come to their sizes.
const STEPS: u32 = 24;
/// Positions of a rotary page, and of a split of attention. A step that is the first to reach a further split
/// has more to plan than any before, and may allocate for that.
const PAGE: u32 = 256;

const BLOCK_SIZE: usize = 16;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
/// Allocations are shown.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// The test has begun: threads that allocate for the first time from now on are its own.
static BEGUN: AtomicBool = AtomicBool::new(false);

thread_local! {
    static SHOWING: Cell<bool> = const { Cell::new(false) };
    /// Whether the thread is one of the test's; unknown before it allocates.
    static COUNTED: Cell<Option<bool>> = const { Cell::new(None) };
}

struct Counting;

impl Counting {
    fn count() {
        let counted = COUNTED.get().unwrap_or_else(|| BEGUN.load(Ordering::Relaxed));
        COUNTED.set(Some(counted));
        if !counted || SHOWING.get() {
            return;
        }
        ALLOCATED.fetch_add(1, Ordering::Relaxed);
        if SHOWN.load(Ordering::Relaxed) {
            SHOWING.set(true);
            println!("allocated at\n{}", Backtrace::force_capture());
            SHOWING.set(false);
        }
    }
}

// SAFETY: the system's allocator does everything; a count beside it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        Self::count();
        // SAFETY: as above.
        unsafe { System.realloc(start, layout, bytes) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn runner(layers: usize, threads: usize, kv_dtype: KvDtype) -> Runner {
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy { layers, context: 1024, ..Toy::new(Architecture::Llama) };
    let checkpoint = Checkpoint::open(&fixture::gguf(folder.path(), &toy)).unwrap();
    let order = LoadOrder {
        epoch: 1,
        ranks_here: 1,
        place_here: 0,
        shard: Shard::solo(),
        block_size: BLOCK_SIZE,
        kv_blocks: 64,
        kv_cache_bytes: 0,
        kv_dtype,
        swap_blocks: 0,
        swap_bytes: Some(0),
        model_len_max: 0,
        step_tokens_max: 64,
        step_sequences_max: 8,
    };
    let solo = Box::new(SoloCollective);
    let checkpoint = Arc::new(checkpoint);
    let threads = threads.into();
    Runner::load(BackendChoice::Cpu, threads, &checkpoint, &order, solo, &mut |_, _| {}).unwrap()
}

/// Decode, or a prefill in small chunks, of two sequences.
#[derive(Debug, Clone, Copy)]
struct Case {
    layers: usize,
    threads: usize,
    kv_dtype: KvDtype,
    /// Tokens a step, of each sequence.
    tokens: u32,
    /// Where they start.
    start: u32,
    sampling: Sampling,
}

/// What each step allocates. What lies before the start was never computed, and is 0.
fn allocated(case: Case) -> Vec<usize> {
    let Case { layers, threads, kv_dtype, tokens, start, sampling } = case;
    let mut runner = runner(layers, threads, kv_dtype);
    let slice = |sequence: u32, start: u32| Slice {
        tokens: vec![7; tokens as usize],
        start,
        blocks: (0..32).map(|block| 32 * sequence + block).collect(),
        sampling: Some(sampling),
        ..Default::default()
    };
    let step = |at: u32| StepRequest {
        epoch: 1,
        step: u64::from(at) + 1,
        slices: (0..2).map(|sequence| slice(sequence, start + at * tokens)).collect(),
        ..Default::default()
    };
    let requests: Vec<StepRequest> = (0..STEPS).map(step).collect();
    let mut counts = Vec::with_capacity(requests.len());
    for (at, request) in requests.iter().enumerate() {
        SHOWN.store(at == requests.len() - 1 && shows(), Ordering::Relaxed);
        let before = ALLOCATED.load(Ordering::Relaxed);
        let reply = runner.step(request);
        counts.push(ALLOCATED.load(Ordering::Relaxed) - before);
        SHOWN.store(false, Ordering::Relaxed);
        assert_eq!(reply.failure, None);
    }
    counts
}

fn shows() -> bool {
    std::env::var_os("ALLOCATIONS").is_some()
}

/// All cases in one test: another one's threads would be counted too.
#[test]
fn a_warm_step_allocates_for_its_reply_alone() {
    COUNTED.set(Some(true));
    BEGUN.store(true, Ordering::Relaxed);
    let greedy = Sampling { top_p: 1.0, ..Default::default() };
    let few = Sampling { temperature: 0.8, top_k: 40, ..greedy };
    let likely = Sampling { temperature: 0.8, top_p: 0.9, seed: 7, ..greedy };
    let plain = Case {
        layers: 2,
        threads: 2,
        kv_dtype: KvDtype::F16,
        tokens: 1,
        start: 32,
        sampling: greedy,
    };
    let mut cases = vec![
        Case { layers: 5, ..plain },
        Case { kv_dtype: KvDtype::Q8, start: PAGE + 44, ..plain },
        Case { sampling: few, ..plain },
        Case { sampling: likely, ..plain },
        // A second rotary page is reached in the second half.
        Case { threads: 1, tokens: 3, start: PAGE - 3 * 3 * STEPS / 4, ..plain },
    ];
    for threads in [1, 2] {
        for tokens in [1, 3] {
            cases.extend([32, PAGE + 44].map(|start| Case { threads, tokens, start, ..plain }));
        }
    }
    for case in cases {
        let counts = allocated(case);
        let warm = &counts[counts.len() / 2..];
        assert!(warm.iter().all(|&count| count == OF_A_STEP), "{case:?}: {counts:?}");
    }
}
