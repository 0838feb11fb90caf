//! What a connection has of answers that its socket has not taken yet.
//!
//! A body hands its bytes to the connection and is dropped at its end; the connection writes them later.
//! Once it has flushed, the operating system has all that was handed over: only then is it counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::metrics::Metrics;

/// A connection, as its answers see it. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Line(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Something is unwritten: looked at with every flush, so that most of them take no lock.
    any: AtomicBool,
    unwritten: Mutex<Vec<Unwritten>>,
}

/// A part of an answer that was handed to the connection.
#[derive(Debug)]
struct Unwritten {
    metrics: Arc<Metrics>,
    what: Part,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    /// So many bytes.
    Bytes(u64),
    /// The end.
    End(Complete),
}

/// An answer that was said to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Complete {
    /// When its request came.
    pub(super) arrival: Instant,
    /// When its last token was there.
    pub(super) generated: Instant,
}

impl Line {
    /// Bytes of an answer.
    pub(super) fn bytes(&self, metrics: &Arc<Metrics>, count: usize) {
        let what = Part::Bytes(u64::try_from(count).unwrap_or(u64::MAX));
        self.hand(Unwritten { metrics: Arc::clone(metrics), what });
    }

    /// All of an answer.
    pub(super) fn complete(&self, metrics: &Arc<Metrics>, complete: Complete) {
        self.hand(Unwritten { metrics: Arc::clone(metrics), what: Part::End(complete) });
    }

    /// The socket has taken all that was handed over.
    pub(super) fn flushed(&self) {
        for Unwritten { metrics, what } in self.take() {
            match what {
                Part::Bytes(count) => metrics.answer_bytes(count),
                Part::End(Complete { arrival, generated }) => {
                    let now = Instant::now();
                    let since = |then| now.saturating_duration_since(then);
                    metrics.answer_written(since(arrival), since(generated));
                }
            }
        }
    }

    /// The connection is gone; what it had is lost.
    pub(super) fn broken(&self) {
        for Unwritten { metrics, what } in self.take() {
            if matches!(what, Part::End(_)) {
                metrics.client_disconnected();
            }
        }
    }

    fn hand(&self, unwritten: Unwritten) {
        let mut all = self.0.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        // One answer's bytes are one entry, however many frames it is sent in.
        if let (Some(last), Part::Bytes(more)) = (all.last_mut(), unwritten.what)
            && let Part::Bytes(count) = &mut last.what
        {
            *count = count.saturating_add(more);
        } else {
            all.push(unwritten);
        }
        self.0.any.store(true, Ordering::Release);
    }

    fn take(&self) -> Vec<Unwritten> {
        if !self.0.any.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *self.0.unwritten.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(metrics: &Metrics, name: &str) -> f64 {
        let page = metrics.render();
        let line = page.lines().find(|line| line.starts_with(&format!("{name}{{")));
        line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    #[test]
    fn what_the_socket_took_is_counted_and_what_it_did_not_is_a_client_that_went_away() {
        let metrics = Arc::new(Metrics::new("a-model", 100));
        let line = Line::default();
        let complete = Complete { arrival: Instant::now(), generated: Instant::now() };
        line.bytes(&metrics, 10);
        line.bytes(&metrics, 20);
        assert_eq!(value(&metrics, "arcmesh_answer_bytes_total"), 0.0);
        line.complete(&metrics, complete);
        line.flushed();
        line.flushed();
        assert_eq!(value(&metrics, "arcmesh_answer_bytes_total"), 30.0);
        assert_eq!(value(&metrics, "arcmesh_request_receipt_seconds_count"), 1.0);
        line.bytes(&metrics, 5);
        line.complete(&metrics, complete);
        line.broken();
        assert_eq!(value(&metrics, "arcmesh_answer_bytes_total"), 30.0);
        assert_eq!(value(&metrics, "arcmesh_http_write_lag_seconds_count"), 1.0);
        assert_eq!(value(&metrics, "arcmesh_client_disconnects_total"), 1.0);
    }
}
