//! How long a card must take for each kernel of a step: the longer of issuing its instructions and of
//! reading what it reads.

use worker::backend::SEGMENT_COLUMNS;
use worker::backend::opencl::product_kernel;

use crate::card::{
    CACHE_BYTES, CONTEXT, HERTZ, READ_BYTES_PER_SECOND, VECTOR_ENGINES, WORLD, model,
};
use crate::figures::KernelFigures;
use crate::kernels::Found;
use crate::listing::{Instruction, Listing, Loop};

/// Bytes of a weight of `Q4_0`: 32 codes of 4 bits and an f16.
const WEIGHT_BYTES: f64 = 18.0 / 32.0;
/// Keys and values are f16.
const KV_NUMBER_BYTES: f64 = 2.0;
/// Columns of a strip, over which a turn of a product's loop goes.
const STRIP: f64 = 32.0;
/// Products that an instruction makes in a lane: four, or those of 32 columns with 8 rows of x.
const DP4A_PRODUCTS: f64 = 4.0;
const DPAS_PRODUCTS: f64 = 256.0;
/// Columns of a segment of the row-parallel products: a head, and what the worker has.
const ATTENTION_SEGMENT: f64 = model::HEAD_SIZE;
const FEED_FORWARD_SEGMENT: f64 = SEGMENT_COLUMNS as f64;

/// A kernel of a step of one rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// What it is for.
    pub name: &'static str,
    /// How often a step runs it.
    pub times: f64,
    /// The program and the kernel.
    pub kernel: String,
    /// What once takes.
    pub time: KernelTime,
}

/// What running a kernel once takes at least, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelTime {
    /// Issuing the instructions of its loops, on all engines at once.
    pub issue: f64,
    /// Reading from the card's memory.
    pub read: f64,
}

/// Why there is no roofline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RooflineError(String);

impl KernelTime {
    /// The longer of the two.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.issue.max(self.read)
    }
}

impl Stage {
    /// Of a step.
    #[must_use]
    pub fn step_seconds(&self) -> f64 {
        self.times * self.time.seconds()
    }
}

/// A product's shape on one of four ranks.
struct Product {
    name: &'static str,
    program: &'static str,
    rows: f64,
    columns: f64,
    /// Columns after which sums go to the grid; 0: never.
    segment: f64,
    times: f64,
}

/// The kernels of a step of `batch` sequences, weights in `Q4_0`. Norms, quantisation and rotation do
/// next to nothing beside what starting them costs, and are counted there.
///
/// # Errors
/// A kernel that is not there, or not of the form that is expected.
pub fn stages(found: &Found, batch: u32) -> Result<Vec<Stage>, RooflineError> {
    let hidden = model::HIDDEN;
    let heads = model::QUERY_HEADS / WORLD;
    let attended = heads * model::HEAD_SIZE;
    let kv = 2.0 * model::KV_HEADS / WORLD * model::HEAD_SIZE;
    let columns = model::INTERMEDIATE / WORLD;
    let product = |name, program, (rows, columns), segment, times| Product {
        name,
        program,
        rows,
        columns,
        segment,
        times,
    };
    let (plain, gated, grid) = ("product q4_0 plain", "product q4_0 gated", "product q4_0 grid");
    let layers = model::LAYERS;
    let mut stages = Vec::new();
    for it in [
        product("q, k, v", plain, (attended + kv, hidden), 0.0, layers),
        product("attention output", grid, (hidden, attended), ATTENTION_SEGMENT, layers),
        product("gate, up", gated, (2.0 * columns, hidden), 0.0, layers),
        product("down", grid, (hidden, columns), FEED_FORWARD_SEGMENT, layers),
        product("head", plain, (model::VOCABULARY / WORLD, hidden), 0.0, 1.0),
    ] {
        stages.push(it.stage(found, batch)?);
    }
    stages.push(attention(found, batch, heads)?);
    Ok(stages)
}

