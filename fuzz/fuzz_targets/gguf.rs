//! Any bytes as the header of a GGUF file: opening it is an error or a model of which everything can
//! be read, and never a panic.
#![no_main]

#[path = "../../checkpoint/tests/flip/everything.rs"]
mod everything;

use std::cell::OnceCell;
use std::fs;
use std::path::PathBuf;

use checkpoint::Checkpoint;
use everything::read_everything;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// What follows the header, all zeros: enough for the tensors of a toy. Inputs stay small without it.
const DATA_BYTES: u64 = 2 << 20;

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

fuzz_target!(|header: &[u8]| {
    let path = file();
    fs::write(&path, header).expect("there is room for a header");
    let whole = fs::OpenOptions::new().write(true).open(&path).expect("it was just written");
    whole.set_len(header.len() as u64 + DATA_BYTES).expect("zeros take no room");
    if let Ok(checkpoint) = Checkpoint::open(&path) {
        read_everything(&checkpoint);
    }
});

fn file() -> PathBuf {
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().expect("a folder of our own"));
        folder.path().join("model.gguf")
    })
}
