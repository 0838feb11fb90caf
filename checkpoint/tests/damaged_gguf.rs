//! Broken and hostile GGUF files: one clear error each, and never a panic.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod flip;

use std::fs::{self, OpenOptions};
use std::path::Path;

use checkpoint::{Checkpoint, CheckpointError};
use fixture::writer::{Entry, GgufWriter};
use fixture::{Architecture, Toy};

use crate::flip::{flip, read_everything};

/// One layer, so that the header is short.
fn small(architecture: Architecture) -> Toy {
    Toy { layers: 1, vocabulary: 288, ..Toy::new(architecture) }
}

fn error_of(bytes: &[u8]) -> CheckpointError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    Checkpoint::open(&path).expect_err("the file is broken")
}

/// Changes a sound file and says what is wrong with it then.
fn broken(change: impl FnOnce(&mut GgufWriter)) -> String {
    let mut file = fixture::gguf_writer(&small(Architecture::Llama));
    change(&mut file);
    error_of(&file.finish()).to_string()
}

#[track_caller]
fn assert_says(message: &str, wanted: &str) {
    assert!(message.contains(wanted), "{message:?} does not say {wanted:?}");
}

#[test]
fn a_file_cut_at_any_byte_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = fixture::gguf_writer(&small(Architecture::Llama));
    let (header, whole) = (file.header().len(), file.finish());
    let path = folder.path().join("model.gguf");
    fs::write(&path, &whole).unwrap();
    assert!(Checkpoint::open(&path).is_ok());
    let cut = OpenOptions::new().write(true).open(&path).unwrap();
    let in_data = (header..whole.len() - 64).rev().step_by(997);
    for length in in_data.chain((0..header).rev()) {
        cut.set_len(length as u64).unwrap();
        let error = Checkpoint::open(&path).expect_err("the file is cut");
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{length}: {error}");
    }
}

#[test]
fn flipped_bytes_are_an_error_or_another_model_but_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    for architecture in [Architecture::Llama, Architecture::Gemma3] {
        let toy = small(architecture);
        let path = fixture::gguf(folder.path(), &toy);
        flip(&path, &path, fixture::gguf_writer(&toy).header().len(), 3000);
    }
}

#[test]
fn what_is_no_gguf_file_is_told_so() {
    assert_says(&error_of(b"").to_string(), "does not begin with GGUF");
    assert_says(&error_of(b"GGML").to_string(), "does not begin with GGUF");
    assert_says(&error_of(&[0; 4096]).to_string(), "does not begin with GGUF");
    let missing = Checkpoint::open(Path::new("no/such/file.gguf")).unwrap_err();
    assert!(matches!(missing, CheckpointError::Io { .. }), "{missing}");
    let device = Checkpoint::open(Path::new("/dev/null")).unwrap_err();
    assert_says(&device.to_string(), "not a regular file");
}

#[test]
fn other_versions_are_named() {
    assert_says(&broken(|file| file.version = 1), "GGUF version 1");
    assert_says(&broken(|file| file.version = 4), "GGUF version 4");
    assert_says(&broken(|file| file.version = 3_u32.swap_bytes()), "big-endian");
}

#[test]
fn version_two_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut file = fixture::gguf_writer(&small(Architecture::Llama));
    file.version = 2;
    fs::write(&path, file.finish()).unwrap();
    read_everything(&Checkpoint::open(&path).unwrap());
}

#[test]
fn counts_beyond_the_file_are_refused_before_anything_is_allocated() {
    let sound = fixture::gguf_writer(&small(Architecture::Llama)).finish();
    for at in [8, 16] {
        for count in [u64::MAX, 1 << 40, 1 << 20] {
            let mut bytes = sound.clone();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            assert!(matches!(error_of(&bytes), CheckpointError::Damaged { .. }));
        }
    }
    let array = |element: u32, count: u64| {
        let mut value = element.to_le_bytes().to_vec();
        value.extend(count.to_le_bytes());
        value
    };
    for (element, count) in
        [(0, u64::MAX), (10, 1 << 62), (8, u64::MAX), (8, 1 << 33), (9, 1 << 33)]
    {
        let message = broken(|file| file.raw("hostile", 9, &array(element, count)));
        assert_says(&message, "is damaged");
    }
    let text = u64::MAX.to_le_bytes();
    assert_says(&broken(|file| file.raw("hostile", 8, &text)), "was it downloaded whole");
}

