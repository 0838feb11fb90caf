//! The coordinator sees who is there.

use std::collections::BTreeSet;

use etcd_client::{GetOptions, GetResponse, SortOrder, SortTarget};
use prost::Message as _;
use proto::worker::Announcement;
use tokio::sync::watch;

use crate::drain::DRAIN;
use crate::etcd::{Etcd, WORKERS, WORKERS_MAX, Watched};

/// Tells `members` who is there, who came first first, for as long as anybody listens. While etcd is
/// away the last that was known stays.
pub async fn watch(etcd: Etcd, members: watch::Sender<Vec<Announcement>>) {
    // Members are few and change seldom: the list is always whole.
    let read =
        GetOptions::new().with_sort(SortTarget::Create, SortOrder::Ascend).with_limit(WORKERS_MAX);
    let mut workers = Watched::prefix(&etcd, WORKERS, read, "cannot see who is there");
    let prefix = etcd.key(WORKERS);
    loop {
        let found = tokio::select! {
            found = workers.news() => found,
            () = members.closed() => return,
        };
        let there = listed(&found, &prefix);
        members.send_if_modified(|known| {
            let changed = *known != there;
            *known = there;
            changed
        });
    }
}

/// Who is there, and of them who is to leave.
fn listed(found: &GetResponse, prefix: &str) -> Vec<Announcement> {
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
    there
}
