//! What `serve`, `coordinator` and `generate` share: the engine over its ranks.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use checkpoint::Checkpoint;
use coordinator::{ApiKeys, Coordinator, CoordinatorConfig, Patience, Roster, ServingLimits};
use tls::ServerCertificate;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{EngineConfig, HttpConfig, KvCacheSize};
use crate::{loading, terminal};

/// Whom the API lets in, and what it proves to them.
#[derive(Debug)]
pub(crate) struct Door {
    keys: ApiKeys,
    certificate: Option<ServerCertificate>,
}

/// Reads the files of keys and certificates.
pub(crate) fn door(http: &HttpConfig) -> anyhow::Result<Door> {
    let keys: Vec<String> = http.api_keys.iter().map(|key| key.0.clone()).collect();
    let mut keys = ApiKeys::new(&keys).context("--api-key")?;
    if let Some(file) = &http.api_key_file {
        keys = keys.and_file(file).context("--api-key-file")?;
    }
    let load = |(certificate, key): &(PathBuf, PathBuf)| {
        ServerCertificate::load(certificate.clone(), key.clone())
    };
    let certificate = http.certificate.as_ref().map(load).transpose();
    Ok(Door { keys, certificate: certificate.context("--http-cert, --http-key")? })
}

/// What a coordinator is to do.
pub(crate) fn config(served_name: String, engine: &EngineConfig) -> CoordinatorConfig {
    CoordinatorConfig {
        served_names: vec![served_name],
        limits: limits(engine),
        patience: Patience { queue_max: engine.queue_wait, ..Patience::default() },
        record: engine.record.clone(),
    }
}

/// The bounds in the coordinator's terms.
fn limits(engine: &EngineConfig) -> ServingLimits {
    let (kv_blocks, kv_cache_bytes) = match engine.kv_cache {
        KvCacheSize::ByMemory => (None, None),
        KvCacheSize::Blocks(blocks) => (Some(blocks), None),
        KvCacheSize::Bytes(bytes) => (None, Some(bytes)),
    };
    ServingLimits {
        model_len_max: engine.model_len_max,
        sequences_max: engine.sequences_max,
        step_tokens_max: engine.step_tokens_max,
        block_size: engine.block_size,
        kv_blocks,
        kv_cache_bytes,
        kv_dtype: engine.kv_dtype,
        swap_bytes: engine.swap_bytes,
        ceiling: engine.ceiling,
        overlong: engine.overlong,
        queue_max: engine.waiting_max,
        policy: engine.policy,
        admission: engine.admission,
        prefix_cache: engine.prefix_cache,
        ..ServingLimits::default()
    }
}

/// Starts to form the group of workers.
pub(crate) fn start(
    config: CoordinatorConfig,
    checkpoint: &Checkpoint,
    roster: impl Into<Roster>,
    shutdown: CancellationToken,
) -> anyhow::Result<Coordinator> {
    // A large vocabulary takes a moment, in which the ranks' tasks and signals go on.
    Ok(tokio::task::block_in_place(|| {
        Coordinator::start(config, checkpoint, roster.into(), shutdown)
    })?)
}

/// Serves until `shutdown`: listens at once, answers when the ranks have loaded.
pub(crate) async fn serve(
    coordinator: Coordinator,
    listener: TcpListener,
    door: Door,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let guarded = !door.keys.is_open();
    let scheme = if door.certificate.is_some() { "https" } else { "http" };
    let address = format!("{scheme}://{}", listener.local_addr()?);
    let coordinator = coordinator.with_keys(door.keys).with_certificate(door.certificate);
    let state = coordinator.state();
    let served = tokio::spawn(coordinator.serve(listener));
    if loading::shown(state).await {
        announce(&address, guarded)?;
    }
    served.await??;
    if !shutdown.is_cancelled() {
        bail!("the engine ended by itself");
    }
    Ok(())
}

/// The address, and a line to try it with.
fn announce(address: &str, guarded: bool) -> anyhow::Result<()> {
    let key = if guarded { "\n    -H 'Authorization: Bearer YOUR-KEY' \\" } else { "" };
    terminal::say(&format!(
        "listening on {address}\n  \
         curl -N {address}/v1/chat/completions \\{key}\n    \
         -H 'Content-Type: application/json' \\\n    \
         -d '{{\"messages\": [{{\"role\": \"user\", \"content\": \"Why is the sky blue?\"}}], \
         \"stream\": true}}'"
    ))?;
    Ok(())
}
