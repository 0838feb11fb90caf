//! What GGUF metadata may say, and how it is understood.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;

use checkpoint::{
    BlockKind, Checkpoint, LayerKind, LayerTensor, ModelConfig, TemplateTokens, TensorName,
    TokenKind, VocabularySource,
};
use fixture::writer::GgufWriter;
use fixture::{Architecture, Toy};

/// Opens a toy's file after a change.
fn changed(toy: &Toy, change: impl FnOnce(&mut GgufWriter)) -> Checkpoint {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut file = fixture::gguf_writer(toy);
    change(&mut file);
    fs::write(&path, file.finish()).unwrap();
    Checkpoint::open(&path).unwrap_or_else(|error| panic!("{error}"))
}

fn config(toy: &Toy, change: impl FnOnce(&mut GgufWriter)) -> ModelConfig {
    changed(toy, change).config().clone()
}

fn forget(file: &mut GgufWriter, keys: &[&str]) {
    file.metadata.retain(|(key, _)| !keys.contains(&key.as_str()));
}

#[test]
fn what_is_left_out_has_the_usual_value() {
    let toy = Toy { kv_heads: 4, head_size: 16, ..Toy::new(Architecture::Llama) };
    let plain = config(&toy, |_| {});
    let short = config(&toy, |file| {
        forget(
            file,
            &[
                "llama.attention.head_count_kv",
                "llama.attention.key_length",
                "llama.attention.value_length",
                "llama.rope.dimension_count",
                "llama.rope.freq_base",
            ],
        );
    });
    assert_eq!(plain, short);
    let unnamed = config(&toy, |file| forget(file, &["general.name"]));
    assert_eq!(unnamed.name, "model");
    let each = config(&toy, |file| file.i32s("llama.attention.head_count", &[4, 4]));
    assert_eq!(plain, each);
}

