//! What a scrape of the coordinator costs.
//!
//! What bounds it: nothing physical but the bytes of the page. Gateways scrape every 50 ms, so a page
//! may take 5 ms at most, however many requests run or wait: a series costs the same whatever its value.
//!
//! `cargo bench -p coordinator --bench metrics`

#![expect(clippy::print_stdout, reason = "a bench prints")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use coordinator::Metrics;

/// The bar.
const PAGE_MAX: Duration = Duration::from_millis(5);
/// Pages rendered.
const PAGES: u32 = 200;

fn main() {
    let metrics = Metrics::new("a-model", 131_072);
    // A server that has been asked everything, in every way.
    for handler in ["/v1/chat/completions", "/v1/completions", "/tokenize", "/metrics", "none"] {
        for (method, status) in [("GET", 404), ("POST", 200), ("POST", 400), ("POST", 429)] {
            metrics.http_request(handler, method, status, 0.1);
        }
    }
    let mut times: Vec<Duration> = (0..PAGES)
        .map(|_| {
            let begun = Instant::now();
            black_box(metrics.render());
            begun.elapsed()
        })
        .collect();
    times.sort();
    let page = metrics.render();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("a page of {} bytes, {} lines", page.len(), page.lines().count());
    println!("median {median:.2?}, slowest of {PAGES} {worst:.2?}");
    println!(
        "{:.1} % of the {PAGE_MAX:.0?} that it may take",
        1e2 * median.as_secs_f64() / PAGE_MAX.as_secs_f64()
    );
}
