//! How far loading is, for a person: a bar on a terminal, otherwise a line for every quarter.

use std::io::IsTerminal;

use coordinator::EngineState;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

/// Shows the ranks loading until the model can be asked. Whether it came to that.
pub(crate) async fn shown(mut state: watch::Receiver<EngineState>) -> bool {
    let bar = std::io::stderr().is_terminal().then(bar);
    let mut quarters = 0;
    let ready = loop {
        let now = state.borrow_and_update().clone();
        match now {
            EngineState::Loading { bytes_done, bytes_total } if bytes_total > 0 => {
                if let Some(bar) = &bar {
                    bar.set_length(bytes_total);
                    bar.set_position(bytes_done);
                } else if bytes_done.saturating_mul(4) / bytes_total > quarters {
                    quarters = bytes_done.saturating_mul(4) / bytes_total;
                    tracing::info!(percent = quarters * 25, "loading");
                }
            }
            EngineState::Ready(_) => break true,
            EngineState::Stopped => break false,
            EngineState::Loading { .. }
            | EngineState::Reforming { .. }
            | EngineState::Away { .. }
            | EngineState::Draining => {}
        }
        if state.changed().await.is_err() {
            break false;
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    ready
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("loading {wide_bar} {bytes}/{total_bytes}");
    ProgressBar::new(0).with_style(style.expect("the template is a constant"))
}
