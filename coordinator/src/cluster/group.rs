//! A group of workers that has formed: every rank runs every step, or none does.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::pending;
use futures::stream::{FuturesUnordered, StreamExt};
use proto::worker::{StepReply, StepRequest};
use scheduler::{StepPlan, TokenId};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::cluster::{
    ClusterError, Likelihood, Member, MemberError, MemberRequest, SliceWish, wire,
};

/// After one rank's failure the others' are waited for this long: one may say more.
const TELLING_MAX: Duration = Duration::from_millis(250);

/// A group at an epoch.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its epoch.
    pub(crate) epoch: u64,
    /// KV blocks: the least over the ranks.
    pub(crate) blocks: u32,
    /// Blocks of host memory: the least over the ranks.
    pub(crate) swap_blocks: u32,
    /// Bytes of a block, over all ranks.
    pub(crate) block_bytes: u64,
    /// Bytes of weights, over all ranks.
    pub(crate) weight_bytes: u64,
    /// What each rank is, in order.
    pub(crate) described: Vec<RankLook>,
    /// In order of rank.
    members: Arc<[Member]>,
    /// Steps sent.
    steps: u64,
    /// Hears when the last of them is done.
    done: Option<oneshot::Receiver<Instant>>,
}

/// A rank, as it described itself when the group formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RankLook {
    /// Its address, or which thread of this process.
    pub(crate) name: String,
    /// The machine it is on.
    pub(crate) node: String,
    /// What computes.
    pub(crate) backend: String,
    /// As the device calls itself.
    pub(crate) device: String,
    /// Compute threads.
    pub(crate) threads: u32,
    /// The device's memory, bytes.
    pub(crate) memory_bytes: u64,
    /// `host:port` of its own `/metrics`; none: it has none.
    pub(crate) target: Option<String>,
    /// Its share of the model, relative to the others'.
    pub(crate) share: u32,
    /// Bytes of the weights that it holds, as they are in the file.
    pub(crate) weight_bytes: u64,
}

/// A step that every rank ran.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StepDone {
    /// Sampled by rank 0, in order of the slices that asked.
    pub(crate) tokens: Vec<TokenId>,
    /// What was asked of the logits, slice by slice: of its targets, then of its sampled token.
    pub(crate) likelihoods: Vec<Likelihood>,
    /// From sending it, or from the end of the step before if it was sent ahead, to the slowest reply.
    pub(crate) duration: Duration,
    /// Between the fastest reply and the slowest.
    pub(crate) skew: Duration,
    /// What each rank did with its time, in order of rank.
    pub(crate) ranks: Vec<RankTimes>,
}

/// What a rank did in a step, by its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RankTimes {
    /// Its device at work.
    pub(crate) compute: Duration,
    /// Moving bytes and adding them.
    pub(crate) transfer: Duration,
    /// Waiting for a peer that was not there yet.
    pub(crate) wait: Duration,
    /// Choosing tokens.
    pub(crate) sample: Duration,
    /// Carrying blocks between device and host.
    pub(crate) swap: Duration,
    /// Before the step: without any, since the one before.
    pub(crate) idle: Duration,
}

impl RankTimes {
    /// All of the step.
    pub(crate) fn busy(&self) -> Duration {
        [self.transfer, self.wait, self.sample, self.swap]
            .into_iter()
            .fold(self.compute, Duration::saturating_add)
    }
}

impl StepDone {
    /// The busiest rank's device at work.
    pub(crate) fn computed(&self) -> Duration {
        self.ranks.iter().map(|rank| rank.compute).max().unwrap_or_default()
    }

    /// What the slowest rank spent on carrying blocks between device and host.
    pub(crate) fn swapping(&self) -> Duration {
        self.ranks.iter().map(|rank| rank.swap).max().unwrap_or_default()
    }

    /// The longest that a rank had nothing to do before it.
    pub(crate) fn idle(&self) -> Duration {
        self.ranks.iter().map(|rank| rank.idle).max().unwrap_or_default()
    }

