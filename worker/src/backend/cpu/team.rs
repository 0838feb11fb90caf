//! Threads that compute one operation together.
//!
//! [`Team::run`] gives each thread a share of neighbouring items, the same in every run of as many, and
//! what is left of a share to whoever is free: rows that a thread wrote in one operation are in its
//! cache when it reads them in the next. The caller works too. A thread that comes late (asleep, or not
//! on a core) is not waited for: once the items are gone the door is closed, and only those who went
//! through it must come out again. Idle threads spin for a moment, then yield, then sleep, so that a
//! machine with other work to do does not suffer.

#![expect(unsafe_code, reason = "a borrowed closure crosses to threads that outlive it")]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::convert::Infallible;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::backend::cpu::pin::Pinned;

/// How long an idle thread keeps its core to itself: longer than the gap between two operations.
const SPIN_MAX: Duration = Duration::from_micros(15);
/// How long an idle thread stays awake at all: longer than the gap around a collective in memory.
const AWAKE_MAX: Duration = Duration::from_micros(50);
/// Spins between two looks at the clock.
const SPINS_A_LOOK: u32 = 32;

/// The door is open: items may be left.
const OPEN: u64 = 1 << 31;
/// Threads inside, the caller left out.
const INSIDE: u64 = OPEN - 1;
/// A new run counts up by this.
const RUN: u64 = 1 << 32;

type Work<'a> = dyn Fn(usize) + Sync + 'a;

thread_local! {
    static PLACE: Cell<usize> = const { Cell::new(0) };
}

/// Which thread of its team calls: 0 is whoever calls [`Team::run`].
pub(crate) fn place() -> usize {
    PLACE.get()
}

/// A fixed number of threads, the caller among them.
#[derive(Debug)]
pub(crate) struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    busy: AtomicBool,
    /// The caller's.
    pinned: Option<Pinned>,
}

#[derive(Debug)]
struct Shared {
    /// Run number, [`OPEN`], threads [`INSIDE`].
    door: AtomicU64,
    /// For each thread, the next item of its share; the caller has the first.
    next: Vec<Next>,
    /// What the current run does and how many items it has. Written while the door is closed and
    /// nobody is inside; read by those inside.
    job: UnsafeCell<Job>,
    /// A thread is about to sleep or sleeps.
    asleep: Vec<AtomicBool>,
    /// The caller, while it sleeps.
    caller: Mutex<Option<Thread>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    sleepers: OnceLock<Vec<Thread>>,
}

/// In a cache line of its own, and the one that is fetched with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Next(AtomicUsize);

#[derive(Debug, Clone, Copy)]
struct Job {
    work: Option<*const Work<'static>>,
    items: usize,
}

// SAFETY: `job` is guarded by the door, as its comment says; all else is made to be shared.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is only followed while `run` holds what it points to.
unsafe impl Send for Shared {}

impl Team {
    /// `threads` threads in all; 1 starts none.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        Self::on(threads, &[])
    }

    /// The same; each stays on its CPU, if it has one, the caller on the first until it drops the team.
    pub(crate) fn on(threads: usize, cpus: &[usize]) -> std::io::Result<Self> {
        let others = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            door: AtomicU64::new(0),
            next: (0..=others).map(|_| Next::default()).collect(),
            job: UnsafeCell::new(Job { work: None, items: 0 }),
            asleep: (0..others).map(|_| AtomicBool::new(false)).collect(),
            caller: Mutex::new(None),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            sleepers: OnceLock::new(),
        });
        let busy = AtomicBool::new(false);
        let (begun, all_begun) = sync_channel::<Infallible>(0);
        let mut team = Self { shared, threads: Vec::new(), busy, pinned: None };
        for place in 0..others {
            let shared = Arc::clone(&team.shared);
            let name = format!("compute-{}", place + 1);
            let thread = std::thread::Builder::new().name(name);
            let cpu = cpus.get(place + 1).copied();
            let begun = begun.clone();
            team.threads.push(thread.spawn(move || {
                let _pinned = cpu.and_then(Pinned::on);
                drop(begun);
                shared.serve(place);
            })?);
        }
        // On a busy machine a thread may begin late: better now than in the midst of a step.
        drop(begun);
        assert!(all_begun.recv().is_err(), "there is nothing to receive but that all have let go");
        let sleepers = team.threads.iter().map(|it| it.thread().clone()).collect();
        team.shared.sleepers.set(sleepers).expect("set once, here");
        // Last: threads start where the one that starts them may be.
        team.pinned = cpus.first().copied().and_then(Pinned::on);
        Ok(team)
    }

    /// How many threads compute.
    pub(crate) fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `work` once with each of `0..items`, from any thread, and returns when all are done.
    ///
    /// # Panics
    /// If `work` panicked, with the same panic; or if called from within `work`.
    pub(crate) fn run(&self, items: usize, work: &Work<'_>) {
        if self.threads.is_empty() || items < 2 {
            (0..items).for_each(work);
            return;
        }
        assert!(!self.busy.swap(true, Ordering::Acquire), "one run at a time");
        self.open(items, work);
        self.shared.keep_panic(|| self.shared.take_items(0, items, work));
        self.close();
        self.busy.store(false, Ordering::Release);
        let panic = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn open(&self, items: usize, work: &Work<'_>) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; `run` does not return before everyone is out again.
        let work = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        // SAFETY: the door is closed and nobody is inside, so this is the only access.
        unsafe { *shared.job.get() = Job { work: Some(std::ptr::from_ref(work)), items } };
        for (place, next) in shared.next.iter().enumerate() {
            next.0.store(shared.share(place, items).start, Ordering::Relaxed);
        }
        let run = shared.door.load(Ordering::Relaxed) & !(OPEN | INSIDE);
        // Sequentially consistent against `sleep`: either a thread about to sleep sees the open door,
        // or its flag is seen here.
        shared.door.store(run.wrapping_add(RUN) | OPEN, Ordering::SeqCst);
        let wanted = items - 1;
        let sleepers = shared.sleepers.get().expect("set when the team was made");
        for (asleep, thread) in shared.asleep.iter().zip(sleepers).take(wanted) {
            if asleep.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
    }

    fn close(&self) {
        let shared = &*self.shared;
        if shared.door.fetch_and(!OPEN, Ordering::AcqRel) & INSIDE == 0 {
            return;
        }
        if wait(|| shared.door.load(Ordering::Acquire) & INSIDE == 0) {
            return;
        }
        *shared.caller.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(std::thread::current());
        while shared.door.load(Ordering::SeqCst) & INSIDE != 0 {
            std::thread::park();
        }
        *shared.caller.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A panic of `work` was handed to the caller of `run`; the thread itself does not panic.
            drop(thread.join());
        }
        drop(self.pinned.take());
    }
}

