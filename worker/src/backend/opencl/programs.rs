//! The programs, and the kernels in them.

use std::path::PathBuf;

use checkpoint::BlockKind;
use opencl::{Device, DeviceKind, Error, Kernel, Program, Queue};

const ARITHMETIC: &str = include_str!("kernels/arithmetic.cl");
const ROWS: &str = include_str!("kernels/rows.cl");
const CACHE: &str = include_str!("kernels/cache.cl");
const APPEND: &str = include_str!("kernels/append.cl");
const ATTENTION: &str = include_str!("kernels/attention.cl");
const SUMS: &str = include_str!("kernels/sums.cl");
const LINEAR: &str = include_str!("kernels/linear.cl");
const PLAIN: &str = include_str!("kernels/plain.cl");
const PRODUCTS: &str = include_str!("kernels/products.cl");
const SYSTOLIC: &str = include_str!("kernels/systolic.cl");

/// What becomes of the sums of a product; as `kernels/sums.cl` numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Added to the bias.
    Plain = 0,
    /// Of gate and up, activated and multiplied.
    Gated = 1,
    /// Added on the grid.
    Grid = 2,
    /// Added on the grid and rounded once.
    Rounded = 3,
}

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Norms and the like.
    Rows,
    /// Rotary embedding, the cache, and splits of attention taken together.
    Append(Heads),
    /// Attention of so many query heads at once.
    Attention { heads: Heads, sharing: usize },
    /// Multiplications by a matrix of a kind.
    Product { kind: BlockKind, mode: Mode },
}

/// How heads lie in the KV cache; see `kernels/cache.cl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heads {
    /// Numbers of a head.
    pub(crate) head_size: usize,
    /// Positions of a block.
    pub(crate) block_size: usize,
    /// Codes and scales in place of numbers.
    pub(crate) codes: bool,
}

impl Heads {
    fn options(self) -> String {
        let Self { head_size, block_size, codes } = self;
        format!(" -DSIZE={head_size} -DBLOCK={block_size} -DCODES={}", u8::from(codes))
    }
}

/// How a kind of block is stored on the device; see `kernels/linear.cl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    /// Of a code.
    pub(crate) bits: usize,
    /// Taken off each code.
    pub(crate) zero: u8,
    /// Scales of a strip.
    pub(crate) halves: usize,
    /// Whether a strip has a minimum.
    pub(crate) minima: bool,
    /// Whether scales and minima are small integers times an f16 of a block of 8 strips.
    pub(crate) supers: bool,
}

impl Format {
    /// None for plain numbers.
    pub(crate) fn of(kind: BlockKind) -> Option<Self> {
        let format =
            |bits, zero, halves, minima, supers| Some(Self { bits, zero, halves, minima, supers });
        match kind {
            BlockKind::F32 | BlockKind::F16 | BlockKind::Bf16 => None,
            BlockKind::Q4_0 => format(4, 8, 1, false, false),
            BlockKind::Q4_1 => format(4, 0, 1, true, false),
            BlockKind::Q5_0 => format(5, 16, 1, false, false),
            BlockKind::Q5_1 => format(5, 0, 1, true, false),
            BlockKind::Q8_0 => format(8, 0, 1, false, false),
            BlockKind::Q4K => format(4, 0, 1, true, true),
            BlockKind::Q5K => format(5, 0, 1, true, true),
            BlockKind::Q6K => format(6, 32, 2, false, true),
        }
    }

    /// Words of 32 bits that a lane's codes of a strip take.
    pub(crate) fn words(self) -> usize {
        self.bits
    }

    /// Scales and minima of a lane of a strip.
    pub(crate) fn scales(self) -> usize {
        if self.minima || self.halves == 2 { 2 } else { 1 }
    }

    /// Bytes of one of them.
    pub(crate) fn scale_bytes(self) -> usize {
        if self.supers { 1 } else { 2 }
    }

    /// Numbers of f16 of a lane for 8 strips.
    pub(crate) fn super_numbers(self) -> usize {
        if self.supers { 1 + usize::from(self.minima) } else { 0 }
    }
}

/// A program and its kernels.
#[derive(Debug)]
struct Built {
    part: Part,
    kernels: Vec<Kernel>,
    _program: Program,
}

/// Programs built so far.
#[derive(Debug)]
pub(crate) struct Programs {
    queue: Queue,
    cache: Option<PathBuf>,
    options: String,
    arrays: Option<Arrays>,
    built: Vec<Built>,
}

impl Programs {
    /// Binaries are kept in `cache`.
    pub(crate) fn new(queue: &Queue, cache: Option<PathBuf>) -> Self {
        let abilities = Abilities::of(queue.device());
        let (options, arrays) = (options(abilities), abilities.arrays);
        Self { queue: queue.clone(), cache, options, arrays, built: Vec::new() }
    }

    /// Whether products of many rows have kernels of their own.
    pub(crate) fn systolic(&self) -> bool {
        self.arrays.is_some()
    }

    /// Makes sure that a program is there.
    pub(crate) fn build(&mut self, part: Part) -> Result<(), Error> {
        self.place(part).map(drop)
    }

    /// A kernel of a program, which is built if need be.
    pub(crate) fn kernel(&mut self, part: Part, name: &str) -> Result<&mut Kernel, Error> {
        let place = self.place(part)?;
        let kernel = self.built[place].kernels.iter_mut().find(|kernel| kernel.name() == name);
        Ok(kernel.expect("every kernel that is called is listed"))
    }

