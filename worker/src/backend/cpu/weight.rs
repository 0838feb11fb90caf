//! Matrices, packed for this backend.

use checkpoint::BlockKind;
use half::{bf16, f16};

use crate::backend::cpu::blocks::{self, Codes, Integers};
use crate::backend::cpu::disjoint::by_rows;
use crate::backend::cpu::lanes::LANES;
use crate::backend::cpu::memory::{Arena, Region};
use crate::backend::cpu::strip::{self, CodeBits, Minima, Packed, Plain, Scales, Strip};
use crate::backend::cpu::team::Team;
use crate::backend::cpu::tensor::GROUP;
use crate::backend::{BackendError, MatrixPart};

/// A packed matrix, with its bias.
#[derive(Debug)]
pub struct Weight {
    /// Output columns.
    pub(crate) rows: usize,
    /// Input columns.
    pub(crate) columns: usize,
    /// Columns added up in f32, for a row-parallel matrix.
    pub(crate) segment: Option<usize>,
    /// Tiles of gate and up in turn.
    pub(crate) gated: bool,
    /// Rows of one kind, in order.
    pub(crate) sections: Vec<Section>,
}

/// Neighbouring rows of a matrix, stored alike.
#[derive(Debug)]
pub(crate) struct Section {
    /// The first output column.
    pub(crate) first: usize,
    /// Output columns.
    pub(crate) rows: usize,
    /// For each tile, or none at all.
    pub(crate) bias: Option<Vec<[f32; LANES]>>,
    pub(crate) tiles: Tiles,
}

macro_rules! kinds {
    ($($kind:ident),*) => {
        /// Tiles of any kind.
        #[derive(Debug)]
        pub(crate) enum Tiles {
            $($kind(Region<strip::$kind>),)*
        }

        impl Tiles {
            fn pack(kind: BlockKind, arena: &mut Arena, rows: &Rows<'_, '_>, team: &Team) -> Result<Self, BackendError> {
                match kind {
                    $(BlockKind::$kind => Ok(Self::$kind(pack::<strip::$kind>(arena, rows, team)?)),)*
                }
            }
        }

        /// Calls `$call` with `$tiles`: strips of whatever kind `$any` is.
        macro_rules! with_tiles {
            ($any:expr, |$tiles:ident| $call:expr) => {
                match $any {
                    $($crate::backend::cpu::weight::Tiles::$kind(region) => {
                        let $tiles = region.as_slice();
                        $call
                    })*
                }
            };
        }
    };
}
kinds!(F32, F16, Bf16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K);
pub(crate) use with_tiles;

impl Weight {
    /// Whether any section is multiplied with quantised rows.
    pub(crate) fn takes_groups(&self) -> bool {
        let plain = |section: &Section| {
            matches!(section.tiles, Tiles::F32(_) | Tiles::F16(_) | Tiles::Bf16(_))
        };
        !self.sections.iter().all(plain)
    }
}