#[test]
fn gemma_slides_as_the_file_says_or_five_layers_of_six() {
    const PATTERN: &str = "gemma3.attention.sliding_window_pattern";
    let toy = Toy { layers: 7, ..Toy::new(Architecture::Gemma3) };
    let sliding = LayerKind::Sliding { window: 16 };
    let mut usual = [sliding; 7];
    usual[5] = LayerKind::Full;
    assert_eq!(config(&toy, |file| forget(file, &[PATTERN])).layers, usual);

    let mut flags = vec![7, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
    flags[..4].copy_from_slice(&7_u32.to_le_bytes());
    flags[4..].copy_from_slice(&7_u64.to_le_bytes());
    flags.extend([1, 0, 1, 1, 1, 1, 1]);
    let own = config(&toy, |file| file.raw(PATTERN, 9, &flags)).layers;
    assert_eq!((own[1], own[5]), (LayerKind::Full, sliding));

    let window = "gemma3.attention.sliding_window";
    let full = config(&toy, |file| forget(file, &[window]));
    assert_eq!((full.layers, full.rope_local), (vec![LayerKind::Full; 7], None));
}

#[test]
fn gemma_of_62_layers_scales_attention_by_its_stream() {
    let toy = Toy { hidden: 32, intermediate: 32, ..Toy::new(Architecture::Gemma3) };
    let small = config(&toy, |_| {});
    assert!((small.attention_scale - 32.0_f32.powf(-0.5)).abs() < 1e-6);
    let large = config(&Toy { layers: 62, ..toy }, |_| {});
    assert!((large.attention_scale - 8.0_f32.powf(-0.5)).abs() < 1e-6);
}

#[test]
fn gemmas_local_base_may_be_said() {
    let toy = Toy::new(Architecture::Gemma3);
    let own = config(&toy, |file| file.f32("gemma3.rope.freq_base_swa", 2e4));
    let local = own.rope_local.unwrap().inverse_frequencies;
    assert!((local[1] - 2e4_f32.powf(-1.0 / 16.0)).abs() < 1e-6);
}

#[test]
fn the_begin_token_is_prepended_where_the_tokenizer_wants_it() {
    const ADD: &str = "tokenizer.ggml.add_bos_token";
    let toy = Toy::new(Architecture::Llama);
    let begin = |change: &dyn Fn(&mut GgufWriter)| config(&toy, change).begin_token;
    assert_eq!(begin(&|_| {}), None);
    assert_eq!(begin(&|file| file.flag(ADD, true)), Some(1));
    assert_eq!(begin(&|file| forget(file, &[ADD])), None);
    assert_eq!(
        begin(&|file| {
            forget(file, &[ADD]);
            file.text("tokenizer.ggml.pre", "llama-bpe");
        }),
        Some(1)
    );
    assert_eq!(
        begin(&|file| {
            forget(file, &[ADD, "tokenizer.ggml.bos_token_id"]);
            file.text("tokenizer.ggml.model", "llama");
        }),
        Some(1)
    );
}

#[test]
fn end_tokens_are_those_named_and_control_tokens_known_to_end_a_turn() {
    let toy = Toy::new(Architecture::Llama);
    let mut tokens = fixture::vocabulary::tokens(toy.vocabulary);
    tokens[300] = "<end_of_turn>".to_owned();
    tokens[301] = "<|eot_id|>".to_owned();
    let mut kinds = fixture::vocabulary::kinds(toy.vocabulary);
    kinds[300] = 3;
    let ends = config(&toy, |file| {
        file.texts("tokenizer.ggml.tokens", &tokens);
        file.i32s("tokenizer.ggml.token_type", &kinds);
        file.u32("tokenizer.ggml.eot_token_id", 7);
        file.u32("tokenizer.ggml.eom_token_id", u32::MAX);
    });
    assert_eq!(ends.end_tokens, [0, 2, 7, 300]);
}

#[test]
fn a_sentence_piece_vocabulary_is_read() {
    let toy = Toy::new(Architecture::Gemma3);
    let scores: Vec<f32> = (0..320).map(|id: i16| -f32::from(id)).collect();
    let checkpoint = changed(&toy, |file| {
        file.text("tokenizer.ggml.model", "llama");
        file.f32s("tokenizer.ggml.scores", &scores);
        file.flag("tokenizer.ggml.add_space_prefix", false);
        file.u32("tokenizer.ggml.unknown_token_id", 3);
    });
    let source = checkpoint.vocabulary().unwrap();
    let VocabularySource::SentencePiece { tokens, scores: found, kinds, add_space_prefix, unknown } =
        source
    else {
        panic!("{source:?} is not SentencePiece")
    };
    assert_eq!((tokens.len(), kinds.len(), kinds[1]), (320, 320, TokenKind::Control));
    assert_eq!((found, add_space_prefix, unknown), (scores, false, Some(3)));
    let wanted = TemplateTokens {
        begin: Some("<|im_start|>".to_owned()),
        end: Some("<|im_end|>".to_owned()),
    };
    assert_eq!(checkpoint.template_tokens(), wanted);
}

#[test]
fn biases_of_interleaved_heads_are_put_in_order_too() {
    let toy = Toy { layers: 1, ..Toy::new(Architecture::Llama) };
    let checkpoint = changed(&toy, |file| {
        for (name, heads) in [("q", 4_usize), ("k", 2), ("v", 2)] {
            let stored = (0..heads * 32).flat_map(|i| (i as f32).to_le_bytes());
            let bytes: Vec<u8> = stored.collect();
            file.tensor(&format!("blk.0.attn_{name}.bias"), &[heads * 32], BlockKind::F32, &bytes);
        }
    });
    assert!(checkpoint.config().query_key_value_bias);
    let bias = |tensor| checkpoint.vector(TensorName::Layer(0, tensor)).unwrap();
    let query = bias(LayerTensor::QueryBias);
    // The first half of a head is what was stored at even places.
    assert_eq!(query[..3], [0.0, 2.0, 4.0]);
    assert_eq!(query[16..19], [1.0, 3.0, 5.0]);
    assert_eq!(query[32..35], [32.0, 34.0, 36.0]);
    assert_eq!(bias(LayerTensor::ValueBias)[..3], [0.0, 1.0, 2.0]);
}
