//! The arcmesh command.
fn main() {}
