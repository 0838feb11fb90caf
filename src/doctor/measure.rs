//! What memory and links really do.

use std::net::TcpListener as StdListener;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use forecast::Link;
use opencl::Device;
use serde::Serialize;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use worker::backend::cpu::read_bandwidth;
use worker::collective::grpc::{Switchboard, tuned_server};
use worker::collective::{Collective, local};

use crate::device::MeasuredDevice;

/// Memory that is read: more than most caches hold, less than most machines have.
const READ_BYTES: usize = 256 << 20;
/// One number, for what a message costs whatever its length.
const SHORT_NUMBERS: usize = 1;
/// What 32 sequences of a model with 5120 columns add up.
const LONG_NUMBERS: usize = 32 * 5120;
/// Repetitions that are timed together, and how often that is done; the fastest counts, since others on
/// the machine only ever add time.
const SHORT_TIMES: u32 = 200;
const LONG_TIMES: u32 = 10;
const ROUNDS: usize = 5;
/// Far more than any of this takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was measured. Field names are what scripts read.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measured {
    /// Threads that read.
    pub(super) threads: usize,
    /// Bytes a second that they read from this machine's memory.
    pub(super) host_read_bytes_per_second: f64,
    /// An all-reduce of two ranks of one process.
    pub(super) in_process: Link,
    /// An all-reduce of two ranks over gRPC on the loopback device.
    pub(super) loopback: Link,
    /// OpenCL devices, in the order in which ranks would take them.
    pub(super) devices: Vec<MeasuredDevice>,
    /// OpenCL devices that failed.
    pub(super) failed: Vec<FailedDevice>,
}

/// A device that could not be measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FailedDevice {
    pub(super) name: String,
    pub(super) pci: Option<String>,
    pub(super) reason: String,
}

impl Measured {
    /// Takes about a second, and more for each device. Must not be called on a thread that drives a
    /// runtime.
    pub(super) fn of(threads: usize, devices: &[Device]) -> anyhow::Result<Self> {
        let ends = local::group(2).into_iter().map(boxed).collect();
        let (mut measured, mut failed) = (Vec::new(), Vec::new());
        for device in devices {
            match MeasuredDevice::of(device) {
                Ok(figures) => measured.push(figures),
                Err(error) => failed.push(FailedDevice {
                    name: device.name.clone(),
                    pci: device.pci.map(|pci| pci.to_string()),
                    reason: format!("{error:#}"),
                }),
            }
        }
        Ok(Self {
            threads,
            host_read_bytes_per_second: read_bandwidth(threads, READ_BYTES)?,
            in_process: link(ends).context("ranks of one process")?,
            loopback: loopback().context("ranks over loopback")?,
            devices: measured,
            failed,
        })
    }
}

fn boxed(end: impl Collective + 'static) -> Box<dyn Collective> {
    Box::new(end)
}

/// What all-reduces of two ranks cost.
fn link(mut ends: Vec<Box<dyn Collective>>) -> anyhow::Result<Link> {
    let (mut timed, mut other) = (ends.remove(0), ends.remove(0));
    // Both do the same, each on a thread of its own, or neither comes to an end. An end that goes takes
    // with it what it sent last, so both stay until both are done.
    thread::scope(|scope| {
        let peer = thread::Builder::new().spawn_scoped(scope, || rounds(other.as_mut()))?;
        let own = rounds(timed.as_mut());
        // A peer that gave up has made us give up too, with a reason of our own.
        peer.join().ok();
        let (short, long) = own?;
        let bytes = (LONG_NUMBERS - SHORT_NUMBERS) as f64 * size_of::<f64>() as f64;
        Ok(Link { latency_seconds: short, bytes_per_second: bytes / (long - short).max(1e-9) })
    })
}

/// Seconds of a short all-reduce and of a long one.
fn rounds(end: &mut dyn Collective) -> anyhow::Result<(f64, f64)> {
    let (mut short, mut long) = (f64::INFINITY, f64::INFINITY);
    end.begin(1, PATIENCE);
    // Once without a clock, so that all memory is there.
    each(end, LONG_NUMBERS, 1)?;
    for _ in 0..ROUNDS {
        short = short.min(each(end, SHORT_NUMBERS, SHORT_TIMES)?);
        long = long.min(each(end, LONG_NUMBERS, LONG_TIMES)?);
    }
    Ok((short, long))
}

fn each(end: &mut dyn Collective, numbers: usize, times: u32) -> anyhow::Result<f64> {
    let mut values = vec![0.0; numbers];
    let begun = Instant::now();
    for _ in 0..times {
        end.all_reduce(&mut values)?;
    }
    Ok(begun.elapsed().as_secs_f64() / f64::from(times))
}

/// Two ranks as two workers on one machine have them.
fn loopback() -> anyhow::Result<Link> {
    let boards = [Switchboard::start()?, Switchboard::start()?];
    let peers: Vec<String> = boards.iter().map(listen).collect::<anyhow::Result<_>>()?;
    let [lower, higher] = &boards;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (lower, higher) = runtime.block_on(async {
        tokio::join!(lower.form(1, 0, &peers, PATIENCE), higher.form(1, 1, &peers, PATIENCE))
    });
    link(vec![lower?, higher?])
}

/// Where a rank is reached.
fn listen(board: &Switchboard) -> anyhow::Result<String> {
    let listener = StdListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    listener.set_nonblocking(true)?;
    let handle = board.driver().handle();
    let _context = handle.enter();
    let incoming = TcpIncoming::from(TcpListener::from_std(listener)?).with_nodelay(Some(true));
    let served = tuned_server().add_service(board.desk().service()).serve_with_incoming(incoming);
    handle.spawn(served);
    Ok(address)
}
