//! A model's configuration from GGUF metadata.

use crate::config::rope::{Rope, Scaling, Yarn, yarn_attention};
use crate::config::{Activation, LayerKind, ModelConfig, SERVED, check_layer_count, pattern};
use crate::dequantize::dequantize;
use crate::error::{CheckpointError, shown};
use crate::gguf::{Gguf, vocabulary};
use crate::names::{LayerTensor, TensorName};

/// Local layers to a global one in Gemma 3, the global one included.
const GEMMA_PATTERN: usize = 6;
/// Gemma 3 27B scales attention by its residual stream's share, not by the head.
const GEMMA_27B_LAYERS: usize = 62;

/// Reads everything but what [`ModelConfig::validate`] checks.
pub(crate) fn read(gguf: &Gguf) -> Result<ModelConfig, CheckpointError> {
    let architecture = gguf
        .text("general.architecture")?
        .ok_or_else(|| gguf.damaged("general.architecture is missing"))?;
    if !["llama", "qwen2", "qwen3", "gemma3"].contains(&architecture) {
        let what = format!("architecture {} is not known; {SERVED}", shown(architecture));
        return Err(gguf.unsupported(what));
    }
    let keys = Keys { gguf, architecture };
    keys.refuse_the_unknown()?;

    let gemma = architecture == "gemma3";
    let layers = keys.need_size("block_count")?;
    check_layer_count(gguf.path(), layers)?;
    let hidden = keys.need_size("embedding_length")?;
    let query_heads = keys.need_size("attention.head_count")?;
    let head_size = keys.head_size(hidden, query_heads)?;
    let embedding = TensorName::Embedding.gguf();
    let vocabulary = gguf
        .tensor(&embedding)
        .and_then(|stored| stored.shape.first().copied())
        .ok_or_else(|| gguf.damaged(format!("tensor {embedding} is missing")))?;
    let kinds = keys.layers(layers)?;
    let local = kinds.iter().any(|kind| *kind != LayerKind::Full) && gemma;

    Ok(ModelConfig {
        architecture: architecture.to_owned(),
        name: keys.name()?,
        hidden,
        intermediate: keys.need_size("feed_forward_length")?,
        query_heads,
        kv_heads: keys.size("attention.head_count_kv")?.unwrap_or(query_heads),
        head_size,
        vocabulary,
        context: keys.need_size("context_length")?,
        norm_epsilon: keys.need_float("attention.layer_norm_rms_epsilon")?,
        attention_scale: keys.attention_scale(layers, hidden, query_heads, head_size),
        embedding_scale: if gemma { root(hidden) } else { 1.0 },
        activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
        layers: kinds,
        rope: keys.tabulate(&keys.rope()?, head_size)?,
        rope_local: match local {
            true => Some(keys.tabulate(&keys.local_rope()?, head_size)?),
            false => None,
        },
        query_key_value_bias: has(gguf, LayerTensor::QueryBias),
        query_key_norm: architecture == "qwen3" || gemma,
        post_norms: gemma,
        tied_head: gguf.tensor(&TensorName::Output.gguf()).is_none(),
        end_tokens: vocabulary::end_tokens(gguf)?,
        begin_token: vocabulary::begin_token(gguf)?,
    })
}

fn has(gguf: &Gguf, tensor: LayerTensor) -> bool {
    gguf.tensor(&TensorName::Layer(0, tensor).gguf()).is_some()
}

#[expect(clippy::cast_precision_loss, reason = "sizes of a model are far below 2^24")]
fn root(size: usize) -> f32 {
    (size as f32).sqrt()
}

