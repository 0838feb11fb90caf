//! How codes of 4, 5, 6 and 8 bits are packed: 16 rows × [`GROUP`] columns at a time.

use bytemuck::Zeroable;

use crate::backend::cpu::lanes::{BYTES, Dots};
use crate::backend::cpu::strip::{CodeBits, STEP, STEPS};

/// 4 bits: a vector of bytes holds two steps, the even one in the low halves.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(transparent)]
pub(crate) struct Four([[u8; BYTES]; STEPS / 2]);

/// 5 bits: the fifth bits of all steps of a lane's byte are gathered in one byte. Steps 0 to 3 have
/// bits 4 to 7, steps 4 to 7 have bits 0 to 3.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C)]
pub(crate) struct Five {
    low: Four,
    fifth: [u8; BYTES],
}

/// 6 bits: the upper two bits of four steps of a lane's byte are gathered in one byte.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C)]
pub(crate) struct Six {
    low: Four,
    upper: [[u8; BYTES]; 2],
}

/// 8 bits, 128 more than the number.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(transparent)]
pub(crate) struct Eight([[u8; BYTES]; STEPS]);

/// Step of a column, and its byte within the step's vector.
fn place(row: usize, column: usize) -> (usize, usize) {
    (column / STEP, STEP * row + column % STEP)
}

impl CodeBits for Four {
    const RUN: usize = 8; // 32767 / (254 × 15)

    fn put(&mut self, row: usize, column: usize, code: u8) {
        let (step, byte) = place(row, column);
        self.0[step / 2][byte] |= (code & 15) << (4 * (step % 2));
    }

    #[inline(always)]
    fn at<D: Dots, const STEP: usize>(&self, d: D, part: usize) -> D::U {
        let both = d.load_bytes(&self.0[STEP / 2], part);
        if STEP.is_multiple_of(2) { d.low(both) } else { d.high(both) }
    }
}

impl CodeBits for Five {
    const RUN: usize = 4; // 32767 / (254 × 31)

    fn put(&mut self, row: usize, column: usize, code: u8) {
        self.low.put(row, column, code);
        let (step, byte) = place(row, column);
        self.fifth[byte] |= (code >> 4 & 1) << ((step + 4) % STEPS);
    }

    #[inline(always)]
    fn at<D: Dots, const STEP: usize>(&self, d: D, part: usize) -> D::U {
        let fifth = d.load_bytes(&self.fifth, part);
        let fifth = match STEP {
            0 => d.shifted::<0>(fifth, 16),
            1 => d.shifted::<-1>(fifth, 16),
            2 => d.shifted::<-2>(fifth, 16),
            3 => d.shifted::<-3>(fifth, 16),
            4 => d.shifted::<4>(fifth, 16),
            5 => d.shifted::<3>(fifth, 16),
            6 => d.shifted::<2>(fifth, 16),
            _ => d.shifted::<1>(fifth, 16),
        };
        d.or(self.low.at::<D, STEP>(d, part), fifth)
    }
}

impl CodeBits for Six {
    const RUN: usize = 2; // 32767 / (254 × 63)

    fn put(&mut self, row: usize, column: usize, code: u8) {
        self.low.put(row, column, code);
        let (step, byte) = place(row, column);
        self.upper[step / 4][byte] |= (code >> 4 & 3) << (2 * (step % 4));
    }

    #[inline(always)]
    fn at<D: Dots, const STEP: usize>(&self, d: D, part: usize) -> D::U {
        let upper = d.load_bytes(&self.upper[STEP / 4], part);
        let upper = match STEP % 4 {
            0 => d.shifted::<4>(upper, 48),
            1 => d.shifted::<2>(upper, 48),
            2 => d.shifted::<0>(upper, 48),
            _ => d.shifted::<-2>(upper, 48),
        };
        d.or(self.low.at::<D, STEP>(d, part), upper)
    }
}

impl CodeBits for Eight {
    const RUN: usize = 0;

    fn put(&mut self, row: usize, column: usize, code: u8) {
        let (step, byte) = place(row, column);
        self.0[step][byte] = code;
    }

    #[inline(always)]
    fn at<D: Dots, const STEP: usize>(&self, d: D, part: usize) -> D::U {
        d.load_bytes(&self.0[STEP], part)
    }
}
