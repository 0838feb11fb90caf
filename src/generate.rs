//! `arcmesh generate`: one answer on the terminal, streamed.

use std::time::{Instant, SystemTime};

use anyhow::{Context as _, bail};
use coordinator::{
    Answer, AnswerEvent, ChatTemplate, Conversation, Coordinator, Submission, Tokenizer, Wishes,
};
use scheduler::{FinishReason, NewGroup, Sampling, TenantId, TokenCount, TokenId};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use worker::metrics::WorkerMetrics;

use crate::config::GenerateConfig;
use crate::{front, loading, models, ranks, shutdown, terminal};

/// Answers the prompt with the likeliest tokens, until the answer ends or somebody interrupts.
pub(crate) async fn run(config: GenerateConfig) -> anyhow::Result<()> {
    let interrupted = shutdown::token()?;
    let name = config.model.reference.served_name();
    let checkpoint = models::open(config.model).await?;
    let metrics = WorkerMetrics::new();
    let (members, ranks) = ranks::start(&checkpoint, &config.device, &metrics, config.world)?;
    let stop = CancellationToken::new();
    let asked = front::config(name, &config.engine);
    let coordinator = front::start(asked, &checkpoint, members, stop.clone())?;
    let api = coordinator.api();
    let prompt = prompt(&config.prompt, &api.tokenizer, &api.template)?;
    let answering = answered(coordinator, prompt, interrupted, stop.clone());
    ranks.unless_lost(answering, || stop.cancel()).await
}

/// Streams the answer, and ends the ranks' work.
async fn answered(
    coordinator: Coordinator,
    prompt: Vec<u32>,
    interrupted: CancellationToken,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let api = coordinator.api().clone();
    if !loading::shown(coordinator.state()).await {
        coordinator.ended().await?;
        bail!("the model was not loaded");
    }
    let group = NewGroup {
        prompt: prompt.into_iter().map(TokenId).collect(),
        sequences: 1,
        sampling: Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0 },
        tokens_max: None,
        tokens_min: TokenCount(0),
        ignore_end: false,
        stop_tokens: Vec::new(),
        whole_prompt: false,
        priority: 0,
        tenant: TenantId(0),
    };
    let submission = Submission {
        group,
        wishes: Wishes::default(),
        arrival: Instant::now(),
        timeout: None,
        request_id: "generate".to_owned(),
        choices: 1,
    };
    let answer = api.engine.submit(submission).await?;
    let ended = tokio::select! {
        ended = show(answer, &api.tokenizer) => ended,
        () = interrupted.cancelled() => Ok(()),
    };
    terminal::say("")?;
    stop.cancel();
    ended?;
    Ok(coordinator.ended().await?)
}

fn prompt(text: &str, tokenizer: &Tokenizer, template: &ChatTemplate) -> anyhow::Result<Vec<u32>> {
    let conversation = Conversation {
        messages: vec![json!({ "role": "user", "content": text })],
        add_generation_prompt: true,
        ..Conversation::default()
    };
    let rendered = template
        .render(conversation, tokenizer, SystemTime::now())
        .context("the model's chat template failed")?;
    Ok(tokenizer.encode_rendered(&rendered)?)
}

async fn show(mut answer: Answer, tokenizer: &Tokenizer) -> anyhow::Result<()> {
    while let Some(event) = answer.next().await {
        match event {
            AnswerEvent::Token { token: TokenId(token), .. } if !tokenizer.is_special(token) => {
                terminal::write(tokenizer.token_bytes(token).unwrap_or_default())?;
            }
            AnswerEvent::SequenceFinished { reason: FinishReason::Length(limit), .. } => {
                tracing::info!(?limit, "the answer was cut off by a limit");
            }
            AnswerEvent::Failed { message, .. } => bail!(message),
            AnswerEvent::Token { .. }
            | AnswerEvent::Prompt { .. }
            | AnswerEvent::SequenceFinished { .. }
            | AnswerEvent::Finished { .. } => {}
        }
    }
    Ok(())
}
