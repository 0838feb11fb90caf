//! What `config.json` may say, and how it is understood.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};

use checkpoint::{Activation, Checkpoint, LayerKind, ModelConfig, RopeConfig};
use fixture::{Architecture, Toy};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A toy in a folder that goes with it.
struct Written {
    path: PathBuf,
    _folder: TempDir,
}

fn written(toy: &Toy) -> Written {
    let folder = tempfile::tempdir().unwrap();
    Written { path: fixture::safetensors(folder.path(), toy), _folder: folder }
}

impl Written {
    /// Puts fields into a JSON file.
    fn set(&self, file: &str, fields: &Value) -> &Self {
        let path = self.path.join(file);
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for (key, value) in fields.as_object().unwrap() {
            json[key] = value.clone();
        }
        fs::write(path, json.to_string()).unwrap();
        self
    }

    /// Takes fields out of `config.json`.
    fn unset(&self, fields: &[&str]) -> &Self {
        let path = self.path.join("config.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for field in fields {
            json.as_object_mut().unwrap().remove(*field);
        }
        fs::write(path, json.to_string()).unwrap();
        self
    }

    fn open(&self) -> Checkpoint {
        Checkpoint::open(&self.path).unwrap_or_else(|error| panic!("{error}"))
    }

    fn error(&self) -> String {
        Checkpoint::open(&self.path).expect_err("it can't be opened").to_string()
    }
}

/// The configuration of a toy with some fields of `config.json` changed.
fn config(architecture: Architecture, fields: &Value) -> ModelConfig {
    let toy = written(&Toy::new(architecture));
    toy.set("config.json", fields).open().config().clone()
}

fn error(architecture: Architecture, fields: &Value) -> String {
    written(&Toy::new(architecture)).set("config.json", fields).error()
}

#[track_caller]
fn assert_says(message: &str, wanted: &str) {
    assert!(message.contains(wanted), "{message:?} does not say {wanted:?}");
}

const FULL: LayerKind = LayerKind::Full;

fn sliding(window: usize) -> LayerKind {
    LayerKind::Sliding { window }
}

#[test]
fn windows_are_each_familys_own() {
    let layers = |architecture, fields| config(architecture, &fields).layers;
    let null = json!({"sliding_window": null});
    assert_eq!(layers(Architecture::Mistral, null.clone()), [FULL, FULL]);
    assert_eq!(layers(Architecture::Mistral, json!({"sliding_window": 8})), [sliding(8); 2]);
    assert_eq!(layers(Architecture::Llama, json!({"sliding_window": 8})), [FULL, FULL]);
    assert_eq!(layers(Architecture::Gemma3, null), [FULL, FULL]);
    // A window in the file means nothing to Qwen unless it says that it is used.
    let qwen = |used: bool, from: usize| json!({"use_sliding_window": used, "max_window_layers": from, "sliding_window": 8});
    for architecture in [Architecture::Qwen2, Architecture::Qwen3] {
        assert_eq!(layers(architecture, qwen(false, 0)), [FULL, FULL]);
        assert_eq!(layers(architecture, qwen(true, 1)), [FULL, sliding(8)]);
        assert_eq!(layers(architecture, qwen(true, 28)), [FULL, FULL]);
    }
}

#[test]
fn layer_types_say_it_layer_by_layer() {
    let types = |one: &str, other: &str| json!({"layer_types": [one, other]});
    let gemma = config(Architecture::Gemma3, &types("full_attention", "sliding_attention"));
    assert_eq!(gemma.layers, [FULL, sliding(16)]);
    let unknown = error(Architecture::Gemma3, &types("full_attention", "linear_attention"));
    assert_says(&unknown, "layer type linear_attention is not known");
    let short = error(Architecture::Gemma3, &json!({"layer_types": ["full_attention"]}));
    assert_says(&short, "1 entries for 2 layers");
    let windowless = error(Architecture::Llama, &types("sliding_attention", "full_attention"));
    assert_says(&windowless, "slides, but by no window");
}

#[test]
fn gemma_slides_five_layers_of_six_unless_told_otherwise() {
    let toy = written(&Toy { layers: 7, ..Toy::new(Architecture::Gemma3) });
    let layers = toy.unset(&["sliding_window_pattern"]).open().config().layers.clone();
    let mut wanted = [sliding(16); 7];
    wanted[5] = FULL;
    assert_eq!(layers, wanted);
    toy.set("config.json", &json!({"_sliding_window_pattern": 3}));
    assert_eq!(toy.open().config().layers[2], FULL);
}

