//! A worker says that it is there, for as long as it is.

use etcd_client::{Client, LeaseKeepAliveStream, LeaseKeeper, PutOptions};
use prost::Message as _;
use proto::worker::Announcement;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::etcd::{
    Attempts, CALL_MAX, Etcd, LEASE_SECONDS, RegistryError, SIGN_OF_LIFE, WORKERS, bounded,
};

/// Keeps the announcement in etcd, as it changes, until `stop`; then takes it away. An etcd that is
/// away, or has forgotten us, is told again as soon as it can be.
pub async fn announce(
    etcd: Etcd,
    mut announcement: watch::Receiver<Announcement>,
    stop: CancellationToken,
) {
    let mut attempts = Attempts::new();
    loop {
        let error = match stay(&etcd, &mut announcement, &stop, &mut attempts).await {
            Ok(()) => return,
            Err(error) => error,
        };
        let pause = attempts.failed("cannot be announced", &error);
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Announces until `stop`, or until something fails.
async fn stay(
    etcd: &Etcd,
    announcement: &mut watch::Receiver<Announcement>,
    stop: &CancellationToken,
    attempts: &mut Attempts,
) -> Result<(), RegistryError> {
    let mut client = etcd.client().await?;
    let mut lease = Lease::grant(&mut client).await?;
    loop {
        let said = announcement.borrow_and_update().clone();
        let key = etcd.key(&format!("{WORKERS}{}", said.address));
        let options = PutOptions::new().with_lease(lease.id);
        bounded(client.put(key, said.encode_to_vec(), Some(options))).await?;
        attempts.well();
        tracing::info!(address = said.address, draining = said.draining, "announced");
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    // If this fails the lease runs out by itself.
                    drop(bounded(client.lease_revoke(lease.id)).await);
                    return Ok(());
                }
                // Nobody can change it any more once the sender is gone: that is no change.
                Ok(()) = announcement.changed() => break,
                () = sleep(SIGN_OF_LIFE) => lease.renew().await?,
            }
        }
    }
}

/// A lease and the stream that keeps it.
pub(crate) struct Lease {
    pub(crate) id: i64,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl Lease {
    /// A new lease, which runs out unless it is renewed.
    pub(crate) async fn grant(client: &mut Client) -> Result<Self, RegistryError> {
        let id = bounded(client.lease_grant(LEASE_SECONDS, None)).await?.id();
        Self::resume(client, id).await
    }

    /// A lease that there is.
    pub(crate) async fn resume(client: &mut Client, id: i64) -> Result<Self, RegistryError> {
        let (keeper, answers) = bounded(client.lease_keep_alive(id)).await?;
        Ok(Self { id, keeper, answers })
    }

    /// A sign of life.
    pub(crate) async fn renew(&mut self) -> Result<(), RegistryError> {
        bounded(self.keeper.keep_alive()).await?;
        let answer = tokio::time::timeout(CALL_MAX, self.answers.message());
        match answer.await.map_err(|_| RegistryError::Silent)?? {
            Some(answer) if answer.ttl() > 0 => Ok(()),
            Some(_) => Err(RegistryError::Expired),
            None => Err(RegistryError::Ended("the lease's".to_owned())),
        }
    }
}
