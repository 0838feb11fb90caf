//! Every series that the coordinator exports, declared once and moved at the edges that see the events.
//!
//! All of them exist at 0 from the start. The core is not touched: it tells [`Stats`], and what
//! happened is told by the engine's loop, by the cluster's replies and by the HTTP layer.

mod declare;
mod engine;
mod lengths;
mod own;
mod retired;
mod seen;
mod vllm;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TextEncoder};
use proto::worker::KvDtype;
use scheduler::Stats;
use tokio::time::Instant;

use crate::metrics::lengths::ByLength;
use crate::metrics::own::{Http, Own};
use crate::metrics::retired::Retired;
use crate::metrics::vllm::{Present, Requests, Steps};

pub(crate) use crate::metrics::seen::{
    CacheSeen, FirstTokenSeen, GroupSeen, MembersSeen, StepSeen,
};

/// The coordinator's series. Shared behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    present: Present,
    steps: Steps,
    requests: Requests,
    retired: Retired,
    by_length: ByLength,
    own: Own,
    http: Http,
    seen: Mutex<Seen>,
    /// `host:port` of the ranks' own figures.
    targets: Mutex<Vec<String>>,
}

/// What counters have already been moved by, and what a scrape computes anew.
#[derive(Debug, Default)]
struct Seen {
    stats: Stats,
    oldest_waiting: Option<Instant>,
}

impl Metrics {
    /// All series at 0. `model_len_max` ends the buckets of token counts.
    ///
    /// # Panics
    /// Never: all names are constants that are valid.
    #[must_use]
    pub fn new(model_name: &str, model_len_max: u32) -> Self {
        let registry = Registry::new();
        registry
            .register(Box::new(ProcessCollector::for_self()))
            .expect("the first in its registry");
        let metrics = Self {
            present: Present::declare(&registry, model_name),
            steps: Steps::declare(&registry, model_name),
            requests: Requests::declare(&registry, model_name, model_len_max),
            retired: Retired::declare(&registry, model_name),
            by_length: ByLength::declare(&registry, model_name),
            own: Own::declare(&registry, model_name),
            http: Http::declare(&registry),
            seen: Mutex::default(),
            targets: Mutex::default(),
            registry,
        };
        metrics.cache(CacheSeen {
            block_size: 0,
            dtype: KvDtype::F16,
            blocks: 0,
            prefix_cache: false,
            swap_blocks: 0,
            blocks_wanted: 0,
            swap_bytes: 0,
        });
        // There is always a rank 0.
        metrics.rank(0, [Duration::ZERO; 4]);
        metrics.own.rank_share.with_label_values(&["0"]).set(0.0);
        metrics
    }

    /// Everything, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let oldest = self.seen.lock().unwrap_or_else(PoisonError::into_inner).oldest_waiting;
        self.own.oldest_waiting.set(oldest.map_or(0.0, |since| since.elapsed().as_secs_f64()));
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot render the metrics");
            String::new()
        })
    }

    /// `host:port` of the ranks' own figures, in order of rank: those of the last group that formed, also
    /// while a rank is lost; none when they share this process.
    #[must_use]
    pub fn rank_targets(&self) -> Vec<String> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An HTTP exchange ended. `handler` is a route as it is declared, never a path as it was sent.
    pub fn http_request(&self, handler: &str, method: &str, status: u16, seconds: f64) {
        let class = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.http.requests.with_label_values(&[handler, method, class]).inc();
        let exact = status.to_string();
        self.http.requests_exact.with_label_values(&[handler, method, exact.as_str()]).inc();
        self.http.duration.with_label_values(&[handler, method]).observe(seconds);
        self.http.duration_fine.observe(seconds);
    }

    /// A client went away before its answer was complete.
    pub fn client_disconnected(&self) {
        self.own.client_disconnects.inc();
    }

    /// A token became part of an answer.
    pub fn answer_token(&self) {
        self.own.answer_tokens.inc();
    }

    /// A client's socket took bytes of an answer.
    pub fn answer_bytes(&self, count: u64) {
        self.own.answer_bytes.inc_by(count);
    }

    /// A client's socket took the last byte of an answer, so long after its request came and after its
    /// last token was there.
    pub fn answer_written(&self, since_arrival: Duration, since_generated: Duration) {
        self.own.receipt.observe(since_arrival.as_secs_f64());
        self.own.write_lag.observe(since_generated.as_secs_f64());
    }

    /// A request was not taken; the code is the one in the error object.
    pub fn rejected(&self, code: &'static str) {
        self.own.rejected.with_label_values(&[code]).inc();
    }

    /// A request had no valid API key.
    pub fn auth_failed(&self) {
        self.own.auth_failures.inc();
    }

    /// A request's template and tokenizer took this long.
    pub fn tokenise_seconds(&self, seconds: f64) {
        self.own.tokenise.observe(seconds);
    }
}