/// The keys of one architecture.
struct Keys<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn size(&self, name: &str) -> Result<Option<usize>, CheckpointError> {
        self.gguf.uniform_size(&self.key(name))
    }

    fn float(&self, name: &str) -> Result<Option<f32>, CheckpointError> {
        self.gguf.float(&self.key(name))
    }

    fn double(&self, name: &str) -> Result<Option<f64>, CheckpointError> {
        Ok(self.float(name)?.map(f64::from))
    }

    fn missing(&self, name: &str) -> CheckpointError {
        self.gguf.damaged(format!("{} is missing", self.key(name)))
    }

    fn need_size(&self, name: &str) -> Result<usize, CheckpointError> {
        self.size(name)?.ok_or_else(|| self.missing(name))
    }

    fn need_float(&self, name: &str) -> Result<f32, CheckpointError> {
        self.float(name)?.ok_or_else(|| self.missing(name))
    }

    /// Habits that would change every answer and that we don't have.
    fn refuse_the_unknown(&self) -> Result<(), CheckpointError> {
        if self.size("expert_count")?.is_some_and(|experts| experts > 0) {
            return Err(self.gguf.unsupported(format!("it is a mixture of experts; {SERVED}")));
        }
        if self.gguf.size("split.count")?.is_some_and(|parts| parts > 1) {
            let what = "it is one part of a split model; join the parts first \
                        (llama-gguf-split --merge)";
            return Err(self.gguf.unsupported(what));
        }
        for name in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if self.float(name)?.is_some_and(|cap| cap != 0.0) {
                return Err(self.gguf.unsupported(format!("{} is not known", self.key(name))));
            }
        }
        Ok(())
    }

    /// What the model is called, or the file.
    fn name(&self) -> Result<String, CheckpointError> {
        let said = self.gguf.text("general.name")?.filter(|name| !name.is_empty());
        let file = self.gguf.path().file_stem().unwrap_or_default().to_string_lossy();
        Ok(said.map_or_else(|| file.into_owned(), str::to_owned))
    }

    fn head_size(&self, hidden: usize, heads: usize) -> Result<usize, CheckpointError> {
        let shared = hidden.checked_div(heads).unwrap_or(0);
        let size = self.size("attention.key_length")?.unwrap_or(shared);
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = self.size(name)?
                && other != size
            {
                let what = format!("{} is {other} and the head size is {size}", self.key(name));
                return Err(self.gguf.unsupported(what));
            }
        }
        Ok(size)
    }

    fn attention_scale(&self, layers: usize, hidden: usize, heads: usize, head: usize) -> f32 {
        let large_gemma = self.architecture == "gemma3" && layers == GEMMA_27B_LAYERS;
        1.0 / root(if large_gemma { hidden.checked_div(heads).unwrap_or(0) } else { head })
    }

    fn layers(&self, count: usize) -> Result<Vec<LayerKind>, CheckpointError> {
        const PATTERN: &str = "attention.sliding_window_pattern";
        let window = self.size("attention.sliding_window")?.filter(|&window| window > 0);
        let Some(window) = window.filter(|_| !self.architecture.starts_with("qwen")) else {
            return Ok(vec![LayerKind::Full; count]);
        };
        let sliding = LayerKind::Sliding { window };
        if self.architecture != "gemma3" {
            return Ok(vec![sliding; count]);
        }
        let key = self.key(PATTERN);
        if !self.gguf.is_array(&key) {
            let every = self.gguf.size(&key)?.unwrap_or(GEMMA_PATTERN);
            return Ok(pattern(count, every, window));
        }
        let flags = self.gguf.integers(&key)?.unwrap_or_default();
        if flags.len() != count {
            let what = format!("{key} has {} entries for {count} layers", flags.len());
            return Err(self.gguf.damaged(what));
        }
        Ok(flags.iter().map(|&flag| if flag == 0 { LayerKind::Full } else { sliding }).collect())
    }

    fn tabulate(
        &self,
        rope: &Rope,
        head_size: usize,
    ) -> Result<crate::config::RopeConfig, CheckpointError> {
        rope.tabulate(head_size).map_err(|what| self.gguf.damaged(what))
    }

    fn local_rope(&self) -> Result<Rope, CheckpointError> {
        let base = self.double("rope.freq_base_swa")?.unwrap_or(10_000.0);
        Ok(Rope { base, scaling: Scaling::None })
    }

    fn rope(&self) -> Result<Rope, CheckpointError> {
        let base = self.double("rope.freq_base")?.unwrap_or(10_000.0);
        let scaling = self.gguf.text(&self.key("rope.scaling.type"))?.unwrap_or("linear");
        let factor = match self.double("rope.scaling.factor")? {
            Some(factor) => factor,
            None => self.double("rope.scale_linear")?.unwrap_or(1.0),
        };
        let factor = if factor == 0.0 { 1.0 } else { factor };
        let each = self.rope_factors()?;
        let scaling = match (scaling, each) {
            ("none", None) => Scaling::None,
            ("linear", None) => Scaling::Linear { factor },
            ("none", Some(each)) => Scaling::Factors { factor: 1.0, each },
            ("linear", Some(each)) => Scaling::Factors { factor, each },
            ("yarn", None) => Scaling::Yarn(self.yarn(factor)?),
            (other, _) => {
                let what = format!(
                    "rotary scaling {} is not known; served are none, linear, yarn and rope_freqs",
                    shown(other)
                );
                return Err(self.gguf.unsupported(what));
            }
        };
        Ok(Rope { base, scaling })
    }

    fn yarn(&self, factor: f64) -> Result<Yarn, CheckpointError> {
        let original = match self.double("rope.scaling.original_context_length")? {
            Some(original) => Some(original),
            None => self.double("context_length")?,
        };
        let usual = yarn_attention(factor, 1.0);
        let multiplier = self.double("rope.scaling.yarn_log_multiplier")?.filter(|&m| m != 0.0);
        let own = self.double("rope.scaling.attn_factor")?.unwrap_or(1.0);
        Ok(Yarn {
            factor,
            original: original.unwrap_or(0.0),
            beta_fast: self.double("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
            beta_slow: self.double("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            truncate: true,
            attention_factor: own * multiplier.map_or(usual, |m| usual / yarn_attention(factor, m)),
        })
    }

    /// The `rope_freqs` tensor: a divisor for each pair's frequency.
    fn rope_factors(&self) -> Result<Option<Vec<f32>>, CheckpointError> {
        const NUMBERS_MAX: usize = 1 << 16;
        let Some(stored) = self.gguf.tensor("rope_freqs.weight") else { return Ok(None) };
        let [numbers @ 1..=NUMBERS_MAX] = stored.shape[..] else {
            return Err(self.gguf.damaged("rope_freqs.weight is not a vector"));
        };
        let mut factors = vec![0.0; numbers];
        let bytes = &self.gguf.file().bytes()[stored.bytes.clone()];
        dequantize(stored.kind, bytes, &mut factors);
        Ok(Some(factors))
    }
}
