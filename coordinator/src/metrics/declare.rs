//! Declares series: name, help, labels and buckets in one line each, registered at once.

use std::collections::HashMap;

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};

/// Seconds to a first token.
pub(super) const TTFT: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
/// Seconds between tokens.
pub(super) const TPOT: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
/// Seconds of a request or a part of its life.
pub(super) const REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];
/// Tokens of a step.
pub(super) const ITERATION: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
/// Sequences of a group.
pub(super) const PARAMS_N: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];
/// Preemptions of a group.
pub(super) const PREEMPTIONS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];
/// Milliseconds of a request's part in steps: 1, 2, 3, 5, 8, 10 … 3000.
pub(super) const MILLISECONDS: &[f64] = &[
    1.0, 2.0, 3.0, 5.0, 8.0, 10.0, 20.0, 30.0, 50.0, 80.0, 100.0, 200.0, 300.0, 500.0, 800.0,
    1000.0, 2000.0, 3000.0,
];
/// Seconds of one step: from a heartbeat within a process to a long prefill on a slow device.
pub(super) const STEP: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Seconds of work that should not be noticed: planning, tokenising, the wait for the slowest rank.
pub(super) const SMALL: &[f64] =
    &[0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];
/// Seconds of an HTTP exchange, as the usual Python instrumentator cuts them.
pub(super) const HTTP: &[f64] = &[0.1, 0.5, 1.0];
/// The same, finer.
pub(super) const HTTP_FINE: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0,
    7.5, 10.0, 30.0, 60.0,
];

/// Token counts: 1, 2, 5, 10, 20, 50 … while no more than `tokens_max`.
pub(super) fn token_buckets(tokens_max: u32) -> Vec<f64> {
    let mut buckets = Vec::new();
    let mut decade = 1_u64;
    loop {
        for factor in [1, 2, 5] {
            let bound = decade * factor;
            if bound > u64::from(tokens_max) {
                return buckets;
            }
            // The bound is no more than a u32, which f64 holds exactly.
            buckets.push(f64::from(u32::try_from(bound).expect("checked against a u32")));
        }
        decade *= 10;
    }
}

/// Makes series with the same labels, registered in the same place.
#[derive(Debug)]
pub(super) struct Declare<'a> {
    /// Where they are registered.
    pub(super) registry: &'a Registry,
    /// What they all carry.
    pub(super) labels: HashMap<String, String>,
}

impl<'a> Declare<'a> {
    /// Series that say which model they are about.
    pub(super) fn of_model(registry: &'a Registry, model_name: &str) -> Self {
        let labels = HashMap::from([("model_name".to_owned(), model_name.to_owned())]);
        Self { registry, labels }
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::with_opts(self.opts(name, help)))
    }

    pub(super) fn int_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(self.opts(name, help)))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, by: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(self.opts(name, help), by))
    }

    /// A gauge for each value of a label, all at 0.
    pub(super) fn int_gauges(
        &self,
        name: &str,
        help: &str,
        by: &str,
        values: &[&str],
    ) -> IntGaugeVec {
        let gauges = self.register(IntGaugeVec::new(self.opts(name, help), &[by]));
        for value in values {
            gauges.with_label_values(&[*value]).set(0);
        }
        gauges
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(self.opts(name, help)))
    }

    /// A counter for each value of a label, all at 0.
    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        by: &str,
        values: &[&str],
    ) -> IntCounterVec {
        let counters = self.counters_by(name, help, &[by]);
        for value in values {
            counters.with_label_values(&[*value]).inc_by(0);
        }
        counters
    }

    pub(super) fn counters_by(&self, name: &str, help: &str, by: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(self.opts(name, help), by))
    }

    pub(super) fn real_counters(&self, name: &str, help: &str, by: &[&str]) -> CounterVec {
        self.register(CounterVec::new(self.opts(name, help), by))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.register(Histogram::with_opts(self.histogram_opts(name, help, buckets)))
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        by: &[&str],
        buckets: &[f64],
    ) -> HistogramVec {
        self.register(HistogramVec::new(self.histogram_opts(name, help, buckets), by))
    }

    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).const_labels(self.labels.clone())
    }

    fn histogram_opts(&self, name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
        HistogramOpts::new(name, help).const_labels(self.labels.clone()).buckets(buckets.to_vec())
    }

    fn register<T: Collector + Clone + 'static>(&self, made: prometheus::Result<T>) -> T {
        let series = made.expect("names, labels and buckets are constants that are valid");
        self.registry.register(Box::new(series.clone())).expect("each name is declared once");
        series
    }
}
