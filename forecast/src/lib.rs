//! How fast a model can be at most, from what it demands and what devices and links were measured to do.
//!
//! A step is taken to cost the sum of what it reads or multiplies, whichever is longer, of starting its
//! kernels, and of its collectives. Nothing overlaps and nothing waits for anything else: a real step is
//! slower than this, and one that is much slower has a fault worth looking for.

mod step;

mod demand;

pub use demand::Demand;
pub use step::{Device, Link, Load, Sharing, StepForecast, forecast};
