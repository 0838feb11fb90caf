//! Load on a server with an OpenAI API: who is asked, what, when, and what its clients see.

mod drive;

mod ask;

mod target;

mod stream;

mod http;

mod prompts;

mod random;

mod summary;

pub(crate) use ask::{Ended, Sample};
pub(crate) use drive::{Load, Progress};
pub(crate) use http::Origin;
pub(crate) use prompts::PromptSource;
pub(crate) use summary::{Spread, Summary, median, quantile};
pub(crate) use target::Target;
