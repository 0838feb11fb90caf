//! Where the ranks of a group come together.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::collective::grpc::{FormError, Switchboard};
use crate::collective::local::{self, LocalCollective};
use crate::collective::solo::SoloCollective;
use crate::collective::{Collective, CollectiveError, CollectiveTimes, Lane};
use crate::metrics::{Moved, Operation, RankMetrics};
use crate::runner::LoadOrder;

/// How long ranks wait for each other when a group forms: the coordinator tells all at the same time.
const FORM_PATIENCE: Duration = Duration::from_secs(10);

/// How a rank reaches its peers.
#[derive(Debug, Clone)]
pub(super) enum Meeting {
    /// Over the network.
    Grpc(Switchboard),
    /// In this process.
    Local(Arc<Mutex<Room>>),
}

/// The ends of the newest local group that nobody has taken yet.
#[derive(Default)]
pub(super) struct Room {
    epoch: u64,
    ends: Vec<Option<LocalCollective>>,
}

impl Meeting {
    pub(super) fn local() -> Self {
        Self::Local(Arc::default())
    }

    /// The rank has nothing to say to its peers for some time.
    pub(super) fn rest(&self) {
        if let Self::Grpc(switchboard) = self {
            switchboard.driver().give_back();
        }
    }

    /// This rank's end of the group that the order is for.
    pub(super) async fn form(
        &self,
        order: &LoadOrder,
        peers: &[String],
    ) -> Result<Box<dyn Collective>, FormError> {
        let (rank, world) = (order.shard.rank(), order.shard.world());
        match self {
            Self::Local(room) => {
                let mut room = room.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(Box::new(room.take(order.epoch, rank, world)?))
            }
            Self::Grpc(_) if world == 1 => Ok(Box::new(SoloCollective)),
            Self::Grpc(_) if peers.len() != world => Err(FormError::Impossible { rank, world }),
            Self::Grpc(switchboard) => {
                switchboard.form(order.epoch, rank, peers, FORM_PATIENCE).await
            }
        }
    }
}

impl Room {
    fn take(
        &mut self,
        epoch: u64,
        rank: usize,
        world: usize,
    ) -> Result<LocalCollective, FormError> {
        if epoch < self.epoch {
            return Err(FormError::Superseded { epoch, newest: self.epoch });
        }
        if epoch > self.epoch {
            // Whoever has an end of the group before loses its peers.
            let ends = local::group(world).into_iter().map(Some).collect();
            *self = Self { epoch, ends };
        }
        let end = if self.ends.len() == world { self.ends[rank].take() } else { None };
        end.ok_or(FormError::Impossible { rank, world })
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// Counts what a collective moves.
pub(super) struct Metered {
    pub(super) collective: Box<dyn Collective>,
    pub(super) metrics: RankMetrics,
}

impl Metered {
    fn count<T>(&mut self, operation: Operation, run: impl FnOnce(&mut dyn Collective) -> T) -> T {
        let before = self.collective.times();
        let outcome = run(self.collective.as_mut());
        let after = self.collective.times();
        self.metrics.moved(&Moved {
            operation,
            transfer: after.transfer.saturating_sub(before.transfer),
            wait: after.wait.saturating_sub(before.wait),
            sent: after.bytes_sent - before.bytes_sent,
            received: after.bytes_received - before.bytes_received,
        });
        outcome
    }
}

impl Collective for Metered {
    fn rank(&self) -> usize {
        self.collective.rank()
    }

    fn world(&self) -> usize {
        self.collective.world()
    }

    fn lane(&self) -> Lane {
        self.collective.lane()
    }

    fn begin(&mut self, step: u64, patience: Duration) {
        self.collective.begin(step, patience);
    }

    fn all_reduce(&mut self, values: &mut [f64]) -> Result<(), CollectiveError> {
        self.count(Operation::AllReduce, |collective| collective.all_reduce(values))
    }

    fn gather(&mut self, values: &[f32], out: &mut Vec<Vec<f32>>) -> Result<(), CollectiveError> {
        self.count(Operation::Gather, |collective| collective.gather(values, out))
    }

    fn times(&self) -> CollectiveTimes {
        self.collective.times()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_ranks_meet_by_epoch_and_each_seat_is_taken_once() {
        let mut room = Room::default();
        let first = room.take(3, 1, 2).unwrap();
        assert_eq!((first.rank(), first.world()), (1, 2));
        assert!(matches!(room.take(3, 1, 2), Err(FormError::Impossible { rank: 1, world: 2 })));
        assert!(matches!(room.take(3, 0, 3), Err(FormError::Impossible { .. })));
        assert_eq!(room.take(3, 0, 2).unwrap().rank(), 0);
        assert_eq!(room.take(4, 0, 1).unwrap().world(), 1);
        let old = room.take(3, 0, 2);
        assert!(matches!(old, Err(FormError::Superseded { epoch: 3, newest: 4 })));
    }
}
