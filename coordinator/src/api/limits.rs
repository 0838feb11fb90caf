//! The bounds of the HTTP side.

use std::time::Duration;

use crate::ceiling::Ceiling;
use crate::config::Overlong;

/// Bounds, with what is done at them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiLimits {
    /// Open connections; more wait to be accepted.
    pub connections_max: usize,
    /// Bytes of a request's head; more are refused (431).
    pub head_bytes_max: usize,
    /// Time for a head, also between two requests of a connection; after it, the connection closes.
    pub head_wait_max: Duration,
    /// Bytes of a body; more are refused (413).
    pub body_bytes_max: usize,
    /// Time for a body; after it, the request is refused (408).
    pub body_wait_max: Duration,
    /// Bodies over 64 KiB held at once; more wait, within the time for a body.
    pub large_bodies_max: usize,
    /// Time in which a client must read something; after it, the connection closes.
    pub write_stall_max: Duration,
    /// A stream that has nothing to say says so this often.
    pub keep_alive_every: Duration,
    /// Prompts that are tokenised at once; more wait.
    pub preparing_max: usize,
    /// Sequences of one request, over all prompts; more are refused (400).
    pub sequences_max: u32,
    /// The operator's limits on generated tokens: to tell the client what applies.
    pub ceiling: Ceiling,
    /// What is done where `max_tokens` is more than context or ceiling leave.
    pub overlong: Overlong,
    /// After a shutdown was asked for, connections may go on this long.
    pub drain_max: Duration,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            head_bytes_max: 32 << 10,
            head_wait_max: Duration::from_secs(30),
            body_bytes_max: 8 << 20,
            body_wait_max: Duration::from_secs(60),
            large_bodies_max: 32,
            write_stall_max: Duration::from_secs(60),
            keep_alive_every: Duration::from_secs(15),
            preparing_max: std::thread::available_parallelism().map_or(2, usize::from),
            sequences_max: 128,
            ceiling: Ceiling::default(),
            overlong: Overlong::Clamp,
            drain_max: Duration::from_secs(60),
        }
    }
}