    /// When no rank was at work: the step was being sent, or the replies came.
    pub(crate) fn under_way(&self) -> Duration {
        let busy = self.ranks.iter().map(RankTimes::busy).max().unwrap_or_default();
        self.duration.saturating_sub(busy)
    }
}

/// What the ranks reserved, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reserved {
    pub(super) blocks: u32,
    pub(super) swap_blocks: u32,
    pub(super) block_bytes: u64,
    pub(super) weight_bytes: u64,
}

impl Group {
    pub(super) fn new(epoch: u64, members: Arc<[Member]>, reserved: Reserved) -> Self {
        let Reserved { blocks, swap_blocks, block_bytes, weight_bytes } = reserved;
        let described = Vec::new();
        let (steps, done) = (0, None);
        Self {
            epoch,
            blocks,
            swap_blocks,
            block_bytes,
            weight_bytes,
            described,
            members,
            steps,
            done,
        }
    }

    /// Ranks.
    pub(crate) fn world(&self) -> usize {
        self.members.len()
    }

    /// In order of rank.
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The next step, or a heartbeat if there is no plan; `wishes` has one for each slice. When it begins
    /// its deadline does.
    /// The future owns all it needs; dropping it
    /// abandons the step, and with it the group.
    pub(crate) fn step(
        &mut self,
        plan: Option<(&StepPlan, &[SliceWish])>,
        deadline: Duration,
        begins: Begins,
    ) -> impl Future<Output = Result<StepDone, ClusterError>> + Send + 'static {
        self.steps += 1;
        let mut request = wire::request(plan, self.epoch, self.steps);
        // A rank that waits for a peer gives up a little before we do: it knows whom it waited for.
        let peers = deadline * 3 / 4;
        request.deadline_ms = u32::try_from(peers.as_millis()).unwrap_or(u32::MAX);
        let members = Arc::clone(&self.members);
        let (done, heard) = oneshot::channel();
        let before = self.done.replace(heard).filter(|_| begins == Begins::AfterTheLast);
        async move {
            let (step, ended) = run(&members, Arc::new(request), deadline, before).await?;
            // Nobody may care.
            let _ = done.send(ended);
            Ok(step)
        }
    }
}

/// When a step begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begins {
    /// When it is sent.
    Now,
    /// When the step that was sent last is done.
    AfterTheLast,
}

async fn run(
    members: &[Member],
    request: Arc<StepRequest>,
    deadline: Duration,
    mut before: Option<oneshot::Receiver<Instant>>,
) -> Result<(StepDone, Instant), ClusterError> {
    let mut started = Instant::now();
    let mut asked: FuturesUnordered<_> = members
        .iter()
        .enumerate()
        .map(|(rank, member)| {
            let request = Arc::clone(&request);
            async move { (rank, ask(member, request).await) }
        })
        .collect();
    let mut replies: Vec<Option<StepReply>> = vec![None; members.len()];
    let mut failures = Vec::new();
    let mut fastest = None;
    let mut until = started + deadline;
    loop {
        let (rank, reply) = tokio::select! {
            biased;
            ended = ended(&mut before), if before.is_some() => {
                (before, started) = (None, ended);
                until = started + deadline;
                continue;
            }
            reply = asked.next() => match reply {
                Some(reply) => reply,
                None => break,
            },
            () = sleep_until(until), if before.is_none() => break,
        };
        let name = &members[rank].name;
        let reply = reply.map_err(|error| lost(rank, name, &error)).and_then(|reply| {
            wire::check(rank, name, &request, &reply)?;
            Ok(reply)
        });
        match reply {
            Ok(reply) => {
                fastest.get_or_insert_with(Instant::now);
                replies[rank] = Some(reply);
            }
            Err(failure) => {
                failures.push(failure);
                until = until.min(Instant::now() + TELLING_MAX);
                before = None;
            }
        }
    }
    if let Some(failure) = most_telling(failures) {
        return Err(failure);
    }
    if replies.iter().any(Option::is_none) {
        return Err(silent(members, &replies, deadline));
    }
    let replies: Vec<StepReply> = replies.into_iter().flatten().collect();
    same_bits(members, &replies)?;
    Ok(together(&replies, started, fastest))
}