/// Packs the rows of all parts, one part after another.
pub(crate) fn matrix(
    arena: &mut Arena,
    team: &Team,
    parts: &[MatrixPart<'_>],
) -> Result<Weight, BackendError> {
    let columns = columns_of("cpu", parts)?;
    let mut sections = Vec::new();
    let mut first = 0;
    for alike in parts.chunk_by(|a, b| a.matrix.kind == b.matrix.kind) {
        let rows = alike.iter().map(|part| part.rows.len()).sum();
        let source = Rows { parts: alike, turns: false };
        let tiles = Tiles::pack(alike[0].matrix.kind, arena, &source, team)?;
        sections.push(Section { first, rows, bias: biases(alike), tiles });
        first += rows;
    }
    Ok(Weight { rows: first, columns, segment: None, gated: false, sections })
}

/// Packs gate and up so that a tile of one follows a tile of the other.
pub(crate) fn gated(
    arena: &mut Arena,
    team: &Team,
    gate: &MatrixPart<'_>,
    up: &MatrixPart<'_>,
) -> Result<Weight, BackendError> {
    let parts = [gate.clone(), up.clone()];
    let columns = columns_of("cpu", &parts)?;
    if gate.rows.len() != up.rows.len() {
        return Err(unsupported("gate and up have different numbers of rows".to_owned()));
    }
    if gate.bias.is_some() || up.bias.is_some() {
        return Err(unsupported("gate or up has a bias".to_owned()));
    }
    let rows = gate.rows.len();
    // Where the two differ in kind, both become what holds either.
    let kind = if gate.matrix.kind == up.matrix.kind { gate.matrix.kind } else { BlockKind::F32 };
    let tiles = Tiles::pack(kind, arena, &Rows { parts: &parts, turns: true }, team)?;
    let sections = vec![Section { first: 0, rows, bias: None, tiles }];
    Ok(Weight { rows, columns, segment: None, gated: true, sections })
}

/// Packs a matrix whose columns are added up in f32 within segments only.
pub(crate) fn segmented(
    arena: &mut Arena,
    team: &Team,
    part: &MatrixPart<'_>,
    segment: usize,
) -> Result<Weight, BackendError> {
    if segment == 0 || !segment.is_multiple_of(GROUP) {
        return Err(unsupported(format!(
            "sums over segments of {segment} columns; it needs multiples of {GROUP}"
        )));
    }
    if part.bias.is_some() {
        return Err(unsupported("a row-parallel matrix has a bias".to_owned()));
    }
    let mut weight = matrix(arena, team, std::slice::from_ref(part))?;
    weight.segment = Some(segment);
    Ok(weight)
}

fn unsupported(what: String) -> BackendError {
    BackendError::Unsupported { backend: "cpu", what }
}

/// Input columns of the parts, which must agree.
pub(crate) fn columns_of(
    backend: &'static str,
    parts: &[MatrixPart<'_>],
) -> Result<usize, BackendError> {
    let unsupported = |what| BackendError::Unsupported { backend, what };
    let columns = parts.first().map_or(0, |part| part.columns.len());
    if columns == 0 {
        return Err(unsupported("a matrix without columns".to_owned()));
    }
    for part in parts {
        if part.columns.len() != columns {
            return Err(unsupported("parts of a matrix have different columns".to_owned()));
        }
        if part.matrix.kind.block_numbers() > 1 && !part.columns.start.is_multiple_of(GROUP) {
            return Err(unsupported(format!(
                "a slice that begins at column {} of quantised rows; it needs multiples of {GROUP}",
                part.columns.start
            )));
        }
    }
    Ok(columns)
}

/// Biases of the parts tile by tile, if any part has one.
pub(crate) fn biases(parts: &[MatrixPart<'_>]) -> Option<Vec<[f32; LANES]>> {
    parts.iter().any(|part| part.bias.is_some()).then(|| {
        let mut all = Vec::new();
        for part in parts {
            let end = all.len() + part.rows.len();
            all.extend(part.bias.iter().flatten());
            all.resize(end, 0.0);
        }
        all.resize(all.len().next_multiple_of(LANES), 0.0);
        all.as_chunks::<LANES>().0.to_vec()
    })
}

/// The rows that are packed together.
pub(crate) struct Rows<'a, 'm> {
    pub(crate) parts: &'a [MatrixPart<'m>],
    /// A tile of each part in turn; else the rows of all parts one after another.
    pub(crate) turns: bool,
}

impl<'a, 'm> Rows<'a, 'm> {
    pub(crate) fn tiles(&self) -> usize {
        let rows = self.parts.iter().map(|part| part.rows.len());
        if self.turns {
            rows.map(|rows| rows.div_ceil(LANES)).sum()
        } else {
            rows.sum::<usize>().div_ceil(LANES)
        }
    }

    /// What belongs in the lanes of a tile; none in the last, unfilled ones.
    pub(crate) fn tile(&self, tile: usize) -> [Option<Row<'a, 'm>>; LANES] {
        std::array::from_fn(|lane| self.lane(tile, lane))
    }

    fn lane(&self, tile: usize, lane: usize) -> Option<Row<'a, 'm>> {
        let (parts, mut row) = if self.turns {
            let turn = tile % self.parts.len();
            (&self.parts[turn..=turn], tile / self.parts.len() * LANES + lane)
        } else {
            (self.parts, tile * LANES + lane)
        };
        for part in parts {
            if row < part.rows.len() {
                return Some(Row { part, blocks: part.matrix.row(part.rows.start + row) });
            }
            row -= part.rows.len();
        }
        None
    }
}

/// A row of a part.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a, 'm> {
    part: &'a MatrixPart<'m>,
    /// All of the row, as the file has it.
    blocks: &'m [u8],
}

impl Row<'_, '_> {
    /// The part's columns from `GROUP × group` on.
    pub(crate) fn group(&self, group: usize) -> Codes {
        let first = self.part.columns.start / GROUP;
        blocks::group(self.part.matrix.kind, self.blocks, first + group)
    }

    /// The integers that make the scales of [`Row::group`], of kinds of large blocks.
    pub(crate) fn integers(&self, group: usize) -> Integers {
        let first = self.part.columns.start / GROUP;
        blocks::integers(self.part.matrix.kind, self.blocks, first + group)
    }

    /// As [`Row::group`], as numbers; 0 beyond the last column.
    pub(crate) fn numbers(&self, group: usize) -> [f32; GROUP] {
        let kind = self.part.matrix.kind;
        let all = self.part.columns.clone();
        let start = all.start + group * GROUP;
        let columns = start..all.end.min(start + GROUP);
        let bytes = || &self.blocks[columns.start * kind.block_bytes()..];
        let mut numbers = [0.0; GROUP];
        let to = &mut numbers[..columns.len()];
        match kind {
            BlockKind::F32 => plain(to, bytes(), f32::from_le_bytes),
            BlockKind::F16 => plain(to, bytes(), |it| f16::from_le_bytes(it).to_f32()),
            BlockKind::Bf16 => plain(to, bytes(), |it| bf16::from_le_bytes(it).to_f32()),
            _ => {
                let codes = self.group(group);
                for (column, number) in to.iter_mut().enumerate() {
                    *number = codes.number(blocks::zero(kind), column);
                }
            }
        }
        numbers
    }
}

fn plain<const N: usize>(numbers: &mut [f32], bytes: &[u8], number: impl Fn([u8; N]) -> f32) {
    for (to, &bytes) in numbers.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *to = number(bytes);
    }
}

