//! No schedule changes a token: not batch mates, not chunks, not where blocks lie or have been.

use std::sync::Arc;

use checkpoint::Checkpoint;
use fixture::Architecture;
use proto::worker::{BlockPair, Sampling, StepRequest};
use worker::BackendChoice;

use crate::group::{BLOCK_SIZE, Group, backends, odd, open, prompt, slice, step_of};

/// Tokens drawn for each sequence.
const ANSWER: usize = 6;

fn sampling(sequence: usize) -> Sampling {
    let seed = sequence as u64;
    Sampling { temperature: 0.8, top_p: 0.95, top_k: 50, min_p: 0.01, seed }
}

/// One sequence alone: its whole prompt, then token after token. Each token with its digest.
fn alone(choice: BackendChoice, model: &Arc<Checkpoint>, sequence: usize) -> Vec<(u32, u64)> {
    let mut group = Group::solo(choice, model);
    let mut tokens = prompt(LENGTHS[sequence], u32::try_from(sequence).unwrap());
    let mut done = 0;
    let mut answer = Vec::new();
    let table: Vec<u32> = (0..10).collect();
    for _ in 0..ANSWER {
        let next = slice(&tokens[done..], done, &table, Some(sampling(sequence)));
        let reply = group.step(step_of(vec![next]));
        done = tokens.len();
        tokens.push(reply.tokens[0]);
        answer.push((reply.tokens[0], reply.digest));
    }
    answer
}

/// Prompt lengths of the sequences: around the ends of blocks.
const LENGTHS: [usize; 4] = [1, 15, 16, 33];

/// A sequence on its way in a mixed schedule.
struct Running {
    tokens: Vec<u32>,
    done: usize,
    blocks: Vec<u32>,
    answer: Vec<u32>,
}

fn running() -> Vec<Running> {
    let new = |(sequence, &length): (usize, &usize)| Running {
        tokens: prompt(length, u32::try_from(sequence).unwrap()),
        done: 0,
        // 37 and 40 share no divisor: every block once, out of order
        blocks: (0..6).map(|i| u32::try_from((sequence * 6 + i) * 37 % 40).unwrap()).collect(),
        answer: Vec::new(),
    };
    LENGTHS.iter().enumerate().map(new).collect()
}

/// All sequences at once, their prompts in chunks of `chunk`, with `moves` before each step.
fn together(
    group: &mut Group,
    chunk: usize,
    mut moves: impl FnMut(u64, &mut [Running]) -> StepRequest,
) -> Vec<Vec<u32>> {
    let mut all = running();
    for step in 0.. {
        let mut request = moves(step, &mut all);
        let mut asked = Vec::new();
        for (sequence, running) in all.iter_mut().enumerate() {
            if running.answer.len() == ANSWER {
                continue;
            }
            let end = (running.done + chunk).min(running.tokens.len());
            let last = end == running.tokens.len();
            let extended = &running.tokens[running.done..end];
            let how = last.then(|| sampling(sequence));
            request.slices.push(slice(extended, running.done, &running.blocks, how));
            running.done = end;
            asked.extend(last.then_some(sequence));
        }
        if request.slices.is_empty() {
            break;
        }
        let reply = group.step(request);
        assert_eq!(reply.tokens.len(), asked.len(), "one token for each slice that asked");
        for (&sequence, &token) in asked.iter().zip(&reply.tokens) {
            all[sequence].tokens.push(token);
            all[sequence].answer.push(token);
        }
    }
    all.into_iter().map(|running| running.answer).collect()
}

fn tokens_of(answers: &[Vec<(u32, u64)>]) -> Vec<Vec<u32>> {
    answers.iter().map(|answer| answer.iter().map(|&(token, _)| token).collect()).collect()
}

#[test]
fn batch_mates_chunks_and_scattered_blocks_change_no_token() {
    for choice in backends() {
        for architecture in Architecture::ALL {
            let model = open(&odd(architecture));
            let answers: Vec<_> = (0..4).map(|sequence| alone(choice, &model, sequence)).collect();
            for chunk in [1, 5, 8, 16] {
                let mut group = Group::solo(choice, &model);
                let mixed = together(&mut group, chunk, |_, _| StepRequest::default());
                assert_eq!(mixed, tokens_of(&answers), "{choice:?} {architecture:?} by {chunk}");
            }
        }
    }
}

#[test]
fn chunks_and_batch_mates_change_no_bit() {
    for choice in backends() {
        let model = open(&odd(Architecture::Gemma3));
        let (_, whole) = alone(choice, &model, 3)[0];
        let tokens = prompt(LENGTHS[3], 3);
        for chunk in 1..LENGTHS[3] {
            let mut group = Group::solo(choice, &model);
            let table: Vec<u32> = (0..5).collect();
            let mut digest = 0;
            for start in (0..tokens.len()).step_by(chunk) {
                let end = (start + chunk).min(tokens.len());
                let how = (end == tokens.len()).then(|| sampling(3));
                let own = slice(&tokens[start..end], start, &table, how);
                let mate = slice(&prompt(1 + start % 7, 9), 0, &[30], None);
                digest = group.step(step_of(vec![mate, own])).digest;
            }
            assert_eq!(digest, whole, "{choice:?}, chunks of {chunk}");
        }
    }
}

#[test]
fn swapping_out_and_in_and_copying_change_no_token() {
    for choice in backends() {
        let model = open(&odd(Architecture::Qwen3));
        let answers: Vec<_> = (0..4).map(|sequence| alone(choice, &model, sequence)).collect();
        // sequence 3 goes to host memory before step 4, where a heartbeat lets others overwrite
        // nothing; it comes back to other blocks, and is copied to yet others before step 6
        let spare: Vec<u32> = running()[0].blocks.clone();
        let moves = |step: u64, all: &mut [Running]| {
            let pairs = |from: &[u32], to: &[u32]| -> Vec<BlockPair> {
                from.iter().zip(to).map(|(&from, &to)| BlockPair { from, to }).collect()
            };
            let host: Vec<u32> = (0..6).collect();
            let mut request = StepRequest::default();
            let own = all[3].blocks.clone();
            let reversed: Vec<u32> = own.iter().rev().copied().collect();
            match step {
                4 => {
                    request.swap_out = pairs(&own, &host);
                    request.swap_in = pairs(&host, &reversed);
                    all[3].blocks = reversed;
                }
                6 => {
                    let free: Vec<u32> = (0..40)
                        .filter(|block| all.iter().all(|one| !one.blocks.contains(block)))
                        .take(own.len())
                        .collect();
                    request.copies = pairs(&own, &free);
                    all[3].blocks = free;
                }
                _ => {}
            }
            request
        };
        assert_eq!(spare.len(), 48 / BLOCK_SIZE);
        let mut group = Group::new(choice, &model, &[1, 2]);
        assert_eq!(together(&mut group, 7, moves), tokens_of(&answers), "{choice:?}");
    }
}

#[test]
fn a_shared_prefix_gives_the_same_bits_as_one_computed_anew() {
    for choice in backends() {
        let model = open(&odd(Architecture::Llama));
        let (_, whole) = alone(choice, &model, 3)[0];
        let tokens = prompt(LENGTHS[3], 3);
        let mut group = Group::solo(choice, &model);
        group.step(step_of(vec![slice(&tokens[..16], 0, &[7, 3], None)]));
        let rest = slice(&tokens[16..], 16, &[7, 3, 20, 21, 22], Some(sampling(3)));
        assert_eq!(group.step(step_of(vec![rest])).digest, whole, "{choice:?}");
    }
}
