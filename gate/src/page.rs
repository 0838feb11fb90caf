//! The page about what an A770 should reach: Markdown, made of what the compiler said.

use forecast::Link;
use worker::backend::opencl::{LAUNCHES_PER_LAYER, LAUNCHES_PER_STEP};

use crate::card::{
    CONTEXT, HERTZ, LAUNCH_SECONDS, LOOPBACK, READ_BYTES_PER_SECOND, SHARED_MEMORY, VECTOR_ENGINES,
    WORLD, model,
};
use crate::kernels::Found;
use crate::roofline::{RooflineError, Stage, stages};

/// Bytes of a number of a partial sum.
const SUM_BYTES: f64 = 8.0;
/// All-reduces of a layer.
const ALL_REDUCES: f64 = 2.0;

/// The whole page.
///
/// # Errors
/// Kernels that are not of the form that is expected.
pub fn page(found: &Found, version: &str) -> Result<String, RooflineError> {
    let mut page = vec![introduction(version)];
    let mut sums = Vec::new();
    for batch in [1, 32] {
        let stages = stages(found, batch)?;
        page.push(format!("## Batch {batch}\n\n{}", table(&stages)));
        for (link, name) in [(SHARED_MEMORY, "shared memory"), (LOOPBACK, "gRPC, one machine")] {
            sums.push(Sum::new(batch, &stages, link, name));
        }
    }
    page.push(conclusion(&sums));
    Ok(page.join("\n"))
}

fn introduction(version: &str) -> String {
    format!(
        "# What an Arc A770 should reach

**This is a prediction.** arcmesh has not run on an A770 yet. The page is made by

```sh
cargo run -p gate -- roofline > docs/roofline.md
```

which compiles every kernel for the card with Intel's own compiler (ocloc {version}), counts the
instructions of the loops that do the work, and compares the time to issue them with the time to read what
they read. `arcmesh bench device` on a real card confirms or refutes it.

What is taken for granted, none of it measured by us: {engines} vector engines that issue one instruction a
clock each, 8 lanes at a time, and a matrix engine beside each, at {giga} GHz; {read} GB/s (others'
measurements; 560 are on the box); {launch} µs to start a kernel behind another (an Intel developer's figure
for the A770M); an all-reduce through memory that ranks share of {shared} µs and {shared_rate} GB/s beyond
that, or over gRPC on one machine of {grpc} µs and {grpc_rate} GB/s. These last are estimates too.

A step of decode is {launches} kernels a layer and {besides} more, as the queue counts them
(`arcmesh_worker_launches_total`).

The model is {name} with weights in Q4_0 (4.5 bits) on {world} cards, each
sequence {context} tokens long. A matrix that is larger than the last cache, 16 MiB, is read once for every 16
rows of x, since that is how many a kernel deals with at once. Partial sums are 8 bytes a number, the price
of sums that are the same bits on any number of cards.

*Issue* is what the engines take if they never wait, *read* what memory takes if nothing else does; a kernel
cannot be faster than the longer of the two, and is slower where too few threads hide the latency of what
they wait for. The table has no row for norms, quantisation and rotation: they do next to nothing, and the
cost of starting them is in the sum; but each works with few threads, and may take longer than that.
",
        engines = VECTOR_ENGINES,
        giga = HERTZ / 1e9,
        read = READ_BYTES_PER_SECOND / 1e9,
        launch = LAUNCH_SECONDS * 1e6,
        launches = LAUNCHES_PER_LAYER,
        besides = LAUNCHES_PER_STEP,
        shared = SHARED_MEMORY.latency_seconds * 1e6,
        shared_rate = SHARED_MEMORY.bytes_per_second / 1e9,
        grpc = LOOPBACK.latency_seconds * 1e6,
        grpc_rate = LOOPBACK.bytes_per_second / 1e9,
        name = model::NAME,
        world = WORLD,
        context = CONTEXT,
    )
}

fn table(stages: &[Stage]) -> String {
    let mut lines = vec![
        "| | kernel | issue, µs | read, µs | limited by | a step, ms |".to_owned(),
        "|---|---|--:|--:|---|--:|".to_owned(),
    ];
    lines.extend(stages.iter().map(|stage| {
        let time = stage.time;
        format!(
            "| {} | `{}` | {:.1} | {:.1} | {} | {:.2} |",
            stage.name,
            stage.kernel,
            time.issue * 1e6,
            time.read * 1e6,
            if time.issue > time.read { "issue" } else { "reading" },
            stage.step_seconds() * 1e3,
        )
    }));
    lines.push(String::new());
    lines.join("\n")
}

/// A step, added up.
struct Sum {
    batch: u32,
    link: &'static str,
    read: f64,
    issue: f64,
    launches: f64,
    collectives: f64,
}

impl Sum {
    fn new(batch: u32, stages: &[Stage], link: Link, name: &'static str) -> Self {
        let limited = |by_issue: bool| -> f64 {
            let of = |stage: &&Stage| (stage.time.issue > stage.time.read) == by_issue;
            // An empty sum would be -0.
            stages.iter().filter(of).map(Stage::step_seconds).fold(0.0, |sum, it| sum + it)
        };
        let message = f64::from(batch) * model::HIDDEN * SUM_BYTES;
        Self {
            batch,
            link: name,
            read: limited(false),
            issue: limited(true),
            launches: (model::LAYERS * f64::from(LAUNCHES_PER_LAYER)
                + f64::from(LAUNCHES_PER_STEP))
                * LAUNCH_SECONDS,
            collectives: model::LAYERS * ALL_REDUCES * link.all_reduce(WORLD, message),
        }
    }

    fn seconds(&self) -> f64 {
        self.read + self.issue + self.launches + self.collectives
    }

    fn dominant(&self) -> &'static str {
        let terms = [
            (self.read, "reading"),
            (self.issue, "issue"),
            (self.launches, "launches"),
            (self.collectives, "all-reduces"),
        ];
        let most = terms.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        most.map_or("reading", |(_, name)| name)
    }
}

fn conclusion(sums: &[Sum]) -> String {
    let mut lines = vec![
        "## Altogether".to_owned(),
        String::new(),
        "Milliseconds of a step: kernels that reading limits, kernels that issue limits, starting kernels,\n\
         all-reduces. Nothing is taken to overlap."
            .to_owned(),
        String::new(),
        "| batch | all-reduces over | reading | issue | launches | all-reduces | sum | tokens/s | most is |"
            .to_owned(),
        "|--:|---|--:|--:|--:|--:|--:|--:|---|".to_owned(),
    ];
    lines.extend(sums.iter().map(|sum| {
        format!(
            "| {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | **{:.0}** | {} |",
            sum.batch,
            sum.link,
            sum.read * 1e3,
            sum.issue * 1e3,
            sum.launches * 1e3,
            sum.collectives * 1e3,
            sum.seconds() * 1e3,
            f64::from(sum.batch) / sum.seconds(),
            sum.dominant(),
        )
    }));
    lines.push(String::new());
    lines.join("\n")
}
