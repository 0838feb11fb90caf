//! Joins the parts with etcd: a worker is announced, a coordinator is elected and sees its workers.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use coordinator::{EpochAsked, Member, Roster, connect};
use proto::worker::{Announcement, Leader};
use registry::{EpochRequest, Etcd, EtcdConfig};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Address;

/// Port of etcd where its address names none.
const ETCD_PORT: u16 = 2379;
/// Groups that ask for an epoch at the same time: one forms at a time.
const EPOCHS_ASKED_MAX: usize = 1;

/// A coordinator that leads: who its workers are. `deposed` is cancelled when another leads.
pub(crate) async fn lead(
    config: EtcdConfig,
    http: &str,
    world: Option<usize>,
    stop: &CancellationToken,
    deposed: &CancellationToken,
) -> anyhow::Result<Option<Roster>> {
    let etcd = Etcd::new(config);
    etcd.probe().await.context("--etcd")?;
    let name = format!("{http} (process {})", std::process::id());
    let leader = Leader { name, http: http.to_owned() };
    let waiting = |name: &str| tracing::info!(leader = name, "waiting: another coordinator leads");
    let Some(keeper) = registry::campaign(&etcd, leader, stop, waiting).await else {
        return Ok(None);
    };
    let epochs = keeper.start(stop.clone(), deposed.clone());
    let (sender, announced) = watch::channel(Vec::new());
    tokio::spawn(registry::watch(etcd, sender));
    let members = follow(announced);
    Ok(Some(Roster { members, world, open: true, epochs: Some(asked(epochs)) }))
}

/// Announcements as members. A member stays the same as long as its address is announced.
fn follow(mut announced: watch::Receiver<Vec<Announcement>>) -> watch::Receiver<Arc<[Member]>> {
    let (sender, members) = watch::channel(Arc::from([]));
    tokio::spawn(async move {
        let mut known: BTreeMap<String, Member> = BTreeMap::new();
        loop {
            let there = announced.borrow_and_update().clone();
            known.retain(|address, _| there.iter().any(|a| a.address == *address));
            let mut members = Vec::with_capacity(there.len());
            for announcement in there.iter().filter(|a| !a.draining) {
                let address = &announcement.address;
                let member = match known.get(address) {
                    Some(member) => member.clone(),
                    None => match connect(address) {
                        Ok(member) => member,
                        Err(error) => {
                            tracing::warn!("a worker is announced that cannot be reached: {error}");
                            continue;
                        }
                    },
                };
                known.insert(address.clone(), member.clone());
                members.push(member);
            }
            tracing::info!(workers = members.len(), "workers that are announced");
            sender.send_replace(members.into());
            tokio::select! {
                changed = announced.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
    });
    members
}

/// The engine asks for epochs in its own words.
fn asked(epochs: mpsc::Sender<EpochRequest>) -> mpsc::Sender<EpochAsked> {
    let (sender, mut questions) = mpsc::channel::<EpochAsked>(EPOCHS_ASKED_MAX);
    tokio::spawn(async move {
        while let Some(EpochAsked { newest, ranks, reply }) = questions.recv().await {
            let (answer, answered) = oneshot::channel();
            let request = EpochRequest { newest, ranks, reply: answer };
            if epochs.send(request).await.is_err() {
                drop(reply.send(Err("another coordinator leads".to_owned())));
                continue;
            }
            let given = answered.await.map_or_else(
                |_| Err("another coordinator leads".to_owned()),
                |epoch| epoch.map_err(|error| error.to_string()),
            );
            // An engine that does not wait any more asks again.
            drop(reply.send(given));
        }
    });
    sender
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
    let authority = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or(authority);
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let addresses: Vec<SocketAddr> = if has_port {
        authority.to_socket_addrs()?.collect()
    } else {
        (authority, ETCD_PORT).to_socket_addrs()?.collect()
    };
    let mut reason = anyhow!("there is no such address");
    for address in addresses {
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
    metrics: SocketAddr,
    description: proto::worker::Description,
) -> anyhow::Result<Announcement> {
    if advertise.is_none() && listening.ip().is_unspecified() {
        bail!("--listen {listening} is every address: say with --advertise which one others use");
    }
    Ok(Announcement {
        address: advertise.map_or_else(|| listening.to_string(), ToString::to_string),
        metrics: metrics.to_string(),
        description: Some(description),
        draining: false,
    })
}
