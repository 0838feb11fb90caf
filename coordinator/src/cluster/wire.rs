//! A plan as protobuf, and an outcome back. Nobody above knows the wire.

use std::time::Duration;

use proto::worker::step_failure::Kind;
use proto::worker::{self, StepFailure, StepReply, StepRequest};
use scheduler::{BlockPair, Sampling, Slice, StepPlan, TokenId};

use crate::cluster::{Adjustment, ClusterError, Likelihood, RankTimes, Scores, SliceWish};

/// The request for a plan, with a wish for each of its slices; without one, a heartbeat.
///
/// # Panics
/// Where there are more or fewer wishes than slices.
pub(super) fn request(
    plan: Option<(&StepPlan, &[SliceWish])>,
    epoch: u64,
    step: u64,
) -> StepRequest {
    let Some((plan, wishes)) = plan else {
        return StepRequest { epoch, step, ..StepRequest::default() };
    };
    assert_eq!(plan.slices.len(), wishes.len(), "each slice has its wish");
    StepRequest {
        epoch,
        step,
        slices: plan.slices.iter().zip(wishes).map(slice).collect(),
        swap_out: pairs(&plan.swap_out),
        swap_in: pairs(&plan.swap_in),
        copies: pairs(&plan.copies),
        blocks_held: plan.blocks_held.0,
        swap_blocks_held: plan.swap_blocks_held.0,
        deadline_ms: 0,
    }
}

/// Checks one rank's reply to `request`: nothing that came over the network reaches the core unseen.
pub(super) fn check(
    rank: usize,
    name: &str,
    request: &StepRequest,
    reply: &StepReply,
) -> Result<(), ClusterError> {
    if let Some(failure) = &reply.failure {
        return Err(failed(rank, name, failure));
    }
    if (reply.epoch, reply.step) != (request.epoch, request.step) {
        return Err(wrong(
            "order",
            name,
            format!(
                "rank {rank} ({name}) answered step {} of epoch {} instead of step {} of epoch {}",
                reply.step, reply.epoch, request.step, request.epoch
            ),
        ));
    }
    let wanted = if rank == 0 {
        request.slices.iter().filter(|slice| slice.sampling.is_some()).count()
    } else {
        0
    };
    if reply.tokens.len() != wanted {
        let count = reply.tokens.len();
        return Err(wrong(
            "order",
            name,
            format!("rank {rank} ({name}) gave {count} tokens instead of {wanted}"),
        ));
    }
    check_likelihoods(rank, name, request, reply)
}

/// As many as were asked for, each with the alternatives that were asked for, and numbers that JSON
/// can say.
fn check_likelihoods(
    rank: usize,
    name: &str,
    request: &StepRequest,
    reply: &StepReply,
) -> Result<(), ClusterError> {
    let asked = request.slices.iter().filter_map(|slice| slice.scores.as_ref());
    let tops = asked.flat_map(|scores| {
        let count = scores.targets.len() + usize::from(scores.sampled);
        std::iter::repeat_n(scores.top as usize, count)
    });
    let tops: Vec<usize> = if rank == 0 { tops.collect() } else { Vec::new() };
    if reply.likelihoods.len() != tops.len() {
        let (given, due) = (reply.likelihoods.len(), tops.len());
        let what = format!("rank {rank} ({name}) gave {given} likelihoods instead of {due}");
        return Err(wrong("order", name, what));
    }
    let sound = |(likelihood, &top): (&worker::Likelihood, &usize)| {
        likelihood.top_tokens.len() <= top
            && likelihood.top_tokens.len() == likelihood.top_logprobs.len()
            && likelihood.top_logprobs.iter().all(|logprob| logprob.is_finite())
            && likelihood.logprob.is_finite()
    };
    if reply.likelihoods.iter().zip(&tops).all(sound) {
        return Ok(());
    }
    Err(wrong("order", name, format!("rank {rank} ({name}) gave a likelihood that is none")))
}

/// The sampled tokens, as the core counts them.
pub(super) fn tokens(reply: &StepReply) -> Vec<TokenId> {
    reply.tokens.iter().copied().map(TokenId).collect()
}

/// What a rank did with its time.
pub(super) fn times(reply: &StepReply) -> RankTimes {
    let times = reply.times.unwrap_or_default();
    RankTimes {
        compute: Duration::from_nanos(times.compute_ns),
        transfer: Duration::from_nanos(times.collective_transfer_ns),
        wait: Duration::from_nanos(times.collective_wait_ns),
        sample: Duration::from_nanos(times.sample_ns),
        swap: Duration::from_nanos(times.swap_ns),
        idle: Duration::from_nanos(times.idle_ns),
    }
}

