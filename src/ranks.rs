//! The ranks of this process, joined to the coordinator in memory.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use checkpoint::Checkpoint;
use coordinator::{Member, MemberError, MemberRequest};
use futures::future::select_all;
use opencl::{Device, DeviceKind};
use proto::worker::load_progress::State;
use proto::worker::{LoadRequest, Loaded, Loading};
use tls::Guard;
use tokio::sync::mpsc;
use tokio::time::timeout;
use worker::BackendChoice;
use worker::collective::LaneChoice;
use worker::config::WorkerConfig;
use worker::metrics::WorkerMetrics;
use worker::rank::Rank;

use crate::config::{Backend, DeviceConfig};

/// Questions that a rank may not have taken yet: a step or two, and what asks after it.
const ASKED_MAX: usize = 4;

/// What is under way when a device is lost can only fail; it has this long to say so.
const LOST_PATIENCE: Duration = Duration::from_secs(5);

/// The ranks of this process, for who waits for the loss of their devices.
pub(crate) struct Ranks(Vec<Rank>);

impl Ranks {
    /// What comes of `part`, unless the device of a rank is lost: only another process may find it well.
    /// Then `stop` is called, and the error says which.
    ///
    /// # Errors
    /// As `part`, or the loss.
    pub(crate) async fn unless_lost<T>(
        &self,
        part: impl Future<Output = anyhow::Result<T>>,
        stop: impl FnOnce(),
    ) -> anyhow::Result<T> {
        let lost = select_all(self.0.iter().map(|rank| Box::pin(rank.lost())));
        let mut part = std::pin::pin!(part);
        tokio::select! {
            // Where both have happened, the loss is why.
            biased;
            (reason, rank, _) = lost => {
                stop();
                drop(timeout(LOST_PATIENCE, part).await);
                Err(anyhow!("the device of rank {rank} is lost: {reason}"))
            }
            ended = &mut part => ended,
        }
    }
}

/// Starts `world` ranks that meet in memory.
///
/// # Errors
/// As [`config`].
pub(crate) fn start(
    checkpoint: &Arc<Checkpoint>,
    device: &DeviceConfig,
    metrics: &WorkerMetrics,
    world: usize,
) -> anyhow::Result<(Vec<Member>, Ranks)> {
    let config = config(checkpoint, device)?;
    let ranks = Rank::start_local(&config, checkpoint, metrics, world);
    let members = ranks.iter().cloned().enumerate().map(|(at, rank)| member(at, rank)).collect();
    Ok((members, Ranks(ranks)))
}

/// What a rank of this process or machine is started with.
///
/// # Errors
/// There is no device such as was asked for.
pub(crate) fn config(
    checkpoint: &Checkpoint,
    device: &DeviceConfig,
) -> anyhow::Result<WorkerConfig> {
    Ok(WorkerConfig {
        model: checkpoint.path().display().to_string(),
        backend: backend(device)?,
        threads: device.threads,
        node: node(),
        guard: Guard::Open,
        lane: LaneChoice::default(),
        metrics: String::new(),
    })
}

/// What computes, once it is known what there is.
fn backend(device: &DeviceConfig) -> anyhow::Result<BackendChoice> {
    let opencl = || BackendChoice::OpenCl(Box::leak(Box::new(device.opencl.clone())));
    match device.backend {
        Backend::Candle => Ok(BackendChoice::Candle),
        Backend::Cpu => Ok(BackendChoice::Cpu),
        Backend::OpenCl => {
            device.opencl.devices().context("--backend opencl")?;
            Ok(opencl())
        }
        Backend::Auto => match device.opencl.devices() {
            Ok(found) if is_worth_it(&found) => Ok(opencl()),
            Ok(found) => {
                tracing::info!(device = %found[0].name, "no card of its own memory: the CPU computes");
                Ok(BackendChoice::Cpu)
            }
            Err(error) => {
                tracing::info!("the CPU computes: {error}");
                Ok(BackendChoice::Cpu)
            }
        },
    }
}

/// Whether `auto` takes the best of these devices: a card with memory of its own.
pub(crate) fn is_worth_it(found: &[Device]) -> bool {
    found.first().is_some_and(|device| device.kind == DeviceKind::Discrete)
}

/// The name of this machine.
pub(crate) fn node() -> String {
    let node = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match node.trim() {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}

fn member(at: usize, rank: Rank) -> Member {
    let (requests, asked) = mpsc::channel(ASKED_MAX);
    tokio::spawn(answer(rank, asked));
    Member { name: format!("thread {at}"), address: None, requests }
}

/// Answers one by one, until nobody asks any more. A step is with the rank at once, also while another runs.
async fn answer(rank: Rank, mut asked: mpsc::Receiver<MemberRequest>) {
    // An asker that is gone needs no reply, so a reply that nobody takes is dropped.
    while let Some(request) = asked.recv().await {
        match request {
            MemberRequest::Describe { reply } => drop(reply.send(Ok(rank.describe()))),
            MemberRequest::Load { request, progress, mut reply } => tokio::select! {
                loaded = load(&rank, &request, &progress) => drop(reply.send(loaded)),
                () = reply.closed() => {}
            },
            MemberRequest::Step { request, mut reply } => {
                let done = rank.step(request.as_ref().clone());
                tokio::spawn(async move {
                    tokio::select! {
                        done = done => drop(reply.send(Ok(done))),
                        () = reply.closed() => {}
                    }
                });
            }
        }
    }
}

async fn load(
    rank: &Rank,
    request: &LoadRequest,
    progress: &mpsc::Sender<Loading>,
) -> Result<Loaded, MemberError> {
    let refused = |failure: &dyn std::error::Error| MemberError::Refused(failure.to_string());
    let mut told = rank.load(request).map_err(|failure| refused(&failure))?;
    while let Some(step) = told.recv().await {
        match step.map_err(|failure| refused(&failure))?.state {
            Some(State::Loaded(loaded)) => return Ok(loaded),
            // Progress that finds no room is left out: there will be more.
            Some(State::Loading(loading)) => drop(progress.try_send(loading)),
            None => {}
        }
    }
    Err(MemberError::Lost("its thread ended while it loaded".to_owned()))
}
