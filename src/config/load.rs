//! What load is put on a server, and by which requests.

use std::path::PathBuf;
use std::time::Duration;

use catalogue::Secret;

use crate::config::bench::JsonOutput;
use crate::config::given::{Given, UsageError};
use crate::config::values;

/// More than any machine has sockets for.
const IN_FLIGHT_MAX: u64 = 16_384;
/// More than anybody waits for.
const REQUESTS_MAX: u64 = 10_000_000;
/// A week.
const SECONDS_MAX: f64 = 604_800.0;
/// More tokens than any context has.
const TOKENS_MAX: u64 = 1 << 24;

/// `arcmesh bench serve`.
#[derive(Debug, Clone)]
pub(crate) struct BenchServeConfig {
    /// Who is asked.
    pub(crate) server: ServerConfig,
    /// When requests start.
    pub(crate) load: LoadConfig,
    /// What they ask.
    pub(crate) asked: AskedConfig,
    /// Where the figures go as JSON.
    pub(crate) json: Option<JsonOutput>,
    /// Where the report goes.
    pub(crate) html: Option<PathBuf>,
    /// Whether the server's figures are compared with ours.
    pub(crate) reconcile: bool,
}

/// A server with an OpenAI API.
#[derive(Debug, Clone)]
pub(crate) struct ServerConfig {
    /// Its address, without a slash at the end and without `/v1`.
    pub(crate) url: String,
    /// The model that is asked for; without, the first that it lists.
    pub(crate) model: Option<String>,
    /// The key that it wants.
    pub(crate) api_key: Option<Secret>,
    /// What is asked.
    pub(crate) endpoint: Endpoint,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
}

/// When requests start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LoadConfig {
    /// One after another, at random, or in waves.
    pub(crate) shape: Shape,
    /// How many are started at most.
    pub(crate) requests_max: Option<u64>,
    /// After how long no more are started.
    pub(crate) duration_max: Option<Duration>,
    /// Longest that an answer may take.
    pub(crate) timeout: Duration,
    /// Where everything random comes from.
    pub(crate) seed: u64,
}

/// How requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    /// So many under way at once.
    Steady {
        /// How many.
        concurrency: usize,
    },
    /// At random moments.
    Poisson {
        /// Requests a second, on average.
        rate: f64,
        /// Most under way at once.
        in_flight_max: usize,
    },
    /// Swelling from one to a crest and ebbing again.
    Wave {
        /// Under way at once at the crest.
        crest: usize,
        /// From one ebb to the next.
        period: Duration,
    },
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AskedConfig {
    /// Where prompts come from.
    pub(crate) prompts: Prompts,
    /// Most tokens of an answer.
    pub(crate) answer: Lengths,
    /// Whether answers go on to their full length.
    pub(crate) ignore_eos: bool,
    /// How freely tokens are chosen.
    pub(crate) temperature: f64,
}

/// Where prompts come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Prompts {
    /// Made up, of such lengths.
    Synthetic(Lengths),
    /// From conversations in ShareGPT's JSON.
    File(PathBuf),
}

/// How token counts are spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Lengths {
    /// All the same.
    Fixed(u32),
    /// Any from the first to the second, both included.
    Uniform(u32, u32),
    /// Around the first, with the second as standard deviation.
    Normal(f64, f64),
    /// Many short ones, few long ones, so many on average.
    Exponential(f64),
}

/// What `arcmesh bench serve` is to do.
pub(crate) fn bench_serve(given: &mut Given) -> Result<BenchServeConfig, UsageError> {
    Ok(BenchServeConfig {
        server: server(given)?,
        load: load(given)?,
        asked: asked(given, Lengths::Fixed(128), Lengths::Fixed(64))?,
        json: given.one("json", JsonOutput::parse)?,
        html: given.one("html", file)?,
        reconcile: given.one("reconcile", values::switch)?.unwrap_or(false),
    })
}

fn server(given: &Given) -> Result<ServerConfig, UsageError> {
    let url = given.one("url", values::url)?;
    let url = url.unwrap_or_else(|| "http://127.0.0.1:8000".to_owned());
    let url = url.trim_end_matches('/');
    let endpoint = given.one("endpoint", |text| match text {
        "chat" => Ok(Endpoint::Chat),
        "completions" => Ok(Endpoint::Completions),
        _ => Err(format!("'{text}' is not one of chat and completions")),
    })?;
    Ok(ServerConfig {
        url: url.strip_suffix("/v1").unwrap_or(url).to_owned(),
        model: given.one("served-model-name", values::name)?,
        api_key: given.many("api-key", values::key)?.into_iter().next(),
        endpoint: endpoint.unwrap_or(Endpoint::Chat),
    })
}

