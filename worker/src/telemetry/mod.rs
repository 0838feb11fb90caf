//! What the machine says about this process and about its graphics cards: power, heat, clocks, memory,
//! link. Everything is read from files of the kernel, below a root that a test can make up.

mod reading;

mod card;

mod client;
mod clock;
mod hwmon;
mod link;

mod machine;

mod process;

pub use card::{Bar, Card, Driver, RenderNode};
pub use client::{Clients, EngineTime};
pub use clock::Clock;
pub use hwmon::{Fan, Heat, Sensors};
pub use link::{Link, Port};
pub use machine::Machine;
pub use opencl::{PciAddress, PciAddressError};
pub use process::{resident_bytes, resident_bytes_of, resident_peak_bytes};
pub use reading::Reading;
