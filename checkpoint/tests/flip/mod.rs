//! Changes bytes of a file at random and sees that opening it stays civil.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use checkpoint::{Checkpoint, LayerTensor, TensorName};
use proptest::prelude::{ProptestConfig, any};
use proptest::test_runner::{RngSeed, TestRunner};

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

/// Asks for everything that a file has.
pub(crate) fn read_everything(checkpoint: &Checkpoint) {
    drop((checkpoint.digest(), checkpoint.chat_template(), checkpoint.template_tokens()));
    drop(checkpoint.vocabulary());
    let in_layers = (0..checkpoint.config().layers.len()).flat_map(|layer| {
        [LayerTensor::Query, LayerTensor::Down, LayerTensor::FeedForwardNorm]
            .map(|tensor| TensorName::Layer(layer, tensor))
    });
    for name in [TensorName::Embedding, TensorName::OutputNorm].into_iter().chain(in_layers) {
        if let Ok(matrix) = checkpoint.matrix(name) {
            let mut row = vec![0.0; matrix.columns];
            matrix.dequantize_row(matrix.rows - 1, &mut row);
        } else {
            checkpoint.vector(name).unwrap();
        }
    }
}
