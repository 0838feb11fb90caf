//! Matrices, packed once at load, straight from the mapped file to where the device reads them.
//!
//! As `kernels/linear.cl` says: tiles of 16 rows, strips of 32 columns; codes, scales, and the f16 that
//! scales are multiples of, in a buffer each. Nothing is lost: they are the file's.

use std::num::NonZero;
use std::thread;

use checkpoint::BlockKind;
use half::f16;
use opencl::{Buffer, Memory};

use crate::backend::cpu::blocks::{self, Codes};
use crate::backend::cpu::lanes::LANES;
use crate::backend::cpu::tensor::GROUP;
use crate::backend::cpu::weight::{Row, Rows, biases, columns_of};
use crate::backend::opencl::driver::{Driver, failed};
use crate::backend::opencl::programs::{Format, Mode, Part};
use crate::backend::{BackendError, MatrixPart};

/// Strips that share an f16 in kinds of large blocks.
const BLOCK_STRIPS: usize = 8;

/// A packed matrix, with its bias.
#[derive(Debug)]
pub struct Weight {
    /// Output columns.
    pub(crate) rows: usize,
    /// Input columns.
    pub(crate) columns: usize,
    /// Columns added up in f32, for a row-parallel matrix.
    pub(crate) segment: usize,
    /// Rows of one kind, in order.
    pub(crate) sections: Vec<Section>,
}

/// Neighbouring rows of a matrix, stored alike.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) kind: BlockKind,
    /// The first output column.
    pub(crate) first: usize,
    /// Output columns.
    pub(crate) rows: usize,
    pub(crate) codes: Buffer,
    pub(crate) scales: Buffer,
    pub(crate) supers: Buffer,
    pub(crate) bias: Option<Buffer>,
    /// Which strip of its block the first one is.
    pub(crate) phase: usize,
}

impl Section {
    /// Columns that are one step of the kernel.
    pub(crate) fn step(&self) -> usize {
        if Format::of(self.kind).is_some() { GROUP } else { 1 }
    }
}

impl Weight {
    /// Whether any section is multiplied with quantised rows.
    pub(crate) fn takes_groups(&self) -> bool {
        self.sections.iter().any(|section| Format::of(section.kind).is_some())
    }
}

