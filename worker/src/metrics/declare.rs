//! Declares series: name, help, labels and buckets in one place, registered at once.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
};

/// Seconds of a step or a part of it: from a heartbeat within a process to a long prefill on a slow
/// device. Finest where decoding with one device after another should end up.
pub(super) const STEP: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15,
    0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// Makes series, registered in one place.
pub(super) struct Declare<'a> {
    pub(super) registry: &'a Registry,
}

impl Declare<'_> {
    pub(super) fn gauges(&self, name: &str, help: &str, by: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), by))
    }

    pub(super) fn real_gauges(&self, name: &str, help: &str, by: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(Opts::new(name, help), by))
    }

    pub(super) fn counters(&self, name: &str, help: &str, by: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), by))
    }

    pub(super) fn real_counters(&self, name: &str, help: &str, by: &[&str]) -> CounterVec {
        self.register(CounterVec::new(Opts::new(name, help), by))
    }

    pub(super) fn histograms(&self, name: &str, help: &str, by: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(STEP.to_vec());
        self.register(HistogramVec::new(opts, by))
    }

    fn register<T: Collector + Clone + 'static>(&self, made: prometheus::Result<T>) -> T {
        let series = made.expect("names, labels and buckets are constants that are valid");
        self.registry.register(Box::new(series.clone())).expect("each name is declared once");
        series
    }
}
