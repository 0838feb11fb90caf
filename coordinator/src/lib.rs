//! HTTP in, steps out: the coordinator of a group of workers.
//!
//! Modules are listed from the request inwards; each uses only those below it.

mod coordinator;

mod api;

mod prompt;

mod answer;

mod engine;

mod cluster;

mod metrics;

mod config;

mod ceiling;

mod record;

pub use api::{
    Api, ApiKeys, ApiLimits, KeysError, MoreMetrics, Origins, ServedModel, router, serve,
};
pub use ceiling::Ceiling;
pub use cluster::{
    ClusterError, EpochAsked, Likelihood, Member, MemberError, MemberRequest, Roster, connect,
};
pub use config::{ConfigError, CoordinatorConfig, Overlong, Patience, ServingLimits};
pub use coordinator::{Coordinator, CoordinatorError};
pub use engine::{
    Answer, AnswerEvent, Capacity, EngineError, EngineHandle, EngineSetup, EngineState, Failure,
    Likelihoods, ModelFacts, Submission, SubmitError, Wishes, start,
};
pub use metrics::Metrics;
pub use prompt::{
    ChatTemplate, Conversation, Rendered, Specials, TemplateError, Tokenizer, TokenizerError,
};
pub use record::{Ending, RecordTo, Recording, ReplayError, Replayed, replay};
