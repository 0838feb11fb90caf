//! `--backend opencl` and `auto` on a machine without OpenCL.

use fixture::{Architecture, Toy};

use crate::{arcmesh, complaint, home, text};

#[test]
fn without_opencl_its_backend_is_refused_in_one_line_and_auto_computes_on_the_cpu() {
    let home = home();
    let model = fixture::gguf(home.path(), &Toy::new(Architecture::Llama));
    let library = ["--opencl-library", "/nowhere/libOpenCL.so", "--model", model.to_str().unwrap()];
    let words = [&["generate", "the", "--backend", "opencl"], &library[..]].concat();
    let output = arcmesh(home.path(), &words).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains(
            "--backend opencl: there is no OpenCL on this machine: /nowhere/libOpenCL.so"
        ),
        "{said}"
    );
    let words = [&["generate", "the", "--max-generation-tokens", "1"], &library[..]].concat();
    let output = arcmesh(home.path(), &words).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let words = ["serve", "--backend", "cpu", "--device", "0000:03:00.0"];
    let line = complaint(&arcmesh(home.path(), &words).output().unwrap(), 2);
    assert!(line.contains("--device") && line.contains("--backend opencl"), "{line}");
}
