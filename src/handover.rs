//! A model from a worker that has it: its files, piece by piece, into the cache.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use catalogue::{Incoming, Phase, Progress, Settings};
use checkpoint::Checkpoint;
use proto::files::files_client::FilesClient;
use proto::files::{FileEntry, ListReply, ListRequest, ReadRequest};
use proto::worker::Announcement;
use registry::Etcd;
use sha2::{Digest as _, Sha256};
use tls::Guard;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint};

use crate::config::ModelFrom;

/// More files than any model has.
const FILES_MAX: usize = 4200;
/// A piece and its envelope.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes on their way in a connection: a round trip's worth at 25 Gbit/s and 1 ms, with room.
const WINDOW_BYTES: u32 = 8 << 20;

/// A model that is here now.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) checkpoint: Arc<Checkpoint>,
    /// Bytes that came over the network.
    pub(crate) received: u64,
}

/// All that came was thrown away: nothing is gained by it.
#[derive(Debug, thiserror::Error)]
#[error("what came cannot be used")]
struct Discarded;

/// Takes a model over. What was cut off goes on where it was; who announces itself first in a cluster is
/// asked first.
pub(crate) async fn take(
    from: &ModelFrom,
    etcd: Option<&Etcd>,
    guard: &Guard,
    settings: &Settings,
) -> anyhow::Result<Taken> {
    let patience = &settings.patience;
    let (mut received, mut tries, mut pause) = (0, 0, patience.pause);
    loop {
        let before = received;
        let tried = attempt(from, etcd, guard, settings, &mut received).await;
        let error = match tried {
            Ok(checkpoint) => return Ok(Taken { checkpoint, received }),
            Err(error) => error,
        };
        if received > before && !error.is::<Discarded>() {
            (tries, pause) = (0, patience.pause);
        }
        tries += 1;
        if tries >= patience.tries_max {
            return Err(error.context("--model-from"));
        }
        tracing::warn!("the model does not come: {error:#}; trying again");
        sleep(pause).await;
        pause *= 2;
    }
}

async fn attempt(
    from: &ModelFrom,
    etcd: Option<&Etcd>,
    guard: &Guard,
    settings: &Settings,
    received: &mut u64,
) -> anyhow::Result<Arc<Checkpoint>> {
    let address = match (from, etcd) {
        (ModelFrom::Worker(address), _) => address.to_string(),
        (ModelFrom::Cluster, Some(etcd)) => announced(etcd.clone()).await?,
        (ModelFrom::Cluster, None) => bail!("nobody is announced without --etcd"),
    };
    let silence_max = settings.patience.silence_max;
    let mut client = client(&address, guard, settings.patience.connect_max)
        .await
        .with_context(|| format!("{address} cannot be reached"))?;
    let listed = timeout(silence_max, client.list(ListRequest {})).await;
    let listed = listed.context("the worker does not answer")??.into_inner();
    let ListReply { model_digest, is_folder, files } = listed;
    let lists_none = || format!("{address} lists no model");
    let digest: [u8; 32] = model_digest.try_into().ok().with_context(lists_none)?;
    let most = if is_folder { FILES_MAX } else { 1 };
    ensure!((1..=most).contains(&files.len()), lists_none());
    tracing::info!(from = address, files = files.len(), "taking the model over");
    let cache = settings.cache.clone();
    let begun =
        spawn_blocking(move || Incoming::begin(&cache, &digest, &catalogue::progress::shown()));
    let incoming = begun.await??;
    for file in &files {
        take_file(&mut client, digest, file, &incoming, silence_max, received).await?;
    }
    let path = if is_folder {
        incoming.folder().to_owned()
    } else {
        incoming.folder().join(&files[0].name)
    };
    match open(path, digest).await {
        Ok(checkpoint) => Ok(checkpoint),
        Err(error) => {
            incoming.discard()?;
            Err(error.context(Discarded))
        }
    }
}

/// Opens what came, if it is what was listed.
async fn open(path: PathBuf, digest: [u8; 32]) -> anyhow::Result<Arc<Checkpoint>> {
    let opened = spawn_blocking(move || {
        let checkpoint = Checkpoint::open(&path)?;
        ensure!(checkpoint.digest() == digest, "what came is another model than was listed");
        Ok(Arc::new(checkpoint))
    });
    opened.await?
}

async fn take_file(
    client: &mut FilesClient<Channel>,
    digest: [u8; 32],
    file: &FileEntry,
    incoming: &Incoming,
    silence_max: Duration,
    received: &mut u64,
) -> anyhow::Result<()> {
    let Some(start) = incoming.missing_from(&file.name, file.bytes)? else { return Ok(()) };
    let mut part = incoming.open(&file.name, start)?;
    let request =
        ReadRequest { model_digest: digest.to_vec(), name: file.name.clone(), from: start };
    let mut done = start;
    let progress = catalogue::progress::shown();
    let mut pieces = timeout(silence_max, client.read(request)).await??.into_inner();
    while done < file.bytes {
        let piece =
            timeout(silence_max, pieces.message()).await.context("the worker went silent")??;
        let piece = piece.context("the worker ended early")?;
        ensure!(
            Sha256::digest(&piece.data)[..] == piece.sha256,
            "a piece of {} came damaged",
            file.name
        );
        done += piece.data.len() as u64;
        ensure!(done <= file.bytes, "{} is longer than it was listed", file.name);
        // To the system's cache, which takes it as fast as it comes: nothing else waits here.
        part.write_all(&piece.data)?;
        *received += piece.data.len() as u64;
        let total = Some(file.bytes);
        progress(Progress::Step { phase: Phase::Downloading, name: &file.name, done, total });
    }
    Ok(incoming.publish(&file.name)?)
}

async fn client(
    address: &str,
    guard: &Guard,
    connect_max: Duration,
) -> anyhow::Result<FilesClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .connect_timeout(connect_max)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let channel = guard.connect(&endpoint).await?;
    Ok(FilesClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// The address of a worker that has a model, once there is one.
async fn announced(etcd: Etcd) -> anyhow::Result<String> {
    let (there, mut seen) = watch::channel(Vec::<Announcement>::new());
    let _watching = AbortOnDropHandle::new(tokio::spawn(registry::watch(etcd, there)));
    tracing::info!("looking for a worker that has the model");
    let has = |worker: &Announcement| !worker.draining;
    let there = seen.wait_for(|there| there.iter().any(has)).await?;
    let first = there.iter().find(|worker| has(worker)).context("nobody is there")?;
    Ok(first.address.clone())
}
