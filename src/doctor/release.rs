//! Versions that are numbers with dots.

use std::fmt;

/// The first three numbers of a version such as `6.8.0-45-generic`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Release(pub(super) u32, pub(super) u32, pub(super) u32);

impl Release {
    /// Reads a version; what is missing behind the second number is 0.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str| -> Option<u32> {
            let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
            text[..end].parse().ok()
        };
        let mut parts = text.trim().splitn(3, '.');
        let (major, minor) = (digits(parts.next()?)?, digits(parts.next()?)?);
        Some(Self(major, minor, parts.next().and_then(digits).unwrap_or(0)))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        let of = |text| Release::parse(text).unwrap();
        assert_eq!(of("6.8.0-45-generic"), Release(6, 8, 0));
        assert_eq!(of("6.17"), Release(6, 17, 0));
        assert!(of("6.10.2") > of("6.9.12"));
        assert_eq!(of("7.0-rc1"), Release(7, 0, 0));
        assert_eq!(Release::parse("unknown"), None);
        assert_eq!(Release::parse("6"), None);
    }
}