/// Strips that can be filled from a file.
trait Fill: Strip {
    /// Fills a tile's strips with the columns of its rows.
    fn fill(strips: &mut [Self], rows: &[Option<Row<'_, '_>>; LANES]);
}

fn pack<S: Fill>(
    arena: &mut Arena,
    rows: &Rows<'_, '_>,
    team: &Team,
) -> Result<Region<S>, BackendError> {
    let depth = rows.parts[0].columns.len().div_ceil(S::COLUMNS);
    let tiles = rows.tiles();
    let mut region = arena.take::<S>(tiles * depth)?;
    let none: &mut [f32] = &mut [];
    by_rows(team, tiles, 1, (region.as_mut_slice(), depth), (none, 0), &|tiles, strips, _| {
        S::fill(strips, &rows.tile(tiles.start));
    });
    Ok(region)
}

impl<C: CodeBits, S: Scales, M: Minima> Fill for Packed<C, S, M> {
    fn fill(strips: &mut [Self], rows: &[Option<Row<'_, '_>>; LANES]) {
        for (group, strip) in strips.iter_mut().enumerate() {
            strip.put(&rows.map(|row| row.map_or(Codes::NONE, |row| row.group(group))));
        }
    }
}

impl<W: Scales> Fill for Plain<W> {
    fn fill(strips: &mut [Self], rows: &[Option<Row<'_, '_>>; LANES]) {
        for (group, strips) in strips.chunks_mut(GROUP).enumerate() {
            for (lane, row) in rows.iter().enumerate() {
                let Some(row) = row else { continue };
                for (strip, number) in strips.iter_mut().zip(row.numbers(group)) {
                    strip.0.put(lane, [number; 2]);
                }
            }
        }
    }
}
