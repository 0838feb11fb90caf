//! Who leads: elected by etcd, kept by a lease, and the one who writes down epochs.

use etcd_client::{
    Client, Compare, CompareOp, GetResponse, PutOptions, ResponseHeader, Txn, TxnOp,
};
use prost::Message as _;
use proto::worker::{Formation, Leader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::announce::Lease;
use crate::etcd::{Attempts, Etcd, RegistryError, SIGN_OF_LIFE, Watched, bounded};

/// The lower bits of an epoch count a leader's groups, the upper ones leaders.
const GROUP_BITS: u32 = 32;
/// Groups that ask for an epoch at the same time: one forms at a time.
const REQUESTS_MAX: usize = 1;

/// A group that is about to form asks for its epoch.
#[derive(Debug)]
pub struct EpochRequest {
    /// The newest epoch that any of its ranks knows of.
    pub newest: u64,
    /// Addresses, in order of rank.
    pub ranks: Vec<String>,
    /// Answered once.
    pub reply: oneshot::Sender<Result<u64, EpochError>>,
}

/// Why there is no epoch to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// Another leads: nothing more may be decided here.
    #[error("another coordinator leads")]
    Deposed,
}

/// Leadership that was won.
pub struct Keeper {
    etcd: Etcd,
    leader: Leader,
    hold: Option<Box<Hold>>,
    /// The lease, and when the leader's key was made, while nothing can be asked of etcd.
    held: Option<(i64, i64)>,
    term: u64,
    /// The newest epoch that was given out.
    epoch: u64,
}

/// What etcd knows of us, as far as we know.
struct Hold {
    client: Box<Client>,
    lease: Lease,
    /// Of the leader's key.
    created: i64,
}

/// Who stands where we would.
enum Won {
    Us(Box<Hold>),
    /// None: it has gone since.
    Another(Option<Leader>),
}

/// Waits until nobody else leads, and leads. None: `stop` came first. `said` is called with the
/// name of each leader that is waited for.
pub async fn campaign(
    etcd: &Etcd,
    leader: Leader,
    stop: &CancellationToken,
    mut said: impl FnMut(&str),
) -> Option<Keeper> {
    let mut attempts = Attempts::new();
    let mut seen = String::new();
    loop {
        let tried = tokio::select! {
            tried = claim(etcd, &leader) => tried,
            () = stop.cancelled() => return None,
        };
        let waiting = match tried {
            Ok(Won::Us(hold)) => {
                let etcd = etcd.clone();
                let mut keeper =
                    Keeper { etcd, leader, hold: Some(hold), held: None, term: 0, epoch: 0 };
                keeper.next_term().await;
                tracing::info!(term = keeper.term, "elected");
                return Some(keeper);
            }
            Ok(Won::Another(another)) => {
                attempts.well();
                let Some(another) = another else { continue };
                if another.name != seen {
                    said(&another.name);
                    seen.clone_from(&another.name);
                }
                Either::Left(changes(etcd, another))
            }
            Err(error) => Either::Right(sleep(attempts.failed("cannot be elected", &error))),
        };
        tokio::select! {
            () = waiting => {}
            () = stop.cancelled() => return None,
        }
    }
}

/// Waits until this one stands in the leader's place no more.
async fn changes(etcd: &Etcd, leader: Leader) {
    let mut place = Watched::key(etcd, "leader", "cannot see who leads");
    while who(&place.news().await).as_ref() == Some(&leader) {}
}

/// Who stands in the leader's place.
fn who(found: &GetResponse) -> Option<Leader> {
    let unknown = || Leader { name: "somebody".to_owned(), started: 0 };
    found.kvs().first().map(|entry| Leader::decode(entry.value()).unwrap_or_else(|_| unknown()))
}

/// Takes the leader's place if it is free.
async fn claim(etcd: &Etcd, leader: &Leader) -> Result<Won, RegistryError> {
    let mut client = etcd.client().await?;
    let lease = Lease::grant(&mut client).await?;
    let key = etcd.key("leader");
    let put = PutOptions::new().with_lease(lease.id);
    let txn = Txn::new()
        .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
        .and_then([TxnOp::put(key.as_str(), leader.encode_to_vec(), Some(put))]);
    let answer = bounded(client.txn(txn)).await?;
    if answer.succeeded() {
        let created = answer.header().map_or(0, ResponseHeader::revision);
        return Ok(Won::Us(Box::new(Hold { client, lease, created })));
    }
    drop(bounded(client.lease_revoke(lease.id)).await);
    let there = bounded(client.get(key, None)).await?;
    Ok(Won::Another(who(&there)))
}

