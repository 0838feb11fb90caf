//! Joins the parts with etcd: a worker is announced, a coordinator is elected and sees its workers.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow, bail};
use coordinator::{EpochAsked, Member, Roster, connect};
use proto::worker::{Announcement, Leader};
use registry::{EpochError, EpochRequest, Etcd, EtcdConfig};
use tls::{Files, Guard, Identity};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::Address;
use crate::ranks;

/// A coordinator that was killed loses its place within this time; another does not.
const PLACE_MAX: Duration = Duration::from_secs(12);
/// Groups that ask for an epoch at the same time: one forms at a time.
const EPOCHS_ASKED_MAX: usize = 1;

/// A coordinator's place in its cluster: its roster is empty until it leads.
#[derive(Debug)]
pub(crate) struct Place {
    /// Who its workers are.
    pub(crate) roster: Roster,
    /// Ends once the place was given up, or lost, or could not be had.
    pub(crate) held: JoinHandle<anyhow::Result<()>>,
}

/// How nodes prove who they are, by what was given.
pub(crate) fn guard(files: Option<&Files>) -> anyhow::Result<Guard> {
    let Some(files) = files else { return Ok(Guard::Open) };
    let identity = Identity::load(files.clone()).context("--tls-ca, --tls-cert, --tls-key")?;
    Ok(Guard::Mutual(identity))
}

/// Stands for election, leads until `stop`, and gives the place up then.
pub(crate) async fn stand(
    config: EtcdConfig,
    http: &str,
    world: Option<usize>,
    standby: bool,
    guard: Guard,
    stop: CancellationToken,
) -> anyhow::Result<Place> {
    let etcd = Etcd::new(config);
    etcd.probe().await.context("--etcd")?;
    let name = format!("{http} on {}", ranks::node());
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let started = u64::try_from(started).unwrap_or(u64::MAX);
    let leader = Leader { name, started };
    let (there, announced) = watch::channel(Vec::new());
    let (members, leaving) = follow(announced, guard);
    let (epochs, asked) = mpsc::channel(EPOCHS_ASKED_MAX);
    let roster = Roster { members, leaving, world, open: true, epochs: Some(epochs) };
    let held = tokio::spawn(hold(etcd, leader, standby, there, asked, stop));
    Ok(Place { roster, held })
}

async fn hold(
    etcd: Etcd,
    leader: Leader,
    standby: bool,
    there: watch::Sender<Vec<Announcement>>,
    asked: mpsc::Receiver<EpochAsked>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (waiting, mut waited_for) = watch::channel(None);
    let campaign = registry::campaign(&etcd, leader, &stop, |name| {
        tracing::info!(leader = name, "another coordinator leads: waiting for its place");
        waiting.send_replace(Some(name.to_owned()));
    });
    let too_long = async {
        let name = waited_for.wait_for(Option::is_some).await.ok().and_then(|name| name.clone());
        match name {
            Some(name) if !standby => {
                sleep(PLACE_MAX).await;
                name
            }
            _ => pending().await,
        }
    };
    let keeper = tokio::select! {
        keeper = campaign => keeper,
        name = too_long => bail!("{name} leads this cluster: --standby waits for its place"),
    };
    let Some(keeper) = keeper else { return Ok(()) };
    let deposed = CancellationToken::new();
    let (epochs, kept) = keeper.start(stop, deposed.clone());
    tokio::spawn(registry::watch(etcd, there));
    tokio::spawn(answer(asked, epochs));
    kept.await?;
    if deposed.is_cancelled() {
        bail!("another coordinator leads this cluster");
    }
    Ok(())
}

