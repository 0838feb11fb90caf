//! `arcmesh replay`: runs the scheduler on what a coordinator recorded.

use anyhow::Context as _;
use coordinator::{Ending, Replayed, replay};

use crate::config::ReplayConfig;
use crate::terminal;

/// Says that every plan is the same, or which is the first that differs.
pub(crate) fn run(config: &ReplayConfig) -> anyhow::Result<()> {
    let replayed = replay(&config.file).with_context(|| config.file.display().to_string())?;
    terminal::say(&told(&replayed))?;
    Ok(())
}

fn told(replayed: &Replayed) -> String {
    let Replayed { steps, ahead, groups, lasted, recomputed, swapped, ending } = replayed;
    let text = format!(
        "{steps} steps of {groups} groups in {:.1} s, {ahead} planned ahead, {recomputed} times computed again, {swapped} times \
         swapped: every plan is the same",
        lasted.as_secs_f64()
    );
    let more = match ending {
        Some(Ending::Shutdown) => return text,
        Some(Ending::Full) => "the recording had its --record-max then",
        Some(Ending::Slow) => "the disk did not keep up then",
        None => "the recording breaks off then: the coordinator was killed, or still runs",
    };
    text + "\n" + more
}
