//! Ends that nobody sampled: errors, bounds on time, and the server's own.

use scheduler::{CancelReason, GroupId};
use tokio::time::Instant;

use crate::engine::due::Bound;
use crate::engine::{Engine, EngineState, Failure};

impl Engine {
    /// Ends a group with an error that its reader is told.
    pub(super) fn fail(&mut self, group: GroupId, failure: Failure, message: &str) {
        self.groups.fail(group, failure, message.to_owned());
        self.cancel(group, CancelReason::Error);
    }

    /// No new groups; those that run have a while to end.
    pub(super) fn drain(&mut self) {
        self.drain_until = Some(Instant::now() + self.setup.patience.drain_max);
        self.state.send_replace(EngineState::Draining);
    }

    /// Gives up those whose time has come, wherever they are.
    pub(super) fn time_out(&mut self, now: Instant) {
        while let Some((group, bound)) = self.groups.take_due(now) {
            let (failure, message) = bound.said();
            self.metrics.timed_out(bound == Bound::Queue);
            self.fail(group, failure, message);
        }
    }

    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        self.time_out(now);
        if self.drain_until.is_some_and(|until| until <= now) {
            self.fail_all("the server is shutting down");
        }
        self.give_up_if_due(now);
    }

    pub(super) fn fail_all(&mut self, message: &str) {
        for group in self.groups.ids() {
            self.fail(group, Failure::Broken, message);
        }
    }
}
