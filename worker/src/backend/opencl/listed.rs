//! Every program that a model can ask for, as the compiler of an Arc card gets it: for who compiles them
//! where there is no card.

use checkpoint::BlockKind;

use crate::backend::opencl::cache::sharings;
use crate::backend::opencl::programs::{Abilities, Heads, Mode, Part, kernels, options, source};

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

/// Those of heads, by what the cache keeps and how many query heads share a read.
fn of_heads() -> Vec<(String, Part)> {
    let mut programs = Vec::new();
    for head_size in HEAD_SIZES {
        for (codes, kept) in [(false, "f16"), (true, "q8_0")] {
            let heads = Heads { head_size, block_size: BLOCK_SIZE, codes };
            programs.push((format!("append {head_size} {kept}"), Part::Append(heads)));
            for sharing in sharings(head_size) {
                let name = format!("attention {head_size}x{sharing} {kept}");
                programs.push((name, Part::Attention { heads, sharing }));
            }
        }
    }
    programs
}

/// All of them, for an Arc card. `systolic`: it has sub-groups of 8, as an A770 has and later ones have not;
/// kernels for its systolic arrays are made of such.
#[must_use]
pub fn listed_programs(systolic: bool) -> Vec<ListedProgram> {
    let abilities = if systolic { Abilities::ARC } else { Abilities::ARC.without_arrays() };
    let modes = [
        (Mode::Plain, "plain"),
        (Mode::Gated, "gated"),
        (Mode::Grid, "grid"),
        (Mode::Rounded, "rounded"),
    ];
    let rows = [("rows".to_owned(), Part::Rows)];
    let products = KINDS.into_iter().flat_map(|kind| {
        let name = format!("{kind:?}").to_lowercase();
        modes.map(|(mode, said)| (format!("product {name} {said}"), Part::Product { kind, mode }))
    });
    let all = rows.into_iter().chain(of_heads()).chain(products);
    all.map(|(name, part)| {
        let (text, own) = source(part, systolic);
        let plain = [BlockKind::F32, BlockKind::F16, BlockKind::Bf16];
        ListedProgram {
            name,
            source: text,
            // Compilers of 2022 do not say by themselves that there are arrays.
            options: format!(
                "{}{own} -Dcl_intel_subgroup_matrix_multiply_accumulate=1",
                options(abilities)
            ),
            kernels: kernels(part, systolic),
            multiplies_bytes: matches!(part, Part::Product { kind, .. } if !plain.contains(&kind)),
        }
    })
    .collect()
}
