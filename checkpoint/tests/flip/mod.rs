//! Changes bytes of a file at random and sees that opening it stays civil.

mod everything;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use checkpoint::Checkpoint;
use proptest::prelude::{ProptestConfig, any};
use proptest::test_runner::{RngSeed, TestRunner};

pub(crate) use self::everything::read_everything;

/// Opens `model` again and again, each time with a few of the first `length` bytes of `file` changed.
/// An error is fine, and so is another model; a panic is not.
pub(crate) fn flip(model: &Path, file: &Path, length: usize, cases: u32) {
    let config = ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(11),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut sound = std::fs::read(file).unwrap();
    sound.truncate(length);
    let writable = OpenOptions::new().write(true).open(file).unwrap();
    let flips = proptest::collection::vec((any::<usize>(), any::<u8>()), 1..5);
    let outcome = TestRunner::new(config).run(&flips, |flips| {
        for (at, value) in flips {
            writable.write_all_at(&[value], (at % length) as u64).unwrap();
        }
        if let Ok(checkpoint) = Checkpoint::open(model) {
            read_everything(&checkpoint);
        }
        writable.write_all_at(&sound, 0).unwrap();
        Ok(())
    });
    outcome.unwrap();
}
