//! A plan as protobuf, and an outcome back. Nobody above knows the wire.

use proto::worker::step_failure::Kind;
use proto::worker::{self, StepFailure, StepReply, StepRequest};
use scheduler::{BlockPair, Sampling, Slice, StepPlan, TokenId};

use crate::cluster::ClusterError;

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
