//! `cargo run -p gate`: what Intel's compiler makes of our kernels, as a table.
//!
//! `-- snapshot` prints what `gate/snapshot.txt` is to hold, `-- roofline` what `docs/roofline.md` is.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is what it is for")]

use std::process::ExitCode;

use gate::{Compiler, CompilerError, DEVICES, Snapshot, compiled, page, table};

fn main() -> Result<ExitCode, CompilerError> {
    let asked = std::env::args().nth(1);
    let compiler = Compiler::find()?;
    // What is committed is of the first alone: which others there are is the compiler's age.
    let is_committed = matches!(asked.as_deref(), Some("snapshot" | "roofline"));
    let mut found = Vec::new();
    for &device in if is_committed { &DEVICES[..1] } else { &DEVICES[..] } {
        match compiled(&compiler, device) {
            Ok(kernels) => found.push((device, kernels)),
            Err(CompilerError::UnknownDevice(name)) if device != DEVICES[0] => {
                eprintln!("ocloc {} does not know {name}", compiler.version());
            }
            Err(error) => return Err(error),
        }
    }
    if asked.as_deref() == Some("snapshot")
        && let Some((device, found)) = found.first()
    {
        print!("{}", Snapshot::write(compiler.version(), device.name, &found.kernels));
        return Ok(ExitCode::SUCCESS);
    }
    if asked.as_deref() == Some("roofline")
        && let Some((_, found)) = found.first()
    {
        match page(found, compiler.version()) {
            Ok(page) => print!("{page}"),
            Err(error) => {
                eprintln!("{error}");
                return Ok(ExitCode::FAILURE);
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut is_well = true;
    for (device, found) in &found {
        println!("{}\n{}", device.name, table(&found.kernels));
        for fault in &found.faults {
            println!("WRONG {fault}");
            is_well = false;
        }
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
