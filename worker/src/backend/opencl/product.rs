//! Rows of x times a packed matrix.

use crate::backend::cpu::lanes::LANES;
use crate::backend::opencl::driver::{Arg, Driver, u32_of};
use crate::backend::opencl::pool::Lease;
use crate::backend::opencl::programs::{Format, Mode, Part};
use crate::backend::opencl::rows;
use crate::backend::opencl::tensor::Tensor;
use crate::backend::opencl::weight::{Section, Weight};

/// Work-items of a group: four tiles.
const ITEMS: usize = 64;

/// The kernel that multiplies so many rows of x, and how many of them a work-item deals with. `systolic`:
/// there are kernels for systolic arrays.
#[must_use]
pub fn product_kernel(rows: usize, systolic: bool) -> (&'static str, u32) {
    match rows {
        0 | 1 => ("linear_1", 1),
        2 => ("linear_2", 2),
        5..=8 if systolic => ("systolic_8", 8),
        9.. if systolic => ("systolic_16", 16),
        _ => ("linear_4", 4),
    }
}

/// The product of all rows of `x`, as `mode` says, to `out`.
pub(crate) fn product(
    driver: &mut Driver,
    x: &Tensor,
    weight: &Weight,
    mode: Mode,
    activation: u32,
    out: &Lease,
) {
    assert_eq!(x.columns, weight.columns, "x has as many columns as the matrix");
    if weight.takes_groups() {
        x.twin.get_or_init(|| rows::quantise(driver, x));
    }
    for section in &weight.sections {
        launch(driver, x, (weight, section), (mode, activation), out);
    }
}

fn launch(
    driver: &mut Driver,
    x: &Tensor,
    (weight, section): (&Weight, &Section),
    (mode, activation): (Mode, u32),
    out: &Lease,
) {
    let systolic = driver.programs.systolic() && Format::of(section.kind).is_some();
    let (kernel, rows_an_item) = product_kernel(x.rows, systolic);
    let (values, groups) = match (Format::of(section.kind), x.twin.get()) {
        (Some(_), Some(twin)) => (&twin.codes, &twin.groups),
        _ => (&x.values, &x.values),
    };
    let bias = section.bias.as_ref().unwrap_or(&section.codes);
    let extra = match mode {
        Mode::Plain => u32::from(section.bias.is_some()),
        _ => activation,
    };
    let step = section.step();
    let args = [
        Arg::Buffer(&section.codes),
        Arg::Buffer(&section.scales),
        Arg::Buffer(&section.supers),
        Arg::Buffer(bias),
        Arg::Lease(values),
        Arg::Lease(groups),
        Arg::Lease(out),
        Arg::U32(u32_of(x.rows)),
        Arg::U32(u32_of(weight.rows)),
        Arg::U32(u32_of(section.first)),
        Arg::U32(u32_of(section.rows)),
        Arg::U32(u32_of(weight.columns.div_ceil(step))),
        Arg::U32(u32_of(weight.segment.div_ceil(step))),
        Arg::U32(u32_of(section.phase)),
        Arg::U32(extra),
    ];
    let items = section.rows.next_multiple_of(LANES).next_multiple_of(ITEMS);
    let global = [items, x.rows.div_ceil(rows_an_item as usize), 1];
    let part = Part::Product { kind: section.kind, mode };
    driver.launch((part, kernel), &args, global, [ITEMS, 1, 1]);
}
