//! The real models: SmolLM2 (Llama, byte-level BPE, `Q4_1` with a tied `Q8_0` head) and Gemma 3
//! (sliding windows, its norms and scales, five block types in one file).

use proto::worker::KvDtype;
use worker::BackendChoice;
use worker::backend::opencl::{DeviceChoice, OpenClConfig};

use crate::group::Group;
use crate::reference::{
    EXACT, QUANTISED, QUANTISED_CACHE, QUANTISED_CACHE_MARGIN, Reference, Tolerance, best, read,
};

const SMOLLM2: (&str, &str) = ("smollm2-135m-instruct", "golden_smollm2.json");
const GEMMA3: (&str, &str) = ("gemma-3-270m", "golden_gemma3.json");

/// Logits near the reference's, and its greedy text as far as that is told apart.
fn holds(
    (model, data): (&str, &str),
    choice: BackendChoice,
    tolerance: Tolerance,
    wanted: impl Fn(&Reference) -> bool,
) {
    let path = fixture::real::model(model);
    let mut group = Group::load(&path, choice, 1);
    for reference in read(data).iter().filter(|reference| wanted(reference)) {
        let logits = group.logits(&reference.prompt);
        reference.check(&logits, tolerance);
        if let Some(&first) = reference.greedy.first() {
            assert_eq!(best(&logits), first, "{}", reference.name);
        }
        let greedy = group.greedy(&reference.prompt, reference.greedy.len());
        assert_eq!(greedy, reference.greedy, "{}", reference.name);
    }
}

/// The reference backend is slow: it is held to short prompts here, and the fast one to it elsewhere.
fn short(reference: &Reference) -> bool {
    reference.prompt.len() < 32
}

#[test]
fn smollm2_on_the_reference_backend_is_the_reference() {
    holds(SMOLLM2, BackendChoice::Candle, EXACT, short);
}

#[test]
fn smollm2_on_the_cpu_backend_is_near_the_reference() {
    holds(SMOLLM2, BackendChoice::Cpu, QUANTISED, |_| true);
}

/// A cache of bytes; how much of the text is compared.
fn holds_with_a_cache_of_bytes((model, data): (&str, &str)) -> usize {
    let path = fixture::real::model(model);
    let mut group = Group::keeping(&path, BackendChoice::Cpu, 1, KvDtype::Q8);
    let mut compared = 0;
    for reference in read(data) {
        let logits = group.logits(&reference.prompt);
        reference.check(&logits, QUANTISED_CACHE);
        let clear = reference.clear(QUANTISED_CACHE_MARGIN);
        let greedy = group.greedy(&reference.prompt, clear.len());
        assert_eq!(greedy, clear, "{}", reference.name);
        compared += clear.len();
    }
    compared
}

#[test]
fn smollm2_with_a_cache_of_bytes_is_near_the_reference() {
    assert!(holds_with_a_cache_of_bytes(SMOLLM2) > 40);
}

#[test]
fn gemma3_with_a_cache_of_bytes_is_near_the_reference() {
    assert!(holds_with_a_cache_of_bytes(GEMMA3) > 40);
}

#[test]
fn gemma3_on_the_reference_backend_is_the_reference() {
    holds(GEMMA3, BackendChoice::Candle, EXACT, short);
}

#[test]
fn gemma3_on_the_cpu_backend_is_near_the_reference() {
    holds(GEMMA3, BackendChoice::Cpu, QUANTISED, |_| true);
}

/// Nine query heads and three KV heads: 2 and 4 divide neither, and four ranks share KV heads.
#[test]
fn every_world_gives_the_same_bits_and_text() {
    let path = fixture::real::model(SMOLLM2.0);
    let references = read(SMOLLM2.1);
    let reference = references.iter().find(|reference| reference.name == "count").unwrap();
    let one = Group::load(&path, BackendChoice::Cpu, 1).logits(&reference.prompt);
    for world in [2, 3, 4] {
        let mut group = Group::load(&path, BackendChoice::Cpu, world);
        assert!(one == group.logits(&reference.prompt), "world {world} has other logits");
        let greedy = group.greedy(&reference.prompt, reference.greedy.len());
        assert_eq!(greedy, reference.greedy, "world {world} has another text");
    }
}

/// Where OpenCL has sub-groups, as an Arc has; where it has none.
#[test]
fn opencl_devices_have_the_cpu_s_bits_and_text_in_every_world() {
    for (_, library) in fixture::device::opencl() {
        let choice = BackendChoice::OpenCl(Box::leak(Box::new(OpenClConfig {
            library: Some(library),
            device: DeviceChoice::Cpu,
            programs: Some(std::env::temp_dir().join("arcmesh-test-programs")),
        })));
        for (model, data) in [SMOLLM2, GEMMA3] {
            let path = fixture::real::model(model);
            let references = read(data);
            let reference = references.iter().find(|reference| short(reference)).unwrap();
            let exact = Group::load(&path, BackendChoice::Cpu, 1).logits(&reference.prompt);
            for world in [1, 2] {
                let mut group = Group::load(&path, choice, world);
                let logits = group.logits(&reference.prompt);
                assert!(logits == exact, "{model} over {world} ranks has other logits");
                let greedy = group.greedy(&reference.prompt, reference.greedy.len());
                assert_eq!(greedy, reference.greedy, "{model} over {world} ranks");
            }
        }
    }
}
