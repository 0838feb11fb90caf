//! Starts requests when their time has come, and collects what their clients saw.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::{LoadConfig, Shape};
use crate::load::ask::{Client, Sample};
use crate::load::prompts::PromptSource;
use crate::load::random::Random;
use crate::load::target::Target;

/// Samples that may wait to be collected.
const COLLECTED_MAX: usize = 1024;
/// The stream of random numbers that says when requests start; those of requests have their number.
const ARRIVALS: u64 = u64::MAX;

/// A load that is about to be put on a server.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// On whom.
    pub(crate) target: Target,
    /// What is asked.
    pub(crate) prompts: Arc<PromptSource>,
    /// When.
    pub(crate) config: LoadConfig,
}

/// How far it is, at any moment.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Requests under way.
    pub(crate) in_flight: AtomicUsize,
    /// Requests that should have started but had to wait, since too many were under way.
    pub(crate) held_back: AtomicU64,
}

/// What the clients share.
struct Shared {
    load: Load,
    began: Instant,
    next: AtomicU64,
    progress: Arc<Progress>,
    stop: CancellationToken,
    samples: mpsc::Sender<Sample>,
}

impl Load {
    /// Puts it on the server, until all is asked and answered, or `stop`: then what is under way is
    /// still waited for. `each` sees every sample as it comes.
    pub(crate) async fn run(
        self,
        progress: Arc<Progress>,
        stop: CancellationToken,
        mut each: impl FnMut(Sample),
    ) {
        let (samples, mut collected) = mpsc::channel(COLLECTED_MAX);
        let shape = self.config.shape;
        let over = stop.child_token();
        let _over = over.clone().drop_guard();
        if let Some(duration) = self.config.duration_max {
            let over = over.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = sleep(duration) => over.cancel(),
                    () = over.cancelled() => {}
                }
            });
        }
        let next = AtomicU64::new(0);
        let began = Instant::now();
        let shared = Arc::new(Shared { load: self, began, next, progress, stop: over, samples });
        let mut clients = JoinSet::new();
        match shape {
            Shape::Steady { concurrency } => {
                (0..concurrency).for_each(|_| drop(clients.spawn(Arc::clone(&shared).steady())));
            }
            Shape::Wave { crest, period } => (0..crest).for_each(|nth| {
                let tide = Tide { nth, crest, period };
                drop(clients.spawn(Arc::clone(&shared).wave(tide)));
            }),
            Shape::Poisson { rate, in_flight_max } => {
                drop(clients.spawn(Arc::clone(&shared).poisson(rate, in_flight_max)));
            }
        }
        drop(shared);
        // The channel ends with the last client, which holds the last sender.
        while let Some(sample) = collected.recv().await {
            each(sample);
        }
        while clients.join_next().await.is_some() {}
    }
}

impl Shared {
    /// The number of the next request; none: all are asked, or it is over.
    fn number(&self) -> Option<u64> {
        if self.stop.is_cancelled() {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.load.config.requests_max.unwrap_or(u64::MAX)).then_some(number)
    }

    async fn ask(&self, client: &mut Client, number: u64) {
        let asked = self.load.prompts.asked(number);
        self.progress.in_flight.fetch_add(1, Ordering::Relaxed);
        let sample = client.ask(&self.load.target, &asked, self.began).await;
        self.progress.in_flight.fetch_sub(1, Ordering::Relaxed);
        // Nobody collects any more: nobody wants to know.
        drop(self.samples.send(sample).await);
    }

    /// One after another.
    async fn steady(self: Arc<Self>) {
        let mut client = Client::default();
        while let Some(number) = self.number() {
            self.ask(&mut client, number).await;
        }
    }

    /// One after another while the wave is high enough for this client.
    async fn wave(self: Arc<Self>, tide: Tide) {
        let mut client = Client::default();
        loop {
            let wait = tide.wait(self.began.elapsed());
            if !wait.is_zero() {
                // A connection that rests for long may be closed by the server.
                client = Client::default();
                tokio::select! {
                    () = sleep(wait) => {}
                    () = self.stop.cancelled() => return,
                }
            }
            let Some(number) = self.number() else { return };
            self.ask(&mut client, number).await;
        }
    }

    /// At random moments, each with a client of its own.
    async fn poisson(self: Arc<Self>, rate: f64, in_flight_max: usize) {
        let places = Arc::new(Semaphore::new(in_flight_max));
        let mut random = Random::new(self.load.config.seed, ARRIVALS);
        let mut at = tokio::time::Instant::now();
        loop {
            at += Duration::from_secs_f64(random.exponential() / rate);
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.stop.cancelled() => return,
            }
            if places.available_permits() == 0 {
                self.progress.held_back.fetch_add(1, Ordering::Relaxed);
            }
            let place = Arc::clone(&places).acquire_owned().await;
            let Some(number) = self.number() else { return };
            let shared = Arc::clone(&self);
            tokio::spawn(async move {
                let _place = place;
                shared.ask(&mut Client::default(), number).await;
            });
        }
    }
}

/// How one client sees the wave: 1 + (crest − 1) · (1 − cos)/2 clients are active.
#[derive(Debug, Clone, Copy)]
struct Tide {
    nth: usize,
    crest: usize,
    period: Duration,
}

impl Tide {
    /// How long until this client is active; zero: it is.
    #[expect(clippy::cast_precision_loss, reason = "clients are few")]
    fn wait(self, elapsed: Duration) -> Duration {
        if self.nth == 0 || self.crest < 2 {
            return Duration::ZERO;
        }
        // Rounded to the nearest whole number of clients, this one is among them from here on.
        let height = (self.nth as f64 - 0.5) / (self.crest as f64 - 1.0);
        let rises = (1.0 - 2.0 * height).acos();
        let period = self.period.as_secs_f64();
        let phase = elapsed.as_secs_f64() % period / period * TAU;
        let wait = if phase < rises {
            rises - phase
        } else if phase > TAU - rises {
            TAU - phase + rises
        } else {
            0.0
        };
        Duration::from_secs_f64(wait / TAU * period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(at: f64) -> usize {
        let period = Duration::from_secs(60);
        (0..8)
            .filter(|nth| {
                let tide = Tide { nth: *nth, crest: 8, period };
                tide.wait(Duration::from_secs_f64(at)).is_zero()
            })
            .count()
    }

    #[test]
    fn a_wave_goes_from_one_to_the_crest_and_back() {
        assert_eq!(active(0.0), 1);
        assert_eq!(active(30.0), 8);
        assert_eq!(active(59.99), 1);
        assert_eq!(active(90.0), 8);
        // Half way up there are as many as half way down.
        assert_eq!(active(14.0), active(46.0));
        assert!((4..=5).contains(&active(15.0)));
    }

    #[test]
    fn a_client_that_waits_is_active_afterwards() {
        for nth in 1..8 {
            let tide = Tide { nth, crest: 8, period: Duration::from_secs(60) };
            for at in [0.0, 1.0, 10.0, 29.0, 31.0, 55.0, 59.0] {
                let at = Duration::from_secs_f64(at);
                let later = at + tide.wait(at) + Duration::from_millis(1);
                assert_eq!(tide.wait(later), Duration::ZERO, "client {nth}");
            }
        }
    }
}