#[test]
fn arrays_within_arrays_end_somewhere() {
    let mut value = Vec::new();
    for _ in 0..10_000 {
        value.extend(9_u32.to_le_bytes());
        value.extend(1_u64.to_le_bytes());
    }
    assert_says(&broken(|file| file.raw("hostile", 9, &value)), "nested too deeply");
}

#[test]
fn metadata_that_can_not_be_is_refused() {
    assert_says(&broken(|file| file.raw("hostile", 77, &[])), "no metadata type 77");
    assert_says(
        &broken(|file| {
            let first = file.metadata[0].clone();
            file.metadata.push(first);
        }),
        "general.architecture is there twice",
    );
    for alignment in [0, 3, 4, 48, 1 << 30] {
        let message = broken(|file| file.u32("general.alignment", alignment));
        assert_says(&message, "general.alignment");
    }
    assert_says(&broken(|file| file.text("general.alignment", "32")), "general.alignment");
    assert_says(&broken(|file| file.text("llama.block_count", "2")), "not a whole number");
    assert_says(&broken(|file| file.raw("llama.block_count", 5, &[255; 4])), "not a size");
    assert_says(
        &broken(|file| file.metadata.retain(|(key, _)| key != "llama.embedding_length")),
        "llama.embedding_length is missing",
    );
}

#[test]
fn a_tensor_table_that_can_not_be_is_refused() {
    const DOWN: &str = "blk.0.ffn_down.weight";
    const UP: &str = "blk.0.ffn_up.weight";
    let changed = |change: &dyn Fn(&mut Entry)| broken(|file| change(file.entry(DOWN)));
    assert_says(&changed(&|entry| UP.clone_into(&mut entry.name)), "two tensors blk.0.ffn_up");
    assert_says(&changed(&|entry| entry.sizes.clear()), "0 dimensions");
    assert_says(&changed(&|entry| entry.sizes = vec![1; 5]), "5 dimensions");
    assert_says(&changed(&|entry| entry.sizes = vec![0, 64]), "can't be Q8_0");
    assert_says(&changed(&|entry| entry.sizes = vec![33, 64]), "can't be Q8_0");
    assert_says(&changed(&|entry| entry.sizes = vec![1 << 32, 1 << 32]), "can't be Q8_0");
    assert_says(&changed(&|entry| entry.sizes = vec![1 << 40, 64]), "downloaded whole");
    assert_says(&changed(&|entry| entry.offset = u64::MAX), "can't be Q8_0");
    assert_says(&changed(&|entry| entry.offset = 1 << 50), "downloaded whole");
    assert_says(&changed(&|entry| entry.offset += 8), "not aligned to 32");
    assert_says(&changed(&|entry| entry.offset -= 32), "overlap");
    assert_says(
        &changed(&|entry| entry.kind = 39),
        "tensor blk.0.ffn_down.weight is of type MXFP4",
    );
    assert_says(&changed(&|entry| entry.kind = 999), "number 999");
}

#[test]
fn tensors_that_the_model_needs_must_be_there_as_it_needs_them() {
    const GATE: &str = "blk.0.ffn_gate.weight";
    let gone = broken(|file| file.tensors.retain(|entry| entry.name != GATE));
    assert_says(&gone, "tensor blk.0.ffn_gate.weight is missing");
    let turned = broken(|file| file.entry(GATE).sizes.reverse());
    assert_says(&turned, "has shape [64, 128], and [128, 64] is needed");
    let vector = broken(|file| file.entry("blk.0.attn_norm.weight").sizes = vec![32, 2]);
    assert_says(&vector, "has shape [2, 32], and [64] is needed");
    let strange = broken(|file| {
        file.tensor("blk.0.attn_sinks.weight", &[4], checkpoint::BlockKind::F32, &[0; 16]);
    });
    assert_says(&strange, "tensor blk.0.attn_sinks.weight has no place");
    let bias = broken(|file| {
        file.tensor("output.bias", &[288], checkpoint::BlockKind::F32, &[0; 4 * 288]);
    });
    assert_says(&bias, "tensor output.bias has no place");
    let none = broken(|file| file.tensors.clear());
    assert_says(&none, "tensor token_embd.weight is missing");
}

