//! Which epochs still hold memory: a new one loads when those before it have let go.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The epochs that hold something.
#[derive(Debug, Default)]
pub(super) struct Stays {
    epochs: Mutex<BTreeSet<u64>>,
    left: Condvar,
}

/// One epoch's stay; ends when dropped.
#[derive(Debug)]
pub(super) struct Stay {
    stays: Arc<Stays>,
    epoch: u64,
}

impl Stay {
    pub(super) fn begin(stays: &Arc<Stays>, epoch: u64) -> Self {
        stays.lock().insert(epoch);
        Self { stays: Arc::clone(stays), epoch }
    }

    /// Waits until no earlier epoch holds anything; calls `meanwhile` every so often.
    pub(super) fn alone(&self, every: Duration, meanwhile: impl Fn()) {
        let mut epochs = self.stays.lock();
        while epochs.first().is_some_and(|first| *first < self.epoch) {
            let waited = self.stays.left.wait_timeout(epochs, every);
            let (guard, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            epochs = guard;
            if waited.timed_out() {
                meanwhile();
            }
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.stays.lock().remove(&self.epoch);
        self.stays.left.notify_all();
    }
}

impl Stays {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn an_epoch_is_alone_when_all_before_it_have_ended_in_whatever_order() {
        let stays = Arc::default();
        let (first, second, third) =
            (Stay::begin(&stays, 1), Stay::begin(&stays, 2), Stay::begin(&stays, 3));
        let (tell, told) = mpsc::channel();
        let waiting = thread::spawn(move || {
            third.alone(Duration::from_millis(1), || tell.send(()).unwrap());
        });
        drop(second);
        told.recv().unwrap();
        drop(first);
        waiting.join().unwrap();
    }
}
