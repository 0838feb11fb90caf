//! A step that was asked for before the one before it had said what it sampled gives what it would have given
//! afterwards, to the bit.

use fixture::Architecture;
use proto::worker::step_failure::Kind;
use proto::worker::{Adjustment, Sampling, Scores, Slice, StepReply, StepRequest};

use crate::group::{BLOCK_SIZE, Group, backends, greedy, odd, open, prompt, slice, step_of};

/// Tokens of each answer: a block is left behind and entered.
const ANSWER: usize = BLOCK_SIZE + 4;

/// Three sequences of different lengths and wishes: the likeliest token, one with all that looks back at the
/// answer, one that tells likelihoods.
fn wishes(sequence: usize, answer: &[u32]) -> Slice {
    let warm = Sampling { temperature: 1.2, top_p: 0.9, top_k: 20, min_p: 0.0, seed: 5 };
    let mut counted: Vec<(u32, u32)> = Vec::new();
    for token in answer {
        match counted.binary_search_by_key(token, |known| known.0) {
            Ok(at) => counted[at].1 += 1,
            Err(at) => counted.insert(at, (*token, 1)),
        }
    }
    let (answer, answer_counts) = counted.into_iter().unzip();
    let bent = Adjustment {
        repetition: 1.3,
        presence: 0.7,
        frequency: 0.9,
        prompt: vec![1, 2],
        answer,
        answer_counts,
        ..Adjustment::default()
    };
    match sequence {
        0 => Slice { sampling: Some(greedy()), ..Slice::default() },
        1 => Slice { sampling: Some(warm), adjustment: Some(bent), ..Slice::default() },
        _ => Slice {
            sampling: Some(Sampling { seed: 9, top_k: 0, ..warm }),
            scores: Some(Scores { targets: vec![], sampled: true, top: 3 }),
            ..Slice::default()
        },
    }
}

fn blocks(sequence: usize) -> Vec<u32> {
    (0..5).map(|at| u32::try_from((sequence * 5 + at) * 7 % 40).unwrap()).collect()
}

/// Answers of all three. With `ahead`, a step says no token that the one before samples, and knows of the
/// answer only what was there before that.
fn answers(group: &mut Group, ahead: bool) -> Vec<StepReply> {
    let prompts = [3, BLOCK_SIZE, 13].map(|length| prompt(length, u32::try_from(length).unwrap()));
    let mut said: Vec<Vec<u32>> = vec![Vec::new(); prompts.len()];
    let mut replies: Vec<StepReply> = Vec::new();
    for step in 0..ANSWER {
        // The last first, so that a place among tokens is not one among sequences.
        let order: Vec<usize> = if step % 2 == 0 { vec![2, 0, 1] } else { vec![1, 2, 0] };
        let before: Vec<usize> = if step % 2 == 0 { vec![1, 2, 0] } else { vec![2, 0, 1] };
        let slices = order.iter().map(|&sequence| {
            let (prompt, said) = (&prompts[sequence], &said[sequence]);
            let follows = ahead && step > 0;
            let known = said.len() - usize::from(follows);
            let (tokens, start) = match said.last() {
                None => (prompt.clone(), 0),
                Some(last) => (vec![*last], prompt.len() + said.len() - 1),
            };
            let tokens = if follows { vec![] } else { tokens };
            let place = before.iter().position(|other| *other == sequence).unwrap();
            Slice {
                follows: follows.then(|| u32::try_from(place).unwrap()),
                ..Slice {
                    tokens,
                    start: u32::try_from(start).unwrap(),
                    blocks: blocks(sequence),
                    ..wishes(sequence, &said[..known])
                }
            }
        });
        let reply = group.step(step_of(slices.collect()));
        for (sequence, token) in order.iter().zip(&reply.tokens) {
            said[*sequence].push(*token);
        }
        replies.push(StepReply { times: None, ..reply });
    }
    replies
}

#[test]
fn tokens_that_are_fed_back_give_the_same_bits_on_every_backend_and_in_every_world() {
    for choice in backends() {
        let model = open(&odd(Architecture::Llama));
        let plain = answers(&mut Group::solo(choice, &model), false);
        for shares in [&[1][..], &[1, 1], &[3, 1, 2]] {
            let fed = answers(&mut Group::new(choice, &model, shares), true);
            for (step, (plain, fed)) in plain.iter().zip(&fed).enumerate() {
                assert_eq!(fed, plain, "{choice:?} {shares:?}, step {step}");
            }
        }
    }
}

fn refused(group: &mut Group, request: StepRequest) -> String {
    let replies = group.replies(request);
    assert!(replies.iter().all(|reply| reply.failure.as_ref().unwrap().kind() == Kind::Refused));
    replies[0].failure.as_ref().unwrap().message.clone()
}

#[test]
fn a_token_that_is_not_there_or_another_s_is_refused_and_the_step_is_still_due() {
    let model = open(&odd(Architecture::Llama));
    let choice = backends()[0];
    let follow = |place: u32, start: u32, block: u32| {
        let next = slice(&[], start as usize, &[block], Some(greedy()));
        step_of(vec![Slice { follows: Some(place), ..next }])
    };
    let mut group = Group::new(choice, &model, &[1, 1]);
    let nothing = "rank 0: slice 0 follows token 0 of the step before, which gives 0";
    assert_eq!(refused(&mut group, follow(0, 3, 0)), nothing);
    // `refused` counts steps that were not run.
    let mut group = Group::new(choice, &model, &[1, 1]);
    let two = [0, 1].map(|block| slice(&prompt(3, block), 0, &[block], Some(greedy())));
    group.step(step_of(two.to_vec()));
    for (place, start, block) in [(0, 3, 1), (1, 3, 0), (0, 2, 0), (0, 4, 0), (0, 0, 0)] {
        let mut runners = group.runners.iter_mut();
        let request = StepRequest { epoch: 3, step: 2, ..follow(place, start, block) };
        let reply = runners.next().unwrap().step(&request);
        let message = reply.failure.unwrap().message;
        assert!(message.ends_with("which is another sequence's"), "{message}");
    }
    for place in [2, u32::MAX] {
        let request = StepRequest { epoch: 3, step: 2, ..follow(place, 3, 0) };
        let message = group.runners[1].step(&request).failure.unwrap().message;
        assert!(message.ends_with("which gives 2"), "{message}");
    }
    let fine = group.step(follow(1, 3, 1));
    assert_eq!(fine.tokens.len(), 1);
    // After a heartbeat there is nothing to follow.
    group.step(StepRequest::default());
    let message = refused(&mut group, follow(0, 4, 1));
    assert_eq!(message, nothing);
}