#[test]
fn shapes_that_make_no_model_are_refused() {
    let changed = |key: &str, value: u32| broken(|file| file.u32(key, value));
    assert_says(&changed("llama.block_count", 0), "number of layers is 0");
    assert_says(&changed("llama.block_count", u32::MAX), "number of layers");
    assert_says(&changed("llama.embedding_length", 0), "hidden size is 0");
    assert_says(&changed("llama.attention.head_count", 0), "query heads is 0");
    assert_says(&changed("llama.attention.head_count_kv", 0), "KV heads is 0");
    assert_says(&changed("llama.attention.head_count_kv", 3), "don't divide");
    assert_says(&changed("llama.context_length", 0), "context is 0");
    assert_says(&changed("llama.context_length", u32::MAX), "context is 4294967295");
    assert_says(&changed("llama.attention.key_length", 64), "the head size is 64");
    assert_says(&changed("llama.rope.dimension_count", 16), "rope.dimension_count is 16");
    let odd = broken(|file| {
        for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
            file.u32(&format!("llama.{key}"), 31);
        }
    });
    assert_says(&odd, "is odd");
    let huge = broken(|file| {
        for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
            file.u32(&format!("llama.{key}"), u32::MAX);
        }
    });
    assert_says(&huge, "head size is 4294967295");
    let not_a_number = broken(|file| file.f32("llama.attention.layer_norm_rms_epsilon", f32::NAN));
    assert_says(&not_a_number, "norm epsilon is NaN");
    assert_says(&broken(|file| file.f32("llama.rope.freq_base", 0.0)), "rotary base is 0");
}

#[test]
fn models_that_are_not_served_are_named() {
    let architecture = broken(|file| file.text("general.architecture", "mamba\u{1b}[2J"));
    assert_says(&architecture, "architecture mamba\\u{1b}[2J is not known; served are Llama");
    assert_says(&broken(|file| file.u32("llama.expert_count", 8)), "mixture of experts");
    assert_says(&broken(|file| file.u32("split.count", 3)), "split model");
    let rope = broken(|file| file.text("llama.rope.scaling.type", "longrope"));
    assert_says(&rope, "rotary scaling longrope is not known");
    let heads = broken(|file| file.i32s("llama.attention.head_count_kv", &[2, 4]));
    assert_says(&heads, "differs from layer to layer");
}

#[test]
fn a_vocabulary_that_does_not_fit_is_refused() {
    let tokens = fixture::vocabulary::tokens(500);
    let message = broken(|file| file.texts("tokenizer.ggml.tokens", &tokens));
    assert_says(&message, "500 tokens have 288 types");
    let message = broken(|file| {
        file.texts("tokenizer.ggml.tokens", &tokens);
        file.i32s("tokenizer.ggml.token_type", &[1; 500]);
    });
    assert_says(&message, "500 tokens and an embedding for 288");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let vocabulary_error = |change: &dyn Fn(&mut GgufWriter)| {
        let mut file = fixture::gguf_writer(&small(Architecture::Llama));
        change(&mut file);
        fs::write(&path, file.finish()).unwrap();
        Checkpoint::open(&path).unwrap().vocabulary().unwrap_err().to_string()
    };
    let message = vocabulary_error(&|file| file.text("tokenizer.ggml.model", "bert"));
    assert_says(&message, "its tokenizer is of kind bert");
    let message = vocabulary_error(&|file| file.text("tokenizer.ggml.model", "llama"));
    assert_says(&message, "288 tokens have 0 scores");
    let message = vocabulary_error(&|file| file.u32("tokenizer.ggml.merges", 1));
    assert_says(&message, "tokenizer.ggml.merges is not an array of texts");
}