impl Keeper {
    /// Keeps the place until `stop`, then gives it up, which ends the task; gives out epochs; `deposed` is cancelled when another has it.
    #[must_use]
    pub fn start(
        self,
        stop: CancellationToken,
        deposed: CancellationToken,
    ) -> (mpsc::Sender<EpochRequest>, JoinHandle<()>) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        (sender, tokio::spawn(self.keep(requests, stop, deposed)))
    }

    async fn keep(
        mut self,
        mut requests: mpsc::Receiver<EpochRequest>,
        stop: CancellationToken,
        deposed: CancellationToken,
    ) {
        let mut attempts = Attempts::new();
        let mut ticks = interval(SIGN_OF_LIFE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.resign().await,
                Some(request) = requests.recv() => {
                    let answer = self.epoch(request.newest, &request.ranks).await;
                    let over = answer.is_err();
                    // The asker being gone is fine: an epoch that is not used is only a gap.
                    drop(request.reply.send(answer));
                    if over {
                        break;
                    }
                }
                _ = ticks.tick() => match self.sign_of_life().await {
                    Ok(true) => attempts.well(),
                    Ok(false) => break,
                    // The pause is the tick's.
                    Err(error) => drop(attempts.failed("the place of the leader", &error)),
                }
            }
        }
        tracing::error!("another coordinator leads: this one steps down");
        deposed.cancel();
    }

    /// Renews the lease, or takes the place again after etcd was away. False: another has it.
    async fn sign_of_life(&mut self) -> Result<bool, RegistryError> {
        let Some(hold) = &mut self.hold else { return self.again().await };
        let renewed = hold.lease.renew().await;
        if renewed.is_err() {
            self.let_go();
        }
        renewed.map(|()| true)
    }

    /// The connection is of no use any more; the lease may be.
    fn let_go(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.held = Some((hold.lease.id, hold.created));
        }
    }

    /// Holds the place again: by the lease that there was, or by a new one. False: another has it.
    async fn again(&mut self) -> Result<bool, RegistryError> {
        if let Some((id, created)) = self.held {
            let mut client = self.etcd.client().await?;
            if let Ok(lease) = Lease::resume(&mut client, id).await {
                self.hold = Some(Box::new(Hold { client, lease, created }));
                return Ok(true);
            }
            self.held = None;
        }
        let hold = match claim(&self.etcd, &self.leader).await? {
            Won::Us(hold) => hold,
            // Our own name may stand there still, under a lease that is about to run out.
            Won::Another(another) => return Ok(another.is_none_or(|leader| leader == self.leader)),
        };
        self.hold = Some(hold);
        self.next_term().await;
        tracing::info!(term = self.term, "elected again");
        Ok(true)
    }

    /// A term above every one that etcd knows of.
    async fn next_term(&mut self) {
        let mut known = self.term;
        if let Some(hold) = &mut self.hold {
            let found = bounded(hold.client.get(self.etcd.key("formation"), None)).await;
            if let Ok(found) = found {
                let formation =
                    found.kvs().first().and_then(|entry| Formation::decode(entry.value()).ok());
                known = known.max(formation.map_or(0, |formation| formation.epoch >> GROUP_BITS));
            }
        }
        self.term = known + 1;
    }

    /// The next epoch, written down together with its ranks by whoever leads in the same transaction.
    /// Without etcd it is the next of this term: should another lead by now, the ranks refuse it.
    async fn epoch(&mut self, newest: u64, ranks: &[String]) -> Result<u64, EpochError> {
        let seen = newest >> GROUP_BITS;
        if self.hold.is_none() && matches!(self.again().await, Ok(false)) {
            return Err(EpochError::Deposed);
        }
        // An etcd that was emptied has forgotten how many have led; the ranks have not.
        let term = if seen > self.term { seen + 1 } else { self.term };
        let epoch = self.epoch.max(newest).max(term << GROUP_BITS) + 1;
        let formation = Formation { epoch, ranks: ranks.to_vec() };
        match self.write(&formation).await {
            Ok(true) => {}
            Ok(false) => return Err(EpochError::Deposed),
            // A newer term than ours, and nobody to say that the place is ours all the same.
            Err(_) if seen > self.term => return Err(EpochError::Deposed),
            Err(error) => tracing::warn!(epoch, "not written down: {error}"),
        }
        (self.term, self.epoch) = (self.term.max(term), epoch);
        Ok(epoch)
    }

    /// Writes if the place is ours. False: it is another's, or nobody's, which the next
    /// [`Keeper::again`] tells apart.
    async fn write(&mut self, formation: &Formation) -> Result<bool, RegistryError> {
        let hold = self.hold.as_mut().ok_or(RegistryError::Expired)?;
        let key = self.etcd.key("leader");
        let leads = Compare::create_revision(key, CompareOp::Equal, hold.created);
        let put = TxnOp::put(self.etcd.key("formation"), formation.encode_to_vec(), None);
        let txn = Txn::new().when([leads]).and_then([put]);
        match bounded(hold.client.txn(txn)).await {
            Ok(answer) if answer.succeeded() => Ok(true),
            // The lease ran out while we thought it was kept.
            Ok(_) => {
                (self.hold, self.held) = (None, None);
                if self.again().await? { Err(RegistryError::Expired) } else { Ok(false) }
            }
            Err(error) => {
                self.let_go();
                Err(error)
            }
        }
    }

    async fn resign(mut self) {
        if let Some(hold) = &mut self.hold {
            // If this fails the lease runs out by itself.
            drop(bounded(hold.client.lease_revoke(hold.lease.id)).await);
        }
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("leader", &self.leader)
            .field("term", &self.term)
            .finish_non_exhaustive()
    }
}
