//! What an A770 can do, and the model that we would like it to run. Nothing here was measured by us.

use forecast::Link;

/// Vector engines: 32 Xe cores of 16.
pub(crate) const VECTOR_ENGINES: f64 = 512.0;
/// Clock, Hz: the most of the reference card.
pub(crate) const HERTZ: f64 = 2.4e9;
/// Bytes a second that others measured a kernel to read (398 to 421 GB/s, clpeak issue 99); 560 GB/s
/// are on the box.
pub(crate) const READ_BYTES_PER_SECOND: f64 = 410e9;
/// The last cache: a matrix that fits in it is read once, whatever the passes.
pub(crate) const CACHE_BYTES: f64 = 16.0 * 1024.0 * 1024.0;
/// Starting a kernel behind another: what an Intel developer gave for the A770M (compute-runtime issue
/// 600).
pub(crate) const LAUNCH_SECONDS: f64 = 8e-6;

/// All-reduces through host memory that ranks share: estimates of 45 µs for 10 KiB and 125 µs for
/// 320 KiB, copies to and from the card included.
pub(crate) const SHARED_MEMORY: Link = Link { latency_seconds: 42e-6, bytes_per_second: 3.9e9 };
/// The same over gRPC on one machine: 200 µs and 800 µs.
pub(crate) const LOOPBACK: Link = Link { latency_seconds: 180e-6, bytes_per_second: 0.52e9 };

/// DeepSeek-R1-Distill-Qwen-32B, whose shape is Qwen2.5-32B's.
pub(crate) mod model {
    pub(crate) const NAME: &str = "DeepSeek-R1-Distill-Qwen-32B";
    pub(crate) const LAYERS: f64 = 64.0;
    pub(crate) const HIDDEN: f64 = 5120.0;
    pub(crate) const INTERMEDIATE: f64 = 27648.0;
    pub(crate) const QUERY_HEADS: f64 = 40.0;
    pub(crate) const KV_HEADS: f64 = 8.0;
    pub(crate) const HEAD_SIZE: f64 = 128.0;
    pub(crate) const VOCABULARY: f64 = 152_064.0;
}

/// Cards that share it.
pub(crate) const WORLD: f64 = 4.0;
/// Tokens that each sequence has when it is looked at.
pub(crate) const CONTEXT: f64 = 1024.0;
