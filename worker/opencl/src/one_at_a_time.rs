//! What drivers do only one of at a time, whatever the specification promises.
//!
//! Looking for devices, making contexts and compiling have crashed when threads of a process did them
//! at once. Each is done a few times in a worker's life, so they wait for one another.

use std::sync::{Mutex, MutexGuard, PoisonError};

static ALONE: Mutex<()> = Mutex::new(());

/// Waits until nobody else is at it; for as long as the result lives, nobody else will be.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
