//! Every program that a model can ask for, as the compiler of an Arc card gets it: for who compiles them
//! where there is no card.

use checkpoint::BlockKind;

use crate::backend::opencl::programs::{Abilities, Mode, Part, kernels, options, source};

/// Heads of the models that are served: SmolLM2; Llama and Qwen; Gemma 3.
const HEAD_SIZES: [usize; 3] = [64, 128, 256];
/// Positions of a block, unless somebody says otherwise.
const BLOCK_SIZE: usize = 16;

/// All kinds of block.
const KINDS: [BlockKind; 11] = [
    BlockKind::F32,
    BlockKind::F16,
    BlockKind::Bf16,
    BlockKind::Q4_0,
    BlockKind::Q4_1,
    BlockKind::Q5_0,
    BlockKind::Q5_1,
    BlockKind::Q8_0,
    BlockKind::Q4K,
    BlockKind::Q5K,
    BlockKind::Q6K,
];

/// One program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedProgram {
    /// Such as `product q4_0 grid`.
    pub name: String,
    /// OpenCL C.
    pub source: String,
    /// For the compiler.
    pub options: String,
    /// The kernels that are called.
    pub kernels: &'static [&'static str],
    /// Whether its kernels multiply bytes, four at once.
    pub multiplies_bytes: bool,
}

/// All of them, for an A770.
#[must_use]
pub fn listed_programs() -> Vec<ListedProgram> {
    let modes = [
        (Mode::Plain, "plain"),
        (Mode::Gated, "gated"),
        (Mode::Grid, "grid"),
        (Mode::Rounded, "rounded"),
    ];
    let rows = [("rows".to_owned(), Part::Rows)];
    let attention = HEAD_SIZES.map(|head_size| {
        (format!("attention {head_size}"), Part::Attention { head_size, block_size: BLOCK_SIZE })
    });
    let products = KINDS.into_iter().flat_map(|kind| {
        let name = format!("{kind:?}").to_lowercase();
        modes.map(|(mode, said)| (format!("product {name} {said}"), Part::Product { kind, mode }))
    });
    let all = rows.into_iter().chain(attention).chain(products);
    all.map(|(name, part)| {
        let (text, own) = source(part, true);
        let plain = [BlockKind::F32, BlockKind::F16, BlockKind::Bf16];
        ListedProgram {
            name,
            source: text,
            // Compilers of 2022 do not say by themselves that there are arrays.
            options: format!(
                "{}{own} -Dcl_intel_subgroup_matrix_multiply_accumulate=1",
                options(Abilities::ARC)
            ),
            kernels: kernels(part, true),
            multiplies_bytes: matches!(part, Part::Product { kind, .. } if !plain.contains(&kind)),
        }
    })
    .collect()
}