#[test]
fn gemmas_scales_come_from_the_file() {
    let plain = config(Architecture::Gemma3, &json!({}));
    assert!((plain.embedding_scale - 8.0).abs() < 1e-6);
    assert!((plain.attention_scale - 32.0_f32.powf(-0.5)).abs() < 1e-6);
    assert_eq!(plain.activation, Activation::GeluTanh);
    let large = config(Architecture::Gemma3, &json!({"query_pre_attn_scalar": 168}));
    assert!((large.attention_scale - 168.0_f32.powf(-0.5)).abs() < 1e-6);
    let capped = error(Architecture::Gemma3, &json!({"final_logit_softcapping": 30.0}));
    assert_says(&capped, "final_logit_softcapping is not known");
}

#[test]
fn a_gemma_that_also_sees_is_read_for_its_text() {
    let toy = written(&Toy::new(Architecture::Gemma3));
    let plain = toy.open();
    let path = toy.path.join("config.json");
    let text: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let outer = json!({
        "model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 9},
        "eos_token_id": [1, 2],
    });
    fs::write(&path, outer.to_string()).unwrap();
    for prefix in ["language_model.model.", "model.language_model."] {
        rename_tensors(&toy.path, prefix);
        let nested = toy.open();
        assert_eq!(nested.config().layers, plain.config().layers);
        assert_eq!(nested.config().hidden, plain.config().hidden);
        assert_eq!(nested.config().end_tokens, [0, 1, 2]);
        let name = checkpoint::TensorName::OutputNorm;
        assert_eq!(nested.vector(name).unwrap(), plain.vector(name).unwrap());
    }
}

/// Gives every tensor of the decoder another prefix.
fn rename_tensors(folder: &Path, prefix: &str) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let renamed = tensors.tensors().into_iter().map(|(name, view)| {
        let start = name.find("embed_tokens").or(name.find("layers")).or(name.find("norm"));
        (format!("{prefix}{}", &name[start.unwrap()..]), view)
    });
    let renamed = safetensors::serialize(renamed, None).unwrap();
    // Another file, because the old one may still be mapped.
    fs::remove_file(&path).unwrap();
    fs::write(&path, renamed).unwrap();
}

#[test]
fn what_gemma_leaves_out_is_as_in_its_reference() {
    let toy = Toy {
        query_heads: 8,
        kv_heads: 4,
        head_size: 256,
        layers: 26,
        intermediate: 32,
        hidden: 32,
        ..Toy::new(Architecture::Gemma3)
    };
    let toy = written(&toy);
    let fields = [
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "rope_theta",
        "rope_local_base_freq",
        "query_pre_attn_scalar",
        "rms_norm_eps",
        "tie_word_embeddings",
        "hidden_activation",
        "vocab_size",
    ];
    let checkpoint = toy.unset(&fields).open();
    let config = checkpoint.config();
    assert_eq!((config.layers.len(), config.context, config.head_size), (26, 131_072, 256));
    assert!((config.attention_scale - 1.0 / 16.0).abs() < 1e-7);
    assert!(config.tied_head);
    let second = |rope: &RopeConfig| rope.inverse_frequencies[1];
    assert!((second(&config.rope) - 1e6_f32.powf(-1.0 / 128.0)).abs() < 1e-6);
    let local = config.rope_local.as_ref().unwrap();
    assert!((second(local) - 1e4_f32.powf(-1.0 / 128.0)).abs() < 1e-6);
}

#[test]
fn rotary_parameters_are_read_in_the_newer_form_too() {
    let scaling = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5});
    let flat = json!({"rope_parameters": scaling, "rope_scaling": null, "rope_theta": null});
    let older = json!({
        "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0},
    });
    let one = config(Architecture::Llama, &flat);
    assert_eq!(one.rope, config(Architecture::Llama, &older).rope);
    assert!((one.rope.inverse_frequencies[0] - 0.5).abs() < 1e-6);

    let nested = json!({"rope_theta": null, "rope_local_base_freq": null, "rope_parameters": {
        "full_attention": scaling,
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    }});
    let gemma = config(Architecture::Gemma3, &nested);
    assert_eq!(gemma.rope, one.rope);
    let local = gemma.rope_local.unwrap().inverse_frequencies;
    assert!((local[1] - 2e4_f32.powf(-1.0 / 16.0)).abs() < 1e-6);
}

