//! Reads the figures and the processes again and again, for as long as the load lasts.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::chart::Chart;
use crate::demo::families::Families;
use crate::demo::machine::held;
use crate::demo::site::Site;
use crate::exposition::Exposition;
use crate::load::Origin;

/// Readings over the whole run, about.
const READINGS: u32 = 600;
/// Shortest time between two.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Somebody who watches.
#[derive(Debug)]
pub(super) struct Watch {
    watching: JoinHandle<Watched>,
    stop: DropGuard,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// Charts of the figures.
    pub(super) charts: Vec<Chart>,
    /// When the processes were looked at, seconds from the start.
    pub(super) moments: Vec<f64>,
    /// What each held at those moments, the coordinator first.
    pub(super) processes: Vec<ProcessSeen>,
    /// Pages that could not be read.
    pub(super) missed: usize,
}

/// What a process held.
#[derive(Debug)]
pub(super) struct ProcessSeen {
    pub(super) name: String,
    pid: u32,
    /// Resident memory, bytes.
    pub(super) memory: Vec<f64>,
    /// Open files and sockets.
    pub(super) handles: Vec<f64>,
}

impl Watch {
    /// Begins. `duration`: about how long there is something to see.
    pub(super) fn start(site: &Site, duration: Duration) -> anyhow::Result<Self> {
        let origins: Result<Vec<Origin>, _> =
            site.pages().iter().map(|page| Origin::new(page, None)).collect();
        let origins = origins.context("where are the figures?")?;
        let processes = site.processes().into_iter().map(|(name, pid)| ProcessSeen {
            name,
            pid,
            memory: Vec::new(),
            handles: Vec::new(),
        });
        let seen = Watched { processes: processes.collect(), ..Watched::default() };
        let pause = (duration / READINGS).max(PAUSE_MIN);
        let stop = CancellationToken::new();
        let watching = tokio::spawn(watch(origins, seen, pause, stop.clone()));
        Ok(Self { watching, stop: stop.drop_guard() })
    }

    /// Ends; what was seen.
    pub(super) async fn end(self) -> Watched {
        drop(self.stop);
        self.watching.await.unwrap_or_default()
    }
}

async fn watch(
    origins: Vec<Origin>,
    mut seen: Watched,
    pause: Duration,
    stop: CancellationToken,
) -> Watched {
    let began = Instant::now();
    let mut families = Families::new(origins.len() - 1);
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        let mut all = Exposition::default();
        let mut missed = 0;
        for origin in &origins {
            match origin.page("/metrics").await {
                Ok(page) => all = all.with(Exposition::read(&page)),
                Err(error) => {
                    tracing::warn!(?origin, %error, "a page could not be read");
                    missed += 1;
                }
            }
        }
        let at = began.elapsed().as_secs_f64();
        if missed == 0 {
            families.take(at, all);
        }
        seen.missed += missed;
        seen.moments.push(at);
        for process in &mut seen.processes {
            // One that has ended holds nothing: its end is a check of its own.
            let now = held(process.pid);
            process.memory.push(now.map_or(0.0, |held| held.memory));
            process.handles.push(now.map_or(0.0, |held| held.handles));
        }
    }
    seen.charts = families.charts();
    seen
}
