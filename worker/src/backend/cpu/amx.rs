//! AMX: 16 rows of x times a whole tile, 32 columns at a time.
//!
//! A tile register holds 16 rows of 64 bytes, and one instruction multiplies two of them: here the
//! codes of 16 rows of x with those of a strip, to 16 × 16 exact sums in i32. Scaling these takes most
//! of the time, at four vector instructions a row of sums. The two do not run beside one another on the
//! CPUs that we measured, so they take turns, some strips at a time. Sums are scaled and added up in the
//! same order and by the same operations as everywhere else, so that the bits are the same.
//!
//! There are no intrinsics for tile registers in stable Rust, and compilers do not use them either:
//! they belong to this module, between [`Tiles::configure`] and its end.

#![expect(unsafe_code, reason = "instructions that not every CPU has")]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::OnceLock;

use bytemuck::Zeroable;

use crate::backend::cpu::lanes::{Avx512, BYTES, Dots, LANES, Lanes};
use crate::backend::cpu::linear::{Job, finish_sums, finish_totals};
use crate::backend::cpu::path::Kernel;
use crate::backend::cpu::strip::{STEPS, Strip};
use crate::backend::cpu::tensor::{BLOCK, GROUP, RowBlock, blocks_of};

/// Products that are made in a turn: their sums stay in the first-level cache.
const ROOMS: usize = 16;
/// Asks Linux for a part of the register file: `arch_prctl(2)`.
const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
/// The part that tile registers are.
const XFEATURE_XTILEDATA: libc::c_ulong = 18;

/// The permission to use tile registers, beside [`Avx512`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amx(Avx512);

impl Amx {
    /// The permission, if this CPU has what it takes and the operating system lets us.
    pub(crate) fn detect() -> Option<Self> {
        static GRANTED: OnceLock<bool> = OnceLock::new();
        let avx512 = Avx512::detect()?;
        GRANTED.get_or_init(|| has_tiles() && ask_for_tiles()).then_some(Self(avx512))
    }

    /// The instructions for all else.
    pub(crate) fn lanes(self) -> Avx512 {
        self.0
    }

    /// Whether this CPU also multiplies bf16 in tile registers (AMX-BF16).
    pub(crate) fn has_bf16(self) -> bool {
        static THERE: OnceLock<bool> = OnceLock::new();
        let bf16 = 1 << 22;
        *THERE.get_or_init(|| __cpuid_count(7, 0).edx & bf16 != 0)
    }

    /// Tile registers of 16 rows of 64 bytes each, in use until dropped.
    pub(crate) fn for_bf16(self) -> Tiles {
        Tiles::configure(self, BYTES)
    }
}

/// Whether the CPU has tile registers (AMX-TILE) and multiplies bytes in them (AMX-INT8).
fn has_tiles() -> bool {
    let (tile, int8) = (1 << 24, 1 << 25);
    let features = __cpuid_count(7, 0).edx;
    features & tile != 0 && features & int8 != 0
}

/// Linux saves 8 KiB of tile registers only for processes that asked.
fn ask_for_tiles() -> bool {
    // SAFETY: asks for a permission; passes no pointers.
    let answer =
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    answer == 0
}

/// Codes of a strip as signed bytes, a vector for each step.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Unpacked(pub(crate) [[u8; BYTES]; STEPS]);

/// Sums of 16 rows of x and 16 rows of a tile.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct Sums(pub(crate) [[i32; LANES]; BLOCK]);

/// Strips whose codes are integers.
pub(crate) trait Integers: Strip {
    /// Parts of a strip's columns that have scales of their own.
    const PARTS: usize;

    /// The codes as signed bytes.
    fn unpack(&self, d: Avx512, to: &mut Unpacked);

    /// Adds exact dot products of a part of the columns with `R` rows of `x`, scaled, to `sums`.
    fn add_exact<const R: usize>(
        &self,
        d: Avx512,
        part: usize,
        exact_and_x: (&Sums, &RowBlock),
        sums: &mut [<Avx512 as Dots>::F; R],
    );
}