/// What all replies to a step say, and when the last of them was there.
fn together(
    replies: &[StepReply],
    started: Instant,
    fastest: Option<Instant>,
) -> (StepDone, Instant) {
    let ended = Instant::now();
    let done = StepDone {
        tokens: wire::tokens(&replies[0]),
        likelihoods: wire::likelihoods(&replies[0]),
        duration: ended - started,
        skew: ended - fastest.unwrap_or(ended),
        ranks: replies.iter().map(wire::times).collect(),
    };
    (done, ended)
}

/// When the step before was done; now, where nobody says so any more.
async fn ended(before: &mut Option<oneshot::Receiver<Instant>>) -> Instant {
    match before {
        Some(before) => before.await.unwrap_or_else(|_| Instant::now()),
        None => pending().await,
    }
}

/// Of failures in one step, the one that says most about what happened: ranks that lost a peer say
/// little about why it was lost. A wrong number that several ranks bring comes from what they were asked.
fn most_telling(failures: Vec<ClusterError>) -> Option<ClusterError> {
    let wrong = failures.iter().filter(|f| matches!(f, ClusterError::Wrong { .. })).count();
    let rank = |failure: &ClusterError| match failure {
        ClusterError::Wrong { .. } => 0,
        ClusterError::Lost { cause: "peer", .. } => 2,
        _ => 1,
    };
    let failure = failures.into_iter().min_by_key(rank)?;
    Some(match failure {
        ClusterError::Wrong { what, check, .. } if wrong > 1 => {
            ClusterError::Wrong { what, suspect: None, check }
        }
        failure => failure,
    })
}

async fn ask(member: &Member, request: Arc<StepRequest>) -> Result<StepReply, MemberError> {
    let gone = || MemberError::Lost("the rank is gone".to_owned());
    let (reply, answer) = oneshot::channel();
    let asked = member.requests.send(MemberRequest::Step { request, reply }).await;
    asked.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

fn lost(rank: usize, name: &str, error: &MemberError) -> ClusterError {
    match error {
        MemberError::Lost(what) => {
            ClusterError::Lost { rank, name: name.to_owned(), cause: "lost", what: what.clone() }
        }
        MemberError::Refused(what) => ClusterError::Wrong {
            check: "refused",
            what: format!("rank {rank} ({name}) refused the step: {what}"),
            suspect: Some(name.to_owned()),
        },
    }
}

/// The first rank that has not answered.
fn silent(members: &[Member], replies: &[Option<StepReply>], deadline: Duration) -> ClusterError {
    let rank = replies.iter().position(Option::is_none).unwrap_or(0);
    ClusterError::Lost {
        rank,
        name: members[rank].name.clone(),
        cause: "deadline",
        what: format!("no answer to a step within {:.1} s", deadline.as_secs_f64()),
    }
}

fn same_bits(members: &[Member], replies: &[StepReply]) -> Result<(), ClusterError> {
    let first = &replies[0];
    let Some(other) = replies.iter().position(|reply| reply.digest != first.digest) else {
        return Ok(());
    };
    let what = format!(
        "ranks 0 ({}) and {other} ({}) computed different numbers in step {}: {:016x}, {:016x}",
        members[0].name, members[other].name, first.step, first.digest, replies[other].digest
    );
    let suspect = odd_one(replies).map(|at| members[at].name.clone());
    Err(ClusterError::Wrong { check: "hash", what, suspect })
}

/// The one whose numbers differ from those of all others, who agree; of two nobody can tell.
fn odd_one(replies: &[StepReply]) -> Option<usize> {
    let same = |at: usize| replies.iter().filter(|r| r.digest == replies[at].digest).count();
    let odd: Vec<usize> = (0..replies.len()).filter(|at| same(*at) == 1).collect();
    match odd[..] {
        [at] if replies.len() > 2
            && (0..replies.len()).all(|r| r == at || same(r) == replies.len() - 1) =>
        {
            Some(at)
        }
        _ => None,
    }
}
