//! A kernel as the gate sees it: needs, counts, and whether it is what we claim.

use std::fmt;

use crate::compiler::Compiled;
use crate::info::{KernelInfo, kernels};
use crate::listing::Listing;

/// What a kernel must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Products of four bytes at once.
    Dp4a,
    /// The matrix engine.
    Dpas,
}

impl Claim {
    /// The family of instructions.
    #[must_use]
    pub fn family(self) -> &'static str {
        match self {
            Self::Dp4a => "dp4a",
            Self::Dpas => "dpas",
        }
    }
}

/// Everything that is known of a compiled kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFigures {
    /// The program that it is part of.
    pub program: String,
    /// What it needs.
    pub info: KernelInfo,
    /// Its instructions.
    pub listing: Listing,
}

impl KernelFigures {
    /// The kernels of a program.
    #[must_use]
    pub fn of(program: &str, compiled: &Compiled) -> Vec<Self> {
        let infos = kernels(&compiled.info).into_iter();
        infos
            .filter_map(|info| {
                let text = &compiled.listings.iter().find(|(name, _)| *name == info.name)?.1;
                let listing = Listing::parse(text);
                Some(Self { program: program.to_owned(), info, listing })
            })
            .collect()
    }

    /// What is wrong with it, whatever it was before.
    #[must_use]
    pub fn faults(&self, claims: &[Claim]) -> Vec<String> {
        let KernelInfo { name, spill_bytes, private_bytes, .. } = &self.info;
        let mut faults = Vec::new();
        if *spill_bytes > 0 {
            faults.push(format!("{name} spills {spill_bytes} bytes of registers"));
        }
        if *private_bytes > 0 {
            faults.push(format!("{name} keeps {private_bytes} bytes in private memory"));
        }
        for claim in claims {
            if self.count(*claim) == 0 {
                faults.push(format!("{name} has no {}", claim.family()));
            }
        }
        faults
    }

    /// How many of the instructions that a claim is about.
    #[must_use]
    pub fn count(&self, claim: Claim) -> usize {
        let family = claim.family();
        // `dpasw` is `dpas` that two engines share the reading for.
        let of = |name: &str| self.listing.count(name);
        of(family) + if claim == Claim::Dpas { of("dpasw") } else { 0 }
    }

    /// The longest loop that has no loop within, in instructions; 0 without.
    #[must_use]
    pub fn inner_loop(&self) -> usize {
        let loops = self.listing.inner_loops();
        loops.iter().map(|it| self.listing.of(it).len()).max().unwrap_or(0)
    }
}

/// One row of the table and of the snapshot.
impl fmt::Display for KernelFigures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = &self.info;
        write!(
            formatter,
            "{:<22} {:<13} {:>4} {:>4} {:>6} {:>6} {:>6} {:>5} {:>5} {:>5} {:>5}",
            self.program,
            info.name,
            info.simd,
            info.registers,
            info.local_bytes,
            self.listing.instructions.len(),
            self.inner_loop(),
            self.count(Claim::Dp4a),
            self.count(Claim::Dpas),
            self.listing.count("send"),
            self.listing.count("sync"),
        )
    }
}

/// For people, and the form of the snapshot.
#[must_use]
pub fn table(kernels: &[KernelFigures]) -> String {
    let mut lines = vec![format!(
        "{:<22} {:<13} {:>4} {:>4} {:>6} {:>6} {:>6} {:>5} {:>5} {:>5} {:>5}",
        "program",
        "kernel",
        "SIMD",
        "GRF",
        "local",
        "instr",
        "inner",
        "dp4a",
        "dpas",
        "send",
        "sync"
    )];
    lines.extend(kernels.iter().map(ToString::to_string));
    lines.join("\n")
}
