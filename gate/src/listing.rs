//! A kernel's instructions: how many of which, and which are in loops.

use std::collections::BTreeMap;

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Such as `mad` or `dpas.8x8`.
    pub name: String,
    /// Lanes that it works for.
    pub lanes: u32,
    /// Whether what it gives is f32.
    pub is_float: bool,
    /// The labels that it may go to.
    targets: Vec<String>,
}

/// A kernel's instructions, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// All of them, without what fills up the end.
    pub instructions: Vec<Instruction>,
    labels: BTreeMap<String, usize>,
}

/// A stretch of instructions that is gone through again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// The first, as a place in [`Listing::instructions`].
    pub first: usize,
    /// Just behind the last.
    pub end: usize,
}

impl Instruction {
    fn parse(line: &str) -> Option<Self> {
        let code = line.split("//").next()?.trim();
        // `(W)`, `(f0.0)` and so on say who takes part.
        let code = if code.starts_with('(') { code.split_once(')')?.1.trim() } else { code };
        let name = code.split_whitespace().next()?.to_owned();
        let lanes = code
            .split_once('(')
            .and_then(|(_, rest)| rest.split('|').next()?.parse().ok())
            .unwrap_or(1);
        let targets = code.split_whitespace().filter(|word| is_label(word)).map(str::to_owned);
        // The first operand is where the result goes.
        let result = code.split(">:").nth(1).and_then(|rest| rest.split_whitespace().next());
        let is_float = result == Some("f");
        Some(Self { targets: targets.collect(), name, lanes, is_float })
    }

    /// Clocks for which it keeps a vector engine's ports busy: eight lanes go at once. A matrix
    /// instruction is counted by [`Self::matrix_clocks`] and takes one to hand over.
    #[must_use]
    pub fn clocks(&self) -> u32 {
        if self.is_matrix() { 1 } else { self.lanes.div_ceil(8).max(1) }
    }

    /// Clocks for which it keeps the matrix engine busy: one for each row of the result, twice. (A
    /// `dpas.8x8` of 8-bit numbers multiplies 8 × 8 × 32 of them, and the engine does 128 a clock.)
    #[must_use]
    pub fn matrix_clocks(&self) -> u32 {
        let rows = self.name.rsplit('x').next().and_then(|rows| rows.parse::<u32>().ok());
        if self.is_matrix() { 2 * rows.unwrap_or(8) } else { 0 }
    }

    fn is_matrix(&self) -> bool {
        self.name.starts_with("dpas")
    }

    /// Its name without what follows a point.
    #[must_use]
    pub fn family(&self) -> &str {
        self.name.split('.').next().unwrap_or(&self.name)
    }
}

impl Listing {
    /// Reads what the disassembler wrote.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut listing = Self::default();
        for line in text.lines().map(str::trim) {
            if let Some(label) = line.strip_suffix(':').filter(|label| is_label(label)) {
                listing.labels.insert(label.to_owned(), listing.instructions.len());
            } else if let Some(instruction) = Instruction::parse(line)
                && !matches!(instruction.name.as_str(), "illegal" | "nop")
            {
                listing.instructions.push(instruction);
            }
        }
        listing
    }

    /// How many instructions of a family there are.
    #[must_use]
    pub fn count(&self, family: &str) -> usize {
        self.instructions.iter().filter(|instruction| instruction.family() == family).count()
    }

    /// Loops that have no loop within, in order.
    #[must_use]
    pub fn inner_loops(&self) -> Vec<Loop> {
        let all: Vec<Loop> = self
            .instructions
            .iter()
            .enumerate()
            .filter_map(|(at, instruction)| {
                let back = instruction.targets.iter().filter_map(|label| self.labels.get(label));
                let first = back.copied().filter(|first| *first <= at).min()?;
                Some(Loop { first, end: at + 1 })
            })
            .collect();
        let holds = |outer: &Loop, inner: &Loop| {
            outer != inner && outer.first <= inner.first && inner.end <= outer.end
        };
        let is_inner = |it: &&Loop| !all.iter().any(|other| holds(it, other));
        let mut inner: Vec<Loop> = all.iter().filter(is_inner).cloned().collect();
        inner.dedup();
        inner
    }

    /// Clocks of one turn of a loop: of what every turn goes through, and of what a jump ahead within
    /// the loop may pass over.
    #[must_use]
    pub fn clocks(&self, it: &Loop) -> (u32, u32) {
        let mut sometimes = vec![false; it.end - it.first];
        for at in it.first..it.end {
            let ahead = self.instructions[at].targets.iter().filter_map(|to| self.labels.get(to));
            for &to in ahead.filter(|to| (at + 1..it.end).contains(*to)) {
                sometimes[at + 1 - it.first..to - it.first].fill(true);
            }
        }
        let of = |wanted: bool| -> u32 {
            let each = self.of(it).iter().zip(&sometimes);
            each.filter(|(_, it)| **it == wanted).map(|(instruction, _)| instruction.clocks()).sum()
        };
        (of(false), of(true))
    }

    /// The instructions of a loop.
    #[must_use]
    pub fn of(&self, it: &Loop) -> &[Instruction] {
        &self.instructions[it.first..it.end]
    }
}

