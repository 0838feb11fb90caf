//! Compiles the protocol without `protoc`: protox parses, tonic-prost-build generates.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["worker.proto", "collective.proto", "membership.proto", "files.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure()
        .bytes(".arcmesh.collective.v1.Frame.payload")
        .compile_fds(descriptors)?;
    Ok(())
}
