//! Reading all of a model, for tests and for the fuzzer.

use checkpoint::{Checkpoint, LayerTensor, TensorName};

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
            checkpoint.vector(name).expect("a tensor is a matrix or a vector");
        }
    }
}
