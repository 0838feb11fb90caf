//! A worker is to take part in no group any more: who asks for it, and who waits for it.

use etcd_client::{GetOptions, PutOptions, SortOrder, SortTarget};
use prost::Message as _;
use proto::worker::{Announcement, Formation};

use crate::etcd::{Etcd, RegistryError, WORKERS, WORKERS_MAX, Watched, bounded};

/// Behind the key of a worker that is to be drained.
pub(crate) const DRAIN: &str = "#drain";

/// Why a worker cannot be drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// Nobody of this name is there.
    #[error("no worker {name} is announced; there are: {there}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Who is there, by address.
        there: String,
    },
    /// Several workers have this name.
    #[error("{name} has several workers: name one by its address: {there}")]
    Several {
        /// What was asked for.
        name: String,
        /// Their addresses.
        there: String,
    },
    /// Etcd did not do it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Asks for a worker, by its address or its node's name, to be drained; gives its address. The order is
/// forgotten when the worker goes.
///
/// # Errors
/// [`DrainError`].
pub async fn drain(etcd: &Etcd, name: &str) -> Result<String, DrainError> {
    let mut client = etcd.client().await?;
    let options = GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Key, SortOrder::Ascend)
        .with_limit(WORKERS_MAX);
    let found = bounded(client.get(etcd.key(WORKERS), Some(options))).await?;
    let workers: Vec<(Announcement, i64)> = found
        .kvs()
        .iter()
        .filter(|entry| !entry.key().ends_with(DRAIN.as_bytes()))
        .filter_map(|entry| Some((Announcement::decode(entry.value()).ok()?, entry.lease())))
        .collect();
    let node = |a: &Announcement| a.description.as_ref().is_some_and(|d| d.node == name);
    let named: Vec<_> = workers.iter().filter(|(a, _)| a.address == name || node(a)).collect();
    let list = |all: &[&(Announcement, i64)]| {
        all.iter().map(|(a, _)| a.address.as_str()).collect::<Vec<_>>().join(", ")
    };
    match named[..] {
        [] => Err(DrainError::Unknown {
            name: name.to_owned(),
            there: list(&workers.iter().collect::<Vec<_>>()),
        }),
        [(announcement, lease)] => {
            let address = &announcement.address;
            let key = format!("{}{DRAIN}", etcd.key(&format!("{WORKERS}{address}")));
            let options = PutOptions::new().with_lease(*lease);
            bounded(client.put(key, "", Some(options))).await?;
            Ok(address.clone())
        }
        _ => Err(DrainError::Several { name: name.to_owned(), there: list(&named) }),
    }
}

/// Waits until the newest group has no rank at this address.
pub async fn drained(etcd: &Etcd, address: &str) {
    let mut newest = Watched::key(etcd, "formation", "cannot see which group there is");
    loop {
        let found = newest.news().await;
        let formation = found.kvs().first().and_then(|entry| Formation::decode(entry.value()).ok());
        if formation.is_none_or(|f| f.ranks.iter().all(|rank| rank != address)) {
            return;
        }
    }
}
