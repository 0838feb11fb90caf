//! That the gate would see it: kernels that spill, keep arrays in memory, or lack what they claim.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use gate::{Claim, Compiler, CompilerError, KernelFigures, Source};

/// The compiler; none where it is not installed.
fn compiler() -> Option<Compiler> {
    fixture::has("ocloc", "intel-opencl-icd libigc-tools").then(|| Compiler::find().unwrap())
}

fn source(text: &str) -> Source {
    let options = "-cl-std=CL3.0".to_owned();
    Source { name: "sample".to_owned(), text: text.to_owned(), options }
}

fn figures(compiler: &Compiler, text: &str) -> KernelFigures {
    let compiled = compiler.compile(&source(text), "acm-g10").unwrap();
    let mut all = KernelFigures::of("sample", &compiled);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn a_product_of_bytes_is_found_in_its_loop() {
    let Some(compiler) = compiler() else { return };
    let kernel = figures(
        &compiler,
        "__attribute__((intel_reqd_sub_group_size(16)))
         __kernel void sum(const __global int* a, const __global int* b, __global int* out, int n) {
             int sum = 0;
             for (int i = 0; i < n; i++)
                 sum = dot_acc_sat(as_char4(a[i * 16 + get_local_id(0)]), as_char4(b[i]), sum);
             out[get_global_id(0)] = sum;
         }",
    );
    assert_eq!((kernel.info.simd, kernel.info.registers), (16, 128));
    let instructions = kernel.listing.instructions.len();
    assert!((1..instructions).contains(&kernel.inner_loop()), "{kernel}");
    assert!(kernel.count(Claim::Dp4a) > 0, "{kernel}");
    assert!(kernel.faults(&[Claim::Dp4a]).is_empty());
    let faults = kernel.faults(&[Claim::Dpas]);
    assert_eq!(faults, ["sum has no dpas"]);
}

#[test]
fn an_array_that_is_not_in_registers_is_a_fault() {
    let Some(compiler) = compiler() else { return };
    let kernel = figures(
        &compiler,
        "__kernel void shuffle(__global float* x, __global int* at) {
             float kept[200];
             for (int i = 0; i < 200; i++) kept[at[i]] = x[i * get_global_id(0)];
             x[get_global_id(0)] = kept[at[get_global_id(0)]];
         }",
    );
    let faults = kernel.faults(&[]);
    assert!(faults.iter().any(|fault| fault.contains("private memory")), "{faults:?}");
}

#[test]
fn registers_that_spill_are_a_fault() {
    let Some(compiler) = compiler() else { return };
    // 140 sums of 16 lanes at once; a thread has 128 registers of 8.
    let sums = |text: &dyn Fn(usize) -> String| (0..140).map(text).collect::<String>();
    let text = format!(
        "__attribute__((intel_reqd_sub_group_size(16)))
         __kernel void many(const __global float* x, __global float* out, int n) {{
             {} for (int i = 0; i < n; i++) {{ float v = x[i * 16 + get_local_id(0)]; {} }} {}
         }}",
        sums(&|at| format!("float s{at} = x[get_local_id(0) + {at}];")),
        sums(&|at| format!("s{at} = s{at} * v + {at}.5f;")),
        sums(&|at| format!("out[get_global_id(0) * 140 + {at}] = s{at};")),
    );
    let faults = figures(&compiler, &text).faults(&[]);
    assert!(faults.iter().any(|fault| fault.contains("spills")), "{faults:?}");
}

#[test]
fn what_cannot_be_compiled_is_told_with_what_the_compiler_says() {
    let Some(compiler) = compiler() else { return };
    let wrong = source("__kernel void k(__global int* x) { x[0] = undeclared_name; }");
    let error = compiler.compile(&wrong, "acm-g10").unwrap_err();
    assert!(error.to_string().contains("undeclared_name"), "{error}");
    let unknown = compiler.compile(&source("__kernel void k() {}"), "acm-g99").unwrap_err();
    assert!(matches!(unknown, CompilerError::UnknownDevice(_)), "{unknown}");
}