/// How likely tokens were, as the core's caller counts them.
pub(super) fn likelihoods(reply: &StepReply) -> Vec<Likelihood> {
    let likelihood = |wire: &worker::Likelihood| {
        let tokens = wire.top_tokens.iter().copied().map(TokenId);
        Likelihood {
            logprob: wire.logprob,
            likeliest: tokens.zip(wire.top_logprobs.iter().copied()).collect(),
        }
    };
    reply.likelihoods.iter().map(likelihood).collect()
}

fn wrong(check: &'static str, name: &str, what: String) -> ClusterError {
    ClusterError::Wrong { check, what, suspect: Some(name.to_owned()) }
}

fn failed(rank: usize, name: &str, failure: &StepFailure) -> ClusterError {
    let lost = |cause| ClusterError::Lost {
        rank,
        name: name.to_owned(),
        cause,
        what: failure.message.clone(),
    };
    match failure.kind() {
        Kind::PeerLost => lost("peer"),
        Kind::Device => lost("device"),
        Kind::Numeric => wrong("nan", name, format!("rank {rank} ({name}): {}", failure.message)),
        Kind::Refused | Kind::Unspecified => {
            wrong("refused", name, format!("rank {rank} ({name}): {}", failure.message))
        }
    }
}

fn slice((slice, wish): (&Slice, &SliceWish)) -> worker::Slice {
    worker::Slice {
        tokens: slice.tokens.iter().map(|token| token.0).collect(),
        follows: slice.follows,
        start: slice.start.0,
        blocks: slice.blocks.iter().map(|block| block.0).collect(),
        sampling: slice.sampling.as_ref().map(sampling),
        adjustment: wish.adjustment.as_ref().map(adjustment),
        scores: wish.scores.as_ref().map(scores),
    }
}

fn adjustment(adjustment: &Adjustment) -> worker::Adjustment {
    let (answer, answer_counts) = adjustment.answer.iter().copied().unzip();
    let (bias_tokens, bias) = adjustment.bias.iter().copied().unzip();
    worker::Adjustment {
        bias_tokens,
        bias,
        banned: adjustment.banned.to_vec(),
        repetition: adjustment.repetition,
        presence: adjustment.presence,
        frequency: adjustment.frequency,
        prompt: adjustment.prompt.to_vec(),
        answer,
        answer_counts,
    }
}

fn scores(scores: &Scores) -> worker::Scores {
    let targets = scores.targets.iter().map(|token| token.0).collect();
    worker::Scores { targets, sampled: scores.sampled, top: scores.top }
}

fn sampling(sampling: &Sampling) -> worker::Sampling {
    worker::Sampling {
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        min_p: sampling.min_p,
        seed: sampling.seed,
    }
}

fn pairs(pairs: &[BlockPair]) -> Vec<worker::BlockPair> {
    pairs.iter().map(|pair| worker::BlockPair { from: pair.from.0, to: pair.to.0 }).collect()
}

#[cfg(test)]
mod tests {
    use scheduler::{BlockCount, BlockId, GroupId, SequenceId, StepId, TokenCount};

    use super::*;

    fn wish() -> SliceWish {
        SliceWish {
            adjustment: Some(Adjustment {
                bias: [(7, -1.5)].into(),
                banned: [8].into(),
                repetition: 1.1,
                presence: 0.2,
                frequency: 0.3,
                prompt: [11, 12].into(),
                answer: vec![(4, 2)],
            }),
            scores: Some(Scores { targets: vec![TokenId(12)], sampled: true, top: 1 }),
        }
    }

    fn plan() -> StepPlan {
        let slice = |sampling| Slice {
            sequence: SequenceId { group: GroupId(1), index: 0 },
            tokens: vec![TokenId(11), TokenId(12)],
            follows: None,
            start: TokenCount(16),
            blocks: [BlockId(3), BlockId(9)].into(),
            sampling,
        };
        let sampling =
            Sampling { temperature: 0.5, top_p: 0.9, top_k: 40, min_p: 0.05, seed: u64::MAX };
        let pair = |from, to| vec![BlockPair { from: BlockId(from), to: BlockId(to) }];
        StepPlan {
            id: StepId(77),
            slices: vec![slice(None), slice(Some(sampling))],
            swap_out: pair(1, 2),
            swap_in: pair(3, 4),
            copies: pair(5, 6),
            blocks_held: BlockCount(8),
            swap_blocks_held: BlockCount(7),
        }
    }

