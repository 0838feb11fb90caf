//! `arcmesh coordinator`: HTTP and scheduler, over workers that are reached by gRPC.

use coordinator::{Roster, connect};
use tls::Guard;
use tokio_util::sync::CancellationToken;

use crate::config::{Address, CoordinatorConfig, Ranks};
use crate::worker::bind;
use crate::{front, membership, models, shutdown};

/// Runs until it is told to stop, or until another coordinator leads.
pub(crate) async fn run(config: CoordinatorConfig) -> anyhow::Result<()> {
    let shutdown = shutdown::token()?;
    let listener = bind(&config.http.listen, "--host, --port").await?;
    let door = front::door(&config.http)?;
    let guard = membership::guard(config.certificates.as_ref())?;
    let checkpoint = models::open(config.model).await?;
    // The place is given up once everything has ended.
    let ended = CancellationToken::new();
    let (roster, held) = match config.ranks {
        Ranks::At(addresses) => (at(&addresses, config.world, &guard)?, None),
        Ranks::Etcd(etcd) => {
            let http = listener.local_addr()?.to_string();
            let standby = config.standby;
            let (world, stop) = (config.world, ended.clone());
            let place = membership::stand(etcd, &http, world, standby, guard, stop).await?;
            (place.roster, Some(place.held))
        }
    };
    let asked = front::config(config.http.served_model_name, &config.engine);
    let coordinator = front::start(asked, &checkpoint, roster, shutdown.clone())?;
    let served = front::serve(coordinator, listener, door, shutdown);
    let Some(mut held) = held else { return served.await };
    tokio::select! {
        served = served => {
            ended.cancel();
            // Why the place was lost says more than that the engine had to end.
            held.await??;
            served
        }
        held = &mut held => held?,
    }
}

/// Always the same workers, the first of them the ranks.
fn at(addresses: &[Address], world: Option<usize>, guard: &Guard) -> anyhow::Result<Roster> {
    let members: Result<Vec<_>, _> =
        addresses.iter().map(|address| connect(&address.to_string(), guard)).collect();
    Ok(Roster { world, ..Roster::fixed(members?) })
}
