//! Rows of x times a packed matrix.

use std::cell::OnceCell;

use crate::backend::opencl::driver::{Arg, Driver, u32_of};
use crate::backend::opencl::pool::Lease;
use crate::backend::opencl::programs::{Format, Mode, Part};
use crate::backend::opencl::rows;
use crate::backend::opencl::tensor::{Tensor, Twin};
use crate::backend::opencl::weight::{LANES, Section, Weight};

/// Work-items of a group: four tiles.
const ITEMS: usize = 64;

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
        twin(driver, x, &x.twin);
    }
    for section in &weight.sections {
        launch(driver, x, (weight, section), (mode, activation), out);
    }
}

/// The quantised rows of a tensor, made when they are first asked for.
fn twin(driver: &mut Driver, x: &Tensor, twin: &OnceCell<Twin>) {
    if twin.get().is_none() {
        let made = rows::quantise(driver, x);
        // It was empty, so it takes it.
        let _kept = twin.set(made);
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
    let (kernel, rows_an_item) = match x.rows {
        0 | 1 => ("linear_1", 1),
        2 => ("linear_2", 2),
        5..=8 if systolic => ("systolic_8", 8),
        9.. if systolic => ("systolic_16", 16),
        _ => ("linear_4", 4),
    };
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
    let global = [items, x.rows.div_ceil(rows_an_item), 1];
    let part = Part::Product { kind: section.kind, mode };
    driver.launch((part, kernel), &args, global, [ITEMS, 1, 1]);
}