    #[test]
    fn all_of_a_plan_is_said() {
        let request = request(Some((&plan(), &[wish(), SliceWish::default()])), 5, 6);
        let sampling = worker::Sampling {
            temperature: 0.5,
            top_p: 0.9,
            top_k: 40,
            min_p: 0.05,
            seed: u64::MAX,
        };
        let slice = |sampling| worker::Slice {
            tokens: vec![11, 12],
            follows: None,
            start: 16,
            blocks: vec![3, 9],
            sampling,
            adjustment: None,
            scores: None,
        };
        let pair = |from, to| vec![worker::BlockPair { from, to }];
        let first = worker::Slice {
            adjustment: Some(worker::Adjustment {
                bias_tokens: vec![7],
                bias: vec![-1.5],
                banned: vec![8],
                repetition: 1.1,
                presence: 0.2,
                frequency: 0.3,
                prompt: vec![11, 12],
                answer: vec![4],
                answer_counts: vec![2],
            }),
            scores: Some(worker::Scores { targets: vec![12], sampled: true, top: 1 }),
            ..slice(None)
        };
        let expected = StepRequest {
            epoch: 5,
            step: 6,
            slices: vec![first, slice(Some(sampling))],
            swap_out: pair(1, 2),
            swap_in: pair(3, 4),
            copies: pair(5, 6),
            blocks_held: 8,
            swap_blocks_held: 7,
            deadline_ms: 0,
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn a_token_that_is_not_known_yet_is_said_by_its_place() {
        let mut plan = plan();
        plan.slices.truncate(1);
        (plan.slices[0].tokens, plan.slices[0].follows) = (vec![], Some(3));
        let request = request(Some((&plan, &[SliceWish::default()])), 5, 6);
        assert_eq!((&request.slices[0].tokens[..], request.slices[0].follows), (&[][..], Some(3)));
    }

    #[test]
    fn only_rank_0_gives_tokens_and_one_for_each_slice_that_asked() {
        let request = request(Some((&plan(), &[wish(), SliceWish::default()])), 5, 6);
        let reply = |tokens: &[u32]| StepReply {
            epoch: 5,
            step: 6,
            tokens: tokens.to_vec(),
            likelihoods: if tokens.is_empty() { vec![] } else { vec![likelihood(); 2] },
            ..StepReply::default()
        };
        assert_eq!(check(0, "a", &request, &reply(&[1])), Ok(()));
        assert_eq!(check(1, "b", &request, &reply(&[])), Ok(()));
        for (rank, tokens) in [(0, vec![]), (0, vec![1, 2]), (1, vec![1])] {
            let checked = check(rank, "a", &request, &reply(&tokens));
            assert!(matches!(checked, Err(ClusterError::Wrong { .. })), "{checked:?}");
        }
        let late = StepReply { step: 5, ..reply(&[1]) };
        assert!(matches!(check(0, "a", &request, &late), Err(ClusterError::Wrong { .. })));
    }

    fn likelihood() -> worker::Likelihood {
        worker::Likelihood { logprob: -0.5, top_tokens: vec![12], top_logprobs: vec![-0.5] }
    }

    #[test]
    fn likelihoods_are_as_many_as_asked_for_and_numbers() {
        let request = request(Some((&plan(), &[wish(), SliceWish::default()])), 5, 6);
        let reply = |likelihoods| StepReply {
            epoch: 5,
            step: 6,
            tokens: vec![1],
            likelihoods,
            ..StepReply::default()
        };
        let fine = reply(vec![likelihood(), likelihood()]);
        assert_eq!(check(0, "a", &request, &fine), Ok(()));
        assert_eq!(likelihoods(&fine)[0].likeliest, [(TokenId(12), -0.5)]);
        for wrong in [
            vec![],
            vec![likelihood()],
            vec![likelihood(), worker::Likelihood { logprob: f32::NAN, ..likelihood() }],
            vec![likelihood(), worker::Likelihood { top_logprobs: vec![], ..likelihood() }],
            vec![
                likelihood(),
                worker::Likelihood { top_logprobs: vec![f32::INFINITY], ..likelihood() },
            ],
        ] {
            let checked = check(0, "a", &request, &reply(wrong.clone()));
            assert!(matches!(checked, Err(ClusterError::Wrong { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn a_failure_says_who_is_to_blame() {
        let request = request(None, 5, 6);
        for (kind, cause) in [
            (Kind::PeerLost, "peer"),
            (Kind::Device, "device"),
            (Kind::Numeric, "wrong"),
            (Kind::Refused, "wrong"),
            (Kind::Unspecified, "wrong"),
        ] {
            let failure = StepFailure { kind: kind.into(), message: "layer 3".to_owned() };
            let reply = StepReply { failure: Some(failure), ..StepReply::default() };
            let error = check(2, "a", &request, &reply).unwrap_err();
            assert_eq!(error.cause(), cause);
            assert_eq!(error.to_string(), "rank 2 (a): layer 3");
        }
    }
}
