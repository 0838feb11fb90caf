//! Flags of the HTTP API: where it is, who may ask, how many may wait.

use crate::cli::{Group, flag, many};

/// The HTTP API.
pub(super) const HTTP: Group = Group {
    title: "HTTP",
    flags: &[
        flag("host", "HOST", "Address that the HTTP API listens on [default: 127.0.0.1]"),
        flag("port", "PORT", "Port of the HTTP API; 0 takes a free one [default: 8000]"),
        flag(
            "http-cert",
            "FILE",
            "PEM: what the API's server proves to be, with what leads from it to an authority; then it speaks https only. Read again when it changes [default: plain http]",
        ),
        flag("http-key", "FILE", "PEM: the key of --http-cert"),
        flag(
            "served-model-name",
            "NAME",
            "What the API calls the model [default: the name it was given by]",
        ),
        many(
            "api-key",
            "KEY",
            "A key that clients must show; may be repeated [default: none is asked for]",
        ),
        flag(
            "api-key-file",
            "FILE",
            "Further keys, one a line, # begins a comment; read again when it changes [default: none]",
        ),
        flag("queue-max", "REQUESTS", "Requests that may wait; more get 429 [default: 1024]"),
        flag(
            "max-queue-time",
            "SECONDS",
            "Longest wait of a request for its first step; then it gets 503 [default: 300]",
        ),
    ],
};
