//! Tokens and likelihoods do not depend on who has which part of the vocabulary.

use fixture::Architecture;
use proto::worker::{Adjustment, Sampling, Scores, Slice, StepReply};

use crate::group::{Group, backends, greedy, odd, open, prompt, slice, step_of};

/// Slices that ask for whole rows beside slices that do not.
fn slices() -> Vec<Slice> {
    let warm = |top_k| Sampling { temperature: 1.5, top_p: 0.95, top_k, min_p: 0.01, seed: 7 };
    let asks = [greedy(), warm(5), warm(0), warm(64), warm(65), greedy(), warm(1), warm(20)];
    let mut slices: Vec<Slice> = (0..8)
        .map(|at| slice(&prompt(3 + at as usize % 4, at), 0, &[at], Some(asks[at as usize])))
        .collect();
    let bent = Adjustment {
        bias_tokens: vec![0, 299],
        bias: vec![-3.0, 2.0],
        banned: vec![7],
        repetition: 1.4,
        presence: 0.5,
        frequency: 0.25,
        prompt: vec![1, 150],
        answer: vec![2, 151],
        answer_counts: vec![1, 3],
    };
    for at in [0, 1, 2] {
        slices[at].adjustment = Some(bent.clone());
    }
    slices[3].scores = Some(Scores { targets: vec![5, 200, 17], sampled: true, top: 4 });
    slices[5].scores = Some(Scores { targets: vec![299], sampled: false, top: 1 });
    slices
}

#[test]
fn who_has_which_tokens_changes_neither_choice_nor_likelihood() {
    let model = open(&odd(Architecture::Llama));
    for choice in backends() {
        let reply = |shares: &[u32]| -> StepReply {
            Group::new(choice, &model, shares).step(step_of(slices()))
        };
        let alone = reply(&[1]);
        assert_eq!((alone.tokens.len(), alone.likelihoods.len()), (8, 5));
        for shares in [&[1, 1][..], &[3, 1, 2], &[1, 1, 1, 1, 1]] {
            let shared = reply(shares);
            assert_eq!(shared.tokens, alone.tokens, "{shares:?}");
            assert_eq!(shared.likelihoods, alone.likelihoods, "{shares:?}");
        }
    }
}