#[test]
fn rotary_embeddings_that_are_not_served_are_named() {
    let scaled = |kind: &str| json!({"rope_scaling": {"rope_type": kind, "factor": 2.0}});
    for kind in ["dynamic", "longrope", "proportional"] {
        assert_says(&error(Architecture::Llama, &scaled(kind)), kind);
    }
    let part = error(Architecture::Llama, &json!({"partial_rotary_factor": 0.5}));
    assert_says(&part, "a part of each head");
    let incomplete = error(Architecture::Llama, &scaled("llama3"));
    assert_says(&incomplete, "low_freq_factor is missing");
}

#[test]
fn yarn_listens_to_its_own_sharpening() {
    let sharpened = |own: Value| {
        let mut scaling = json!({
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
        });
        for (key, value) in own.as_object().unwrap() {
            scaling[key] = value.clone();
        }
        config(Architecture::Qwen2, &json!({"rope_scaling": scaling})).rope.attention_factor
    };
    assert!((sharpened(json!({})) - (0.1 * 4.0_f32.ln() + 1.0)).abs() < 1e-6);
    assert!((sharpened(json!({"attention_factor": 1.5})) - 1.5).abs() < 1e-6);
    assert!((sharpened(json!({"mscale": 0.7, "mscale_all_dim": 0.7})) - 1.0).abs() < 1e-6);
}

#[test]
fn end_tokens_come_from_every_file_that_names_some() {
    let toy = written(&Toy::new(Architecture::Qwen2));
    toy.set("config.json", &json!({"eos_token_id": 9}));
    toy.set("generation_config.json", &json!({"eos_token_id": 7}));
    assert_eq!(toy.open().config().end_tokens, [7, 9]);
    let added = json!({"added_tokens_decoder": {
        "2": {"content": "<|im_end|>", "special": true},
        "3": {"content": "<|im_end|>", "special": false},
        "4": {"content": "<think>", "special": true},
    }});
    toy.set("tokenizer_config.json", &added);
    assert_eq!(toy.open().config().end_tokens, [2, 7, 9]);
    // An id that no embedding has can't come up.
    toy.set("config.json", &json!({"eos_token_id": [9, 100_000]}));
    assert_eq!(toy.open().config().end_tokens, [2, 7, 9]);
    fs::remove_file(toy.path.join("generation_config.json")).unwrap();
    fs::remove_file(toy.path.join("tokenizer_config.json")).unwrap();
    assert_eq!(toy.open().config().end_tokens, [9]);
}

#[test]
fn chat_templates_are_found_wherever_they_are() {
    let toy = written(&Toy::new(Architecture::Llama));
    let template = || toy.open().chat_template();
    let several = json!({"chat_template": [
        {"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"},
    ]});
    toy.set("tokenizer_config.json", &several);
    assert_eq!(template().as_deref(), Some("yes"));
    fs::write(toy.path.join("chat_template.jinja"), "newer").unwrap();
    assert_eq!(template().as_deref(), Some("newer"));
    fs::remove_file(toy.path.join("chat_template.jinja")).unwrap();
    toy.set("tokenizer_config.json", &json!({"chat_template": null}));
    assert_eq!(template(), None);
}

#[test]
fn models_that_are_not_served_are_named() {
    let said = |fields: Value| error(Architecture::Llama, &fields);
    assert_says(&said(json!({"model_type": "mixtral"})), "architecture mixtral is not known");
    assert_says(&said(json!({"model_type": null})), "model_type is missing");
    assert_says(&said(json!({"hidden_act": "relu2"})), "activation relu2 is not known");
    assert_says(&said(json!({"quantization_config": {"bits": 4}})), "quantised");
    assert_says(&said(json!({"tie_word_embeddings": false})), "tensor lm_head.weight is missing");
    assert_says(&said(json!({"num_hidden_layers": 1})), "layers.1");
    assert_says(&said(json!({"num_hidden_layers": 10_000_000})), "number of layers");
    assert_says(&said(json!({"head_dim": u64::MAX})), "head size");
    assert_says(&said(json!({"hidden_size": "big"})), "hidden_size is not a size");
    assert_says(&said(json!({"hidden_size": -1})), "hidden_size is not a size");
}