    /// Where a program is among those built.
    fn place(&mut self, part: Part) -> Result<usize, Error> {
        if let Some(place) = self.built.iter().position(|built| built.part == part) {
            return Ok(place);
        }
        let (source, options) = source(part, self.systolic());
        let options = format!("{}{options}", self.options);
        let program = Program::build(&self.queue, &source, &options, self.cache.as_deref())?;
        let kernels = kernels(part, self.systolic()).iter().map(|name| Kernel::new(&program, name));
        let kernels = kernels.collect::<Result<_, _>>()?;
        self.built.push(Built { part, kernels, _program: program });
        Ok(self.built.len() - 1)
    }
}

/// What multiplies many rows at once, as `kernels/systolic.cl` numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrays {
    /// Systolic arrays, fed by sub-groups of 8.
    Real = 1,
    /// Sub-groups of 8 on a processor, which do the same: for tests.
    Emulated = 2,
}

impl Arrays {
    fn of(device: &Device) -> Option<Self> {
        if !device.sub_group_sizes.contains(&8) {
            None
        } else if device.has("cl_intel_subgroup_matrix_multiply_accumulate") {
            Some(Self::Real)
        } else {
            (device.kind == DeviceKind::Cpu).then_some(Self::Emulated)
        }
    }
}

/// The kernels that a program has.
pub(crate) fn kernels(part: Part, systolic: bool) -> &'static [&'static str] {
    match part {
        Part::Rows => &["norm", "add_norm", "quantise", "select_rows"],
        Part::Append(_) => &["rope_append", "attend_fold"],
        Part::Attention { .. } => &["attend_split"],
        Part::Product { kind, .. } if systolic && Format::of(kind).is_some() => {
            &["linear_1", "linear_2", "linear_4", "systolic_8", "systolic_16"]
        }
        Part::Product { .. } => &["linear_1", "linear_2", "linear_4"],
    }
}

/// The source of a program, and what is defined for it.
pub(crate) fn source(part: Part, systolic: bool) -> (String, String) {
    match part {
        Part::Rows => ([ARITHMETIC, ROWS].concat(), String::new()),
        Part::Append(heads) => ([ARITHMETIC, CACHE, APPEND].concat(), heads.options()),
        Part::Attention { heads, sharing } => {
            let options = format!("{} -DHEADS={sharing}", heads.options());
            ([ARITHMETIC, CACHE, ATTENTION].concat(), options)
        }
        Part::Product { kind, mode } => match Format::of(kind) {
            Some(Format { bits, zero, halves, minima, supers }) => {
                let (minima, supers) = (u8::from(minima), u8::from(supers));
                let options = format!(
                    " -DMODE={} -DBITS={bits} -DZERO={zero} -DHALVES={halves} -DMINIMA={minima} -DSUPER={supers}",
                    mode as u8
                );
                let many = if systolic { SYSTOLIC } else { "" };
                ([ARITHMETIC, SUMS, LINEAR, PRODUCTS, many].concat(), options)
            }
            None => {
                let number = match kind {
                    BlockKind::F16 => 1,
                    BlockKind::Bf16 => 2,
                    _ => 0,
                };
                let options = format!(" -DMODE={} -DNUMBER={number}", mode as u8);
                ([ARITHMETIC, SUMS, PLAIN, PRODUCTS].concat(), options)
            }
        },
    }
}

/// What a device's compiler has to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an ability of its own")]
pub(crate) struct Abilities {
    /// Work-items that run in step, as many as we say.
    sub_groups: bool,
    /// Dot products of bytes.
    dot_products: bool,
    /// Numbers of f16, and sub-groups that read them and bytes in blocks.
    block_reads: bool,
    /// What multiplies many rows at once.
    arrays: Option<Arrays>,
    /// Quotients and square roots that are rounded correctly.
    divides_correctly: bool,
    /// Loops cost little, and compiling much.
    is_processor: bool,
}

impl Abilities {
    /// Of an A770, by `ocloc query CL_DEVICE_EXTENSIONS`.
    pub(crate) const ARC: Self = Self {
        sub_groups: true,
        dot_products: true,
        block_reads: true,
        arrays: Some(Arrays::Real),
        divides_correctly: true,
        is_processor: false,
    };

    /// As a card whose arrays we have no kernels for.
    pub(crate) fn without_arrays(self) -> Self {
        Self { arrays: None, ..self }
    }

    fn of(device: &Device) -> Self {
        Self {
            sub_groups: device.has("cl_intel_subgroups")
                && device.has("cl_intel_required_subgroup_size"),
            dot_products: device.has("cl_khr_integer_dot_product"),
            block_reads: device.has("cl_intel_subgroups_char")
                && device.has("cl_intel_subgroups_short")
                && device.has("cl_khr_fp16"),
            arrays: Arrays::of(device),
            divides_correctly: device.divides_correctly,
            is_processor: device.kind == DeviceKind::Cpu,
        }
    }
}

/// What a device's compiler is told of it.
pub(crate) fn options(device: Abilities) -> String {
    let mut options = String::new();
    if device.sub_groups {
        options += "-cl-std=CL3.0 -DSUB_GROUPS=1";
        if device.dot_products {
            options += " -DDOT4=1";
        }
        if device.block_reads {
            options += " -DBLOCK_READS=1";
        }
        if let Some(arrays) = device.arrays {
            options += &format!(" -DSYSTOLIC={}", arrays as u8);
        }
    } else {
        options += "-cl-std=CL1.2";
    }
    if device.divides_correctly {
        options += " -cl-fp32-correctly-rounded-divide-sqrt";
    }
    if device.is_processor {
        options += " -DROLLED=1";
    }
    options
}
