//! What a call said instead of success.

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A call gave a code.
    #[error("{call} gave {code} ({})", name(*code))]
    Call {
        /// The call's name.
        call: &'static str,
        /// What it gave.
        code: i32,
    },
    /// A program that the device's compiler refused.
    #[error("the device's compiler refuses a program: {log}")]
    Build {
        /// What the compiler said.
        log: String,
    },
    /// Something beyond what the device has.
    #[error("{what} is {wanted} and this device has at most {most}")]
    Limit {
        /// What was asked for.
        what: &'static str,
        /// How much of it.
        wanted: u64,
        /// How much there may be.
        most: u64,
    },
}

impl Error {
    /// Whether memory ran out.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Call { code: -4 | -61, .. } | Self::Limit { .. })
    }
}

/// The code of a call as a result.
pub(crate) fn check(call: &'static str, code: i32) -> Result<(), Error> {
    if code == 0 { Ok(()) } else { Err(Error::Call { call, code }) }
}

/// A code's name, without its prefix.
fn name(code: i32) -> &'static str {
    match code {
        -1 => "device not found",
        -2 => "device not available",
        -3 => "compiler not available",
        -4 => "no memory for an object on the device",
        -5 => "out of resources: the device was reset or is lost",
        -6 => "out of host memory",
        -11 => "the build failed",
        -14 => "an earlier command failed",
        -30 => "invalid value",
        -33 => "invalid device",
        -34 => "invalid context",
        -36 => "invalid queue: the device was reset or is lost",
        -38 => "invalid memory object",
        -42 => "invalid binary",
        -43 => "invalid build options",
        -45 => "no built program",
        -46 => "no such kernel",
        -48 => "invalid kernel",
        -49 => "no such argument",
        -50 => "invalid argument",
        -51 => "an argument of another size",
        -52 => "arguments are missing",
        -54 => "invalid work-group size",
        -55 => "invalid work-item size",
        -59 => "invalid operation",
        -61 => "invalid buffer size",
        -63 => "invalid global size",
        -1001 => "no platform is installed",
        _ => "see the OpenCL specification",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_call_and_what_the_code_means() {
        let lost = Error::Call { call: "clFinish", code: -5 };
        let said = "clFinish gave -5 (out of resources: the device was reset or is lost)";
        assert_eq!(lost.to_string(), said);
        assert!(!lost.is_memory());
        let full = Error::Call { call: "clCreateBuffer", code: -4 };
        assert!(full.is_memory());
    }
}
