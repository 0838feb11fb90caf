//! Everything but answers: errors, models, tokens, probes.

use serde::Serialize;

/// A failure.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorObject,
}

/// What clients look for in a failure.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorObject {
    pub(crate) message: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
}

/// Models that are served.
#[derive(Debug, Serialize)]
pub(crate) struct ModelList<'a> {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Model<'a>>,
}

/// A name under which the model is served.
#[derive(Debug, Serialize)]
pub(crate) struct Model<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) owned_by: &'static str,
    pub(crate) root: &'a str,
    pub(crate) parent: Option<()>,
    pub(crate) max_model_len: u32,
    pub(crate) permission: [(); 0],
}

/// Tokens of a text.
#[derive(Debug, Serialize)]
pub(crate) struct Tokens {
    pub(crate) count: usize,
    pub(crate) max_model_len: Option<u32>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) token_strs: Option<Vec<String>>,
}

/// Text of tokens.
#[derive(Debug, Serialize)]
pub(crate) struct Text {
    pub(crate) prompt: String,
}

/// How the process is.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) status: &'static str,
}

/// Addresses to scrape, as Prometheus' HTTP discovery reads them.
#[derive(Debug, Serialize)]
pub(crate) struct TargetGroup {
    pub(crate) targets: Vec<String>,
}

/// What the process is.
#[derive(Debug, Serialize)]
pub(crate) struct Version {
    pub(crate) version: &'static str,
}
