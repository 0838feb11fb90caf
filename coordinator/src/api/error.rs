//! Every failure of a request: its status, its body, in one place.

use std::time::Duration;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use scheduler::Refusal;

use crate::api::openai::{ErrorBody, ErrorObject};
use crate::engine::SubmitError;

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ApiError {
    /// A field is wrong, or the whole body is.
    Invalid { param: Option<String>, message: String },
    /// A parameter that is known, changes answers, and is not supported.
    Unsupported { param: String, message: String },
    /// The prompt leaves no room for an answer.
    ContextLength { param: &'static str, message: String },
    /// It came without TLS to where only that is spoken.
    NotSecure,
    /// No API key.
    NoKey,
    /// Not one of the API keys.
    WrongKey,
    /// There is no such model.
    NoSuchModel(String),
    /// There is no such path.
    NoSuchPath(String),
    /// The path is there, but not for this method.
    MethodNotAllowed(String),
    /// The body did not come in time.
    BodyTimeout,
    /// The body is larger than this.
    BodyTooLarge(usize),
    /// The body is not JSON.
    NotJson(String),
    /// Too many wait already.
    QueueFull(String),
    /// The model cannot be asked now.
    NotReady(String),
    /// It waited too long for its turn.
    QueueTimeout(String),
    /// The time that the request gave is over.
    Timeout(String),
    /// The answer could not be completed.
    Failed(String),
}

/// What an error looks like from outside.
pub(crate) struct Shape {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    /// When to try again.
    retry_after: Option<Duration>,
}

const INVALID: &str = "invalid_request_error";

impl ApiError {
    /// A wrong field.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { param: Some(param.into()), message: message.into() }
    }

    /// What the engine said, where the prompt came in the field `param`.
    pub(crate) fn refused(error: &SubmitError, param: &'static str) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Refused(Refusal::Empty) => Self::invalid(param, message),
            SubmitError::Refused(Refusal::TooLong { wanted, capacity }) => {
                let wanted = format!("your {param} resulted in {} tokens", wanted.0);
                Self::context_length(param, &wanted, capacity.0.saturating_add(1))
            }
            SubmitError::Refused(Refusal::TooManySequences { .. }) => Self::invalid("n", message),
            SubmitError::Refused(Refusal::QueueFull { .. }) => Self::QueueFull(message),
            SubmitError::NotReady(_) => Self::NotReady(message),
        }
    }

    /// Clients look for the code, or for the words "maximum context length".
    pub(crate) fn context_length(field: &'static str, wanted: &str, context: u32) -> Self {
        let message = format!(
            "This model's maximum context length is {context} tokens. However, {wanted}. \
             Please reduce the length of the {field} or of the completion."
        );
        Self::ContextLength { param: field, message }
    }

    /// The code under which it is counted; none: it is not a refusal.
    pub(crate) fn counted_as(&self) -> Option<&'static str> {
        match self {
            Self::ContextLength { .. } => Some("context_length_exceeded"),
            Self::QueueFull(_) => Some("queue_full"),
            Self::NotReady(_) => Some("not_ready"),
            Self::QueueTimeout(_) => Some("queue_timeout"),
            Self::Timeout(_) => Some("timeout"),
            Self::Failed(_) | Self::NoKey | Self::WrongKey => None,
            _ => Some("invalid_request"),
        }
    }

    /// The object that clients look for.
    pub(crate) fn body(self) -> ErrorBody {
        self.shape().body()
    }

    fn shape(self) -> Shape {
        let (status, kind, code) = self.class();
        let retry_after = match self {
            Self::QueueFull(_) => Some(Duration::from_secs(1)),
            Self::NotReady(_) => Some(Duration::from_secs(2)),
            // Whoever has waited that long need not hurry.
            Self::QueueTimeout(_) => Some(Duration::from_secs(10)),
            _ => None,
        };
        let (param, message) = self.words();
        Shape { status, kind, code, param, message, retry_after }
    }

    /// Status, type and code.
    const fn class(&self) -> (StatusCode, &'static str, Option<&'static str>) {
        let (status, kind, code) = match self {
            Self::Invalid { .. } => return (StatusCode::BAD_REQUEST, INVALID, None),
            Self::Unsupported { .. } => (StatusCode::BAD_REQUEST, INVALID, "unsupported_parameter"),
            Self::ContextLength { .. } => {
                (StatusCode::BAD_REQUEST, INVALID, "context_length_exceeded")
            }
            Self::NotSecure => (StatusCode::BAD_REQUEST, INVALID, "https_required"),
            Self::NoKey | Self::WrongKey => (StatusCode::UNAUTHORIZED, INVALID, "invalid_api_key"),
            Self::NoSuchModel(_) => (StatusCode::NOT_FOUND, INVALID, "model_not_found"),
            Self::NoSuchPath(_) => (StatusCode::NOT_FOUND, INVALID, "unknown_url"),
            Self::MethodNotAllowed(_) => {
                (StatusCode::METHOD_NOT_ALLOWED, INVALID, "method_not_allowed")
            }
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "timeout_error", "body_timeout"),
            Self::BodyTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, INVALID, "body_too_large"),
            Self::NotJson(_) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, "unsupported_media_type")
            }
            Self::QueueFull(_) => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "queue_full"),
            Self::NotReady(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", "not_ready")
            }
            Self::QueueTimeout(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", "queue_timeout")
            }
            Self::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "timeout_error", "timeout"),
            Self::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "answer_failed"),
        };
        (status, kind, Some(code))
    }

    /// The field that is wrong, and what is wrong.
    fn words(self) -> (Option<String>, String) {
        let message = match self {
            Self::Invalid { param, message } => return (param, message),
            Self::Unsupported { param, message } => return (Some(param), message),
            Self::ContextLength { param, message } => return (Some(param.to_owned()), message),
            Self::NoSuchModel(name) => {
                return (Some("model".to_owned()), format!("The model `{name}` does not exist"));
            }
            Self::NotSecure => "this server speaks https only".to_owned(),
            Self::NoKey => "an API key is needed: send `Authorization: Bearer KEY`".to_owned(),
            Self::WrongKey => "the API key is not valid".to_owned(),
            Self::NoSuchPath(path) => {
                let path: String = path.chars().take(200).collect();
                format!("there is nothing at `{path}`")
            }
            Self::MethodNotAllowed(method) => format!("the method {method} is not allowed here"),
            Self::BodyTimeout => "the body did not come in time".to_owned(),
            Self::BodyTooLarge(bytes) => format!("the body has more than {bytes} bytes"),
            Self::NotJson(message)
            | Self::QueueFull(message)
            | Self::NotReady(message)
            | Self::QueueTimeout(message)
            | Self::Timeout(message)
            | Self::Failed(message) => message,
        };
        (None, message)
    }
}

impl Shape {
    fn body(self) -> ErrorBody {
        let Self { kind, code, param, message, .. } = self;
        ErrorBody { error: ErrorObject { message, kind, param, code } }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let counted = self.counted_as();
        let shape = self.shape();
        let (status, retry_after) = (shape.status, shape.retry_after);
        let mut response = (status, Json(shape.body())).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::GATEWAY_TIMEOUT {
            // Asked again, it would take as long.
            let name = HeaderName::from_static("x-should-retry");
            headers.insert(name, HeaderValue::from_static("false"));
        }
        if let Some(wait) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
            let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let name = HeaderName::from_static("retry-after-ms");
            headers.insert(name, HeaderValue::from(milliseconds));
        }
        if let Some(code) = counted {
            response.extensions_mut().insert(Rejected(code));
        }
        response
    }
}

/// Rides on a response to where refusals are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rejected(pub(crate) &'static str);
