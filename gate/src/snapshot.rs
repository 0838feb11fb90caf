//! What was, so that nothing becomes worse unseen: a text file, compared line by line.

use crate::figures::{KernelFigures, table};

/// The committed figures: one compiler, one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The compiler that it is of.
    pub version: String,
    lines: Vec<String>,
}

/// How figures and snapshot differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The snapshot is of another compiler: there is nothing to compare.
    OtherCompiler {
        /// That one.
        snapshot: String,
        /// This one.
        found: String,
    },
    /// Lines that are in one of the two only.
    Lines {
        /// In the snapshot.
        before: Vec<String>,
        /// Found now.
        after: Vec<String>,
    },
}

impl Snapshot {
    /// Reads a snapshot.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        let version = lines.next().and_then(|line| line.split_whitespace().last()).unwrap_or("");
        Self { version: version.to_owned(), lines: lines.map(str::to_owned).collect() }
    }

    /// Writes one.
    #[must_use]
    pub fn write(version: &str, device: &str, kernels: &[KernelFigures]) -> String {
        format!("as compiled by ocloc {version}\n\n{device}\n{}\n", table(kernels))
    }

    /// What has changed since.
    #[must_use]
    pub fn difference(&self, found: &Self) -> Option<Difference> {
        if self.version != found.version {
            let (snapshot, found) = (self.version.clone(), found.version.clone());
            return Some(Difference::OtherCompiler { snapshot, found });
        }
        let only = |a: &Self, b: &Self| -> Vec<String> {
            a.lines.iter().filter(|line| !b.lines.contains(line)).cloned().collect()
        };
        let (before, after) = (only(self, found), only(found, self));
        (!before.is_empty() || !after.is_empty()).then_some(Difference::Lines { before, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_is_shown_as_it_was_and_as_it_is() {
        let before = Snapshot::parse("as compiled by ocloc 22.43\n\nacm-g10\nlinear 10\nnorm 5\n");
        let after = Snapshot::parse("as compiled by ocloc 22.43\n\nacm-g10\nlinear 12\nnorm 5\n");
        assert_eq!(before.difference(&before.clone()), None);
        let lines = |text: &str| vec![text.to_owned()];
        assert_eq!(
            before.difference(&after),
            Some(Difference::Lines { before: lines("linear 10"), after: lines("linear 12") })
        );
        let other = Snapshot::parse("as compiled by ocloc 26.27\nacm-g10\nlinear 10\nnorm 5\n");
        assert!(matches!(before.difference(&other), Some(Difference::OtherCompiler { .. })));
    }
}
