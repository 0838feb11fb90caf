//! Whatever is asked in whatever order: all that was accepted ends once, every block comes back, and no
//! schedule changes an answer.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod oracle;
mod world;

use std::cell::RefCell;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use scheduler::{
    Admission, BlockCount, CancelReason, Limits, NewGroup, Policy, Rates, Sampling, TenantId,
    TokenCount, TokenId,
};

use crate::oracle::{END, VOCABULARY};
use crate::world::{Action, Met, World};

/// Tiny, so that every bound is met all the time.
fn limits() -> impl Strategy<Value = Limits> {
    let cache = (1..6_u32, 1..14_u32);
    let step = (1..6_u32, 1..14_u32);
    let longest = (4..40_u32, prop::option::of(1..12_u32));
    let level = Duration::from_millis(3);
    let policy = prop_oneof![
        Just(Policy::Fcfs),
        Just(Policy::Priority { level }),
        Just(Policy::Fair { level })
    ];
    (cache, 0..10_u32, step, longest, 1..8_usize, (policy, prop::bool::ANY, prop::bool::ANY))
        .prop_map(
            |(
                (block_size, blocks),
                swap,
                (sequences, tokens),
                (length, generation),
                waiting_max,
                how,
            )| Limits {
                policy: how.0,
                prefix_cache: how.1,
                admission: if how.2 { Admission::Prompt } else { Admission::Expected },
                block_size: TokenCount(block_size),
                blocks: BlockCount(blocks),
                swap_blocks: BlockCount(swap),
                sequences_max: sequences,
                step_tokens_max: TokenCount(tokens),
                model_len_max: TokenCount(length),
                generation_max: generation.map(TokenCount),
                waiting_max,
                end_tokens: vec![END],
            },
        )
}

fn group() -> impl Strategy<Value = NewGroup> {
    let token = (0..VOCABULARY).prop_map(TokenId);
    // Many begin alike.
    let begin = prop_oneof![Just(vec![]), Just(vec![TokenId(3); 6])];
    let rest = prop::collection::vec(token.clone(), 0..12);
    let prompt = (begin, rest).prop_map(|(begin, rest)| [begin, rest].concat());
    let length = (prop::option::of(1..14_u32), 0..4_u32);
    let stops = (prop::bool::ANY, prop::collection::vec(token, 0..3));
    (
        prompt,
        1..5_u32,
        prop::num::u64::ANY,
        length,
        stops,
        (-3..3_i32, 0..3_u32, prop::bool::weighted(0.1)),
    )
        .prop_map(
            |(prompt, sequences, seed, (most, least), (ignore_end, stop_tokens), who)| NewGroup {
                whole_prompt: who.2,
                priority: who.0,
                tenant: TenantId(who.1),
                prompt,
                sequences,
                sampling: Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed },
                tokens_max: most.map(TokenCount),
                tokens_min: TokenCount(least),
                ignore_end,
                stop_tokens,
            },
        )
}

fn action(group: impl Strategy<Value = NewGroup>) -> impl Strategy<Value = Action> {
    let reason =
        prop_oneof![Just(CancelReason::Stop), Just(CancelReason::Abort), Just(CancelReason::Error)];
    prop_oneof![
        6 => group.prop_map(Action::Submit),
        1 => (0..100_usize, reason).prop_map(|(which, reason)| Action::Cancel(which, reason)),
        12 => Just(Action::Plan),
        8 => Just(Action::Ahead),
        12 => Just(Action::Commit),
        1 => Just(Action::Lost),
        1 => (0..3_u64, 0..3_u64).prop_map(|(token, block)| Action::Measured(Rates {
            token: Duration::from_micros(token),
            block: Duration::from_micros(block),
        })),
    ]
}

fn config(cases: u32) -> ProptestConfig {
    let seed = RngSeed::Fixed(7);
    ProptestConfig { cases, rng_seed: seed, failure_persistence: None, ..ProptestConfig::default() }
}

/// Runs many worlds and says what they met.
fn run_worlds(
    limits: impl Strategy<Value = Limits>,
    group: impl Strategy<Value = NewGroup>,
) -> Met {
    let met = RefCell::new(Met::default());
    let actions = prop::collection::vec(action(group), 0..120);
    let result = TestRunner::new(config(1500)).run(&(limits, actions), |(limits, actions)| {
        let mut world = World::new(limits);
        for action in actions {
            world.apply(action);
        }
        world.drain();
        met.borrow_mut().add(&world.met);
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
    met.into_inner()
}

#[test]
fn whatever_happens_all_end_once_and_with_the_undisturbed_answer() {
    let met = run_worlds(limits(), group());
    assert!(met.everything(), "these worlds are too tame: {met:?}");
}

#[test]
fn a_cache_that_is_always_short_changes_no_answer() {
    let limits = (limits(), 10..20_u32, 5..14_u32).prop_map(|(limits, blocks, tokens)| Limits {
        block_size: TokenCount(limits.block_size.0.min(3)),
        blocks: BlockCount(blocks),
        sequences_max: 5,
        step_tokens_max: TokenCount(tokens),
        model_len_max: TokenCount(60),
        generation_max: None,
        ..limits
    });
    let long = group().prop_map(|group| NewGroup {
        sequences: group.sequences.min(3),
        tokens_max: Some(TokenCount(14)),
        ignore_end: true,
        stop_tokens: Vec::new(),
        whole_prompt: false,
        ..group
    });
    let met = run_worlds(limits, long);
    assert!(met.preemptions + met.swaps > 400, "the cache is not short: {met:?}");
    assert!(met.copies > 400, "few groups fork: {met:?}");
}