/// A thread's working memory.
#[derive(Debug, Default)]
struct Scratch {
    /// Codes of a tile; gated: of two.
    codes: Vec<Unpacked>,
    rooms: [Sums; ROOMS],
    /// Sums of a block; gated: of gate and of up.
    sums: [Flat; 2],
    /// Totals over segments.
    totals: [[f64; LANES]; BLOCK],
}

/// Sums of 16 rows of x and 16 rows of a tile, scaled.
type Flat = [[f32; LANES]; BLOCK];

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Multiplies those of `rows` that fill a block of 16, or half of one, by `tiles`; how many there were.
pub(crate) fn multiply<S: Integers>(
    amx: Amx,
    job: &Job<'_, S>,
    rows: Range<usize>,
    tiles: Range<usize>,
) -> usize {
    let blocks = rows.start / BLOCK..rows.end.div_ceil(BLOCK).min(blocks_of(job.rows));
    if blocks.is_empty() {
        return 0;
    }
    let done = (blocks.end * BLOCK).min(rows.end) - rows.start;
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.codes.resize(job.tiles * job.depth, Unpacked::zeroed());
        amx.lanes().run(Blocks { amx, job, blocks, tiles, scratch });
    });
    done
}

/// Some blocks of rows times some tiles, on one thread.
struct Blocks<'a, S: Strip> {
    amx: Amx,
    job: &'a Job<'a, S>,
    blocks: Range<usize>,
    tiles: Range<usize>,
    scratch: &'a mut Scratch,
}

impl<S: Integers> Kernel for Blocks<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _lanes: L) {
        let Self { amx, job, blocks, tiles, scratch } = self;
        let d = amx.lanes();
        let registers = Tiles::configure(amx, GROUP / S::PARTS);
        for tile in tiles {
            let strips = &job.strips[tile * job.tiles * job.depth..][..job.tiles * job.depth];
            for (strip, codes) in strips.iter().zip(&mut scratch.codes) {
                strip.unpack(d, codes);
            }
            for block in blocks.clone() {
                let filled = BLOCK.min(job.rows - block * BLOCK);
                for turn in 0..job.tiles {
                    let place = (block, tile, turn);
                    if filled > BLOCK / 2 {
                        sums::<S, BLOCK>(d, &registers, job, place, scratch);
                    } else {
                        sums::<S, { BLOCK / 2 }>(d, &registers, job, place, scratch);
                    }
                }
                for r in 0..filled {
                    let place = (block * BLOCK + r, tile);
                    if job.output.has_totals() {
                        finish_totals(job, place, &scratch.totals[r]);
                    } else {
                        finish_sums(d, job, place, scratch.sums.each_ref().map(|sums| &sums[r]));
                    }
                }
            }
        }
    }
}

/// Sums of the first `R` rows of a block and a tile.
#[inline(always)]
fn sums<S: Integers, const R: usize>(
    d: Avx512,
    registers: &Tiles,
    job: &Job<'_, S>,
    (block, tile, turn): (usize, usize, usize),
    scratch: &mut Scratch,
) {
    let depth = job.depth;
    let xs = &job.blocks[block * depth..][..depth];
    let strips = &job.strips[(tile * job.tiles + turn) * depth..][..depth];
    let codes = &scratch.codes[turn * depth..][..depth];
    let all = depth * S::PARTS;
    let zero = Dots::splat(d, 0.0);
    let mut sums = [zero; R];
    let mut left = job.segment;
    for (group, (strip, x)) in strips.iter().zip(xs).enumerate() {
        for part in 0..S::PARTS {
            let at = group * S::PARTS + part;
            if at.is_multiple_of(ROOMS) {
                for (at, room) in (at..all).zip(&mut scratch.rooms) {
                    let (group, part) = (at / S::PARTS, at % S::PARTS);
                    registers.multiply(at, &xs[group], &codes[group], part, room);
                }
            }
            strip.add_exact::<R>(d, part, (&scratch.rooms[at % ROOMS], x), &mut sums);
        }
        left -= 1;
        if left == 0 || group + 1 == depth {
            // Stored one by one: sums that are looped over would live in memory all the time.
            let flat = &mut scratch.sums[turn];
            for r in 0..R {
                Dots::store(d, sums[r], &mut flat[r], 0);
                sums[r] = zero;
            }
            if job.output.has_totals() {
                for (flat, totals) in flat.iter().zip(&mut scratch.totals).take(R) {
                    if group < job.segment {
                        *totals = [0.0; LANES];
                    }
                    d.add_on_grid(Dots::load(d, flat, 0), totals, 0);
                }
            }
            left = job.segment;
        }
    }
}

