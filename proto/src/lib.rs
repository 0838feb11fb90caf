//! What the processes say to each other, as generated from the `.proto` files.
//!
//! Read those: they are the documentation.

/// Generated from `worker.proto` and `membership.proto`.
pub mod worker {
    tonic::include_proto!("arcmesh.worker.v1");

    impl Slice {
        /// How many tokens it computes, known or not.
        #[must_use]
        pub fn count(&self) -> usize {
            self.tokens.len() + usize::from(self.follows.is_some())
        }
    }
}

/// Generated from `collective.proto`.
pub mod collective {
    tonic::include_proto!("arcmesh.collective.v1");
}

/// Generated from `files.proto`.
pub mod files {
    tonic::include_proto!("arcmesh.files.v1");
}

/// Largest message either service accepts, bytes: a prefill step's partial sums of the largest
/// hidden size we serve (8192 tokens × 8192 columns × 8 bytes = 512 MiB) with room for its frame.
pub const MESSAGE_BYTES_MAX: usize = 544 << 20;
