//! What the compiler says of a kernel's needs: the part of `.ze_info` that we read.

/// One kernel's needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelInfo {
    /// As the source calls it.
    pub name: String,
    /// Work items that an instruction works for.
    pub simd: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Local memory of a work group, bytes.
    pub local_bytes: u32,
    /// Memory for registers that did not fit, bytes.
    pub spill_bytes: u32,
    /// Memory for arrays that are not in registers, bytes.
    pub private_bytes: u32,
}

/// Reads the kernels of a `.ze_info`. It is YAML that a program wrote, with one key a line; what we do
/// not know is passed over.
#[must_use]
pub fn kernels(text: &str) -> Vec<KernelInfo> {
    let mut found: Vec<KernelInfo> = Vec::new();
    // The kernels' section ends with the next key without indentation.
    let lines = text.lines().skip_while(|line| line.trim_end() != "kernels:").skip(1);
    let mut memory = Memory::default();
    for line in lines.take_while(|line| line.starts_with(' ')) {
        if let Some(name) = line.strip_prefix("  - name:") {
            let name = name.trim().trim_matches('\'').to_owned();
            found.push(KernelInfo { name, ..KernelInfo::default() });
            memory = Memory::default();
            continue;
        }
        let Some(kernel) = found.last_mut() else { continue };
        let starts_an_item = line.trim_start().starts_with("- ");
        let Some((key, value)) = line.trim().trim_start_matches("- ").split_once(':') else {
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        let number = value.parse().unwrap_or(0);
        if starts_an_item {
            memory = Memory::default();
        }
        match key {
            "simd_size" => kernel.simd = number,
            "grf_count" => kernel.registers = number,
            "slm_size" => kernel.local_bytes = number,
            "spill_size" => kernel.spill_bytes = kernel.spill_bytes.max(number),
            "private_size" => kernel.private_bytes = kernel.private_bytes.max(number),
            "type" if starts_an_item => memory.is_scratch = value == "scratch",
            "usage" => memory.is_private = value == "private_space",
            "size" if memory.is_private => {
                kernel.private_bytes = kernel.private_bytes.max(number);
            }
            "size" if memory.is_scratch => kernel.spill_bytes = kernel.spill_bytes.max(number),
            _ => {}
        }
    }
    found
}

/// The buffer of a thread that is being read.
#[derive(Default)]
struct Memory {
    is_scratch: bool,
    is_private: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read_kernel_by_kernel() {
        let text = "---
version:         '1.20'
kernels:
  - name:            first
    execution_env:
      grf_count:       128
      simd_size:       16
      slm_size:        2048
    payload_arguments:
      - arg_type:        local_size
        offset:          12
        size:            12
    per_thread_memory_buffers:
      - type:            scratch
        usage:           spill_fill_space
        size:            4256
  - name:            second
    execution_env:
      grf_count:       256
      simd_size:       8
    per_thread_memory_buffers:
      - type:            global
        usage:           private_space
        size:            800
        is_simt_thread:  true
kernels_misc_info:
  - name:            first
";
        let kernel = |name: &str| KernelInfo { name: name.to_owned(), ..KernelInfo::default() };
        let expected = [
            KernelInfo {
                simd: 16,
                registers: 128,
                local_bytes: 2048,
                spill_bytes: 4256,
                ..kernel("first")
            },
            KernelInfo { simd: 8, registers: 256, private_bytes: 800, ..kernel("second") },
        ];
        assert_eq!(kernels(text), expected);
        assert!(kernels("nonsense").is_empty());
    }
}
