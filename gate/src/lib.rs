//! What Intel's own compiler makes of our kernels for a card that nobody here has.
//!
//! `ocloc` compiles a kernel for an A770 without one, and takes the result apart again. That shows what
//! no run on another device can: whether registers spill, whether the instructions that we count on are
//! there, and how many there are in the loops that do the work.

mod page;

mod roofline;

mod card;

mod kernels;

mod snapshot;

mod figures;

mod listing;

mod info;

mod compiler;

pub use compiler::{Compiled, Compiler, CompilerError, Source};
pub use figures::{Claim, KernelFigures, table};
pub use info::{KernelInfo, kernels};
pub use kernels::{Found, Target, compiled};
pub use listing::{Instruction, Listing, Loop};
pub use page::page;
pub use roofline::{KernelTime, RooflineError, Stage, stages};
pub use snapshot::{Difference, Snapshot};

/// What is compiled for: the A770; and its successors, where the compiler knows them.
pub const DEVICES: [Target; 3] = [
    Target { name: "acm-g10", systolic: true },
    Target { name: "bmg-g21", systolic: false },
    Target { name: "ptl", systolic: false },
];
