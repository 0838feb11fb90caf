//! Compiles the protocol without `protoc`: protox parses, tonic-prost-build generates.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=worker.proto");
    println!("cargo::rerun-if-changed=collective.proto");
    println!("cargo::rerun-if-changed=membership.proto");
    println!("cargo::rerun-if-changed=files.proto");
    let files = ["worker.proto", "collective.proto", "membership.proto", "files.proto"];
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure()
        .bytes(".arcmesh.collective.v1.Frame.payload")
        .compile_fds(descriptors)?;
    Ok(())
}
