//! What a step's kernels need to know of the batch, sent once a step.

use bytemuck::cast_slice;

use crate::backend::opencl::driver::{Driver, u32_of};
use crate::backend::opencl::pool::Lease;
use crate::batch::Batch;

/// Numbers on the device, with what they are.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    numbers: Vec<u32>,
    lease: Option<Lease>,
}

impl Sent {
    /// These numbers on the device; they are sent only if they are others than before.
    pub(crate) fn be(&mut self, driver: &mut Driver, numbers: &[u32]) {
        if self.lease.is_none() || self.numbers != numbers {
            self.numbers.clear();
            self.numbers.extend_from_slice(numbers);
            self.lease = Some(driver.send(cast_slice(numbers)));
        }
    }

    /// # Panics
    /// Before the first [`Sent::be`].
    pub(crate) fn lease(&self) -> &Lease {
        self.lease.as_ref().expect("numbers are sent before they are used")
    }
}

/// A batch's arrays.
#[derive(Debug, Default)]
pub(crate) struct Arrays {
    pub(crate) positions: Sent,
    pub(crate) slots: Sent,
    pub(crate) blocks: Sent,
    /// For each row, where its block table begins.
    pub(crate) tables: Sent,
    /// Lots of query heads that read a KV head together: that one, the first of them, how many.
    pub(crate) shares: Sent,
    /// Lots.
    pub(crate) lots: usize,
    /// Working memory.
    numbers: Vec<u32>,
}

impl Arrays {
    /// Makes sure that a batch's arrays are on the device.
    pub(crate) fn be(&mut self, driver: &mut Driver, batch: &Batch) {
        self.positions.be(driver, &batch.positions);
        self.slots.be(driver, &batch.slots);
        self.blocks.be(driver, &batch.blocks);
        self.numbers.clear();
        for slice in &batch.slices {
            let start = u32_of(slice.blocks.start);
            self.numbers.extend(slice.rows.clone().map(|_| start));
        }
        self.tables.be(driver, &self.numbers);
    }

    /// Makes sure that the device knows which query heads read a KV head together, `most` at once.
    pub(crate) fn share(&mut self, driver: &mut Driver, kv_of_query: &[usize], most: usize) {
        self.numbers.clear();
        let mut first = 0;
        for alike in kv_of_query.chunk_by(|a, b| a == b) {
            for lot in alike.chunks(most) {
                self.numbers.extend([lot[0], first, lot.len()].map(u32_of));
                first += lot.len();
            }
        }
        self.lots = self.numbers.len() / 3;
        self.shares.be(driver, &self.numbers);
    }
}
