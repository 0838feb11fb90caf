//! Any bytes as limits and as what happens to a scheduler: submissions, cancellations, steps that are planned,
//! done and lost, in any order. Whatever was accepted ends once with the answer that it has alone, every
//! block comes back, and nothing panics.
#![no_main]

#[path = "../../coordinator/scheduler/tests/answers/oracle.rs"]
mod oracle;
#[path = "../../coordinator/scheduler/tests/answers/world.rs"]
#[expect(dead_code, reason = "what was met counts where it is known what should be")]
mod world;

use std::time::Duration;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use scheduler::{
    Admission, BlockCount, CancelReason, Limits, NewGroup, Policy, Rates, Sampling, TenantId,
    TokenCount, TokenId,
};

use crate::oracle::{END, VOCABULARY};
use crate::world::{Action, World};

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let Ok(limits) = limits(&mut bytes) else { return };
    let mut world = World::new(limits);
    while !bytes.is_empty() {
        let Ok(action) = action(&mut bytes) else { break };
        world.apply(action);
    }
    world.drain();
});

/// Tiny, so that every bound is met all the time.
fn limits(bytes: &mut Unstructured<'_>) -> Result<Limits> {
    let level = Duration::from_millis(bytes.int_in_range(0..=20)?);
    Ok(Limits {
        block_size: TokenCount(bytes.int_in_range(1..=6)?),
        blocks: BlockCount(bytes.int_in_range(1..=24)?),
        swap_blocks: BlockCount(bytes.int_in_range(0..=12)?),
        sequences_max: bytes.int_in_range(1..=6)?,
        step_tokens_max: TokenCount(bytes.int_in_range(1..=14)?),
        model_len_max: TokenCount(bytes.int_in_range(2..=60)?),
        generation_max: some(bytes, 12)?,
        waiting_max: bytes.int_in_range(1..=8)?,
        policy: match bytes.int_in_range(0..=2)? {
            0 => Policy::Fcfs,
            1 => Policy::Priority { level },
            _ => Policy::Fair { level },
        },
        admission: if bytes.arbitrary()? { Admission::Expected } else { Admission::Prompt },
        prefix_cache: bytes.arbitrary()?,
        end_tokens: vec![END],
    })
}

fn action(bytes: &mut Unstructured<'_>) -> Result<Action> {
    Ok(match bytes.int_in_range(0..=18)? {
        0..=4 => Action::Submit(group(bytes)?),
        5 => {
            let reasons = [CancelReason::Stop, CancelReason::Abort, CancelReason::Error];
            Action::Cancel(bytes.int_in_range(0..=40)?, *bytes.choose(&reasons)?)
        }
        6 => Action::Lost,
        7 => Action::Measured(Rates {
            token: Duration::from_micros(bytes.int_in_range(0..=3)?),
            block: Duration::from_micros(bytes.int_in_range(0..=3)?),
        }),
        8..=11 => Action::Plan,
        12..=14 => Action::Ahead,
        _ => Action::Commit,
    })
}

fn group(bytes: &mut Unstructured<'_>) -> Result<NewGroup> {
    // Many begin alike.
    let alike = bytes.int_in_range(0..=12)?;
    let mut prompt = vec![TokenId(3); alike];
    for _ in 0..bytes.int_in_range(0..=8)? {
        prompt.push(token(bytes)?);
    }
    let mut stop_tokens = Vec::new();
    for _ in 0..bytes.int_in_range(0..=2)? {
        stop_tokens.push(token(bytes)?);
    }
    Ok(NewGroup {
        prompt,
        sequences: bytes.int_in_range(1..=5)?,
        sampling: Sampling {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            seed: bytes.arbitrary::<u8>()?.into(),
        },
        tokens_max: some(bytes, 14)?,
        tokens_min: TokenCount(bytes.int_in_range(0..=3)?),
        ignore_end: bytes.arbitrary()?,
        stop_tokens,
        whole_prompt: bytes.ratio(1, 8)?,
        priority: bytes.int_in_range(-3..=3)?,
        tenant: TenantId(bytes.int_in_range(0..=2)?),
    })
}

fn token(bytes: &mut Unstructured<'_>) -> Result<TokenId> {
    Ok(TokenId(bytes.int_in_range(0..=VOCABULARY - 1)?))
}

/// Half of the time.
fn some(bytes: &mut Unstructured<'_>, most: u32) -> Result<Option<TokenCount>> {
    Ok(if bytes.arbitrary()? { Some(TokenCount(bytes.int_in_range(1..=most)?)) } else { None })
}
