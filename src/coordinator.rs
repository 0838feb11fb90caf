//! `arcmesh coordinator`: HTTP and scheduler, over workers that are reached by gRPC.

use anyhow::bail;
use coordinator::{Roster, connect};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Address, CoordinatorConfig, Ranks};
use crate::worker::bind;
use crate::{front, membership, models, shutdown};

/// Runs until it is told to stop, or until another coordinator leads.
pub(crate) async fn run(config: CoordinatorConfig) -> anyhow::Result<()> {
    let shutdown = shutdown::token()?;
    let listener = bind(&config.http.listen, "--host, --port").await?;
    let checkpoint = models::open(config.model).await?;
    let deposed = CancellationToken::new();
    // Etcd is told that the place is free once everything has ended.
    let ended = CancellationToken::new();
    let _ended = ended.clone().drop_guard();
    let roster = match config.ranks {
        Ranks::At(addresses) => at(&addresses, config.world)?,
        Ranks::Etcd(etcd) => {
            let http = listener.local_addr()?.to_string();
            let leading = membership::lead(etcd, &http, config.world, &ended, &deposed);
            let roster = tokio::select! {
                roster = leading => roster?,
                () = shutdown.cancelled() => None,
            };
            let Some(roster) = roster else { return Ok(()) };
            roster
        }
    };
    let asked = front::config(&config.http, &config.engine);
    let coordinator = front::start(asked, &checkpoint, roster, shutdown.clone())?;
    let guarded = !config.http.api_keys.is_empty();
    tokio::select! {
        served = front::serve(coordinator, listener, shutdown, guarded) => served,
        () = deposed.cancelled() => bail!("another coordinator leads this cluster"),
    }
}

/// Always the same workers, the first of them the ranks.
fn at(addresses: &[Address], world: Option<usize>) -> anyhow::Result<Roster> {
    let members: Result<Vec<_>, _> =
        addresses.iter().map(|address| connect(&address.to_string())).collect();
    let (_, members) = watch::channel(members?.into());
    Ok(Roster { members, world, open: false, epochs: None })
}
