//! A slice that several threads write to, each its own part.

#![expect(unsafe_code, reason = "threads write to parts of one slice")]

use std::marker::PhantomData;
use std::ops::Range;

use crate::backend::cpu::team::Team;

/// A mutable slice, shared by threads that never touch the same element.
#[derive(Debug)]
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: elements are only reached through `part`, whose callers keep to parts of their own.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrowed: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// While the part is in use, no other part may overlap it.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "that parts do not overlap is the caller's promise")]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a part lies within its slice");
        // SAFETY: the range lies within the slice.
        let start = unsafe { self.start.add(range.start) };
        // SAFETY: the slice is borrowed for 'a, and the caller promises that no part overlaps.
        unsafe { std::slice::from_raw_parts_mut(start, range.end - range.start) }
    }
}

impl<T> Disjoint<'_, T> {
    /// Sets one element.
    ///
    /// # Safety
    /// Nobody else may touch the element meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn set(&self, at: usize, value: T) {
        assert!(at < self.len, "an element lies within its slice");
        // SAFETY: the element lies within the slice.
        let element = unsafe { self.start.add(at) };
        // SAFETY: the slice is borrowed for 'a, and the caller promises to be alone.
        unsafe { *element = value };
    }
}

/// A slice of rows, so many elements each.
pub(crate) type Rows<'a, T> = (&'a mut [T], usize);
/// What is done with rows of two slices.
pub(crate) type RowWork<'a, T, U> = dyn Fn(Range<usize>, &mut [T], &mut [U]) + Sync + 'a;

/// Calls `work` for rows `0..rows`, `grain` at a time, on all threads, each with its own rows of
/// `first` and `second`.
pub(crate) fn by_rows<T: Send, U: Send>(
    team: &Team,
    rows: usize,
    grain: usize,
    (first, first_width): Rows<'_, T>,
    (second, second_width): Rows<'_, U>,
    work: &RowWork<'_, T, U>,
) {
    let (first, second) = (Disjoint::new(first), Disjoint::new(second));
    team.run(rows.div_ceil(grain), &|item| {
        let range = item * grain..rows.min((item + 1) * grain);
        // SAFETY: each item has rows of its own, and is done once.
        let first = unsafe { first.part(range.start * first_width..range.end * first_width) };
        // SAFETY: as above.
        let second = unsafe { second.part(range.start * second_width..range.end * second_width) };
        work(range, first, second);
    });
}
