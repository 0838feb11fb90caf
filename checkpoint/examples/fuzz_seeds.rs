//! Writes headers of toy models to the folder that is given: where the fuzzer begins.

use std::path::PathBuf;

use fixture::{Architecture, Toy};

fn main() -> std::io::Result<()> {
    let folder =
        PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "fuzz/corpus/gguf".into()));
    std::fs::create_dir_all(&folder)?;
    for architecture in Architecture::ALL {
        let toy = Toy { layers: 1, vocabulary: 288, ..Toy::new(architecture) };
        let header = fixture::gguf_writer(&toy).header();
        std::fs::write(folder.join(format!("{architecture:?}.gguf")), header)?;
    }
    Ok(())
}
