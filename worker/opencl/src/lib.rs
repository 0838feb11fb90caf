//! The safe face over the few OpenCL calls that a worker makes.
//!
//! The library is opened when somebody asks, never linked, and stays open: a machine without OpenCL runs everything
//! else, and hears in one line what is missing. All objects are released when they are dropped, every
//! code that a call gives becomes an [`Error`] that names the call, and everything goes through one
//! in-order [`Queue`].
//!
//! What is not checked here is what a kernel does inside: its source is part of the caller and
//! trusted like it. The kinds and the number of its arguments are checked by OpenCL and by
//! [`Kernel::launch`].
//!
//! Modules stand in reading order; each uses only those below it. Blank lines keep the formatter from
//! sorting them.

mod choice;

mod kernel;

mod program;

mod cache;

mod pinned;

mod queue;

mod buffer;

mod context;

mod library;

mod device;

mod one_at_a_time;

mod pci;

mod table;

mod error;

pub use buffer::{Buffer, Memory};
pub use choice::{DeviceChoice, NoDevice, choose};
pub use context::Limits;
pub use device::{Device, DeviceKind, Uuid};
pub use error::Error;
pub use kernel::{Argument, Kernel};
pub use library::{Absent, Library};
pub use pci::{PciAddress, PciAddressError};
pub use pinned::Pinned;
pub use program::Program;
pub use queue::Queue;
