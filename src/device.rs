//! What OpenCL devices there are and what they really do: reading, starting kernels, copying.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use opencl::{Argument, Device, DeviceKind, Kernel, Memory, Pinned, Program, Queue};
use serde::Serialize;
use worker::backend::opencl::OpenClConfig;

/// Reads a whole buffer, each item its own words, neighbours beside each other; and does nothing, for
/// what starting a kernel costs.
const SOURCE: &str = "
kernel void read_all(global const uint4 *from, global uint *to, uint rounds) {
    uint4 all = (uint4)(0);
    size_t at = get_global_id(0);
    for (uint round = 0; round < rounds; round++, at += get_global_size(0)) all ^= from[at];
    uint one = all.x ^ all.y ^ all.z ^ all.w;
    if (one == 0x9e3779b9u) to[0] = one;
}
kernel void nothing(global uint *to, uint never) {
    if (never != 0) to[get_global_id(0)] = never;
}
";
const OPTIONS: &str = "-cl-std=CL1.2";

/// Items that read: many times what any device runs at once.
const ITEMS: usize = 1 << 17;
const GROUP: usize = 256;
const WORD_BYTES: usize = 16;
/// What is read is larger than any cache, and no more than a part of the device's memory.
const READ_BYTES_MAX: usize = 256 << 20;
/// What is copied.
const COPY_BYTES: usize = 32 << 20;
/// Kernels that are started one behind another.
const LAUNCHES: u32 = 200;
/// Far more than a device takes that works.
const PATIENCE: Duration = Duration::from_secs(60);
/// Repetitions; the fastest counts, since others on the machine only ever add time.
const ROUNDS: usize = 3;

/// A device and what it was measured to do. Field names are what scripts read.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct MeasuredDevice {
    pub(crate) name: String,
    /// The driver's version.
    pub(crate) driver: String,
    /// The OpenCL version.
    pub(crate) version: String,
    pub(crate) kind: &'static str,
    pub(crate) pci: Option<String>,
    pub(crate) uuid: Option<String>,
    pub(crate) memory_bytes: u64,
    pub(crate) compute_units: u32,
    /// Reading its own memory.
    pub(crate) read_bytes_per_second: f64,
    /// Each of many kernels in a row that do nothing.
    pub(crate) launch_seconds: f64,
    /// One kernel that does nothing, until the host knows that it is done.
    pub(crate) round_trip_seconds: f64,
    /// From pinned memory of the host.
    pub(crate) to_device_bytes_per_second: f64,
    /// To pinned memory of the host.
    pub(crate) from_device_bytes_per_second: f64,
    /// A few bytes there and back, each waited for: what a partial sum's trip costs at least.
    pub(crate) exchange_seconds: f64,
}

/// The devices that were asked for, the best first.
///
/// # Errors
/// There is no OpenCL, or no such device: one line that says which.
pub(crate) fn open(config: OpenClConfig) -> anyhow::Result<Vec<Device>> {
    bounded(move || Ok(config.devices()?))
}

impl MeasuredDevice {
    /// Takes a second or two, most of it building the kernels.
    ///
    /// # Errors
    /// The device failed, or did not come to an end.
    pub(crate) fn of(device: &Device) -> anyhow::Result<Self> {
        let device = device.clone();
        bounded(move || Self::measure(&device))
    }

    fn measure(device: &Device) -> anyhow::Result<Self> {
        let queue = Queue::open(device)?;
        let program = Program::build(&queue, SOURCE, OPTIONS, None)?;
        let launches = Launches::of(&queue, &program).context("starting kernels")?;
        let copies = Copies::of(&queue).context("copying")?;
        Ok(Self {
            name: device.name.clone(),
            driver: device.driver.clone(),
            version: device.version.clone(),
            kind: kind(device.kind),
            pci: device.pci.map(|pci| pci.to_string()),
            uuid: device.uuid.map(|uuid| uuid.to_string()),
            memory_bytes: device.memory_bytes,
            compute_units: device.compute_units,
            read_bytes_per_second: read_bandwidth(&queue, &program).context("reading")?,
            launch_seconds: launches.each,
            round_trip_seconds: launches.round_trip,
            to_device_bytes_per_second: copies.to_device,
            from_device_bytes_per_second: copies.from_device,
            exchange_seconds: copies.exchange,
        })
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let place = self.pci.as_deref().or(self.uuid.as_deref()).unwrap_or("no address");
        let giga = |rate: f64| rate / 1e9;
        let micro = |seconds: f64| seconds * 1e6;
        format!(
            "{} ({place}), driver {}: reads {:.1} GB/s; starts a kernel in {:.1} µs, {:.1} µs until the \
             host knows; copies {:.1} GB/s there and {:.1} GB/s back, {:.1} µs for a few bytes both ways",
            self.name,
            self.driver,
            giga(self.read_bytes_per_second),
            micro(self.launch_seconds),
            micro(self.round_trip_seconds),
            giga(self.to_device_bytes_per_second),
            giga(self.from_device_bytes_per_second),
            micro(self.exchange_seconds),
        )
    }
}

