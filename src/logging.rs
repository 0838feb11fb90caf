//! The log: on standard error, as text or as JSON.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// From now on, events are written.
pub(crate) fn start(config: &LogConfig) {
    let filter = EnvFilter::new(&config.filter);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match config.format {
        LogFormat::Json => registry.with(layer().json().with_writer(io::stderr)).try_init(),
        LogFormat::Text => {
            let text = layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
            registry.with(text).try_init()
        }
    };
    started.expect("the log is started once");
}