impl Shared {
    /// The life of one thread.
    fn serve(&self, place: usize) {
        PLACE.set(place + 1);
        let mut seen = 0;
        loop {
            let news = |door: u64| door & !(OPEN | INSIDE) != seen && door & OPEN != 0;
            let called =
                || news(self.door.load(Ordering::SeqCst)) || self.stop.load(Ordering::SeqCst);
            if !wait(called) {
                self.sleep(place, called);
            }
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let door = self.door.load(Ordering::Acquire);
            if !news(door) {
                continue;
            }
            let inside =
                self.door.compare_exchange(door, door + 1, Ordering::AcqRel, Ordering::Relaxed);
            if inside.is_err() {
                continue; // closed, or someone else went in: look again
            }
            seen = door & !(OPEN | INSIDE);
            // SAFETY: whoever is inside may read the job; it is not written until all are out.
            let job = unsafe { *self.job.get() };
            if let Some(work) = job.work {
                // SAFETY: `run` holds the closure until all who went in are out.
                let work = unsafe { &*work };
                self.keep_panic(|| self.take_items(place + 1, job.items, work));
            }
            let before = self.door.fetch_sub(1, Ordering::SeqCst);
            if before & INSIDE == 1 && before & OPEN == 0 {
                let caller = self.caller.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(caller) = &*caller {
                    caller.unpark();
                }
            }
        }
    }

    fn sleep(&self, place: usize, called: impl Fn() -> bool) {
        self.asleep[place].store(true, Ordering::SeqCst);
        while !called() {
            std::thread::park();
        }
        self.asleep[place].store(false, Ordering::SeqCst);
    }

    /// The items of a thread.
    fn share(&self, place: usize, items: usize) -> Range<usize> {
        let threads = self.next.len();
        items * place / threads..items * (place + 1) / threads
    }

    /// Takes what is left of a thread's own share, then of the others'.
    fn take_items(&self, place: usize, items: usize, work: &Work<'_>) {
        let threads = self.next.len();
        for share in (0..threads).map(|further| (place + further) % threads) {
            let (next, end) = (&self.next[share].0, self.share(share, items).end);
            // Looked at first: a line that nobody writes to costs little.
            while next.load(Ordering::Relaxed) < end {
                let item = next.fetch_add(1, Ordering::Relaxed);
                if item < end {
                    work(item);
                }
            }
        }
    }

    /// Keeps the first panic for the caller, and the other items from being started.
    fn keep_panic(&self, work: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            for next in &self.next {
                next.0.store(usize::MAX / 2, Ordering::Relaxed);
            }
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }
}

/// Waits a moment for `done`; whether it came.
fn wait(done: impl Fn() -> bool) -> bool {
    let mut since = None;
    let mut calm = false;
    loop {
        for _ in 0..SPINS_A_LOOK {
            if done() {
                return true;
            }
            if calm {
                std::thread::yield_now();
                break;
            }
            std::hint::spin_loop();
        }
        let waited = since.get_or_insert_with(Instant::now).elapsed();
        if waited > AWAKE_MAX {
            return done();
        }
        calm = waited > SPIN_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most items of a run; Miri takes its time.
    const ITEMS: usize = if cfg!(miri) { 20 } else { 200 };

    #[test]
    fn each_item_is_done_once_whatever_the_number_of_threads() {
        for threads in [1, 2, 3, 7] {
            let team = Team::new(threads).unwrap();
            assert_eq!(team.threads(), threads);
            for items in (0..ITEMS).chain([25 * ITEMS]) {
                let done: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                team.run(items, &|item| {
                    done[item].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn threads_of_a_team_have_places_of_their_own() {
        let team = Team::new(3).unwrap();
        let whose: [OnceLock<std::thread::ThreadId>; 3] = Default::default();
        for _ in 0..20 {
            team.run(ITEMS, &|_| {
                let current = std::thread::current().id();
                assert_eq!(*whose[place()].get_or_init(|| current), current);
            });
        }
        assert_eq!(whose[0].get(), Some(&std::thread::current().id()));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(3).unwrap();
        for _ in 0..20 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                team.run(50, &|item| assert!(item != 17, "seventeen"));
            }));
            assert!(caught.is_err());
            let count = AtomicUsize::new(0);
            team.run(50, &|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 50);
        }
    }
}