/// Announcements as members, and the names of those who are about to leave. A member stays the same
/// as long as its address is announced.
#[expect(clippy::type_complexity, reason = "two things that are watched")]
fn follow(
    mut announced: watch::Receiver<Vec<Announcement>>,
    guard: Guard,
) -> (watch::Receiver<Arc<[Member]>>, watch::Receiver<Arc<[String]>>) {
    let (sender, members) = watch::channel(Arc::from([]));
    let (leave, leaving) = watch::channel(Arc::from([]));
    tokio::spawn(async move {
        let mut known: BTreeMap<String, Member> = BTreeMap::new();
        while announced.changed().await.is_ok() {
            let there = announced.borrow_and_update().clone();
            known.retain(|address, _| there.iter().any(|a| a.address == *address));
            let members: Vec<Member> =
                there.iter().filter_map(|a| member(&mut known, &a.address, &guard)).collect();
            let draining: Vec<String> =
                there.iter().filter(|a| a.draining).map(|a| a.address.clone()).collect();
            tracing::info!(workers = members.len(), draining = draining.len(), "announced");
            leave.send_replace(draining.into());
            sender.send_replace(members.into());
        }
    });
    (members, leaving)
}

/// The member at an address, connected once.
fn member(known: &mut BTreeMap<String, Member>, address: &str, guard: &Guard) -> Option<Member> {
    if let Some(member) = known.get(address) {
        return Some(member.clone());
    }
    match connect(address, guard) {
        Ok(member) => {
            known.insert(address.to_owned(), member.clone());
            Some(member)
        }
        Err(error) => {
            tracing::warn!("a worker is announced that cannot be reached: {error}");
            None
        }
    }
}

/// The engine asks for epochs in its own words.
async fn answer(mut asked: mpsc::Receiver<EpochAsked>, epochs: mpsc::Sender<EpochRequest>) {
    while let Some(EpochAsked { newest, ranks, reply }) = asked.recv().await {
        let (answer, answered) = oneshot::channel();
        let given = match epochs.send(EpochRequest { newest, ranks, reply: answer }).await {
            Ok(()) => answered.await.ok(),
            Err(_) => None,
        };
        let given = given.unwrap_or(Err(EpochError::Deposed));
        // An engine that does not wait any more asks again.
        drop(reply.send(given.map_err(|error| error.to_string())));
    }
}

/// The address of this machine that etcd is reached from: others reach us there, too.
pub(crate) fn own_host(config: &EtcdConfig) -> anyhow::Result<String> {
    let mut reasons = Vec::new();
    for endpoint in &config.endpoints {
        match source_of(endpoint) {
            Ok(address) => return Ok(address.ip().to_string()),
            Err(error) => reasons.push(format!("{endpoint}: {error}")),
        }
    }
    bail!("--etcd: {}; give --listen", reasons.join("; "))
}

/// Nothing is sent: the system only says which of its addresses it would send from.
fn source_of(endpoint: &str) -> anyhow::Result<SocketAddr> {
    let mut reason = anyhow!("there is no such address");
    for address in Url::parse(endpoint)?.socket_addrs(|| None)? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        match socket.connect(address) {
            Ok(()) => return Ok(socket.local_addr()?),
            Err(error) => reason = error.into(),
        }
    }
    Err(reason)
}

/// What a worker says of itself: `listening` unless it is told to say another address.
pub(crate) fn announcement(
    listening: SocketAddr,
    advertise: Option<&Address>,
    description: proto::worker::Description,
) -> anyhow::Result<Announcement> {
    if advertise.is_none() && listening.ip().is_unspecified() {
        bail!("--listen {listening} is every address: say with --advertise which one others use");
    }
    Ok(Announcement {
        address: advertise.map_or_else(|| listening.to_string(), ToString::to_string),
        description: Some(description),
        draining: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_reached_where_etcd_is_reached_from() {
        for endpoint in ["http://127.0.0.1:2379", "http://127.0.0.1", "https://127.0.0.1:9/path"] {
            assert_eq!(source_of(endpoint).unwrap().ip().to_string(), "127.0.0.1", "{endpoint}");
        }
        for endpoint in ["http://[::1]", "http://[::1]:2379", "http://[::1]:2379/"] {
            // A machine may have no addresses of this kind; what is no failure to read them.
            match source_of(endpoint) {
                Ok(source) => assert_eq!(source.ip().to_string(), "::1", "{endpoint}"),
                Err(error) => {
                    let code = error
                        .downcast_ref::<std::io::Error>()
                        .and_then(std::io::Error::raw_os_error);
                    assert!(code.is_some(), "{endpoint}: {error}");
                }
            }
        }
        assert!(source_of("http://[::1").is_err());
    }
}
