//! The thread that drives the streams to the peers, and lends that to the rank that waits for them.
//!
//! A frame that goes from the rank's thread to one that drives the streams, and its answer back, costs two
//! changes of thread at each end: as much as the way between two processes. So while a rank computes a
//! step it borrows the streams: it drives them itself, on its own thread, whenever it waits for a peer.
//! The driver's thread takes them back when the step is over, or when the rank has computed for
//! [`UNATTENDED_MAX`] without a look at them; then nothing is lost but the advantage.
//!
//! Two threads may want to drive at the same time: the runtime lets one do it, and the other is woken by
//! it. So who has borrowed what is about speed alone.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;

/// Streams that are borrowed are not left alone for longer: what is half sent goes on, and pings are
/// answered. A rank that computes this long between two collectives does not feel two changes of thread.
const UNATTENDED_MAX: Duration = Duration::from_millis(1);

/// A runtime of one thread, with that thread. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub struct Driver {
    owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
}

struct Shared {
    /// Always there; taken to be dropped.
    runtime: Option<Runtime>,
    /// A rank drives, or is about to.
    borrowed: AtomicBool,
    /// Counts when a rank begins to drive and when it ends: odd while it does.
    uses: AtomicU64,
    /// Tells the driver's thread to let go.
    wanted: Notify,
    stop: Mutex<bool>,
    bell: Condvar,
}

impl Driver {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the operating system does not give a thread or what a runtime needs.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            runtime: Some(Builder::new_current_thread().enable_all().build()?),
            borrowed: AtomicBool::new(false),
            uses: AtomicU64::new(0),
            wanted: Notify::new(),
            stop: Mutex::new(false),
            bell: Condvar::new(),
        });
        let driven = Arc::clone(&shared);
        thread::Builder::new().name("link".to_owned()).spawn(move || driven.drive())?;
        Ok(Self { owner: Arc::new(Owner { shared }) })
    }

    /// Where to spawn what the thread is to drive.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        self.owner.shared.runtime().handle()
    }

    /// Runs a future to its end on this thread, driving the streams whenever it waits.
    ///
    /// # Panics
    /// On a thread that drives a runtime already.
    pub(super) fn run<F: Future>(&self, future: F) -> F::Output {
        let Shared { borrowed, uses, wanted, .. } = self.owner.shared.as_ref();
        if !borrowed.swap(true, Ordering::AcqRel) {
            wanted.notify_one();
        }
        uses.fetch_add(1, Ordering::AcqRel);
        let _used = Used(uses);
        self.owner.shared.runtime().block_on(future)
    }

    /// The rank will not wait for peers for some time.
    pub(crate) fn give_back(&self) {
        let shared = self.owner.shared.as_ref();
        if shared.borrowed.swap(false, Ordering::AcqRel) {
            shared.ring();
        }
    }
}

impl Shared {
    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("taken only when dropped")
    }

    /// The thread: drives until a rank wants to, and after it.
    fn drive(&self) {
        loop {
            self.runtime().block_on(self.wanted.notified());
            let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if *stop {
                    return;
                }
                if !self.borrowed.load(Ordering::Acquire) {
                    break;
                }
                let uses = self.uses.load(Ordering::Acquire);
                let (guard, waited) = self
                    .bell
                    .wait_timeout(stop, UNATTENDED_MAX)
                    .unwrap_or_else(PoisonError::into_inner);
                stop = guard;
                let unattended =
                    uses.is_multiple_of(2) && self.uses.load(Ordering::Acquire) == uses;
                if waited.timed_out() && unattended {
                    self.borrowed.store(false, Ordering::Release);
                }
            }
        }
    }

    fn ring(&self) {
        // Whoever is about to sleep has looked before it let go of the lock.
        drop(self.stop.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.notify_one();
    }
}

/// Counts the end of a use, also when that is a panic.
struct Used<'a>(&'a AtomicU64);

impl Drop for Used<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wanted.notify_one();
        self.shared.ring();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The last clone may go in a task, where waiting for the runtime to end is not allowed.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("borrowed", &self.owner.shared.borrowed.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spawned_runs_while_nobody_borrows() {
        let driver = Driver::start().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        driver.handle().spawn(async move { tell.send(1).unwrap() });
        assert_eq!(told.recv(), Ok(1));
    }

    #[test]
    fn what_is_spawned_runs_while_a_rank_waits_and_after_it_has_gone_to_compute() {
        let driver = Driver::start().unwrap();
        for round in 0..100 {
            let (tell, told) = tokio::sync::oneshot::channel();
            driver.handle().spawn(async move { tell.send(round).unwrap() });
            assert_eq!(driver.run(told), Ok(round));
            // Nobody gives it back: it is taken.
            let (tell, told) = std::sync::mpsc::channel();
            driver.handle().spawn(async move { tell.send(round).unwrap() });
            assert_eq!(told.recv(), Ok(round));
            if round % 2 == 0 {
                driver.give_back();
            }
        }
    }

    #[test]
    fn a_rank_that_panics_does_not_keep_what_it_borrowed() {
        let driver = Driver::start().unwrap();
        let dies = || driver.run(async { panic!("on purpose") });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(dies)).is_err());
        let (tell, told) = std::sync::mpsc::channel();
        driver.handle().spawn(async move { tell.send(1).unwrap() });
        assert_eq!(told.recv(), Ok(1));
        assert_eq!(driver.run(async { 2 }), 2);
    }

    #[test]
    fn the_runtime_goes_with_the_last_clone_wherever_that_is() {
        let driver = Driver::start().unwrap();
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let handle = driver.handle().clone();
        handle.spawn(async move {
            let _kept = (driver, tell);
            tokio::task::yield_now().await;
        });
        assert!(told.recv().is_err(), "the task has ended, and its driver with it");
    }
}
