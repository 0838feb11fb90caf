//! Whether to look for a peer before sleeping.

use std::time::Duration;

/// How long a rank looks for what a peer sends before it sleeps: about twice what falling asleep and being
/// woken cost.
pub(super) const LOOK_MAX: Duration = Duration::from_micros(50);

/// Waits in a row, at most, in which a rank does not look after it has looked in vain.
const SKIPPED_MAX: u32 = 63;

/// Whether it is worth looking before sleeping: it is while peers come in time and have a processor of
/// their own. When it was in vain, ever more waits go without.
#[derive(Debug, Default)]
pub(super) struct Luck {
    skip: u32,
    skipped: u32,
}

impl Luck {
    /// Whether to look in this wait.
    pub(super) fn tries(&mut self) -> bool {
        let tries = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        tries
    }

    /// What looking came to.
    pub(super) fn learn(&mut self, came: bool) {
        self.skipped = if came { 0 } else { (2 * self.skipped + 1).min(SKIPPED_MAX) };
        self.skip = self.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_in_vain_makes_it_rarer_and_success_makes_it_usual() {
        let mut luck = Luck::default();
        let mut tries = 0;
        for _ in 0..1000 {
            if luck.tries() {
                tries += 1;
                luck.learn(false);
            }
        }
        assert!((10..30).contains(&tries), "{tries}");
        while !luck.tries() {}
        luck.learn(true);
        assert!((0..100).all(|_| luck.tries()));
    }
}
