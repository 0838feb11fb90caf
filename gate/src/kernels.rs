//! Our kernels, compiled for a device.

use worker::backend::opencl::listed_programs;

use crate::compiler::{Compiler, CompilerError, Source};
use crate::figures::{Claim, KernelFigures};

/// A card to compile for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// As the compiler calls it.
    pub name: &'static str,
    /// Whether it has sub-groups of 8, which kernels for systolic arrays are made of.
    pub systolic: bool,
}

/// What the gate finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Every kernel that is called, in order.
    pub kernels: Vec<KernelFigures>,
    /// What is wrong with them.
    pub faults: Vec<String>,
}

impl Found {
    /// The figures of a kernel.
    #[must_use]
    pub fn kernel(&self, program: &str, name: &str) -> Option<&KernelFigures> {
        self.kernels.iter().find(|it| it.program == program && it.info.name == name)
    }
}

/// Compiles all programs for a card, on as many threads as there are processors.
///
/// # Errors
/// The first program that does not compile, or a device that this compiler does not know.
///
/// # Panics
/// When a thread of the compiler's panics.
pub fn compiled(compiler: &Compiler, target: Target) -> Result<Found, CompilerError> {
    let programs = listed_programs(target.systolic);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = programs.len().div_ceil(threads);
    let parts: Vec<Result<Found, CompilerError>> = std::thread::scope(|scope| {
        let parts = programs.chunks(share).map(|programs| {
            scope.spawn(move || {
                let mut found = Found::default();
                for program in programs {
                    let source = Source {
                        name: program.name.clone(),
                        text: program.source.clone(),
                        options: program.options.clone(),
                    };
                    let figures =
                        KernelFigures::of(&program.name, &compiler.compile(&source, target.name)?);
                    found.add(&program.name, program.kernels, &figures, program.multiplies_bytes);
                }
                Ok(found)
            })
        });
        let parts: Vec<_> = parts.collect();
        parts.into_iter().map(|part| part.join().expect("it does not panic")).collect()
    });
    let mut all = Found::default();
    for part in parts {
        let Found { kernels, faults } = part?;
        all.kernels.extend(kernels);
        all.faults.extend(faults);
    }
    Ok(all)
}

impl Found {
    fn add(
        &mut self,
        program: &str,
        called: &[&str],
        figures: &[KernelFigures],
        multiplies_bytes: bool,
    ) {
        for name in called {
            match figures.iter().find(|it| it.info.name == *name) {
                Some(kernel) => {
                    let claims: &[Claim] = match name.split('_').next() {
                        Some("linear") if multiplies_bytes => &[Claim::Dp4a],
                        Some("systolic") => &[Claim::Dpas],
                        _ => &[],
                    };
                    let faults = kernel.faults(claims);
                    self.faults.extend(faults.iter().map(|fault| format!("{program}: {fault}")));
                    self.kernels.push(kernel.clone());
                }
                None => self.faults.push(format!("{program}: {name} is not in what was compiled")),
            }
        }
    }
}
