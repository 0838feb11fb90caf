//! The gate: every kernel compiles for an A770, nothing spills, what is claimed is there, and nothing
//! has changed unseen.

use gate::{Compiler, DEVICES, Difference, Snapshot, compiled, page, table};

const PAGE: &str = include_str!("../../docs/roofline.md");
const SNAPSHOT: &str = include_str!("../snapshot.txt");

#[test]
fn every_kernel_is_fit_for_an_a770_and_as_it_was() {
    if !fixture::has("ocloc", "intel-opencl-icd libigc-tools") {
        return;
    }
    let compiler = match Compiler::find() {
        Ok(compiler) => compiler,
        Err(error) => panic!("{error}"),
    };
    let device = DEVICES[0];
    let found = match compiled(&compiler, device) {
        Ok(found) => found,
        Err(error) => panic!("{error}"),
    };
    eprintln!("{}, by ocloc {}\n{}", device.name, compiler.version(), table(&found.kernels));
    assert!(found.faults.is_empty(), "{}", found.faults.join("\n"));
    let written = Snapshot::write(compiler.version(), device.name, &found.kernels);
    match Snapshot::parse(SNAPSHOT).difference(&Snapshot::parse(&written)) {
        None => assert_eq!(
            page(&found, compiler.version()).as_deref(),
            Ok(PAGE),
            "`cargo run -p gate -- roofline > docs/roofline.md`"
        ),
        Some(Difference::OtherCompiler { snapshot, found }) => {
            eprintln!("counts are not compared: they are of ocloc {snapshot}, and this is {found}");
        }
        Some(Difference::Lines { before, after }) => panic!(
            "kernels are not what they were; if that is meant, \
             `cargo run -p gate -- snapshot > gate/snapshot.txt`\nbefore:\n{}\nafter:\n{}",
            before.join("\n"),
            after.join("\n")
        ),
    }
}
