//! Which instructions this machine computes with; chosen once, when the backend is made.

use crate::backend::BackendError;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::amx::Amx;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::lanes::{Avx2, Avx512, AvxVnni};
use crate::backend::cpu::lanes::{Dots, Lanes, Portable};

/// Fewer queries than this are not worth tile registers.
#[cfg(target_arch = "x86_64")]
const TILES_FROM: usize = 8;

/// A set of instructions. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Any CPU.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// The same with AVX-VNNI.
    AvxVnni,
    /// AVX-512 (F, BW, DQ, VL) with VNNI.
    Avx512,
    /// The same with AMX-INT8, for many rows.
    Amx,
}

impl Path {
    /// Every path, slowest first.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Avx2, Self::AvxVnni, Self::Avx512, Self::Amx];

    /// Whether this CPU has the instructions.
    #[must_use]
    pub fn available(self) -> bool {
        Isa::new(self).is_ok()
    }

    /// The fastest path of this CPU.
    #[must_use]
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|path| path.available()).unwrap_or(Self::Portable)
    }
}

/// Something to compute, written over [`Lanes`]. `run` must be `#[inline(always)]`, and so must all
/// that it calls with vectors: only then is it compiled for the instructions of the path.
pub(crate) trait Kernel {
    /// What comes of it.
    type Output;

    fn run<L: Lanes>(self, l: L) -> Self::Output;
}

/// A multiplication by packed weights, written over [`Lanes`] and [`Dots`]; `run` as in [`Kernel`].
pub(crate) trait Product {
    fn run<L: Lanes, D: Dots>(self, l: L, d: D);
}

/// A path with the permission to take it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Isa {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
}

impl Isa {
    pub(crate) fn new(path: Path) -> Result<Self, BackendError> {
        let found = match path {
            Path::Portable => Some(Self::Portable(Portable)),
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Path::AvxVnni => AvxVnni::detect().map(Self::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => Avx512::detect().map(Self::Avx512),
            #[cfg(target_arch = "x86_64")]
            Path::Amx => Amx::detect().map(Self::Amx),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        };
        found.ok_or_else(|| BackendError::Unsupported {
            backend: "cpu",
            what: format!("this machine lacks the instructions of {path:?}"),
        })
    }

    /// What puts rows together in blocks of 16, where they are multiplied so.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn takes_blocks(self) -> Option<Avx512> {
        match self {
            Self::Amx(amx) => Some(amx.lanes()),
            _ => None,
        }
    }

    /// Whether attention of so many queries is for tile registers, and with what.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn attends_in_tiles(self, queries: usize) -> Option<Amx> {
        match self {
            Self::Amx(amx) if queries >= TILES_FROM && amx.has_bf16() => Some(amx),
            _ => None,
        }
    }

    /// Runs a kernel with these instructions.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Portable(lanes) => kernel.run(lanes),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(lanes) => lanes.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(dots) => dots.lanes().run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(lanes) => lanes.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(tiles) => tiles.lanes().run(kernel),
        }
    }

    /// Computes a product with these instructions.
    #[inline]
    pub(crate) fn multiply<P: Product>(self, product: P) {
        match self {
            Self::Portable(lanes) => product.run(lanes, lanes),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(lanes) => lanes.multiply(product),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(dots) => dots.multiply(product),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(lanes) => lanes.multiply(product),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(tiles) => tiles.lanes().multiply(product),
        }
    }
}
