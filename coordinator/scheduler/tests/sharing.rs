//! A prompt with many answers: one group, forked once, copied where it writes; and hardly a place of the
//! blocks that it holds stays empty.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::time::Duration;

use scheduler::{
    Admission, BlockCount, Event, Limits, NewGroup, Outcome, Policy, Sampling, Scheduler, StepPlan,
    TenantId, Time, TokenCount, TokenId,
};

const SEQUENCES: u32 = 128;
const BLOCK: u32 = 16;
const PROMPT: u32 = 500;
const ANSWER: u32 = 400;
/// Of the KV memory that is held, on average over all steps: what paging is known to waste at most.
const WASTE_MAX: f64 = 0.04;

fn scheduler() -> Scheduler {
    Scheduler::new(Limits {
        block_size: TokenCount(BLOCK),
        blocks: BlockCount(1 << 16),
        swap_blocks: BlockCount(0),
        sequences_max: 256,
        step_tokens_max: TokenCount(512),
        model_len_max: TokenCount(2048),
        generation_max: None,
        waiting_max: 1,
        policy: Policy::Fcfs,
        admission: Admission::Expected,
        prefix_cache: true,
        end_tokens: vec![TokenId(0)],
    })
    .unwrap()
}

fn group() -> NewGroup {
    NewGroup {
        prompt: (0..PROMPT).map(|token| TokenId(1 + token)).collect(),
        sequences: SEQUENCES,
        sampling: Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 1 },
        tokens_max: Some(TokenCount(ANSWER)),
        tokens_min: TokenCount(0),
        ignore_end: true,
        stop_tokens: vec![],
        whole_prompt: false,
        priority: 0,
        tenant: TenantId(0),
    }
}

/// Places with a token, in the blocks that a step's tables name.
fn used(plan: &StepPlan) -> u32 {
    let mut filled: BTreeMap<u32, u32> = BTreeMap::new();
    for slice in &plan.slices {
        let mut left = slice.start.0 + TokenCount::of(&slice.tokens).0;
        for block in slice.blocks.iter() {
            let here = left.min(BLOCK);
            left -= here;
            let known = filled.entry(block.0).or_insert(0);
            *known = here.max(*known);
        }
    }
    filled.values().sum()
}

#[test]
fn many_answers_share_their_prompt_and_waste_little() {
    let mut scheduler = scheduler();
    let now = Time(Duration::ZERO);
    scheduler.submit(group(), now).unwrap();
    let (mut computed, mut copies, mut copying, mut ended) = (0, 0, 0, 0);
    let (mut places, mut taken, mut most) = (0.0, 0.0, 0);
    while let Some(plan) = scheduler.plan(now) {
        computed += plan.slices.iter().map(|slice| slice.tokens.len()).sum::<usize>();
        copies += plan.copies.len();
        copying += usize::from(!plan.copies.is_empty());
        places += f64::from(plan.blocks_held.0 * BLOCK);
        taken += f64::from(used(&plan));
        most = most.max(plan.blocks_held.0);
        let sampled = plan.slices.iter().filter(|slice| slice.sampling.is_some());
        let tokens = sampled.map(|slice| TokenId(1000 + slice.sequence.index)).collect();
        for event in scheduler.commit(Outcome::Done(tokens), now) {
            ended += usize::from(matches!(event, Event::GroupFinished { .. }));
        }
    }
    assert_eq!(ended, 1, "it is one group");
    let sequences = SEQUENCES as usize;
    assert_eq!(
        (copies, copying),
        (sequences - 1, 1),
        "all but one copy the block at the fork, once"
    );
    // The prompt but for its last token once; that token, and all but the last of an answer, for each.
    let expected = (PROMPT - 1) as usize + sequences * ANSWER as usize;
    assert_eq!(computed, expected);
    let full = (PROMPT - 1) / BLOCK;
    let own = (PROMPT + ANSWER - 1).div_ceil(BLOCK) - full;
    assert_eq!(most, full + SEQUENCES * own, "full blocks of the prompt are there once");
    let waste = 1.0 - taken / places;
    assert!(waste < WASTE_MAX, "{:.1} % of the KV memory is empty", 100.0 * waste);
}
