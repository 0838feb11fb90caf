//! Forming a group: who is there, who owns what, load, and one step through all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use proto::worker::{KvDtype, LoadRequest, Loaded, Loading, ShardPlan};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::cluster::draft::{self, Draft, Drafted};
use crate::cluster::group::Reserved;
use crate::cluster::shares::{Able, shares};
use crate::cluster::{
    Begins, ClusterError, EpochAsked, Group, Member, MemberError, MemberRequest, RankLook,
};

/// Whoever gives out epochs does so within this time.
const EPOCH_MAX: Duration = Duration::from_secs(10);
/// Progress messages a rank may have under way.
const PROGRESS_UNREAD: usize = 16;

/// What is asked of every rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Identifies the model's files.
    pub(crate) model_digest: Vec<u8>,
    /// The model's decoder layers.
    pub(crate) layers: u32,
    /// Bytes of the model's files.
    pub(crate) weight_bytes: u64,
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
    /// Bytes of host memory on each rank; none: the rank decides.
    pub(crate) swap_bytes: Option<u64>,
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

/// Forms a group at an epoch newer than `epoch` and than any that its ranks have been in.
/// `progress` is told bytes done and bytes in all, over all ranks.
pub(crate) async fn form(
    draft: Draft,
    wish: Wish,
    epoch: u64,
    epochs: Option<mpsc::Sender<EpochAsked>>,
    progress: impl Fn(u64, u64) + Send + Sync,
) -> Result<Group, ClusterError> {
    let Drafted { members, mut looks, newest } = draft::draft(&draft, &wish).await?;
    let shares = shares(&able(&looks, &draft.speeds), wish.weight_bytes).map_err(|shortage| {
        let what = shortage.to_string();
        if draft.open { ClusterError::Waiting(what) } else { ClusterError::Unusable(what) }
    })?;
    let members: Arc<[Member]> = members.into();
    let peers = peers(&members)?;
    let epoch = next_epoch(&members, newest.max(epoch), epochs).await?;
    let meter = Meter { done: Mutex::new(vec![(0, 0); members.len()]), progress };
    let loads = members.iter().enumerate().map(|(rank, member)| {
        let request = request(&wish, epoch, rank, &shares, &peers);
        load(rank, member, request, wish.load_silence_max, &meter)
    });
    let loaded = try_join_all(loads).await?;
    for ((look, loaded), share) in looks.iter_mut().zip(&loaded).zip(shares) {
        (look.share, look.weight_bytes) = (share, loaded.weight_bytes);
    }
    let mut group = Group::new(epoch, Arc::clone(&members), reserved(&members, &loaded)?);
    group.described = looks;
    group.step(None, wish.step_max, Begins::Now).await?;
    Ok(group)
}

/// One that is newer than `newest`: from whoever gives them out, if there is anybody.
async fn next_epoch(
    members: &[Member],
    newest: u64,
    epochs: Option<mpsc::Sender<EpochAsked>>,
) -> Result<u64, ClusterError> {
    let Some(epochs) = epochs else { return Ok(newest + 1) };
    let (reply, answer) = oneshot::channel();
    let ranks = members.iter().map(|member| member.name.clone()).collect();
    let asking = async {
        let asked = epochs.send(EpochAsked { newest, ranks, reply }).await;
        if asked.is_err() {
            return Err("whoever gives out epochs has ended".to_owned());
        }
        answer.await.unwrap_or_else(|_| Err("whoever gives out epochs has ended".to_owned()))
    };
    match timeout(EPOCH_MAX, asking).await {
        Ok(given) => given.map_err(ClusterError::Deposed),
        Err(_) => Err(ClusterError::Waiting("no epoch was given out in time".to_owned())),
    }
}

/// Where the ranks reach each other; nowhere when they share a process.
fn peers(members: &[Member]) -> Result<Vec<String>, ClusterError> {
    let addresses: Vec<String> = members.iter().filter_map(|m| m.address.clone()).collect();
    if !addresses.is_empty() && addresses.len() != members.len() {
        let what = "workers of this process and others cannot be one group";
        return Err(ClusterError::Unusable(what.to_owned()));
    }
    Ok(addresses)
}

/// What each rank can take on. Ranks that compute on one host's processors share its memory. One whose speed was
/// never measured is as fast as the others are on average, and on processors as it has threads.
fn able(looks: &[RankLook], speeds: &HashMap<String, f64>) -> Vec<Able> {
    let is_host = |look: &RankLook| look.backend != "opencl";
    let size = |look: &RankLook| if is_host(look) { f64::from(look.threads.max(1)) } else { 1.0 };
    let known: Vec<f64> =
        looks.iter().filter_map(|look| Some(speeds.get(&look.name)? / size(look))).collect();
    let usual = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
    let able = |look: &RankLook| {
        let neighbours =
            looks.iter().filter(|it| is_host(it) && it.node == look.node).count() as u64;
        let share = if is_host(look) { neighbours } else { 1 };
        Able {
            memory_bytes: look.memory_bytes / share,
            speed: speeds.get(&look.name).copied().unwrap_or(usual * size(look)),
        }
    };
    looks.iter().map(able).collect()
}

fn request(wish: &Wish, epoch: u64, rank: usize, shares: &[u32], peers: &[String]) -> LoadRequest {
    LoadRequest {
        epoch,
        shard: Some(ShardPlan {
            rank: u32::try_from(rank).unwrap_or(u32::MAX),
            shares: shares.to_vec(),
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

pub(super) fn gone(rank: usize, member: &Member) -> ClusterError {
    ClusterError::Ended { rank, name: member.name.clone() }
}

pub(super) fn lost(
    rank: usize,
    member: &Member,
    cause: &'static str,
    what: String,
) -> ClusterError {
    ClusterError::Lost { rank, name: member.name.clone(), cause, what }
}

pub(super) fn failed(rank: usize, member: &Member, error: &MemberError) -> ClusterError {
    match error {
        MemberError::Lost(what) => lost(rank, member, "lost", what.clone()),
        MemberError::Refused(what) => {
            ClusterError::Unusable(format!("rank {rank} ({}): {what}", member.name))
        }
    }
}
