//! A server, what its model is called, and what a word costs it.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::config::{AskedConfig, Endpoint, Prompts, ServerConfig};
use crate::load::http::{HttpError, Origin};
use crate::load::prompts::{Asked, WordLength, words_of};
use crate::load::random::Random;

/// Words of the two prompts that show what a word costs.
const PROBES: [usize; 2] = [4, 68];

/// A server that can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Where it is.
    pub(crate) origin: Origin,
    /// What its model is called.
    pub(crate) model: String,
    /// Longest that an answer may take.
    pub(crate) timeout: Duration,
    endpoint: Endpoint,
    ignore_eos: bool,
    temperature: f64,
}

impl Target {
    /// Finds out what its model is called, unless that is given.
    pub(crate) async fn new(
        server: &ServerConfig,
        asked: &AskedConfig,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let key = server.api_key.as_ref().map(|key| key.0.clone());
        let origin = Origin::new(&server.url, key).context("--url")?;
        let model = match &server.model {
            Some(model) => model.clone(),
            None => first_model(&origin).await.context("--url: which models are there?")?,
        };
        Ok(Self {
            origin,
            model,
            timeout,
            endpoint: server.endpoint,
            ignore_eos: asked.ignore_eos,
            temperature: asked.temperature,
        })
    }

    /// Where requests go.
    pub(crate) fn path(&self) -> &'static str {
        match self.endpoint {
            Endpoint::Chat => "/v1/chat/completions",
            Endpoint::Completions => "/v1/completions",
        }
    }

    /// A request's body.
    pub(crate) fn body(&self, asked: &Asked) -> Bytes {
        let mut body = self.whole(asked);
        body["stream"] = json!(true);
        body["stream_options"] = json!({ "include_usage": true });
        Bytes::from(body.to_string())
    }

    fn whole(&self, asked: &Asked) -> Value {
        let mut body = json!({
            "model": self.model,
            "max_tokens": asked.tokens_max,
            "temperature": self.temperature,
        });
        match self.endpoint {
            Endpoint::Chat => {
                body["messages"] = json!([{ "role": "user", "content": asked.prompt }]);
            }
            Endpoint::Completions => body["prompt"] = json!(asked.prompt),
        }
        // Not every server knows it: it is left out where it says nothing.
        if self.ignore_eos {
            body["ignore_eos"] = json!(true);
        }
        body
    }

    /// What a word costs: two short requests, which warm the server up as well. Where the server does
    /// not count tokens, a word is taken for one.
    pub(crate) async fn word_length(&self, prompts: &Prompts) -> anyhow::Result<WordLength> {
        if matches!(prompts, Prompts::File(_)) {
            return Ok(WordLength::UNKNOWN);
        }
        let mut found = Vec::new();
        for words in PROBES {
            // The same words, whatever the seed: what a word costs should not depend on it.
            let prompt = words_of(words, &mut Random::new(0, 0));
            let asked = Asked { prompt, tokens_max: 1 };
            let body = Bytes::from(self.whole(&asked).to_string());
            let answer = self.origin.post(self.path(), body).await.context("the first request")?;
            let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
            let tokens = answer["usage"]["prompt_tokens"].as_u64();
            let Some(tokens) = tokens.and_then(|tokens| u32::try_from(tokens).ok()) else {
                return Ok(WordLength::UNKNOWN);
            };
            found.push((words, tokens));
        }
        Ok(WordLength::measured(found[0], found[1]))
    }
}

async fn first_model(origin: &Origin) -> anyhow::Result<String> {
    let text = origin.page("/v1/models").await?;
    let listed: Value = serde_json::from_str(&text).unwrap_or_default();
    let first = listed["data"][0]["id"].as_str().map(str::to_owned);
    let none = || HttpError::Address("/v1/models lists none: say --served-model-name".to_owned());
    Ok(first.ok_or_else(none)?)
}
