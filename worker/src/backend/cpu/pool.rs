//! Buffers that are used again, so that a step that looks like the one before allocates nothing.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers kept for later; more are given back to the system.
const KEPT_MAX: usize = 32;

/// Where buffers of `T` rest.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    resting: Arc<Mutex<Vec<Vec<T>>>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { resting: Arc::default() }
    }
}

impl<T: Copy + Default> Pool<T> {
    /// A buffer of `len` items that hold anything.
    pub(crate) fn take(&self, len: usize) -> Buffer<T> {
        let mut items = {
            let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
            // The smallest that suffices, else the largest.
            let best = (0..resting.len()).min_by_key(|&at| {
                let held: usize = resting[at].len();
                if held >= len { (0, held) } else { (1, usize::MAX - held) }
            });
            best.map(|at| resting.swap_remove(at)).unwrap_or_default()
        };
        if items.len() < len {
            items.resize(len, T::default());
        }
        Buffer { items, len, pool: Self { resting: Arc::clone(&self.resting) } }
    }
}

/// A slice on loan from a pool.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    /// At least `len`: a buffer never shrinks, so that growing again writes nothing.
    items: Vec<T>,
    len: usize,
    pool: Pool<T>,
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items[..self.len]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items[..self.len]
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let mut resting = self.pool.resting.lock().unwrap_or_else(PoisonError::into_inner);
        if resting.len() < KEPT_MAX {
            resting.push(std::mem::take(&mut self.items));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_the_smallest_that_suffices_is_taken() {
        let pool = Pool::<f32>::default();
        let (large, small) = (pool.take(100), pool.take(10));
        let (large_at, small_at) = (large.as_ptr(), small.as_ptr());
        drop(large);
        drop(small);
        let again = pool.take(8);
        assert_eq!((again.as_ptr(), again.len()), (small_at, 8));
        assert_eq!(pool.take(11).as_ptr(), large_at);
    }
}