impl Product {
    fn stage(&self, found: &Found, batch: u32) -> Result<Stage, RooflineError> {
        let (name, rows_an_item) = product_kernel(batch as usize, true);
        let passes = batch.max(1).div_ceil(rows_an_item);
        let kernel = kernel(found, self.program, name)?;
        let listing = &kernel.listing;
        let (family, products) = if name.starts_with("linear") {
            ("dp4a", DP4A_PRODUCTS)
        } else {
            ("dpas", DPAS_PRODUCTS)
        };
        let is_product = |it: &Instruction| it.family() == family;
        let [turn] = &loops(listing, is_product)[..] else {
            return Err(RooflineError(format!("{} {name} has not one loop", self.program)));
        };
        let (always, sometimes) = listing.clocks(turn);
        // What is passed over in most turns is the way to the grid, once a segment.
        let share = if self.segment == 0.0 { 0.0 } else { STRIP / self.segment };
        let vector = f64::from(always) + f64::from(sometimes) * share;
        // The matrix engine works beside the others.
        let matrix: u32 = listing.of(turn).iter().map(Instruction::matrix_clocks).sum();
        let clocks = vector.max(f64::from(matrix));
        let (padded, passes) = (f64::from(passes * rows_an_item), f64::from(passes));
        let instructions = self.rows * self.columns * padded / products;
        let bytes = self.rows * self.columns * WEIGHT_BYTES;
        let read_again = if bytes > CACHE_BYTES { passes } else { 1.0 };
        Ok(Stage {
            name: self.name,
            times: self.times,
            kernel: format!("{} {name}", self.program),
            time: KernelTime {
                issue: issue(instructions / lanes(listing, turn, is_product) * clocks),
                read: bytes * read_again / READ_BYTES_PER_SECOND,
            },
        })
    }
}

/// Attention of one layer: a loop over keys and one over values, and what each sub-group does once beside
/// them. Query heads that read the same KV head share each read.
fn attention(found: &Found, batch: u32, heads: f64) -> Result<Stage, RooflineError> {
    let kv_heads = model::KV_HEADS / WORLD;
    let program = format!("attention {}x{} f16", model::HEAD_SIZE, heads / kv_heads);
    let kernel = kernel(found, &program, "attend_split")?;
    let listing = &kernel.listing;
    let is_multiply_add = |it: &Instruction| it.family() == "mad" && it.is_float;
    let turns = &loops(listing, is_multiply_add)[..];
    let [_, _] = turns else {
        return Err(RooflineError(format!("{program} attend_split has not two loops")));
    };
    let clocks = |it: &Loop| {
        let (always, sometimes) = listing.clocks(it);
        f64::from(always + sometimes)
    };
    let positions = f64::from(batch) * CONTEXT;
    let products = positions * heads * model::HEAD_SIZE;
    let in_loops =
        turns.iter().map(|it| products / lanes(listing, it, is_multiply_add) * clocks(it));
    let all = Loop { first: 0, end: listing.instructions.len() };
    let once = clocks(&all) - turns.iter().map(clocks).sum::<f64>();
    let sub_groups = positions * kv_heads / f64::from(kernel.info.simd);
    let numbers = 2.0 * kv_heads * model::HEAD_SIZE;
    let kv = numbers * KV_NUMBER_BYTES * CONTEXT * f64::from(batch);
    Ok(Stage {
        name: "attention",
        times: model::LAYERS,
        kernel: format!("{program} attend_split"),
        time: KernelTime {
            issue: issue(in_loops.sum::<f64>() + sub_groups * once),
            read: kv / READ_BYTES_PER_SECOND,
        },
    })
}

fn kernel<'a>(
    found: &'a Found,
    program: &str,
    name: &str,
) -> Result<&'a KernelFigures, RooflineError> {
    let missing = || RooflineError(format!("there is no {name} in {program}"));
    found.kernel(program, name).ok_or_else(missing)
}

/// The inner loops that have such an instruction.
fn loops(listing: &Listing, is_it: impl Fn(&Instruction) -> bool) -> Vec<Loop> {
    listing.inner_loops().into_iter().filter(|turn| listing.of(turn).iter().any(&is_it)).collect()
}

/// For how many lanes a turn does such instructions.
fn lanes(listing: &Listing, turn: &Loop, is_it: impl Fn(&Instruction) -> bool) -> f64 {
    let lanes = listing.of(turn).iter().filter(|it| is_it(it)).map(|it| it.lanes);
    f64::from(lanes.sum::<u32>())
}

/// Seconds of so many clocks, spread over all engines.
fn issue(clocks: f64) -> f64 {
    clocks / VECTOR_ENGINES / HERTZ
}
