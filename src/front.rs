//! What `serve`, `coordinator` and `generate` share: the engine over its ranks.

use anyhow::bail;
use checkpoint::Checkpoint;
use coordinator::{Coordinator, CoordinatorConfig, Patience, Roster, ServingLimits};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{EngineConfig, HttpConfig, KvCacheSize};
use crate::{loading, terminal};

/// What a coordinator is to do for `http`.
pub(crate) fn config(http: &HttpConfig, engine: &EngineConfig) -> CoordinatorConfig {
    let api_keys = http.api_keys.iter().map(|key| key.0.clone()).collect();
    CoordinatorConfig { api_keys, ..unguarded(http.served_model_name.clone(), engine) }
}

/// What a coordinator is to do where nobody else can ask it.
pub(crate) fn unguarded(served_name: String, engine: &EngineConfig) -> CoordinatorConfig {
    CoordinatorConfig {
        served_names: vec![served_name],
        api_keys: Vec::new(),
        limits: limits(engine),
        patience: Patience { queue_max: engine.queue_wait, ..Patience::default() },
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
    shutdown: CancellationToken,
    guarded: bool,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?.to_string();
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
        "listening on http://{address}\n  \
         curl -N http://{address}/v1/chat/completions \\{key}\n    \
         -H 'Content-Type: application/json' \\\n    \
         -d '{{\"messages\": [{{\"role\": \"user\", \"content\": \"Why is the sky blue?\"}}], \
         \"stream\": true}}'"
    ))?;
    Ok(())
}