/// Runs what may never come to an end, such as a call of a driver that hangs; its thread is left behind
/// then, and ends with the process.
fn bounded<T: Send + 'static>(
    run: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (done, result) = mpsc::channel();
    // Nobody listens any more once it is late.
    thread::Builder::new().spawn(move || drop(done.send(run())))?;
    result.recv_timeout(PATIENCE).unwrap_or_else(|error| match error {
        RecvTimeoutError::Timeout => {
            bail!("its driver gave no answer for {} seconds", PATIENCE.as_secs())
        }
        RecvTimeoutError::Disconnected => bail!("its thread died"),
    })
}

/// What a kind is called.
fn kind(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Discrete => "discrete",
        DeviceKind::Integrated => "integrated",
        DeviceKind::Cpu => "cpu",
        DeviceKind::Other => "other",
    }
}

/// Bytes a second that a device reads of its own memory.
fn read_bandwidth(queue: &Queue, program: &Program) -> anyhow::Result<f64> {
    let device = queue.device();
    let part = usize::try_from(device.memory_bytes / 4).unwrap_or(usize::MAX);
    let largest = usize::try_from(device.buffer_bytes_max).unwrap_or(usize::MAX);
    let rounds = (READ_BYTES_MAX.min(part).min(largest) / (ITEMS * WORD_BYTES)).max(1);
    let bytes = rounds * ITEMS * WORD_BYTES;
    let mut from = queue.buffer(bytes, Memory::Device)?;
    // Pages that were never written need not be there.
    queue.fill(&mut from, |memory| {
        memory.fill(1);
        Ok::<_, opencl::Error>(())
    })?;
    let to = queue.buffer(4, Memory::Device)?;
    let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
    let mut kernel = Kernel::new(program, "read_all")?;
    let seconds = fastest(|| {
        let arguments = [Argument::Buffer(&from), Argument::Buffer(&to), Argument::U32(rounds)];
        kernel.launch(&arguments, [ITEMS, 1, 1], [GROUP, 1, 1])?;
        Ok(queue.finish()?)
    })?;
    Ok(bytes as f64 / seconds)
}

/// What starting kernels costs, seconds.
struct Launches {
    /// One of many.
    each: f64,
    /// One alone, until it is done.
    round_trip: f64,
}

impl Launches {
    fn of(queue: &Queue, program: &Program) -> anyhow::Result<Self> {
        let to = queue.buffer(4 * GROUP, Memory::Device)?;
        let mut kernel = Kernel::new(program, "nothing")?;
        let mut launch = || {
            let arguments = [Argument::Buffer(&to), Argument::U32(0)];
            kernel.launch(&arguments, [GROUP, 1, 1], [GROUP, 1, 1])
        };
        let many = fastest(|| {
            for _ in 0..LAUNCHES {
                launch()?;
            }
            Ok(queue.finish()?)
        })?;
        let round_trip = fastest(|| {
            launch()?;
            Ok(queue.finish()?)
        })?;
        Ok(Self { each: many / f64::from(LAUNCHES), round_trip })
    }
}

/// Copies between the host's pinned memory and the device.
struct Copies {
    to_device: f64,
    from_device: f64,
    exchange: f64,
}

impl Copies {
    fn of(queue: &Queue) -> anyhow::Result<Self> {
        let buffer = queue.buffer(COPY_BYTES, Memory::Device)?;
        let mut pinned = Pinned::new(queue, COPY_BYTES)?;
        let to_device = fastest(|| {
            pinned.send(&buffer, COPY_BYTES)?;
            Ok(queue.finish()?)
        })?;
        let from_device = fastest(|| {
            pinned.receive(&buffer, COPY_BYTES)?;
            Ok(())
        })?;
        let exchange = fastest(|| {
            pinned.send(&buffer, WORD_BYTES)?;
            pinned.receive(&buffer, WORD_BYTES)?;
            Ok(())
        })?;
        let rate = |seconds| COPY_BYTES as f64 / seconds;
        Ok(Self { to_device: rate(to_device), from_device: rate(from_device), exchange })
    }
}

/// Seconds of the fastest of some rounds, after one that does not count.
fn fastest(mut run: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    run()?;
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        run()?;
        least = least.min(begun.elapsed());
    }
    Ok(least.max(Duration::from_nanos(1)).as_secs_f64())
}
