//! Coordinator and workers, as processes of this machine.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::demo::check::Check;
use crate::demo::process::Process;

/// A site that serves.
#[derive(Debug)]
pub(super) struct Site {
    coordinator: Process,
    url: String,
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    process: Process,
    /// `http://host:port`, where its figures are.
    metrics: String,
}

impl Site {
    /// Starts all of it and waits until it answers. Blocks.
    pub(super) fn start(
        folder: &Path,
        (model, name): (&Path, &str),
        (world, threads, kv_blocks): (usize, usize, u32),
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("where is arcmesh?")?;
        let mut workers = Vec::new();
        let mut coordinating = Command::new(&program);
        // The demo asks without a key, by plain HTTP.
        for name in ["API_KEY", "API_KEY_FILE", "HTTP_CERT", "HTTP_KEY"] {
            coordinating.env_remove(format!("ARCMESH_{name}"));
        }
        coordinating.args(["coordinator", "--host", "127.0.0.1", "--port", "0"]);
        coordinating.args(["--kv-blocks", &kv_blocks.to_string()]);
        coordinating.args(["--served-model-name", name]).arg("--model").arg(model);
        for rank in 0..world {
            let mut command = Command::new(&program);
            command.args(["worker", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
            command.args(["--threads", &threads.to_string()]).arg("--model").arg(model);
            let process = Process::start(&format!("worker-{rank}"), &mut command, folder)?;
            let said = process.says("worker on ")?;
            let (address, metrics) =
                said.split_once(", metrics on ").context("a worker says where its metrics are")?;
            coordinating.args(["--worker", address]);
            let metrics = metrics.trim_end_matches("/metrics").to_owned();
            workers.push(Worker { process, metrics });
        }
        let coordinator = Process::start("coordinator", &mut coordinating, folder)?;
        let url = coordinator.says("listening on ")?;
        Ok(Self { coordinator, url, workers })
    }

    /// Where it is asked.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Where the figures are: the coordinator's first, then each worker's.
    pub(super) fn pages(&self) -> Vec<String> {
        let workers = self.workers.iter().map(|worker| worker.metrics.clone());
        std::iter::once(self.url.clone()).chain(workers).collect()
    }

    /// Names and numbers of the processes, the coordinator's first.
    pub(super) fn processes(&self) -> Vec<(String, u32)> {
        let coordinator = ("coordinator".to_owned(), self.coordinator.pid());
        let workers = self.workers.iter().enumerate();
        let workers = workers.map(|(rank, it)| (format!("worker {rank}"), it.process.pid()));
        std::iter::once(coordinator).chain(workers).collect()
    }

    /// Ends all of it, the coordinator first, as it asks the workers.
    pub(super) fn end(self) -> Vec<Check> {
        let workers = self.workers.into_iter().map(|worker| worker.process);
        std::iter::once(self.coordinator).chain(workers).map(Process::end).collect()
    }
}
