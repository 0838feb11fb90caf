//! A model's configuration from `config.json`.

mod fields;
mod rope;

use serde_json::Value;

use crate::config::hugging_face::fields::Fields;
use crate::config::rope::Rope;
use crate::config::{
    Activation, LayerKind, ModelConfig, RopeConfig, SERVED, check_layer_count, pattern,
};
use crate::error::{CheckpointError, shown};
use crate::folder::{Folder, vocabulary};
use crate::names::{LayerTensor, TensorName};

/// What a family takes for granted when its `config.json` says nothing.
struct Family {
    name: &'static str,
    /// Gemma 3 leaves out whatever is as in its reference implementation.
    gemma: bool,
    kv_heads: Option<usize>,
    head_size: Option<usize>,
}

impl Family {
    fn of(model_type: &str) -> Option<Self> {
        let plain = |name| Self { name, gemma: false, kv_heads: None, head_size: None };
        Some(match model_type {
            "llama" => plain("llama"),
            "mistral" => Self { kv_heads: Some(8), ..plain("mistral") },
            "qwen2" => Self { kv_heads: Some(32), ..plain("qwen2") },
            "qwen3" => Self { kv_heads: Some(32), head_size: Some(128), ..plain("qwen3") },
            "gemma3" | "gemma3_text" => {
                Self { name: "gemma3", gemma: true, kv_heads: Some(4), head_size: Some(256) }
            }
            _ => return None,
        })
    }

    fn default_size(&self, gemma: usize) -> Option<usize> {
        self.gemma.then_some(gemma)
    }
}

/// Reads everything but what [`ModelConfig::validate`] checks.
pub(crate) fn read(folder: &Folder) -> Result<ModelConfig, CheckpointError> {
    let path = folder.config_path();
    let Some(outer) = folder.config.as_object() else {
        return Err(CheckpointError::damaged(&path, "it is not a JSON object"));
    };
    let outer = Fields::new(&path, outer);
    let family = family(&outer)?;
    let fields = outer.object("text_config")?.filter(|_| family.gemma).unwrap_or(outer);
    refuse_the_unknown(&outer, &fields, &family)?;

    let size = |key: &str, default: Option<usize>| match (fields.size(key)?, default) {
        (Some(size), _) | (None, Some(size)) => Ok(size),
        (None, None) => fields.need_size(key),
    };
    let layers = size("num_hidden_layers", family.default_size(26))?;
    check_layer_count(&path, layers)?;
    let hidden = size("hidden_size", family.default_size(2304))?;
    let query_heads = size("num_attention_heads", family.default_size(8))?;
    let kv_heads = size("num_key_value_heads", Some(family.kv_heads.unwrap_or(query_heads)))?;
    let shared = hidden.checked_div(query_heads).unwrap_or(0);
    let head_size = size("head_dim", Some(family.head_size.unwrap_or(shared)))?;
    let kinds = layer_kinds(&fields, &family, layers)?;
    let local = family.gemma && kinds.iter().any(|kind| *kind != LayerKind::Full);
    let base = family.gemma.then_some(1_000_000.0);

    Ok(ModelConfig {
        architecture: family.name.to_owned(),
        name: name(folder, &outer)?,
        hidden,
        intermediate: size("intermediate_size", family.default_size(9216))?,
        query_heads,
        kv_heads,
        head_size,
        vocabulary: vocabulary_size(folder)?,
        context: size("max_position_embeddings", family.default_size(131_072))?,
        norm_epsilon: rounded(fields.double("rms_norm_eps")?.unwrap_or(1e-6)),
        attention_scale: attention_scale(&fields, &family, head_size)?,
        embedding_scale: if family.gemma { rounded(float(hidden).sqrt()) } else { 1.0 },
        activation: activation(&fields, &family)?,
        layers: kinds,
        rope: tabulate(&fields, &rope::full(&fields, base)?, head_size)?,
        rope_local: match local {
            true => Some(tabulate(&fields, &rope::local(&fields)?, head_size)?),
            false => None,
        },
        query_key_value_bias: family.name == "qwen2" || has_bias(folder),
        query_key_norm: family.name == "qwen3" || family.gemma,
        post_norms: family.gemma,
        tied_head: tied(&outer, &fields, &family)?,
        end_tokens: vocabulary::end_tokens(folder),
        // The tokenizer's own post-processor puts it there.
        begin_token: None,
    })
}

fn family(outer: &Fields<'_>) -> Result<Family, CheckpointError> {
    let model_type =
        outer.text("model_type")?.ok_or_else(|| outer.damaged("model_type is missing"))?;
    Family::of(model_type).ok_or_else(|| {
        let what = format!("architecture {} is not known; {SERVED}", shown(model_type));
        outer.unsupported(what)
    })
}

/// Habits that would change every answer and that we don't have.
fn refuse_the_unknown(
    outer: &Fields<'_>,
    fields: &Fields<'_>,
    family: &Family,
) -> Result<(), CheckpointError> {
    if outer.value("quantization_config").is_some() {
        return Err(outer.unsupported(
            "its weights are quantised (quantization_config); take the plain model, or a GGUF file",
        ));
    }
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if family.gemma && fields.double(key)?.is_some_and(|cap| cap != 0.0) {
            return Err(fields.unsupported(format!("{key} is not known")));
        }
    }
    if fields.flag("use_bidirectional_attention")? == Some(true) {
        return Err(fields.unsupported("attention in both directions is not known"));
    }
    Ok(())
}