fn load(given: &mut Given) -> Result<LoadConfig, UsageError> {
    given.exclude("rate", "wave")?;
    let concurrency = given.one("concurrency", size)?;
    let rate = given.one("rate", real(1e-3, 1e5))?;
    let wave = given.one("wave", seconds)?;
    let shape = match (rate, wave) {
        (Some(rate), _) => Shape::Poisson { rate, in_flight_max: concurrency.unwrap_or(1024) },
        (None, Some(period)) => Shape::Wave { crest: concurrency.unwrap_or(8), period },
        (None, None) => Shape::Steady { concurrency: concurrency.unwrap_or(8) },
    };
    let duration_max = given.one("duration", seconds)?;
    let requests_max = given.one("requests", values::number(1, REQUESTS_MAX))?;
    Ok(LoadConfig {
        shape,
        requests_max: requests_max.or_else(|| duration_max.is_none().then_some(100)),
        duration_max,
        timeout: given.one("timeout", seconds)?.unwrap_or(Duration::from_secs(600)),
        seed: given.one("seed", values::number(0, u64::MAX))?.unwrap_or(1),
    })
}

/// `prompt`, `answer`: how long they are unless it is said otherwise.
pub(super) fn asked(
    given: &mut Given,
    prompt: Lengths,
    answer: Lengths,
) -> Result<AskedConfig, UsageError> {
    given.exclude("prompts", "prompt-tokens")?;
    let synthetic = given.one("prompt-tokens", lengths)?.unwrap_or(prompt);
    let from_file = given.one("prompts", file)?.map(Prompts::File);
    Ok(AskedConfig {
        prompts: from_file.unwrap_or(Prompts::Synthetic(synthetic)),
        answer: given.one("answer-tokens", lengths)?.unwrap_or(answer),
        ignore_eos: given.one("ignore-eos", values::switch)?.unwrap_or(false),
        temperature: given.one("temperature", real(0.0, 2.0))?.unwrap_or(0.0),
    })
}

pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("say a file".to_owned()) } else { Ok(PathBuf::from(text)) }
}

pub(super) fn size(text: &str) -> Result<usize, String> {
    let number = values::number(1, IN_FLIGHT_MAX)(text)?;
    Ok(usize::try_from(number).unwrap_or(1))
}

/// A number with or without a fraction, within bounds.
pub(super) fn real(least: f64, most: f64) -> impl Fn(&str) -> Result<f64, String> {
    move |text| match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("'{text}' is not a number from {least} to {most}")),
    }
}

/// A span of time, from a millisecond to a week.
fn seconds(text: &str) -> Result<Duration, String> {
    Ok(Duration::from_secs_f64(real(1e-3, SECONDS_MAX)(text)?))
}

/// `128`, `uniform:32..512`, `normal:256,64` or `exponential:256`.
fn lengths(text: &str) -> Result<Lengths, String> {
    let wrong = || {
        format!(
            "'{text}' is not a length such as 128, uniform:32..512, normal:256,64 or exponential:256"
        )
    };
    let tokens = |text: &str| {
        let number = values::number(1, TOKENS_MAX)(text).map_err(|_| wrong())?;
        u32::try_from(number).map_err(|_| wrong())
    };
    let Some((kind, values)) = text.split_once(':') else {
        return tokens(text).map(Lengths::Fixed);
    };
    match kind {
        "uniform" => {
            let (least, most) = values.split_once("..").ok_or_else(wrong)?;
            let (least, most) = (tokens(least)?, tokens(most)?);
            if least > most { Err(wrong()) } else { Ok(Lengths::Uniform(least, most)) }
        }
        "normal" => {
            let (mean, deviation) = values.split_once(',').ok_or_else(wrong)?;
            Ok(Lengths::Normal(tokens(mean)?.into(), tokens(deviation)?.into()))
        }
        "exponential" => Ok(Lengths::Exponential(tokens(values)?.into())),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_fixed_or_spread() {
        for (text, expected) in [
            ("128", Lengths::Fixed(128)),
            ("uniform:32..512", Lengths::Uniform(32, 512)),
            ("normal:256,64", Lengths::Normal(256.0, 64.0)),
            ("exponential:9", Lengths::Exponential(9.0)),
        ] {
            assert_eq!(lengths(text), Ok(expected));
        }
        for text in ["", "0", "-1", "uniform:5..4", "uniform:5", "normal:1", "zipf:3", "x", "1:2"] {
            assert!(lengths(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_shape_follows_from_what_was_given() {
        let shape = |words: &[&str]| {
            let words = [&["bench", "serve"], words].concat();
            load(&mut Given::of(&words, &[]).unwrap()).unwrap().shape
        };
        assert_eq!(shape(&[]), Shape::Steady { concurrency: 8 });
        assert_eq!(shape(&["--rate", "2.5"]), Shape::Poisson { rate: 2.5, in_flight_max: 1024 });
        let period = Duration::from_secs(30);
        assert_eq!(
            shape(&["--wave", "30", "--concurrency", "5"]),
            Shape::Wave { crest: 5, period }
        );
    }

    #[test]
    fn the_address_is_taken_with_or_without_its_version() {
        for url in ["http://a:1", "http://a:1/", "http://a:1/v1", "http://a:1/v1/"] {
            let given = Given::of(&["bench", "serve", "--url", url], &[]).unwrap();
            assert_eq!(server(&given).unwrap().url, "http://a:1");
        }
    }
}
