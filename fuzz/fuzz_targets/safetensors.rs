//! Any bytes as the JSON of a folder and as the header of its safetensors: opening it is an error or a
//! model of which everything can be read, and never a panic.
//!
//! An input is what `checkpoint/examples/fuzz_seeds.rs` writes: how many bytes follow the header (4 bytes,
//! little-endian), then `config.json`, `tokenizer.json` and the index (empty: there is none), each ended by a
//! zero, then `model.safetensors` up to its data, which is all zeros.
#![no_main]

#[path = "../../checkpoint/tests/flip/everything.rs"]
mod everything;

use std::cell::OnceCell;
use std::fs;
use std::path::Path;

use checkpoint::Checkpoint;
use everything::read_everything;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// Enough for the tensors of a toy.
const DATA_BYTES_MAX: u32 = 2 << 20;

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

fuzz_target!(|input: &[u8]| {
    let Some((data_bytes, rest)) = input.split_first_chunk() else { return };
    FOLDER.with(|folder| {
        let folder =
            folder.get_or_init(|| tempfile::tempdir().expect("a folder of our own")).path();
        write(folder, u32::from_le_bytes(*data_bytes).min(DATA_BYTES_MAX), rest);
        if let Ok(checkpoint) = Checkpoint::open(folder) {
            read_everything(&checkpoint);
        }
    });
});

fn write(folder: &Path, data_bytes: u32, rest: &[u8]) {
    let mut parts = rest.splitn(4, |&byte| byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    fs::write(folder.join("config.json"), part()).expect("there is room");
    fs::write(folder.join("tokenizer.json"), part()).expect("there is room");
    let index = folder.join("model.safetensors.index.json");
    match part() {
        [] => drop(fs::remove_file(index)),
        text => fs::write(index, text).expect("there is room"),
    }
    let (path, header) = (folder.join("model.safetensors"), part());
    fs::write(&path, header).expect("there is room");
    let whole = fs::OpenOptions::new().write(true).open(&path).expect("it was just written");
    let bytes = header.len() as u64 + u64::from(data_bytes);
    whole.set_len(bytes).expect("zeros take no room");
}
