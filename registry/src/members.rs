//! The coordinator sees who is there.

use std::collections::BTreeSet;

use etcd_client::{Client, GetOptions, SortOrder, SortTarget, WatchOptions};
use prost::Message as _;
use proto::worker::Announcement;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::drain::DRAIN;
use crate::etcd::{Attempts, Etcd, RegistryError, bounded};

/// More workers than this are not looked at: no group is that large.
const WORKERS_MAX: i64 = 1024;

/// Tells `members` who is there, who came first first, for as long as anybody listens. While etcd is
/// away the last that was known stays.
pub async fn watch(etcd: Etcd, members: watch::Sender<Vec<Announcement>>) {
    let mut attempts = Attempts::new();
    loop {
        let looking = look(&etcd, &members, &mut attempts);
        let error = tokio::select! {
            error = looking => error,
            () = members.closed() => return,
        };
        let Err(error) = error;
        let pause = attempts.failed("cannot see who is there", &error);
        sleep(pause).await;
    }
}

/// Lists and watches until something fails.
async fn look(
    etcd: &Etcd,
    members: &watch::Sender<Vec<Announcement>>,
    attempts: &mut Attempts,
) -> Result<std::convert::Infallible, RegistryError> {
    let prefix = etcd.key("workers/");
    let mut client = etcd.client().await?;
    let mut revision = list(&mut client, &prefix, members).await?;
    loop {
        let options = WatchOptions::new().with_prefix().with_start_revision(revision + 1);
        let mut changes = bounded(client.watch(prefix.as_str(), Some(options))).await?;
        attempts.well();
        loop {
            let ended = || RegistryError::Ended("that of members".to_owned());
            let change = changes.message().await?.ok_or_else(ended)?;
            if change.canceled() {
                // What we have seen was compacted away: begin again.
                return Err(RegistryError::Ended(change.cancel_reason().to_owned()));
            }
            if !change.events().is_empty() {
                break;
            }
        }
        // Members are few and change seldom: the list is always whole.
        revision = list(&mut client, &prefix, members).await?;
    }
}

/// Reads all; gives the revision at which they stood so.
async fn list(
    client: &mut Client,
    prefix: &str,
    members: &watch::Sender<Vec<Announcement>>,
) -> Result<i64, RegistryError> {
    let options = GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Create, SortOrder::Ascend)
        .with_limit(WORKERS_MAX);
    let found = bounded(client.get(prefix, Some(options))).await?;
    let mut there: Vec<Announcement> = Vec::with_capacity(found.kvs().len());
    let mut leaving = BTreeSet::new();
    for entry in found.kvs() {
        if let Some(key) = entry.key().strip_suffix(DRAIN.as_bytes()) {
            leaving
                .insert(String::from_utf8_lossy(&key[prefix.len().min(key.len())..]).into_owned());
            continue;
        }
        match Announcement::decode(entry.value()) {
            Ok(announcement) => there.push(announcement),
            Err(error) => {
                let key = String::from_utf8_lossy(entry.key()).into_owned();
                tracing::warn!(key, %error, "this is no announcement of a worker");
            }
        }
    }
    for announcement in &mut there {
        announcement.draining |= leaving.contains(&announcement.address);
    }
    members.send_if_modified(|known| {
        let changed = *known != there;
        *known = there;
        changed
    });
    Ok(found.header().map_or(0, etcd_client::ResponseHeader::revision))
}
