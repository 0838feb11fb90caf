//! Nothing to do: build dependencies need a build script.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
