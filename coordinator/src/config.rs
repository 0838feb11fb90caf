//! What an operator can set, as plain data. Nothing is read from the environment here: the command
//! does that, and these are validated before any port is bound.

use std::time::Duration;

use proto::worker::KvDtype;
use scheduler::{Admission, Policy};

use crate::ceiling::Ceiling;
use crate::record::RecordTo;

/// A coordinator's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorConfig {
    /// Names that requests may use for it; the first is its name in metrics. At least one.
    pub served_names: Vec<String>,
    /// What is served, and how much of it at once.
    pub limits: ServingLimits,
    /// How long anything may take.
    pub patience: Patience,
    /// Where it is recorded what the scheduler is told and plans.
    pub record: Option<RecordTo>,
}

/// What is served, and how much of it at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingLimits {
    /// Longest sequence, tokens; none: what the model and the KV cache hold.
    pub model_len_max: Option<u32>,
    /// Sequences of one step.
    pub sequences_max: u32,
    /// Tokens of one step: no running answer waits longer for its next token than a step of this
    /// many takes, however long a prompt arrives.
    pub step_tokens_max: u32,
    /// Tokens a KV block holds.
    pub block_size: u32,
    /// KV blocks to reserve; none: see `kv_cache_bytes`.
    pub kv_blocks: Option<u32>,
    /// Bytes of KV cache on each rank; none: the rank decides from its memory.
    pub kv_cache_bytes: Option<u64>,
    /// What keys and values are kept as.
    pub kv_dtype: KvDtype,
    /// Bytes of host memory on each rank to swap KV blocks to; none: the rank decides.
    pub swap_bytes: Option<u64>,
    /// Most tokens generated, whatever the request says.
    pub ceiling: Ceiling,
    /// What is done with a request that asks for more tokens than the context or the ceiling leaves.
    pub overlong: Overlong,
    /// In which order requests are served.
    pub policy: Policy,
    /// What a request that is let in gets room for.
    pub admission: Admission,
    /// KV blocks are kept after use, and prompts that begin alike are computed once.
    pub prefix_cache: bool,
    /// Groups that may wait; one more is refused.
    pub queue_max: usize,
    /// Events of an answer that its reader may leave unread; one more and it is cut off.
    pub unread_max: usize,
}

/// What is done with a request that asks for more tokens than the context or the ceiling leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlong {
    /// Its answer ends there, with `length`.
    #[default]
    Clamp,
    /// It is refused.
    Reject,
}

/// How long anything may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// Longest deadline of a step. Deadlines follow measured steps and are shorter as a rule.
    pub step_max: Duration,
    /// A rank that loads tells of progress at least this often.
    pub load_silence_max: Duration,
    /// Answers that a lost rank interrupted wait this long for the group to be back.
    pub reform_max: Duration,
    /// A request waits at most this long for its first step; then it is given up.
    pub queue_max: Duration,
    /// A lost rank may come back, or a spare take its place, for this long; then those who are left
    /// go on alone, if they can.
    pub shrink_after: Duration,
    /// Running answers may go on this long after a shutdown was asked for.
    pub drain_max: Duration,
    /// An idle group runs a heartbeat this often.
    pub heartbeat_every: Duration,
}

impl Default for ServingLimits {
    fn default() -> Self {
        Self {
            model_len_max: None,
            sequences_max: 256,
            step_tokens_max: 512,
            block_size: 16,
            kv_blocks: None,
            kv_cache_bytes: None,
            kv_dtype: KvDtype::F16,
            swap_bytes: None,
            ceiling: Ceiling::default(),
            overlong: Overlong::default(),
            policy: Policy::Fcfs,
            admission: Admission::Expected,
            prefix_cache: true,
            queue_max: 1024,
            unread_max: 4096,
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            step_max: Duration::from_secs(600),
            load_silence_max: Duration::from_secs(120),
            reform_max: Duration::from_secs(30),
            queue_max: Duration::from_secs(300),
            shrink_after: Duration::from_secs(3),
            drain_max: Duration::from_secs(30),
            heartbeat_every: Duration::from_secs(1),
        }
    }
}

/// What is wrong with a configuration. Each message names the flags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A number is zero that may not be.
    #[error("--{0} must be at least 1")]
    Zero(&'static str),
    /// Every running sequence has a token in every step, so a step must have room for all.
    #[error(
        "--max-num-batched-tokens {step_tokens} must be at least --max-num-seqs {sequences}: \
         every running sequence has a token in every step"
    )]
    StepTooSmall {
        /// Tokens of a step.
        step_tokens: u32,
        /// Sequences of a step.
        sequences: u32,
    },
    /// Two ways to say how large the KV cache is.
    #[error("--kv-blocks and --kv-cache-memory say the same thing: give one of them")]
    CacheTwice,
    /// Longer than the model was made for.
    #[error("--max-model-len {wanted} is more than the model's context of {context} tokens")]
    TooLong {
        /// Asked for.
        wanted: u32,
        /// Possible.
        context: u32,
    },
    /// Longer than the KV cache holds.
    #[error(
        "--max-model-len {wanted} needs more KV cache than there is: {blocks} blocks hold {capacity} \
         tokens. Lower it, or raise --kv-blocks or --kv-cache-memory"
    )]
    CacheTooSmall {
        /// Asked for.
        wanted: u32,
        /// Blocks reserved.
        blocks: u32,
        /// Tokens they hold.
        capacity: u32,
    },
    /// A model without a name cannot be asked for.
    #[error("--served-model-name must not be empty")]
    NoName,
}

