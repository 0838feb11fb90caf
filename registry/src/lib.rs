//! Who is there and who leads, by etcd.
//!
//! A worker [announces](announce) itself under a lease; the coordinator [watches](watch) who is there,
//! is [elected](campaign), and [keeps](Keeper) the record of epochs. Nothing here decides about a group:
//! the streams to its ranks do. So etcd may be slow, away or empty, and a group that serves goes on;
//! what stood in etcd is written again once it is back.
//!
//! Epochs fence: the upper 32 bits of an epoch count leaders. Ranks refuse an epoch that is not newer
//! than the last, so a leader that was deposed, and does not know it yet, can form no group.

mod lead;

mod announce;

mod members;

mod drain;

mod etcd;

pub use announce::announce;
pub use drain::{DrainError, drain, drained};
pub use etcd::{Etcd, EtcdConfig, RegistryError, Secret};
pub use lead::{EpochError, EpochRequest, Keeper, campaign};
pub use members::watch;
