//! How codes of 4, 5, 6 and 8 bits are packed: 16 rows × [`GROUP`] columns at a time.

use bytemuck::Zeroable;

use crate::backend::cpu::blocks::Codes;
use crate::backend::cpu::lanes::{BYTES, Dots, LANES};
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

/// The same bits of each of a lane's four bytes, which are handled as one number.
const fn each(bits: u8) -> u32 {
    u32::from_le_bytes([bits; STEP])
}

/// A lane's bytes of every step.
fn steps(row: &Codes) -> [u32; STEPS] {
    let (steps, _) = row.codes.as_chunks::<STEP>();
    std::array::from_fn(|step| u32::from_le_bytes(steps[step]))
}

/// Makes a vector of bytes of 16 rows: lane by lane, from the lane's bytes of every step.
#[inline(always)]
fn put_lanes(bytes: &mut [u8; BYTES], rows: &[Codes; LANES], lane: impl Fn([u32; STEPS]) -> u32) {
    for (to, row) in bytes.as_chunks_mut::<STEP>().0.iter_mut().zip(rows) {
        *to = lane(steps(row)).to_le_bytes();
    }
}

impl CodeBits for Four {
    const RUN: usize = 8; // 32767 / (254 × 15)

    fn put(&mut self, rows: &[Codes; LANES]) {
        for (pair, bytes) in self.0.iter_mut().enumerate() {
            put_lanes(bytes, rows, |steps| {
                steps[2 * pair] & each(15) | (steps[2 * pair + 1] & each(15)) << 4
            });
        }
    }

    #[inline(always)]
    fn at<D: Dots, const STEP: usize>(&self, d: D, part: usize) -> D::U {
        let both = d.load_bytes(&self.0[STEP / 2], part);
        if STEP.is_multiple_of(2) { d.low(both) } else { d.high(both) }
    }
}

impl CodeBits for Five {
    const RUN: usize = 4; // 32767 / (254 × 31)

    fn put(&mut self, rows: &[Codes; LANES]) {
        self.low.put(rows);
        put_lanes(&mut self.fifth, rows, |steps| {
            (0..STEPS)
                .fold(0, |all, step| all | (steps[step] >> 4 & each(1)) << ((step + 4) % STEPS))
        });
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

    fn put(&mut self, rows: &[Codes; LANES]) {
        self.low.put(rows);
        for (half, bytes) in self.upper.iter_mut().enumerate() {
            put_lanes(bytes, rows, |steps| {
                (0..4).fold(0, |all, at| all | (steps[4 * half + at] >> 4 & each(3)) << (2 * at))
            });
        }
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

    fn put(&mut self, rows: &[Codes; LANES]) {
        for (step, bytes) in self.0.iter_mut().enumerate() {
            put_lanes(bytes, rows, |steps| steps[step]);
        }
    }

    #[inline(always)]
    fn at<D: Dots, const STEP: usize>(&self, d: D, part: usize) -> D::U {
        d.load_bytes(&self.0[STEP], part)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::cpu::tensor::GROUP;

    /// Where a code lies, code by code: `parts` gives the vectors and the bits in them of a step's code.
    fn assert_places(
        rows: &[Codes; LANES],
        vectors: &[[u8; BYTES]],
        parts: impl Fn(usize, u8) -> Vec<(usize, u8)>,
    ) {
        let mut expected = vec![[0; BYTES]; vectors.len()];
        for (row, group) in rows.iter().enumerate() {
            for (column, &code) in group.codes.iter().enumerate() {
                for (vector, bits) in parts(column / STEP, code) {
                    expected[vector][STEP * row + column % STEP] |= bits;
                }
            }
        }
        assert_eq!(vectors, expected);
    }

    fn low(step: usize, code: u8) -> (usize, u8) {
        (step / 2, (code & 15) << (4 * (step % 2)))
    }

    proptest! {
        #[test]
        fn rows_are_packed_as_code_by_code(
            codes in prop::collection::vec(any::<[u8; GROUP]>(), LANES),
        ) {
            let rows = |greatest: u8| -> [Codes; LANES] {
                std::array::from_fn(|row| Codes {
                    codes: codes[row].map(|code| code & greatest),
                    ..Codes::NONE
                })
            };
            let mut four = Four([[255; BYTES]; STEPS / 2]);
            four.put(&rows(15));
            assert_places(&rows(15), &four.0, |step, code| vec![low(step, code)]);

            let mut five = Five { low: four, fifth: [255; BYTES] };
            five.put(&rows(31));
            let vectors = [&five.low.0[..], &[five.fifth]].concat();
            assert_places(&rows(31), &vectors, |step, code| {
                vec![low(step, code), (STEPS / 2, (code >> 4 & 1) << ((step + 4) % STEPS))]
            });

            let mut six = Six { low: four, upper: [[255; BYTES]; 2] };
            six.put(&rows(63));
            let vectors = [&six.low.0[..], &six.upper].concat();
            assert_places(&rows(63), &vectors, |step, code| {
                vec![low(step, code), (STEPS / 2 + step / 4, (code >> 4 & 3) << (2 * (step % 4)))]
            });

            let mut eight = Eight([[255; BYTES]; STEPS]);
            eight.put(&rows(255));
            assert_places(&rows(255), &eight.0, |step, code| vec![(step, code)]);
        }
    }
}