/// How many rows and bytes each tile register has: the operand of `LDTILECFG` (Intel's Software
/// Developer's Manual, volume 1, 18.3).
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The tile registers of this thread, in use.
#[derive(Debug)]
pub(crate) struct Tiles {
    /// Bytes of a row of x that are multiplied at a time.
    width: usize,
}

impl Tiles {
    /// Two registers each for sums (0, 1), for `width` columns of x (2, 3) and of weights (4, 5); two
    /// more whole ones.
    #[expect(clippy::cast_possible_truncation, reason = "at most 64 bytes and 16 rows")]
    fn configure(_permission: Amx, width: usize) -> Self {
        let (x, weights) = ((BLOCK as u8, width as u16), ((width / 4) as u8, BYTES as u16));
        let mut to = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        for (at, (rows, bytes)) in [(BLOCK as u8, BYTES as u16); 2]
            .into_iter()
            .chain([x; 2])
            .chain([weights; 2])
            .chain([(BLOCK as u8, BYTES as u16); 2])
            .enumerate()
        {
            (to.rows[at], to.row_bytes[at]) = (rows, bytes);
        }
        // SAFETY: the permission says that there are tile registers; nobody else uses them.
        unsafe {
            asm!("ldtilecfg [{0}]", in(reg) &raw const to, options(readonly, nostack, preserves_flags));
        }
        Self { width }
    }

    /// Exact dot products of a part of the columns of 16 rows of x and of a strip. Even and odd `turn`s
    /// use different registers, so that one need not wait for the other.
    #[inline(always)]
    fn multiply(&self, turn: usize, x: &RowBlock, codes: &Unpacked, part: usize, to: &mut Sums) {
        let x = x.codes.as_ptr().cast::<u8>().wrapping_add(part * self.width);
        let codes = codes.0.as_ptr().cast::<u8>().wrapping_add(part * self.width / 4 * BYTES);
        macro_rules! multiply {
            ($sums:literal, $x:literal, $codes:literal) => {
                // SAFETY: reads `width` of the `GROUP` codes of each of 16 rows and as many of each row
                // of the strip, and writes 16 × 16 sums, as registers are configured.
                unsafe {
                    asm!(
                        concat!("tileloadd ", $x, ", [{x} + {group}*1]"),
                        concat!("tileloadd ", $codes, ", [{codes} + {bytes}*1]"),
                        concat!("tilezero ", $sums),
                        concat!("tdpbssd ", $sums, ", ", $x, ", ", $codes),
                        concat!("tilestored [{to} + {bytes}*1], ", $sums),
                        x = in(reg) x,
                        group = in(reg) GROUP,
                        codes = in(reg) codes,
                        bytes = in(reg) BYTES,
                        to = in(reg) to.0.as_mut_ptr(),
                        options(nostack, preserves_flags)
                    );
                }
            };
        }
        if turn.is_multiple_of(2) {
            multiply!("tmm0", "tmm2", "tmm4");
        } else {
            multiply!("tmm1", "tmm3", "tmm5");
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: whoever made the value used the registers; an idle thread then has nothing to save.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}
