//! candle-transformers as the oracle: its quantised Llama on dequantised weights (the environment
//! variable `CANDLE_DEQUANTIZE_ALL` is set in `.cargo/config.toml`), its plain Qwen2 and Qwen3 on toys.

use std::fs::File;
use std::path::Path;

use candle_core::quantized::gguf_file;
use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::{quantized_llama, qwen2, qwen3};
use fixture::{Architecture, Toy};
use worker::BackendChoice;

use crate::group::Group;
use crate::reference::{EXACT, QUANTISED, Tolerance, read};

/// Fails unless every logit is as near as `tolerance` says.
fn near(ours: &[f32], theirs: &[f32], tolerance: Tolerance) {
    assert_eq!(ours.len(), theirs.len());
    #[expect(clippy::cast_precision_loss, reason = "at most a million logits")]
    let count = ours.len() as f64;
    let square: f64 = theirs.iter().map(|&logit| f64::from(logit).powi(2)).sum();
    let scale = (square / count).sqrt();
    let off = ours.iter().zip(theirs).map(|(a, b)| f64::from((a - b).abs()) / scale);
    let (sum, worst) = off.fold((0.0, 0.0), |(sum, worst), off| (sum + off, f64::max(worst, off)));
    let mean = sum / count;
    println!("worst {worst:.5}, mean {mean:.5} of the root mean square");
    assert!(worst <= tolerance.single, "a logit is off by {worst}");
    assert!(mean <= tolerance.mean, "logits are off by {mean}");
}

fn ids(tokens: &[u32]) -> Tensor {
    Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap() // (1, T)
}

fn flat(logits: &Tensor) -> Vec<f32> {
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn smollm2_agrees_with_candle_transformers() {
    let path = fixture::real::model("smollm2-135m-instruct");
    let mut file = File::open(&path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut oracle =
        quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
    let mut exact = Group::load(&path, BackendChoice::Candle, 1);
    let mut quantised = Group::load(&path, BackendChoice::Cpu, 1);
    for reference in read("golden_smollm2.json") {
        if reference.prompt.len() > 40 {
            continue; // the reference backend takes its time
        }
        oracle.clear_kv_cache();
        let theirs = flat(&oracle.forward(&ids(&reference.prompt), 0).unwrap()); // (vocabulary)
        near(&exact.logits(&reference.prompt), &theirs, EXACT);
        near(&quantised.logits(&reference.prompt), &theirs, QUANTISED);
    }
}

fn toy(architecture: Architecture) -> Toy {
    Toy { layers: 4, hidden: 128, intermediate: 256, ..Toy::new(architecture) }
}

fn weights(folder: &Path) -> VarBuilder<'static> {
    let file = std::fs::read(folder.join("model.safetensors")).unwrap();
    VarBuilder::from_buffered_safetensors(file, DType::F32, &Device::Cpu).unwrap()
}

/// Both layouts of the toy, on both backends, against what `oracle` makes of it.
fn toy_agrees(toy: &Toy, oracle: impl Fn(&Path, &[u32]) -> Vec<f32>) {
    let folder = tempfile::tempdir().unwrap();
    let plain = fixture::safetensors(folder.path(), toy);
    let packed = fixture::gguf(folder.path(), toy);
    let prompt: Vec<u32> = (0..37).map(|at| (at * 31 + 7) % 300).collect();
    let theirs = oracle(&plain, &prompt);
    for path in [&plain, &packed] {
        near(&Group::load(path, BackendChoice::Candle, 1).logits(&prompt), &theirs, EXACT);
        near(&Group::load(path, BackendChoice::Cpu, 2).logits(&prompt), &theirs, QUANTISED);
    }
}

#[test]
fn a_qwen2_toy_agrees_with_candle_transformers() {
    let toy = toy(Architecture::Qwen2);
    toy_agrees(&toy, |folder, prompt| {
        let config = qwen2::Config {
            vocab_size: toy.vocabulary,
            hidden_size: toy.hidden,
            intermediate_size: toy.intermediate,
            num_hidden_layers: toy.layers,
            num_attention_heads: toy.query_heads,
            num_key_value_heads: toy.kv_heads,
            max_position_embeddings: toy.context,
            sliding_window: toy.context,
            max_window_layers: toy.layers,
            tie_word_embeddings: toy.tied,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            use_sliding_window: false,
            hidden_act: Activation::Silu,
        };
        let mut oracle = qwen2::ModelForCausalLM::new(&config, weights(folder)).unwrap();
        flat(&oracle.forward(&ids(prompt), 0).unwrap())
    });
}

#[test]
fn a_qwen3_toy_agrees_with_candle_transformers() {
    let toy = toy(Architecture::Qwen3);
    toy_agrees(&toy, |folder, prompt| {
        let config = qwen3::Config {
            vocab_size: toy.vocabulary,
            hidden_size: toy.hidden,
            intermediate_size: toy.intermediate,
            num_hidden_layers: toy.layers,
            num_attention_heads: toy.query_heads,
            head_dim: toy.head_size,
            attention_bias: false,
            num_key_value_heads: toy.kv_heads,
            max_position_embeddings: toy.context,
            sliding_window: None,
            max_window_layers: toy.layers,
            tie_word_embeddings: toy.tied,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            use_sliding_window: false,
            hidden_act: Activation::Silu,
        };
        let mut oracle = qwen3::ModelForCausalLM::new(&config, weights(folder)).unwrap();
        flat(&oracle.forward(&ids(prompt), 0).unwrap())
    });
}
