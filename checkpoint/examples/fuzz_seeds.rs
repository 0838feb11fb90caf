//! Writes toy models without their data to the folder that is given, a folder for each fuzz target: where the
//! fuzzer begins.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};

use fixture::{Architecture, Toy};

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "fuzz/corpus".into()));
    let (gguf, safetensors) = (folder.join("gguf"), folder.join("safetensors"));
    fs::create_dir_all(&gguf)?;
    fs::create_dir_all(&safetensors)?;
    for architecture in Architecture::ALL {
        let toy = Toy { layers: 1, vocabulary: 288, ..Toy::new(architecture) };
        let header = fixture::gguf_writer(&toy).header();
        fs::write(gguf.join(format!("{architecture:?}.gguf")), header)?;
        let scratch = tempfile::tempdir()?;
        let written = fixture::safetensors(scratch.path(), &toy);
        fs::write(safetensors.join(format!("{architecture:?}")), seed(&written, b"")?)?;
        let index = br#"{"weight_map": {"model.norm.weight": "model.safetensors"}}"#;
        fs::write(safetensors.join(format!("{architecture:?}-index")), seed(&written, index)?)?;
    }
    Ok(())
}

/// A folder as `fuzz/fuzz_targets/safetensors.rs` takes it.
fn seed(folder: &Path, index: &[u8]) -> Result<Vec<u8>> {
    let tensors = fs::read(folder.join("model.safetensors"))?;
    let length = tensors.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    let header = 8 + usize::try_from(length).map_err(Error::other)?;
    let data = u32::try_from(tensors.len() - header).map_err(Error::other)?;
    let mut seed = data.to_le_bytes().to_vec();
    for part in [
        fs::read(folder.join("config.json"))?,
        fs::read(folder.join("tokenizer.json"))?,
        index.to_vec(),
    ] {
        seed.extend(part);
        seed.push(0);
    }
    seed.extend(&tensors[..header]);
    Ok(seed)
}
