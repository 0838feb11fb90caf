//! A plan as protobuf, and an outcome back. Nobody above knows the wire.

use std::time::Duration;

use proto::worker::step_failure::Kind;
use proto::worker::{self, StepFailure, StepReply, StepRequest};
use scheduler::{BlockPair, Sampling, Slice, StepPlan, TokenId};

use crate::cluster::{ClusterError, RankTimes};

/// The request for a plan; without one, a heartbeat.
pub(super) fn request(plan: Option<&StepPlan>, epoch: u64, step: u64) -> StepRequest {
    let Some(plan) = plan else {
        return StepRequest { epoch, step, ..StepRequest::default() };
    };
    StepRequest {
        epoch,
        step,
        slices: plan.slices.iter().map(slice).collect(),
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
        return Err(ClusterError::Wrong(format!(
            "rank {rank} ({name}) answered step {} of epoch {} instead of step {} of epoch {}",
            reply.step, reply.epoch, request.step, request.epoch
        )));
    }
    let wanted = if rank == 0 {
        request.slices.iter().filter(|slice| slice.sampling.is_some()).count()
    } else {
        0
    };
    if reply.tokens.len() != wanted {
        return Err(ClusterError::Wrong(format!(
            "rank {rank} ({name}) gave {} tokens instead of {wanted}",
            reply.tokens.len()
        )));
    }
    Ok(())
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
    }
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
        Kind::Refused | Kind::Numeric | Kind::Unspecified => {
            ClusterError::Wrong(format!("rank {rank} ({name}): {}", failure.message))
        }
    }
}

fn slice(slice: &Slice) -> worker::Slice {
    worker::Slice {
        tokens: slice.tokens.iter().map(|token| token.0).collect(),
        start: slice.start.0,
        blocks: slice.blocks.iter().map(|block| block.0).collect(),
        sampling: slice.sampling.as_ref().map(sampling),
    }
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

    fn plan() -> StepPlan {
        let slice = |sampling| Slice {
            sequence: SequenceId { group: GroupId(1), index: 0 },
            tokens: vec![TokenId(11), TokenId(12)],
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
        let request = request(Some(&plan()), 5, 6);
        let sampling = worker::Sampling {
            temperature: 0.5,
            top_p: 0.9,
            top_k: 40,
            min_p: 0.05,
            seed: u64::MAX,
        };
        let slice = |sampling| worker::Slice {
            tokens: vec![11, 12],
            start: 16,
            blocks: vec![3, 9],
            sampling,
        };
        let pair = |from, to| vec![worker::BlockPair { from, to }];
        let expected = StepRequest {
            epoch: 5,
            step: 6,
            slices: vec![slice(None), slice(Some(sampling))],
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
    fn only_rank_0_gives_tokens_and_one_for_each_slice_that_asked() {
        let request = request(Some(&plan()), 5, 6);
        let reply = |tokens: &[u32]| StepReply {
            epoch: 5,
            step: 6,
            tokens: tokens.to_vec(),
            ..StepReply::default()
        };
        assert_eq!(check(0, "a", &request, &reply(&[1])), Ok(()));
        assert_eq!(check(1, "b", &request, &reply(&[])), Ok(()));
        for (rank, tokens) in [(0, vec![]), (0, vec![1, 2]), (1, vec![1])] {
            let checked = check(rank, "a", &request, &reply(&tokens));
            assert!(matches!(checked, Err(ClusterError::Wrong(_))), "{checked:?}");
        }
        let late = StepReply { step: 5, ..reply(&[1]) };
        assert!(matches!(check(0, "a", &request, &late), Err(ClusterError::Wrong(_))));
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