/// Packs the rows of all parts, one part after another.
pub(crate) fn matrix(
    driver: &mut Driver,
    parts: &[MatrixPart<'_>],
    modes: &[Mode],
) -> Result<Weight, BackendError> {
    let columns = columns_of("opencl", parts)?;
    let mut sections = Vec::new();
    let mut first = 0;
    for alike in parts.chunk_by(|a, b| a.matrix.kind == b.matrix.kind) {
        let rows = alike.iter().map(|part| part.rows.len()).sum();
        let source = Rows { parts: alike, turns: false };
        let bias = bias(driver, alike)?;
        let section = section(driver, alike[0].matrix.kind, (first, rows), &source, modes)?;
        sections.push(Section { bias, ..section });
        first += rows;
    }
    Ok(Weight { rows: first, columns, segment: columns, sections })
}

/// Packs gate and up so that a tile of one follows a tile of the other.
pub(crate) fn gated(
    driver: &mut Driver,
    gate: &MatrixPart<'_>,
    up: &MatrixPart<'_>,
) -> Result<Weight, BackendError> {
    let parts = [gate.clone(), up.clone()];
    let columns = columns_of("opencl", &parts)?;
    if gate.rows.len() != up.rows.len() || gate.bias.is_some() || up.bias.is_some() {
        return Err(unsupported("gate and up differ in rows, or have biases".to_owned()));
    }
    let rows = gate.rows.len();
    // Where the two differ in kind, both become what holds either.
    let kind = if gate.matrix.kind == up.matrix.kind { gate.matrix.kind } else { BlockKind::F32 };
    let source = Rows { parts: &parts, turns: true };
    let section = section(driver, kind, (0, rows), &source, &[Mode::Gated])?;
    Ok(Weight { rows, columns, segment: columns, sections: vec![section] })
}

/// Packs a matrix whose columns are added up in f32 within segments only.
pub(crate) fn segmented(
    driver: &mut Driver,
    part: &MatrixPart<'_>,
    segment: usize,
) -> Result<Weight, BackendError> {
    if segment == 0 || !segment.is_multiple_of(GROUP) || part.bias.is_some() {
        let what = format!(
            "a row-parallel matrix with a bias, or sums over segments of {segment} columns, which \
             are no multiple of {GROUP}"
        );
        return Err(unsupported(what));
    }
    let weight = matrix(driver, std::slice::from_ref(part), &[Mode::Grid, Mode::Rounded])?;
    Ok(Weight { segment, ..weight })
}

fn unsupported(what: String) -> BackendError {
    BackendError::Unsupported { backend: "opencl", what }
}

fn bias(driver: &mut Driver, parts: &[MatrixPart<'_>]) -> Result<Option<Buffer>, BackendError> {
    let tiles = biases(parts);
    let kept = tiles.map(|tiles| driver.keep_bytes("a bias", bytemuck::cast_slice(&tiles)));
    kept.transpose()
}

/// Packs rows of one kind, and has the programs built that will multiply by them.
fn section(
    driver: &mut Driver,
    kind: BlockKind,
    (first, rows): (usize, usize),
    source: &Rows<'_, '_>,
    modes: &[Mode],
) -> Result<Section, BackendError> {
    for &mode in modes {
        let built = driver.programs.build(Part::Product { kind, mode });
        built.map_err(|error| failed(&error))?;
    }
    let columns = source.parts[0].columns.clone();
    let tiles = source.tiles();
    let Some(format) = Format::of(kind) else {
        let tile = columns.len() * LANES * kind.block_bytes();
        let codes = packed(driver, (tiles, tile), |at, to| plain_tile(kind, source, at, to))?;
        let (scales, supers) = (empty(driver)?, empty(driver)?);
        return Ok(Section { kind, first, rows, codes, scales, supers, bias: None, phase: 0 });
    };
    let strips = columns.len().div_ceil(GROUP);
    let phase = if format.supers { columns.start / GROUP % BLOCK_STRIPS } else { 0 };
    let groups = Groups { format, source, strips, phase };
    let tile = strips * format.words() * LANES * 4;
    let codes = packed(driver, (tiles, tile), |at, to| groups.codes(at, to))?;
    let tile = strips * format.scales() * LANES * format.scale_bytes();
    let scales = packed(driver, (tiles, tile), |at, to| groups.scales(at, to))?;
    let tile = (phase + strips).div_ceil(BLOCK_STRIPS) * format.super_numbers() * LANES * 2;
    let supers = packed(driver, (tiles, tile), |at, to| groups.supers(at, to))?;
    Ok(Section { kind, first, rows, codes, scales, supers, bias: None, phase })
}

fn empty(driver: &mut Driver) -> Result<Buffer, BackendError> {
    driver.keep("a matrix", 0, Memory::Device)
}

/// A buffer of `tiles`, each filled by `fill`, on all threads of the host.
fn packed(
    driver: &mut Driver,
    (tiles, tile): (usize, usize),
    fill: impl Fn(usize, &mut [u8]) + Sync,
) -> Result<Buffer, BackendError> {
    let mut buffer = driver.keep("a matrix", tiles * tile, Memory::Device)?;
    if tiles * tile == 0 {
        return Ok(buffer);
    }
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = tiles.div_ceil(threads);
    let filled = driver.queue.fill(&mut buffer, |bytes| {
        thread::scope(|scope| {
            for (at, bytes) in bytes.chunks_mut(share * tile).enumerate() {
                let fill = &fill;
                scope.spawn(move || {
                    for (within, to) in bytes.chunks_exact_mut(tile).enumerate() {
                        fill(at * share + within, to);
                    }
                });
            }
        });
        Ok::<(), opencl::Error>(())
    });
    filled.map_err(|error| failed(&error))?;
    Ok(buffer)
}

/// A tile of plain numbers: column after column, one of each row.
fn plain_tile(kind: BlockKind, source: &Rows<'_, '_>, tile: usize, to: &mut [u8]) {
    to.fill(0);
    let size = kind.block_bytes();
    for (lane, row) in source.tile(tile).iter().enumerate() {
        let Some(row) = row else { continue };
        for (group, to) in to.chunks_mut(GROUP * LANES * size).enumerate() {
            for (number, to) in
                row.numbers(group).into_iter().zip(to.chunks_exact_mut(LANES * size))
            {
                let to = &mut to[lane * size..(lane + 1) * size];
                match kind {
                    BlockKind::F16 => to.copy_from_slice(&f16::from_f32(number).to_le_bytes()),
                    BlockKind::Bf16 => to.copy_from_slice(&number.to_le_bytes()[2..]),
                    _ => to.copy_from_slice(&number.to_le_bytes()),
                }
            }
        }
    }
}

/// Rows in groups of 32 columns.
struct Groups<'a, 'm> {
    format: Format,
    source: &'a Rows<'a, 'm>,
    strips: usize,
    phase: usize,
}

impl Groups<'_, '_> {
    fn codes(&self, tile: usize, to: &mut [u8]) {
        let rows = self.source.tile(tile);
        let words = self.format.words();
        for (strip, to) in to.chunks_exact_mut(words * LANES * 4).enumerate() {
            for (lane, row) in rows.iter().enumerate() {
                let codes = row.as_ref().map_or(Codes::NONE, |row| row.group(strip)).codes;
                let packed = pack(self.format.bits, &codes);
                for (to, word) in to.chunks_exact_mut(LANES * 4).zip(packed) {
                    to[lane * 4..][..4].copy_from_slice(&word.to_le_bytes());
                }
            }
        }
    }

    fn scales(&self, tile: usize, to: &mut [u8]) {
        let rows = self.source.tile(tile);
        let (count, size) = (self.format.scales(), self.format.scale_bytes());
        for (strip, to) in to.chunks_exact_mut(count * LANES * size).enumerate() {
            for (lane, row) in rows.iter().enumerate() {
                let numbers = row.as_ref().map_or([[0; 2]; 2], |row| self.scale_bytes(row, strip));
                for (to, number) in to.chunks_exact_mut(LANES * size).zip(numbers) {
                    to[lane * size..][..size].copy_from_slice(&number[..size]);
                }
            }
        }
    }

    fn scale_bytes(&self, row: &Row<'_, '_>, strip: usize) -> [[u8; 2]; 2] {
        if self.format.supers {
            return row.integers(strip).scales.map(|scale| [scale, 0]);
        }
        let Codes { scales, minimum, .. } = row.group(strip);
        [scales[0], minimum].map(|number| f16::from_f32(number).to_le_bytes())
    }

    fn supers(&self, tile: usize, to: &mut [u8]) {
        let rows = self.source.tile(tile);
        let count = self.format.super_numbers();
        for (block, to) in to.chunks_exact_mut(count * LANES * 2).enumerate() {
            let strip = (block * BLOCK_STRIPS).saturating_sub(self.phase).min(self.strips - 1);
            for (lane, row) in rows.iter().enumerate() {
                let numbers = row.as_ref().map_or([f16::ZERO; 2], |row| row.integers(strip).supers);
                for (to, number) in to.chunks_exact_mut(LANES * 2).zip(numbers) {
                    to[lane * 2..][..2].copy_from_slice(&number.to_le_bytes());
                }
            }
        }
    }
}

/// A lane's codes of a strip as words: byte `b` of word `j` has columns `8j + b` and `8j + 4 + b` in its
/// halves; fifth and sixth bits are gathered by steps of four columns in words of their own. Codes of
/// 8 bits are signed and keep their order.
fn pack(bits: usize, codes: &[u8; GROUP]) -> [u32; 8] {
    let (steps, _) = codes.as_chunks::<4>();
    let step = |at: usize| u32::from_le_bytes(steps[at]);
    let mut words = [0; 8];
    if bits == 8 {
        return std::array::from_fn(|at| step(at) ^ 0x8080_8080);
    }
    for (at, word) in words.iter_mut().enumerate().take(4) {
        *word = step(2 * at) & 0x0F0F_0F0F | (step(2 * at + 1) & 0x0F0F_0F0F) << 4;
    }
    for at in 0..8 {
        match bits {
            5 => words[4] |= (step(at) >> 4 & 0x0101_0101) << at,
            6 => words[4 + at / 4] |= (step(at) >> 4 & 0x0303_0303) << (2 * (at % 4)),
            _ => {}
        }
    }
    words
}

/// What is taken off a code: kernels are told the same.
const _: () = assert!(blocks::zero(BlockKind::Q4_0) == 8 && blocks::zero(BlockKind::Q6K) == 32);