fn name(folder: &Folder, outer: &Fields<'_>) -> Result<String, CheckpointError> {
    let said = outer.text("_name_or_path")?.filter(|name| !name.is_empty());
    let last = folder.path().file_name().unwrap_or_default().to_string_lossy();
    Ok(said.map_or_else(|| last.into_owned(), str::to_owned))
}

fn vocabulary_size(folder: &Folder) -> Result<usize, CheckpointError> {
    let name = folder.tensors.prefix().to_owned() + &TensorName::Embedding.hugging_face(false);
    folder
        .tensors
        .find(&name)
        .and_then(|stored| stored.shape.first().copied())
        .ok_or_else(|| folder.missing(&name))
}

fn has_bias(folder: &Folder) -> bool {
    let name = TensorName::Layer(0, LayerTensor::QueryBias).hugging_face(false);
    folder.tensors.find(&(folder.tensors.prefix().to_owned() + &name)).is_some()
}

fn attention_scale(
    fields: &Fields<'_>,
    family: &Family,
    head_size: usize,
) -> Result<f32, CheckpointError> {
    let own = fields.double("query_pre_attn_scalar")?.or(Some(256.0)).filter(|_| family.gemma);
    Ok(rounded(own.unwrap_or_else(|| float(head_size)).powf(-0.5)))
}

fn activation(fields: &Fields<'_>, family: &Family) -> Result<Activation, CheckpointError> {
    let said = match fields.text("hidden_activation")? {
        Some(said) => Some(said),
        None => fields.text("hidden_act")?,
    };
    let usual = if family.gemma { "gelu_pytorch_tanh" } else { "silu" };
    match said.unwrap_or(usual) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        other => Err(fields.unsupported(format!("activation {} is not known", shown(other)))),
    }
}

fn tied(outer: &Fields<'_>, fields: &Fields<'_>, family: &Family) -> Result<bool, CheckpointError> {
    const KEY: &str = "tie_word_embeddings";
    Ok(fields.flag(KEY)?.or(outer.flag(KEY)?).unwrap_or(family.gemma))
}

fn layer_kinds(
    fields: &Fields<'_>,
    family: &Family,
    layers: usize,
) -> Result<Vec<LayerKind>, CheckpointError> {
    let window = window(fields, family)?;
    if let Some(types) = fields.array("layer_types")? {
        if types.len() != layers {
            let what = format!("layer_types has {} entries for {layers} layers", types.len());
            return Err(fields.damaged(what));
        }
        return types.iter().map(|kind| layer_kind(fields, kind, window)).collect();
    }
    let Some(window) = window else { return Ok(vec![LayerKind::Full; layers]) };
    let sliding = LayerKind::Sliding { window };
    if family.gemma {
        let newer = fields.size("_sliding_window_pattern")?;
        let every = newer.or(fields.size("sliding_window_pattern")?).unwrap_or(6);
        return Ok(pattern(layers, every, window));
    }
    let full = match family.name {
        "qwen2" | "qwen3" => fields.size("max_window_layers")?.unwrap_or(28),
        _ => 0,
    };
    Ok((0..layers).map(|layer| if layer < full { LayerKind::Full } else { sliding }).collect())
}

fn layer_kind(
    fields: &Fields<'_>,
    kind: &Value,
    window: Option<usize>,
) -> Result<LayerKind, CheckpointError> {
    match (kind.as_str().unwrap_or_default(), window) {
        ("full_attention", _) => Ok(LayerKind::Full),
        ("sliding_attention", Some(window)) => Ok(LayerKind::Sliding { window }),
        ("sliding_attention", None) => Err(fields.damaged("a layer slides, but by no window")),
        (other, _) => Err(fields.unsupported(format!("layer type {} is not known", shown(other)))),
    }
}

/// Tokens that sliding layers see, where the model has such layers.
fn window(fields: &Fields<'_>, family: &Family) -> Result<Option<usize>, CheckpointError> {
    const KEY: &str = "sliding_window";
    let said = fields.size(KEY)?;
    let window = match family.name {
        "llama" => None,
        "qwen2" | "qwen3" if fields.flag("use_sliding_window")? != Some(true) => None,
        // Null means none; only where nothing is said does the family's default hold.
        _ if fields.says(KEY) => said,
        _ => Some(4096),
    };
    Ok(window.filter(|&window| window > 0))
}

fn tabulate(
    fields: &Fields<'_>,
    rope: &Rope,
    head_size: usize,
) -> Result<RopeConfig, CheckpointError> {
    rope.tabulate(head_size).map_err(|what| fields.damaged(what))
}

#[expect(clippy::cast_precision_loss, reason = "sizes of a model are far below 2^52")]
fn float(size: usize) -> f64 {
    size as f64
}

#[expect(clippy::cast_possible_truncation, reason = "rounded to f32 on purpose")]
fn rounded(number: f64) -> f32 {
    number as f32
}
