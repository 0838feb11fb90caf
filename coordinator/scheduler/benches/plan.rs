//! What one step costs the coordinator: `plan` and `commit` with 256 sequences that decode, while few or
//! many groups wait.
//!
//! The figure to come near: for each sequence two small allocations (its token, and a new table every
//! 16 steps), one reference count, a slice of 96 bytes and an event of 160 bytes written, and two
//! cache misses to reach its state, about 60 ns together: 15 µs a step. The bar is 100 µs, the goal
//! 30 µs, both whatever the number that waits.

#![expect(clippy::unwrap_used, reason = "a panic is how a bench fails")]

use std::time::Duration;

use divan::Bencher;
use scheduler::{
    Admission, BlockCount, Limits, NewGroup, Outcome, Policy, Sampling, Scheduler, StepPlan,
    TenantId, Time, TokenCount, TokenId,
};

const RUNNING: u32 = 256;

fn main() {
    divan::main();
}

fn group() -> NewGroup {
    NewGroup {
        prompt: vec![TokenId(1); 500],
        sequences: 1,
        sampling: Sampling { temperature: 1.0, top_p: 0.9, top_k: 40, min_p: 0.0, seed: 1 },
        tokens_max: None,
        tokens_min: TokenCount(0),
        ignore_end: false,
        stop_tokens: vec![TokenId(7)],
        whole_prompt: false,
        priority: 0,
        tenant: TenantId(0),
    }
}

fn outcome(plan: &StepPlan) -> Outcome {
    let sampled = plan.slices.iter().filter(|slice| slice.sampling.is_some());
    Outcome::Done(vec![TokenId(2); sampled.count()])
}

/// As many run as can, all prompts are computed, and `waiting` groups wait.
fn busy(waiting: usize) -> Scheduler {
    let mut scheduler = Scheduler::new(Limits {
        block_size: TokenCount(16),
        blocks: BlockCount(1 << 20),
        swap_blocks: BlockCount(0),
        sequences_max: RUNNING,
        step_tokens_max: TokenCount(2048),
        model_len_max: TokenCount(1 << 20),
        generation_max: None,
        waiting_max: 1 << 20,
        policy: Policy::Fcfs,
        admission: Admission::Expected,
        prefix_cache: true,
        end_tokens: vec![TokenId(0)],
    })
    .unwrap();
    let now = Time(Duration::ZERO);
    for _ in 0..RUNNING as usize + waiting {
        scheduler.submit(group(), now).unwrap();
    }
    loop {
        let plan = scheduler.plan(now).unwrap();
        let all_decode = plan.slices.len() == RUNNING as usize
            && plan.slices.iter().all(|slice| slice.tokens.len() == 1);
        scheduler.commit(outcome(&plan), now);
        if all_decode {
            assert_eq!(scheduler.stats().waiting, waiting);
            return scheduler;
        }
    }
}

/// The tokens are made beside the clock: they come from the workers.
#[divan::bench(args = [100, 10_000, 100_000], sample_count = 2000, sample_size = 1)]
fn plan_and_commit(bencher: Bencher<'_, '_>, waiting: usize) {
    let mut scheduler = busy(waiting);
    let now = Time(Duration::from_secs(1));
    let tokens = || Outcome::Done(vec![TokenId(2); RUNNING as usize]);
    bencher.with_inputs(tokens).bench_local_values(|outcome| {
        let plan = scheduler.plan(now).unwrap();
        let events = scheduler.commit(outcome, now);
        (plan, events)
    });
}
