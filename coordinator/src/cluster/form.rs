//! Forming a group: who is there, who owns what, load, and one step through all of them.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use proto::worker::{Description, KvDtype, LoadRequest, Loaded, Loading, ShardPlan};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::cluster::group::Reserved;
use crate::cluster::{ClusterError, Group, Member, MemberError, MemberRequest};

/// A rank says what it is within this time: no work is needed for it.
const DESCRIBE_MAX: Duration = Duration::from_secs(5);
/// Progress messages a rank may have under way.
const PROGRESS_UNREAD: usize = 16;

/// What is asked of every rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Identifies the model's files.
    pub(crate) model_digest: Vec<u8>,
    /// The model's decoder layers.
    pub(crate) layers: u32,
    /// Tokens a KV block holds.
    pub(crate) block_size: u32,
    /// Blocks to reserve; 0: as many as the bytes hold.
    pub(crate) kv_blocks: u32,
    /// Bytes of KV cache for each rank; 0: the rank decides.
    pub(crate) kv_cache_bytes: u64,
    /// What keys and values are kept as.
    pub(crate) kv_dtype: KvDtype,
    /// Blocks of host memory; 0: as many as the bytes hold.
    pub(crate) swap_blocks: u32,
    /// Bytes of host memory on each rank.
    pub(crate) swap_bytes: u64,
    /// Longest sequence; 0: the model's context.
    pub(crate) model_len_max: u32,
    /// Most tokens of a step.
    pub(crate) step_tokens_max: u32,
    /// Most slices of a step.
    pub(crate) step_sequences_max: u32,
    /// A rank that loads tells of progress at least this often.
    pub(crate) load_silence_max: Duration,
    /// The first step, which may touch fresh memory, takes no longer.
    pub(crate) step_max: Duration,
}

/// Forms a group of all `members`, at an epoch newer than `epoch` and than any they have been in.
/// `progress` is told bytes done and bytes in all, over all ranks.
pub(crate) async fn form(
    members: Arc<[Member]>,
    wish: Wish,
    epoch: u64,
    progress: impl Fn(u64, u64) + Send + Sync,
) -> Result<Group, ClusterError> {
    let peers = peers(&members)?;
    let described = join_all(members.iter().enumerate().map(|(rank, m)| describe(rank, m))).await;
    let described = described.into_iter().collect::<Result<Vec<_>, _>>()?;
    agree(&members, &described, &wish)?;
    let epoch = described.iter().map(|d| d.epoch).fold(epoch, u64::max) + 1;
    let meter = Meter { done: Mutex::new(vec![(0, 0); members.len()]), progress };
    let loads = members.iter().enumerate().map(|(rank, member)| {
        let request = request(&wish, epoch, rank, members.len(), &peers);
        load(rank, member, request, wish.load_silence_max, &meter)
    });
    let loaded = try_join_all(loads).await?;
    let mut group = Group::new(epoch, Arc::clone(&members), reserved(&members, &loaded)?);
    group.step(None, wish.step_max).await?;
    Ok(group)
}

/// Where the ranks reach each other; nowhere when they share a process.
fn peers(members: &[Member]) -> Result<Vec<String>, ClusterError> {
    let addresses: Vec<String> = members.iter().filter_map(|m| m.address.clone()).collect();
    if members.is_empty() {
        return Err(ClusterError::Unusable("there is no worker to form a group of".to_owned()));
    }
    if !addresses.is_empty() && addresses.len() != members.len() {
        let what = "workers of this process and others cannot be one group";
        return Err(ClusterError::Unusable(what.to_owned()));
    }
    Ok(addresses)
}

async fn describe(rank: usize, member: &Member) -> Result<Description, ClusterError> {
    let (reply, answer) = oneshot::channel();
    let asking = async {
        let asked = member.requests.send(MemberRequest::Describe { reply }).await;
        if asked.is_err() {
            return Err(gone(rank, member));
        }
        match answer.await {
            Ok(described) => described.map_err(|error| failed(rank, member, &error)),
            Err(_) => Err(gone(rank, member)),
        }
    };
    timeout(DESCRIBE_MAX, asking).await.unwrap_or_else(|_| {
        Err(lost(rank, member, "deadline", format!("silent for {} s", DESCRIBE_MAX.as_secs())))
    })
}

