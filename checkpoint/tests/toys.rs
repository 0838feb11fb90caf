//! Toys of every architecture, opened in either layout: the same model, to the bit.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use checkpoint::{
    BlockKind, Checkpoint, LayerKind, ModelConfig, RopeConfig, TensorName, TokenKind,
    VocabularySource,
};
use fixture::weights::weights;
use fixture::{Architecture, Stretch, Toy, vocabulary};

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

/// What the two layouts may say differently: names, and the last bit of a frequency.
fn assert_same_model(one: &ModelConfig, other: &ModelConfig) {
    let blank = |config: &ModelConfig| ModelConfig {
        architecture: String::new(),
        name: String::new(),
        rope: RopeConfig { inverse_frequencies: Vec::new(), attention_factor: 1.0 },
        ..config.clone()
    };
    assert_eq!(blank(one), blank(other));
    let close = |a: f32, b: f32| (a - b).abs() <= 1e-6 * a.abs();
    assert!(close(one.rope.attention_factor, other.rope.attention_factor));
    let (a, b) = (&one.rope.inverse_frequencies, &other.rope.inverse_frequencies);
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(b).all(|(&a, &b)| close(a, b)), "{a:?} and {b:?}");
}

#[test]
fn both_layouts_of_every_architecture_are_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    for architecture in Architecture::ALL {
        for tied in [true, false] {
            let toy = Toy { tied, kind: BlockKind::Q4_1, ..Toy::new(architecture) };
            let gguf = open(&fixture::gguf(folder.path(), &toy));
            let tensors = open(&fixture::safetensors(folder.path(), &toy));
            assert_same_model(gguf.config(), tensors.config());
            assert_has_the_weights_of(&tensors, &toy);
            assert_eq!(gguf.chat_template(), tensors.chat_template());
            assert_eq!(gguf.template_tokens(), tensors.template_tokens());
            assert_ne!(gguf.digest(), tensors.digest());
        }
    }
}

#[test]
fn every_stretch_of_the_context_is_the_same_in_both_layouts() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen: Vec<RopeConfig> = Vec::new();
    for stretch in [Stretch::None, Stretch::Linear, Stretch::Llama3, Stretch::Yarn] {
        let toy = Toy { stretch, layers: 1, ..Toy::new(Architecture::Llama) };
        let gguf = open(&fixture::gguf(folder.path(), &toy));
        let tensors = open(&fixture::safetensors(folder.path(), &toy));
        assert_same_model(gguf.config(), tensors.config());
        assert!(!seen.contains(&gguf.config().rope), "{stretch:?} changes nothing");
        seen.push(gguf.config().rope.clone());
    }
    let sharpened = 0.1 * 4.0_f32.ln() + 1.0;
    assert!((seen[3].attention_factor - sharpened).abs() < 1e-6);
}

#[test]
fn halves_of_sixteen_bits_stay_halves_in_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [BlockKind::F16, BlockKind::Bf16] {
        let toy = Toy { kind, ..Toy::new(Architecture::Gemma3) };
        let checkpoint = open(&fixture::safetensors(folder.path(), &toy));
        assert_eq!(checkpoint.matrix(TensorName::Embedding).unwrap().kind, kind);
        assert_has_the_weights_of(&checkpoint, &toy);
    }
}

#[test]
fn shards_are_one_model_with_and_without_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy { shards: 3, ..Toy::new(Architecture::Qwen3) };
    let path = fixture::safetensors(folder.path(), &toy);
    let indexed = open(&path);
    assert_has_the_weights_of(&indexed, &toy);
    std::fs::remove_file(path.join("model.safetensors.index.json")).unwrap();
    let plain = open(&path);
    assert_has_the_weights_of(&plain, &toy);
    assert_eq!(plain.file_bytes(), indexed.file_bytes());
}

#[test]
fn the_vocabulary_is_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy::new(Architecture::Llama);
    let source = open(&fixture::gguf(folder.path(), &toy)).vocabulary().unwrap();
    let VocabularySource::Bpe { pre, tokens, kinds, merges } = source else {
        panic!("{source:?} is not byte-level BPE")
    };
    assert_eq!(pre, "smollm");
    assert_eq!(tokens, vocabulary::tokens(toy.vocabulary));
    assert_eq!(merges, vocabulary::merges());
    assert_eq!(
        (kinds[0], kinds[3], kinds[319]),
        (TokenKind::Control, TokenKind::Normal, TokenKind::Unused)
    );

    let path = fixture::safetensors(folder.path(), &toy);
    let source = open(&path).vocabulary().unwrap();
    assert!(matches!(source, VocabularySource::Json(json) if json == path.join("tokenizer.json")));
}

#[test]
fn the_digest_tells_files_apart() {
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy::new(Architecture::Llama);
    let digest = |toy: &Toy| {
        let gguf = open(&fixture::gguf(folder.path(), toy)).digest();
        (gguf, open(&fixture::safetensors(folder.path(), toy)).digest())
    };
    let first = digest(&toy);
    assert_eq!(first, digest(&toy));
    for other in [Toy { seed: 2, ..toy.clone() }, Toy { context: 512, ..toy.clone() }] {
        let other = digest(&other);
        assert!(first.0 != other.0 && first.1 != other.1);
    }
}

#[test]
fn a_checkpoint_may_be_shared_between_threads() {
    const fn assert_shared<T: Send + Sync>() {}
    assert_shared::<Checkpoint>();
}

#[test]
fn asking_for_what_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = open(&fixture::gguf(folder.path(), &Toy::new(Architecture::Llama)));
    assert!(checkpoint.matrix(TensorName::Output).is_err());
    assert!(checkpoint.matrix(TensorName::OutputNorm).is_err());
    assert!(checkpoint.vector(TensorName::Embedding).is_err());
}

#[test]
#[cfg(target_os = "linux")]
fn what_was_read_can_be_given_back_and_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy::new(Architecture::Llama);
    let path = fixture::gguf(folder.path(), &toy);
    let checkpoint = open(&path);
    assert_has_the_weights_of(&checkpoint, &toy);
    assert_ne!(resident_kib(&path), 0, "it was read");
    checkpoint.release();
    assert_eq!(resident_kib(&path), 0);
    assert_has_the_weights_of(&checkpoint, &toy);
}

/// What this process holds in memory of a file that it has mapped once.
#[cfg(target_os = "linux")]
fn resident_kib(path: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (_, map) = maps.split_once(path.to_str().unwrap()).unwrap();
    let rss = map.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    rss.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}
