//! Rotary embedding as `config.json` describes it, in its older and its newer form.

use crate::config::hugging_face::fields::Fields;
use crate::config::rope::{Rope, Scaling, Yarn, yarn_attention};
use crate::error::{CheckpointError, shown};

/// Where frequencies fall off when nothing is said.
const BASE: f64 = 10_000.0;

/// Of full layers; `base` where the file says none.
pub(crate) fn full(fields: &Fields<'_>, base: Option<f64>) -> Result<Rope, CheckpointError> {
    let parameters = parameters(fields, "full_attention")?;
    let scaling = match parameters {
        Some(parameters) => Some(parameters),
        None => fields.object("rope_scaling")?,
    };
    let said = match parameters {
        Some(parameters) => parameters.double("rope_theta")?,
        None => None,
    };
    let said = said.or(fields.double("rope_theta")?);
    read(fields, scaling, said.or(base).unwrap_or(BASE))
}

/// Of sliding layers that have their own.
pub(crate) fn local(fields: &Fields<'_>) -> Result<Rope, CheckpointError> {
    let own = match fields.object("rope_parameters")? {
        Some(parameters) => parameters.object("sliding_attention")?,
        None => None,
    };
    let said = match own {
        Some(own) => own.double("rope_theta")?,
        None => None,
    };
    let said = said.or(fields.double("rope_local_base_freq")?);
    read(fields, own, said.unwrap_or(BASE))
}

/// `rope_parameters`: one object, or one for each kind of layer.
fn parameters<'a>(
    fields: &Fields<'a>,
    layers: &str,
) -> Result<Option<Fields<'a>>, CheckpointError> {
    let Some(parameters) = fields.object("rope_parameters")? else { return Ok(None) };
    Ok(Some(parameters.object(layers)?.unwrap_or(parameters)))
}

fn read(
    fields: &Fields<'_>,
    scaling: Option<Fields<'_>>,
    base: f64,
) -> Result<Rope, CheckpointError> {
    for place in [Some(*fields), scaling].into_iter().flatten() {
        if place.double("partial_rotary_factor")?.is_some_and(|part| part < 1.0) {
            return Err(fields.unsupported("rotary embedding of a part of each head is not known"));
        }
    }
    let scaling = match scaling {
        None => Scaling::None,
        Some(scaling) => read_scaling(fields, &scaling)?,
    };
    Ok(Rope { base, scaling })
}

fn read_scaling(fields: &Fields<'_>, scaling: &Fields<'_>) -> Result<Scaling, CheckpointError> {
    let kind = match scaling.text("rope_type")? {
        Some(kind) => kind,
        None => scaling.text("type")?.unwrap_or("default"),
    };
    match kind {
        "default" => Ok(Scaling::None),
        "linear" => Ok(Scaling::Linear { factor: scaling.need_double("factor")? }),
        "llama3" => Ok(Scaling::Llama3 {
            factor: scaling.need_double("factor")?,
            low: scaling.need_double("low_freq_factor")?,
            high: scaling.need_double("high_freq_factor")?,
            original: original(fields, scaling)?,
        }),
        "yarn" => Ok(Scaling::Yarn(yarn(fields, scaling)?)),
        other => Err(fields.unsupported(format!(
            "rotary scaling {} is not known; served are linear, llama3 and yarn",
            shown(other)
        ))),
    }
}

fn original(fields: &Fields<'_>, scaling: &Fields<'_>) -> Result<f64, CheckpointError> {
    const KEY: &str = "original_max_position_embeddings";
    match scaling.double(KEY)?.or(fields.double(KEY)?) {
        Some(original) => Ok(original),
        None => fields.need_double("max_position_embeddings"),
    }
}

fn yarn(fields: &Fields<'_>, scaling: &Fields<'_>) -> Result<Yarn, CheckpointError> {
    let factor = scaling.need_double("factor")?;
    let usual = match (scaling.double("mscale")?, scaling.double("mscale_all_dim")?) {
        (Some(scale), Some(all)) if scale != 0.0 && all != 0.0 => {
            yarn_attention(factor, scale) / yarn_attention(factor, all)
        }
        _ => yarn_attention(factor, 1.0),
    };
    Ok(Yarn {
        factor,
        original: original(fields, scaling)?,
        beta_fast: scaling.double("beta_fast")?.unwrap_or(32.0),
        beta_slow: scaling.double("beta_slow")?.unwrap_or(1.0),
        truncate: scaling.flag("truncate")?.unwrap_or(true),
        attention_factor: scaling.double("attention_factor")?.unwrap_or(usual),
    })
}
