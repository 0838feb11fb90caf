//! One rank as plain channels, whatever carries it: a gRPC client, a thread of this process, a test.

use std::sync::Arc;

use proto::worker::{Description, LoadRequest, Loaded, Loading, StepReply, StepRequest};
use tokio::sync::{mpsc, oneshot};

/// A rank that may be asked. Whoever receives on the other end of `requests` answers one by one, in
/// order, and stops waiting for a rank once the asker is gone (`reply.closed()`). While a step is under way the
/// next may be asked for, and had better be on its way to the rank before the first is answered.
#[derive(Debug, Clone)]
pub struct Member {
    /// For messages: an address, or which thread.
    pub name: String,
    /// `host:port` where the other ranks reach it; none: it lives in this process.
    pub address: Option<String>,
    /// What is asked of it.
    pub requests: mpsc::Sender<MemberRequest>,
}

/// What a rank is asked: the calls of `worker.proto`.
#[derive(Debug)]
pub enum MemberRequest {
    /// What it is and has.
    Describe {
        /// Answered once.
        reply: oneshot::Sender<Result<Description, MemberError>>,
    },
    /// Take a rank in a group.
    Load {
        /// Which.
        request: LoadRequest,
        /// How far it is. Bounded; a message that does not fit may be left out.
        progress: mpsc::Sender<Loading>,
        /// Answered once.
        reply: oneshot::Sender<Result<Loaded, MemberError>>,
    },
    /// Run a step.
    Step {
        /// Which; the same for all ranks.
        request: Arc<StepRequest>,
        /// Answered once.
        reply: oneshot::Sender<Result<StepReply, MemberError>>,
    },
}

/// Why a rank did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// It cannot be reached, or its stream broke: it may be back.
    #[error("{0}")]
    Lost(String),
    /// It answered, and the answer was no: asking again will not help.
    #[error("{0}")]
    Refused(String),
}
