//! `arcmesh bench device`: what an OpenCL device does beside what it could do.
//!
//! First its limits: how fast it reads its own memory, what starting a kernel costs, how fast it copies.
//! Then the operations of a layer and all of it, in the shapes that a 32-billion-parameter model has on one
//! of four cards, for one row and for 32: each with the kernels that the queue took for it, and beside the time
//! that reading its bytes would take at that rate.
//! `docs/roofline.md` predicts the same figures for an A770.

mod operations;

use std::fmt::Write as _;

use anyhow::Context as _;
use serde::Serialize;
use tokio::task::spawn_blocking;
use worker::backend::opencl::OpenClBackend;

use crate::bench::device::operations::{Operation, measured};
use crate::config::DeviceBenchConfig;
use crate::device::{self, MeasuredDevice};
use crate::figures::Figures;

/// The figures. Field names are what scripts read.
#[derive(Debug, Clone, Serialize)]
struct Report {
    version: &'static str,
    device: MeasuredDevice,
    operations: Vec<Operation>,
}

/// Measures, and shows what came of it.
pub(crate) async fn run(config: DeviceBenchConfig) -> anyhow::Result<()> {
    let DeviceBenchConfig { devices, json } = config;
    let figures = Figures::to(json)?;
    let report = spawn_blocking(move || {
        let found = device::open(devices.clone())?;
        let device = MeasuredDevice::of(&found[0])?;
        let mut backend = OpenClBackend::new(&devices, (0, 1))?;
        let operations = measured(&mut backend, device.read_bytes_per_second)?;
        anyhow::Ok(Report { version: env!("CARGO_PKG_VERSION"), device, operations })
    });
    let report = report.await.context("the measurement died")??;
    figures.say(&report, &report.table())
}

impl Report {
    /// For people.
    fn table(&self) -> String {
        let mut table = format!(
            "{}\n\n{:<18} {:>5} {:>8} {:>10} {:>12} {:>12} {:>6}",
            self.device.text(),
            "operation",
            "rows",
            "launches",
            "MB read",
            "µs",
            "µs to read",
            "ratio"
        );
        for it in &self.operations {
            write!(
                table,
                "\n{:<18} {:>5} {:>8} {:>10.2} {:>12.1} {:>12.1} {:>6.2}",
                it.name,
                it.rows,
                it.launches,
                it.bytes / 1e6,
                it.seconds * 1e6,
                it.read_seconds * 1e6,
                it.ratio
            )
            .expect("a string takes everything");
        }
        table
    }
}