/// Labels are `L` and a place.
fn is_label(word: &str) -> bool {
    word.strip_prefix('L')
        .is_some_and(|place| !place.is_empty() && place.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "L0:
(W)     mov (8|M0)               r127.0<1>:ud  0x0:ud
(f0.0)  goto (16|M0)                         L208                  L208
L96:
        mov (16|M0)              r9.0<1>:f     0.0:f                               {Compacted,I@5}
L128:
(W)     send.ugm (1|M0)          r23      r22     null:0  0x2000000   0x6218C500 {A@2,$1} // load (32|M0) L0
        dp4a (16|M0)             r26.0<1>:d    0:w                r24.0<1;0>:d      r23.0<0>:d
        dpas.8x8 (8|M0)          r4:d          r4:d              r24:b             r14.0:b          {$1}
(f0.1)  goto.b (16|M0)                       L208                  L128
        add (32|M0)              r9.0<1>:f     r9.0<1>:f r8.0<1>:f
(W)     jmpi                                 L96
L208:
        join (16|M0)                         L936
(W)     send.gtwy (8|M0)         null     r127    null:0  0x0            0x02000010           {EOT,A@1}
        nop
        illegal
";

    #[test]
    fn instructions_are_counted_and_the_end_is_not() {
        let listing = Listing::parse(LISTING);
        assert_eq!(listing.instructions.len(), 11);
        assert_eq!(listing.count("dp4a"), 1);
        assert_eq!(listing.count("dpas"), 1);
        assert_eq!(listing.count("send"), 2);
        assert_eq!(listing.count("mov"), 2);
    }

    #[test]
    fn the_innermost_loop_is_found() {
        let listing = Listing::parse(LISTING);
        let [inner] = &listing.inner_loops()[..] else { panic!("{:?}", listing.inner_loops()) };
        let names: Vec<&str> = listing.of(inner).iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["send.ugm", "dp4a", "dpas.8x8", "goto.b"]);
    }

    #[test]
    fn what_a_jump_may_pass_over_is_told_apart() {
        let listing = Listing::parse(
            "L0:
        add (16|M0) r1.0<1>:f r2 r3
(f0.0)  goto (16|M0) L32 L32
        mad (16|M0) r1.0<1>:f r2 r3
        mov (1|M0) r1.0<1>:d r2
L32:
        mad (16|M0) r1.0<1>:d r2 r3:f
(W)     jmpi L0
",
        );
        let inner = &listing.inner_loops()[0];
        // The jumps: one of 16 lanes, one of 1.
        assert_eq!(listing.clocks(inner), (2 + 2 + 2 + 1, 2 + 1));
        let floats: Vec<bool> = listing.of(inner).iter().map(|it| it.is_float).collect();
        assert_eq!(floats, [true, false, true, false, false, false]);
    }

    #[test]
    fn wide_instructions_take_longer() {
        let of = |line| Instruction::parse(line).unwrap();
        assert_eq!(of("add (1|M0) r1 r2 r3").clocks(), 1);
        assert_eq!(of("add (16|M0) r1 r2 r3").clocks(), 2);
        assert_eq!(of("(W&~f0.1) add (32|M0) r1 r2 r3").clocks(), 4);
        let dpas = of("dpas.8x8 (8|M0) r4:d r4:d r24:b r14.0:b {$1}");
        assert_eq!((dpas.clocks(), dpas.matrix_clocks()), (1, 16));
        assert_eq!(of("dpasw.8x4 (8|M0) r4:d r4:d r24:b r14.0:b").matrix_clocks(), 8);
    }
}