impl CoordinatorConfig {
    /// The same, once it makes sense by itself.
    ///
    /// # Errors
    /// [`ConfigError`], which names the flags.
    pub fn validate(self) -> Result<Self, ConfigError> {
        if self.served_names.is_empty() || self.served_names.iter().any(String::is_empty) {
            return Err(ConfigError::NoName);
        }
        Ok(Self { limits: self.limits.validate()?, ..self })
    }
}

impl ServingLimits {
    /// The same, once they make sense by themselves.
    ///
    /// # Errors
    /// [`ConfigError`], which names the flags.
    pub fn validate(self) -> Result<Self, ConfigError> {
        let positive = [
            ("max-num-seqs", self.sequences_max > 0),
            ("max-num-batched-tokens", self.step_tokens_max > 0),
            ("block-size", self.block_size > 0),
            ("max-model-len", self.model_len_max != Some(0)),
            ("kv-blocks", self.kv_blocks != Some(0)),
            ("kv-cache-memory", self.kv_cache_bytes != Some(0)),
            ("default-max-tokens", self.ceiling.usual != Some(0)),
            ("max-generation-tokens", self.ceiling.sequence != Some(0)),
            ("max-generation-tokens-per-group", self.ceiling.group != Some(0)),
            ("queue-max", self.queue_max > 0),
            ("unread-max", self.unread_max > 0),
        ];
        if let Some((flag, _)) = positive.iter().find(|(_, fits)| !fits) {
            return Err(ConfigError::Zero(flag));
        }
        if self.step_tokens_max < self.sequences_max {
            return Err(ConfigError::StepTooSmall {
                step_tokens: self.step_tokens_max,
                sequences: self.sequences_max,
            });
        }
        if self.kv_blocks.is_some() && self.kv_cache_bytes.is_some() {
            return Err(ConfigError::CacheTwice);
        }
        Ok(self)
    }

    /// The longest sequence that a model of this context may have, before the KV cache is known.
    ///
    /// # Errors
    /// [`ConfigError::TooLong`].
    pub fn model_len_wanted(&self, context: u32) -> Result<u32, ConfigError> {
        match self.model_len_max {
            Some(wanted) if wanted > context => Err(ConfigError::TooLong { wanted, context }),
            Some(wanted) => Ok(wanted),
            None => Ok(context),
        }
    }

    /// The longest sequence once `blocks` are reserved.
    ///
    /// # Errors
    /// [`ConfigError::TooLong`] and [`ConfigError::CacheTooSmall`].
    pub fn model_len(&self, context: u32, blocks: u32) -> Result<u32, ConfigError> {
        let wanted = self.model_len_wanted(context)?;
        let capacity = blocks.saturating_mul(self.block_size);
        if self.model_len_max.is_some() && wanted > capacity {
            return Err(ConfigError::CacheTooSmall { wanted, blocks, capacity });
        }
        Ok(wanted.min(capacity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_make_sense() {
        let limits = ServingLimits::default();
        assert_eq!(limits.clone().validate(), Ok(limits));
    }

    #[test]
    fn a_step_has_room_for_every_sequence() {
        let limits = ServingLimits { sequences_max: 513, ..ServingLimits::default() };
        let error = limits.validate().unwrap_err().to_string();
        assert!(error.contains("--max-num-batched-tokens 512"), "{error}");
        assert!(error.contains("--max-num-seqs 513"), "{error}");
    }

    #[test]
    fn zeros_and_two_ways_to_say_one_thing_are_named() {
        let limits = ServingLimits { kv_blocks: Some(0), ..ServingLimits::default() };
        assert_eq!(limits.validate(), Err(ConfigError::Zero("kv-blocks")));
        let limits = ServingLimits {
            kv_blocks: Some(1),
            kv_cache_bytes: Some(1),
            ..ServingLimits::default()
        };
        assert_eq!(limits.validate(), Err(ConfigError::CacheTwice));
    }

    #[test]
    fn the_longest_sequence_is_the_least_of_model_cache_and_wish() {
        let limits = ServingLimits::default();
        assert_eq!(limits.model_len(8192, 1000), Ok(8192));
        assert_eq!(limits.model_len(8192, 10), Ok(160));
        let wish = ServingLimits { model_len_max: Some(100), ..limits };
        assert_eq!(wish.model_len(8192, 10), Ok(100));
        assert!(wish.model_len(8192, 6).is_err());
        assert!(wish.model_len(99, 1000).is_err());
    }
}
