//! Broken and hostile folders: one clear error each, and never a panic.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod flip;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, CheckpointError};
use fixture::{Architecture, Toy};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::flip::{flip, read_everything};

fn toy(shards: usize) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy { shards, layers: 1, vocabulary: 288, ..Toy::new(Architecture::Llama) };
    let path = fixture::safetensors(folder.path(), &toy);
    (folder, path)
}

fn error(path: &Path) -> CheckpointError {
    Checkpoint::open(path).expect_err("the folder is broken")
}

#[track_caller]
fn assert_says(error: &CheckpointError, wanted: &str) {
    let message = error.to_string();
    assert!(message.contains(wanted), "{message:?} does not say {wanted:?}");
}

#[test]
fn tensors_cut_at_any_byte_are_an_error() {
    let (_folder, path) = toy(1);
    let tensors = path.join("model.safetensors");
    let bytes = fs::read(&tensors).unwrap();
    let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let cut = OpenOptions::new().write(true).open(&tensors).unwrap();
    let in_data = (header..bytes.len()).rev().step_by(997);
    for length in in_data.chain((0..header).rev()) {
        cut.set_len(length as u64).unwrap();
        let error = error(&path);
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{length}: {error}");
    }
}

#[test]
fn headers_that_lie_are_refused() {
    let (_folder, path) = toy(1);
    let tensors = path.join("model.safetensors");
    let with_header = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        fs::write(&tensors, bytes).unwrap();
        error(&path)
    };
    for header in [
        "",
        "[]",
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
            "b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"Q9","shape":[1],"data_offsets":[0,4]}}"#,
    ] {
        let error = with_header(header, 8);
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{header}: {error}");
    }
    for length in [u64::MAX, 1 << 40, 100_000_001] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend([b' '; 64]);
        fs::write(&tensors, bytes).unwrap();
        assert!(matches!(error(&path), CheckpointError::Damaged { .. }));
    }
    let foreign = r#"{"model.embed_tokens.weight":
        {"dtype":"F8_E4M3","shape":[2,4],"data_offsets":[0,8]}}"#;
    assert_says(&with_header(foreign, 8), "is of type F8_E4M3");
}

#[test]
fn an_index_names_nothing_outside_its_folder() {
    let (folder, path) = toy(3);
    let outside = folder.path().join("outside.safetensors");
    fs::copy(path.join("model-00001-of-00003.safetensors"), &outside).unwrap();
    let index = path.join("model.safetensors.index.json");
    let sound: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    for file in [
        "../outside.safetensors",
        outside.to_str().unwrap(),
        "./model-00001-of-00003.safetensors",
        "sub/model.safetensors",
        "..",
        "",
        "config.json",
        "model.safetensors/",
    ] {
        let mut hostile = sound.clone();
        hostile["weight_map"]["model.embed_tokens.weight"] = json!(file);
        fs::write(&index, hostile.to_string()).unwrap();
        assert_says(&error(&path), "is not the name of a file beside it");
    }
    fs::write(&index, json!({"weight_map": []}).to_string()).unwrap();
    assert_says(&error(&path), "no weight_map");
    fs::write(&index, json!({"weight_map": {}}).to_string()).unwrap();
    assert_says(&error(&path), "holds no safetensors");
    fs::write(&index, json!({"weight_map": {"a": "gone.safetensors"}}).to_string()).unwrap();
    assert!(matches!(error(&path), CheckpointError::Io { .. }));
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let (_folder, path) = toy(1);
    let tensors = path.join("model.safetensors");
    fs::copy(&tensors, path.join("one.safetensors")).unwrap();
    fs::rename(&tensors, path.join("two.safetensors")).unwrap();
    assert_says(&error(&path), "is in two files");
}

#[test]
fn json_that_is_none_is_named() {
    let (_folder, path) = toy(1);
    for file in ["config.json", "generation_config.json", "tokenizer_config.json"] {
        let sound = fs::read(path.join(file)).unwrap();
        let deep = "[".repeat(100_000);
        for broken in ["", "{", "[]", "\"text\"", deep.as_str()] {
            fs::write(path.join(file), broken).unwrap();
            assert_says(&error(&path), file);
        }
        fs::write(path.join(file), sound).unwrap();
    }
    Checkpoint::open(&path).unwrap();
}

#[test]
fn a_folder_without_the_needed_files_says_which() {
    let (_folder, path) = toy(1);
    fs::remove_file(path.join("tokenizer.json")).unwrap();
    let error_of_tokens = Checkpoint::open(&path).unwrap().vocabulary().unwrap_err();
    assert_says(&error_of_tokens, "no tokenizer.json");
    fs::remove_file(path.join("model.safetensors")).unwrap();
    assert_says(&error(&path), "holds no safetensors");
    fs::remove_file(path.join("config.json")).unwrap();
    assert_says(&error(&path), "config.json");
    fs::create_dir(path.join("config.json")).unwrap();
    assert_says(&error(&path), "config.json");
}

#[test]
fn flipped_bytes_are_an_error_or_another_model_but_no_panic() {
    let (_folder, path) = toy(1);
    read_everything(&Checkpoint::open(&path).unwrap());
    let tensors = path.join("model.safetensors");
    let bytes = fs::read(&tensors).unwrap();
    let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    flip(&path, &tensors, header, 1000);
    let config = path.join("config.json");
    let length = usize::try_from(fs::metadata(&config).unwrap().len()).unwrap();
    flip(&path, &config, length, 1000);
}
