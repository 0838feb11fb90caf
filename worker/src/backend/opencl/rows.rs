//! What reads whole rows.

use opencl::Buffer;

use crate::backend::BackendError;
use crate::backend::cpu::tensor::GROUP;
use crate::backend::opencl::driver::{Arg, Driver, u32_of};
use crate::backend::opencl::pool::Lease;
use crate::backend::opencl::programs::Part;
use crate::backend::opencl::tensor::{GROUP_BYTES, Tensor, Twin};

/// Work-items of a row.
const ITEMS: usize = 256;
/// Bytes of local memory that the kernels of norms have besides the row.
const LANES_BYTES: u64 = 64;

/// A norm keeps a row in local memory: whether rows of so many numbers fit.
pub(crate) fn check_columns(driver: &Driver, columns: usize) -> Result<(), BackendError> {
    let (wanted, most) = (columns as u64 * 4 + LANES_BYTES, driver.queue.limits().local_bytes);
    if wanted <= most {
        return Ok(());
    }
    let what = format!("rows of {columns} numbers need {wanted} bytes of local memory of {most}");
    Err(BackendError::Unsupported { backend: "opencl", what })
}

/// Room for the codes of a tensor's rows.
pub(crate) fn empty_twin(driver: &mut Driver, x: &Tensor) -> Twin {
    let groups = x.rows * x.depth();
    Twin { codes: driver.lease(groups * GROUP), groups: driver.lease(groups * GROUP_BYTES) }
}

/// `(T, hidden)`, quantised too.
pub(crate) fn norm(driver: &mut Driver, x: &Tensor, weight: &Buffer, epsilon: f32) -> Tensor {
    let out = Tensor::new(x.rows, x.columns, driver.lease(x.rows * x.columns * 4));
    let twin = empty_twin(driver, x);
    let args = [
        Arg::Lease(&x.values),
        Arg::Buffer(weight),
        Arg::Lease(&out.values),
        Arg::Lease(&twin.codes),
        Arg::Lease(&twin.groups),
        Arg::U32(u32_of(x.columns)),
        Arg::F32(epsilon),
        Arg::Local(x.columns * 4),
    ];
    driver.launch((Part::Rows, "norm"), &args, [x.rows * ITEMS, 1, 1], [ITEMS, 1, 1]);
    with_twin(out, twin)
}

/// Adds `sum` to the residual, and gives its norm: `(T, hidden)`, quantised too.
pub(crate) fn add_norm(
    driver: &mut Driver,
    (residual, sum): (&mut Tensor, Tensor),
    post: Option<&Buffer>,
    weight: &Buffer,
    epsilon: f32,
) -> Tensor {
    residual.twin.take();
    let (rows, columns) = (sum.rows, sum.columns);
    let out = Tensor::new(rows, columns, driver.lease(rows * columns * 4));
    let twin = empty_twin(driver, &sum);
    let args = [
        Arg::Lease(&residual.values),
        Arg::Lease(&sum.values),
        Arg::Buffer(post.unwrap_or(weight)),
        Arg::Buffer(weight),
        Arg::Lease(&out.values),
        Arg::Lease(&twin.codes),
        Arg::Lease(&twin.groups),
        Arg::U32(u32_of(columns)),
        Arg::F32(epsilon),
        Arg::U32(u32::from(post.is_some())),
        Arg::Local(columns * 4),
    ];
    driver.launch((Part::Rows, "add_norm"), &args, [rows * ITEMS, 1, 1], [ITEMS, 1, 1]);
    with_twin(out, twin)
}

fn with_twin(mut x: Tensor, twin: Twin) -> Tensor {
    x.twin = twin.into();
    x
}

/// The rows of `x` as 8-bit integers.
pub(crate) fn quantise(driver: &mut Driver, x: &Tensor) -> Twin {
    let twin = empty_twin(driver, x);
    let count = x.rows * x.depth();
    let args = [
        Arg::Lease(&x.values),
        Arg::Lease(&twin.codes),
        Arg::Lease(&twin.groups),
        Arg::U32(u32_of(x.columns)),
        Arg::U32(u32_of(count)),
    ];
    let items = count.next_multiple_of(ITEMS);
    driver.launch((Part::Rows, "quantise"), &args, [items, 1, 1], [ITEMS, 1, 1]);
    twin
}

/// Some rows of `x`: `wanted` are so many numbers of rows. `(rows, columns)`
pub(crate) fn select(driver: &mut Driver, x: &Tensor, (wanted, rows): (&Lease, usize)) -> Tensor {
    let count = rows * x.columns;
    let out = Tensor::new(rows, x.columns, driver.lease(count * 4));
    let args = [
        Arg::Lease(&x.values),
        Arg::Lease(wanted),
        Arg::Lease(&out.values),
        Arg::U32(u32_of(x.columns)),
        Arg::U32(u32_of(count)),
    ];
    let items = count.next_multiple_of(ITEMS);
    driver.launch((Part::Rows, "select_rows"), &args, [items, 1, 1], [ITEMS, 1, 1]);
    out
}
