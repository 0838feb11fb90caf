//! Before the first group has formed: whoever asks is turned away, and the ranks are waited for.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cluster::{DESCRIBE_MAX, Draft, Group, Roster, form};
use crate::engine::handle::{Input, SubmitError};
use crate::engine::setup::{EngineError, EngineSetup};
use crate::engine::state::EngineState;
use crate::metrics::MembersSeen;

/// Between two attempts; a worker that is being started takes about that long.
const RETRY: Duration = Duration::from_secs(1);
/// Workers that are started together are there within it.
const SETTLE: Duration = Duration::from_secs(2);

/// Forms the first group, however long it takes for all ranks to be there; none: a shutdown came first.
pub(super) async fn first_group(
    setup: &EngineSetup,
    inputs: &mut mpsc::Receiver<Input>,
    state: &watch::Sender<EngineState>,
    shutdown: &CancellationToken,
) -> Result<Option<Group>, EngineError> {
    setup.metrics.members(MembersSeen::Loading(setup.roster.wanted()));
    let wish = setup.wish(None)?;
    let forming = async {
        let mut said = String::new();
        let mut attempt = 0;
        loop {
            let told = state.clone();
            let progress = move |bytes_done, bytes_total| {
                told.send_replace(EngineState::Loading { bytes_done, bytes_total });
            };
            let roster = &setup.roster;
            settled(roster).await;
            let wanted = roster.wanted();
            let candidates = roster.there();
            // Nobody has computed anything yet.
            let speeds = HashMap::new();
            let (least, silence_max) = (wanted, DESCRIBE_MAX);
            let draft = Draft { candidates, wanted, least, silence_max, open: roster.open, speeds };
            match form(draft, wish.clone(), attempt, roster.epochs.clone(), progress).await {
                Ok(group) => return Ok(group),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => {
                    let text = error.to_string();
                    if text != said {
                        tracing::warn!("waiting for all workers: {text}");
                        said = text;
                    }
                }
            }
            attempt += 1;
            sleep(RETRY).await;
        }
    };
    tokio::pin!(forming);
    loop {
        tokio::select! {
            formed = &mut forming => return Ok(Some(formed?)),
            () = shutdown.cancelled() => return Ok(None),
            input = inputs.recv() => match input {
                Some(Input::Submit { accepted, .. }) => {
                    let why = state.borrow().sentence();
                    // The asker being gone is fine.
                    drop(accepted.send(Err(SubmitError::NotReady(why))));
                }
                // Nobody is there to be looked at.
                Some(Input::Cancel { .. } | Input::Look { .. }) => {}
                None => return Ok(None),
            },
        }
    }
}

/// Members that come by themselves come one after another: a group of all of them waits until no more
/// has come for a while.
async fn settled(roster: &Roster) {
    if !roster.open || roster.world.is_some() {
        return;
    }
    let mut members = roster.members.clone();
    members.mark_unchanged();
    while let Ok(Ok(())) = timeout(SETTLE, members.changed()).await {}
}
