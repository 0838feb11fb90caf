//! Numbers of 8 significant bits: what attention multiplies.
//!
//! Queries, keys, values and weights of attention are rounded to as many bits as bf16 has, so that tile
//! registers can multiply them and every other path can do just the same in f32: products of such
//! numbers are exact, and sums are f32 in an order of their own, see [`GROUP`]. This is what attention
//! on GPUs computes with; the 8-bit codes that the weights meet are coarser.

use crate::backend::cpu::lanes::Lanes;

/// Numbers of a *group*: the products of even ones are added up in order, those of odd ones beside
/// them, then both sums together, and groups in order. This is the order of `TDPBF16PS` (Intel's
/// Instruction Set Extensions Programming Reference, chapter 3).
pub(crate) const GROUP: usize = 32;
/// Multiplied by it, a number's lower 16 of 24 bits become what is rounded away (Veltkamp's splitting).
const SPLITTER: f32 = 65_537.0; // 2¹⁶ + 1
/// Less than this is 0. Tile registers take subnormals for 0, so none may come up: products with what
/// an f16 holds are then whole multiples of 2⁻⁹¹.
const TINY: f32 = 8.673_617e-19; // 2⁻⁶⁰

/// Rounds to 8 significant bits.
#[inline(always)]
pub(crate) fn shortened<L: Lanes>(l: L, x: L::F) -> L::F {
    let large = l.mul(x, l.splat(SPLITTER));
    l.sub(large, l.sub(large, x))
}

/// Rounds to 8 significant bits, or to 0.
#[inline(always)]
pub(crate) fn shortened_or_zero<L: Lanes>(l: L, x: L::F) -> L::F {
    l.if_less(l.abs(x), l.splat(TINY), l.splat(0.0), shortened(l, x))
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::backend::cpu::lanes::{LANES, Portable};

    #[test]
    fn rounding_leaves_the_nearest_number_of_8_bits() {
        let mut x = 1.0f32;
        for at in 0..u16::MAX {
            x = (x * 1.000_37).copysign(f32::from(at % 3) - 1.0);
            let mut to = [0.0; LANES];
            Portable.store(shortened_or_zero(Portable, Portable.splat(x)), &mut to);
            let near = bf16::from_f32(x).to_f32();
            assert_eq!(bf16::from_f32(to[0]).to_f32().to_bits(), to[0].to_bits(), "{x}: 8 bits");
            assert!((to[0] - x).abs() <= (near - x).abs(), "{x}: {} is not {near}", to[0]);
        }
        for x in [0.0, -0.0, 1e-19, -1e-19, 1e-30] {
            let mut to = [1.0; LANES];
            Portable.store(shortened_or_zero(Portable, Portable.splat(x)), &mut to);
            assert_eq!(to[0].to_bits(), 0, "{x}");
        }
    }
}