/// One version and one model throughout, or a message that names who differs.
fn agree(members: &[Member], described: &[Description], wish: &Wish) -> Result<(), ClusterError> {
    let ours = env!("CARGO_PKG_VERSION");
    for (rank, (member, description)) in members.iter().zip(described).enumerate() {
        if description.version != ours {
            return Err(ClusterError::Unusable(format!(
                "rank {rank} ({}) is arcmesh {}, the coordinator is {ours}: start the same version everywhere",
                member.name, description.version
            )));
        }
        if description.model_digest != wish.model_digest {
            return Err(ClusterError::Unusable(format!(
                "rank {rank} ({}) has another model than the coordinator: it was started with {}, whose files are {}, \
                 the coordinator's are {}",
                member.name,
                description.model,
                hex(&description.model_digest),
                hex(&wish.model_digest)
            )));
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(8).fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn request(wish: &Wish, epoch: u64, rank: usize, world: usize, peers: &[String]) -> LoadRequest {
    LoadRequest {
        epoch,
        shard: Some(ShardPlan {
            rank: u32::try_from(rank).unwrap_or(u32::MAX),
            shares: vec![1; world],
            first_layer: 0,
            layer_count: wish.layers,
        }),
        peers: peers.to_vec(),
        model_digest: wish.model_digest.clone(),
        block_size: wish.block_size,
        kv_blocks: wish.kv_blocks,
        kv_cache_bytes: wish.kv_cache_bytes,
        kv_dtype: wish.kv_dtype.into(),
        swap_blocks: wish.swap_blocks,
        swap_bytes: wish.swap_bytes,
        model_len_max: wish.model_len_max,
        step_tokens_max: wish.step_tokens_max,
        step_sequences_max: wish.step_sequences_max,
    }
}

/// Bytes done and bytes in all, by rank.
struct Meter<F> {
    done: Mutex<Vec<(u64, u64)>>,
    progress: F,
}

impl<F: Fn(u64, u64)> Meter<F> {
    fn set(&self, rank: usize, loading: Loading) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done[rank] = (loading.bytes_done, loading.bytes_total);
        let sum = |sum: u64, bytes: u64| sum.saturating_add(bytes);
        let bytes_done = done.iter().map(|(done, _)| *done).fold(0, sum);
        let bytes_total = done.iter().map(|(_, total)| *total).fold(0, sum);
        (self.progress)(bytes_done, bytes_total);
    }
}

async fn load<F: Fn(u64, u64)>(
    rank: usize,
    member: &Member,
    request: LoadRequest,
    silence_max: Duration,
    meter: &Meter<F>,
) -> Result<Loaded, ClusterError> {
    let (progress, mut told) = mpsc::channel(PROGRESS_UNREAD);
    let (reply, mut answer) = oneshot::channel();
    let silent = || {
        let what = format!("no progress in loading for {} s", silence_max.as_secs());
        lost(rank, member, "deadline", what)
    };
    let asked = member.requests.send(MemberRequest::Load { request, progress, reply });
    match timeout(silence_max, asked).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Err(gone(rank, member)),
        Err(_) => return Err(silent()),
    }
    loop {
        tokio::select! {
            biased;
            Some(loading) = told.recv() => meter.set(rank, loading),
            loaded = &mut answer => {
                return match loaded {
                    Ok(loaded) => loaded.map_err(|error| failed(rank, member, &error)),
                    Err(_) => Err(gone(rank, member)),
                };
            }
            () = sleep(silence_max) => return Err(silent()),
        }
    }
}

/// The group's capacity is the least over its ranks.
fn reserved(members: &[Member], loaded: &[Loaded]) -> Result<Reserved, ClusterError> {
    for (rank, (member, loaded)) in members.iter().zip(loaded).enumerate() {
        if loaded.kv_blocks == 0 {
            return Err(ClusterError::Unusable(format!(
                "rank {rank} ({}) has no room for a single KV block",
                member.name
            )));
        }
    }
    let block_bytes = loaded.iter().map(|l| l.kv_cache_bytes / u64::from(l.kv_blocks));
    Ok(Reserved {
        blocks: loaded.iter().map(|l| l.kv_blocks).min().unwrap_or(0),
        swap_blocks: loaded.iter().map(|l| l.swap_blocks).min().unwrap_or(0),
        block_bytes: block_bytes.fold(0, u64::saturating_add),
        weight_bytes: loaded.iter().map(|l| l.weight_bytes).fold(0, u64::saturating_add),
    })
}

fn gone(rank: usize, member: &Member) -> ClusterError {
    ClusterError::Ended { rank, name: member.name.clone() }
}

fn lost(rank: usize, member: &Member, cause: &'static str, what: String) -> ClusterError {
    ClusterError::Lost { rank, name: member.name.clone(), cause, what }
}

fn failed(rank: usize, member: &Member, error: &MemberError) -> ClusterError {
    match error {
        MemberError::Lost(what) => lost(rank, member, "lost", what.clone()),
        MemberError::Refused(what) => {
            ClusterError::Unusable(format!("rank {rank} ({}): {what}", member.name))
        }
    }
}
