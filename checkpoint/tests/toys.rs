//! Toys of every architecture, opened in either layout: the same model, to the bit.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use checkpoint::{BlockKind, Checkpoint, LayerKind, TensorName};
use fixture::weights::weights;
use fixture::{Architecture, Toy};

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"))
}

/// Every number of a tensor, rows in the order of the model.
fn numbers(checkpoint: &Checkpoint, name: TensorName, vector: bool) -> Vec<f32> {
    if vector {
        return checkpoint.vector(name).unwrap();
    }
    let matrix = checkpoint.matrix(name).unwrap();
    let mut all = vec![0.0; matrix.rows * matrix.columns];
    for (i, row) in all.chunks_exact_mut(matrix.columns).enumerate() {
        matrix.dequantize_row(i, row);
    }
    all
}

fn assert_has_the_weights_of(checkpoint: &Checkpoint, toy: &Toy) {
    for weight in weights(toy) {
        assert!(checkpoint.has(weight.name), "{:?}", weight.name);
        let found = numbers(checkpoint, weight.name, weight.shape.len() == 1);
        assert!(found == weight.values, "{:?} of {:?} differs", weight.name, toy.architecture);
    }
    assert_eq!(checkpoint.has(TensorName::Output), !toy.tied);
}

#[test]
fn a_gguf_toy_of_every_architecture_has_its_shape_and_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    for architecture in Architecture::ALL {
        let toy = Toy { tied: architecture != Architecture::Llama, ..Toy::new(architecture) };
        let checkpoint = open(&fixture::gguf(folder.path(), &toy));
        let config = checkpoint.config();
        assert_eq!((config.hidden, config.intermediate), (64, 128));
        assert_eq!((config.query_heads, config.kv_heads, config.head_size), (4, 2, 32));
        assert_eq!((config.vocabulary, config.context), (320, 256));
        assert_eq!((config.begin_token, &config.end_tokens[..]), (None, &[0, 2][..]));
        assert_eq!(config.query_key_value_bias, architecture == Architecture::Qwen2);
        assert_eq!(config.post_norms, architecture == Architecture::Gemma3);
        assert_eq!(config.rope_local.is_some(), architecture == Architecture::Gemma3);
        let sliding = LayerKind::Sliding { window: 16 };
        let layers = match architecture {
            Architecture::Mistral => [sliding, sliding],
            Architecture::Gemma3 => [sliding, LayerKind::Full],
            _ => [LayerKind::Full, LayerKind::Full],
        };
        assert_eq!(config.layers, layers);
        assert_has_the_weights_of(&checkpoint, &toy);
    }
}

#[test]
fn a_gguf_toy_of_every_kind_of_block_has_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [
        BlockKind::F32,
        BlockKind::F16,
        BlockKind::Bf16,
        BlockKind::Q4_0,
        BlockKind::Q4_1,
        BlockKind::Q5_0,
        BlockKind::Q5_1,
        BlockKind::Q8_0,
        BlockKind::Q4K,
        BlockKind::Q5K,
        BlockKind::Q6K,
    ] {
        let toy = Toy {
            kind,
            layers: 1,
            hidden: 256,
            intermediate: 512,
            query_heads: 8,
            ..Toy::new(Architecture::Llama)
        };
        assert_has_the_weights_of(&open(&fixture::gguf(folder.path(), &toy)), &toy);
    }
}
