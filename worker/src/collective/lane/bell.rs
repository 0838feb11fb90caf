//! How a rank waits for others: it looks for a moment, then it sleeps until its bell is rung.
//!
//! A bell is a word of shared memory. Who sleeps says so first and looks once more; who changes something that
//! it may be waiting for looks at the bell afterwards. Both in one order that all agree on: so one of them sees
//! the other, and nobody pays for waking who is awake.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::Timespec;
use rustix::thread::futex;

use crate::collective::luck::{LOOK_MAX, Luck};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// Looks between two looks at the clock.
const LOOKS: u32 = 32;

/// After a change that the bell's rank may be waiting for.
pub(super) fn ring(bell: &AtomicU32) {
    if bell.load(Ordering::SeqCst) == ASLEEP && bell.swap(AWAKE, Ordering::SeqCst) == ASLEEP {
        // It cannot fail: the word is there, and who is awake already needs nobody.
        futex::wake(bell, futex::Flags::empty(), 1).ok();
    }
}

/// Waits until `settled`, or until `patience` has passed since `begun`; tells which. Whoever settles it rings the
/// bell.
pub(super) fn wait(
    bell: &AtomicU32,
    luck: &mut Luck,
    settled: impl Fn() -> bool,
    begun: Instant,
    patience: Duration,
) -> bool {
    if luck.tries() {
        let came = look(&settled, begun);
        luck.learn(came);
        if came {
            return true;
        }
    }
    loop {
        bell.store(ASLEEP, Ordering::SeqCst);
        let came = settled();
        let left = patience.saturating_sub(begun.elapsed());
        if came || left.is_zero() {
            bell.store(AWAKE, Ordering::SeqCst);
            return came;
        }
        // A signal, a bell and the end of patience are told apart by looking again. Far longer than any
        // patience is long enough.
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
        futex::wait(bell, futex::Flags::empty(), ASLEEP, Some(&left)).ok();
    }
}

fn look(settled: impl Fn() -> bool, begun: Instant) -> bool {
    loop {
        for _ in 0..LOOKS {
            if settled() {
                return true;
            }
            std::hint::spin_loop();
        }
        if begun.elapsed() >= LOOK_MAX {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    #[test]
    fn nobody_sleeps_through_a_bell() {
        let (bells, balls) = ([AtomicU32::new(0), AtomicU32::new(0)], [0, 0].map(AtomicU64::new));
        thread::scope(|scope| {
            for me in [0, 1] {
                let (bells, balls) = (&bells, &balls);
                scope.spawn(move || {
                    for round in 1..=2_000 {
                        balls[me].store(round, Ordering::SeqCst);
                        ring(&bells[1 - me]);
                        let came = || balls[1 - me].load(Ordering::SeqCst) >= round;
                        // Without any luck it sleeps each time.
                        let mut luck = Luck::default();
                        if round % 2 == 0 {
                            luck.learn(false);
                        }
                        assert!(wait(
                            &bells[me],
                            &mut luck,
                            came,
                            Instant::now(),
                            Duration::from_secs(60)
                        ));
                    }
                });
            }
        });
    }

    #[test]
    fn patience_ends() {
        let bell = AtomicU32::new(0);
        assert!(!wait(
            &bell,
            &mut Luck::default(),
            || false,
            Instant::now(),
            Duration::from_millis(1)
        ));
        assert!(wait(&bell, &mut Luck::default(), || true, Instant::now(), Duration::ZERO));
        assert_eq!(bell.load(Ordering::SeqCst), AWAKE);
    }
}
