//! Memory straight from the operating system: zero until written, costing nothing until touched, and
//! in huge pages where they pay.
//!
//! Weights of all matrices lie one after another in large chunks, since a matrix alone is often
//! smaller than a huge page. Reading weights from huge pages is about a third faster.

#![expect(unsafe_code, reason = "mapped memory is handed out as slices")]

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Zeroable;

use crate::backend::BackendError;

/// What the arena maps at a time, bytes. Miri keeps a shadow of every byte.
const CHUNK_BYTES: usize = if cfg!(miri) { 1 << 16 } else { 64 << 20 };
/// A huge page of this architecture, bytes.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Everything handed out starts at a multiple of this: a cache line.
const LINE_BYTES: usize = 64;

/// One mapping.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping is plain memory; who may touch which part of it is the regions' business.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(bytes: usize, huge: bool, what: &'static str) -> Result<Self, BackendError> {
        // Miri has mappings, but none that are not reserved.
        let unreserved = if cfg!(miri) { 0 } else { libc::MAP_NORESERVE };
        // SAFETY: a fresh private mapping touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | unreserved,
                -1,
                0,
            )
        };
        let full = || BackendError::Memory { what, wanted: bytes as u64, available: 0 };
        if start == libc::MAP_FAILED {
            return Err(full());
        }
        let start = NonNull::new(start.cast::<u8>()).ok_or_else(full)?;
        if huge && !cfg!(miri) {
            // SAFETY: the range was just mapped; a kernel without huge pages refuses, to no harm.
            unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and no region outlives the mapping.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// An owned slice of a mapping.
#[derive(Debug)]
pub(crate) struct Region<T> {
    mapping: Arc<Mapping>,
    offset: usize,
    len: usize,
    item: PhantomData<T>,
}

impl<T: Zeroable + Copy + Send + Sync> Region<T> {
    /// `len` zeros in a mapping of their own.
    pub(crate) fn alone(len: usize, what: &'static str) -> Result<Self, BackendError> {
        let bytes = size_of::<T>().saturating_mul(len).max(1);
        let mapping = Arc::new(Mapping::new(bytes, false, what)?);
        Ok(Self { mapping, offset: 0, len, item: PhantomData })
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        // SAFETY: the region lies within its mapping, starts at a cache line, holds zeros or what was
        // written through `as_mut_slice`, and belongs to this region alone.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`; `&mut self` excludes other users.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }

    fn start(&self) -> *mut T {
        // SAFETY: `offset` lies within the mapping.
        unsafe { self.mapping.start.as_ptr().add(self.offset) }.cast()
    }
}

/// Hands out regions from large mappings in huge pages.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    current: Option<Arc<Mapping>>,
    used: usize,
}

impl Arena {
    /// `len` zeros, beside what was handed out before.
    pub(crate) fn take<T: Zeroable + Copy + Send + Sync>(
        &mut self,
        len: usize,
    ) -> Result<Region<T>, BackendError> {
        let bytes = size_of::<T>().saturating_mul(len).next_multiple_of(LINE_BYTES);
        if let Some(mapping) = self.current.as_ref().filter(|it| it.bytes - self.used >= bytes) {
            let offset = self.used;
            self.used += bytes;
            return Ok(Region { mapping: Arc::clone(mapping), offset, len, item: PhantomData });
        }
        let wanted = bytes.saturating_add(HUGE_PAGE_BYTES).max(CHUNK_BYTES);
        let mapping = Arc::new(Mapping::new(wanted, true, "weights")?);
        self.used = bytes;
        self.current = Some(Arc::clone(&mapping));
        Ok(Region { mapping, offset: 0, len, item: PhantomData })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_zero_aligned_and_apart() {
        let mut arena = Arena::default();
        let mut first = arena.take::<u8>(100).unwrap();
        let second = arena.take::<u32>(7).unwrap();
        assert!(first.as_slice().iter().all(|&byte| byte == 0));
        first.as_mut_slice().fill(255);
        assert_eq!(second.as_slice(), [0; 7]);
        assert_eq!(second.as_slice().as_ptr() as usize % LINE_BYTES, 0);
    }

    #[test]
    fn a_region_outlives_its_arena_and_may_exceed_a_chunk() {
        let region = Arena::default().take::<u8>(CHUNK_BYTES + 1).unwrap();
        assert_eq!(region.as_slice()[CHUNK_BYTES], 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri ends where there is no memory")]
    fn what_cannot_be_mapped_is_an_error() {
        assert!(matches!(
            Region::<u8>::alone(usize::MAX, "test"),
            Err(BackendError::Memory { .. })
        ));
    }
}
