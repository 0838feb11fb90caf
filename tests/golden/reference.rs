//! What a reference says, and how near one must come.

use std::path::Path;

use serde_json::Value;

/// Logits of a prompt's last position, and the text that follows while its margin is over one logit.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) prompt: Vec<u32>,
    /// `(token, logit)`: the greatest, then some at fixed places.
    pub(crate) logits: Vec<(usize, f32)>,
    pub(crate) mean_square: f64,
    pub(crate) greedy: Vec<u32>,
    /// By how much each token of it leads.
    pub(crate) margins: Vec<f32>,
}

/// How far logits may be off, as parts of the root mean square of all logits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    pub(crate) single: f64,
    pub(crate) mean: f64,
}

/// Of f32 arithmetic in another order.
pub(crate) const EXACT: Tolerance = Tolerance { single: 2e-3, mean: 5e-4 };
/// Of activations in int8.
pub(crate) const QUANTISED: Tolerance = Tolerance { single: 0.3, mean: 0.13 };
/// Of activations in int8, and of keys and values as well.
pub(crate) const QUANTISED_CACHE: Tolerance = Tolerance { single: 0.3, mean: 0.15 };

/// Logits by which a token must lead to be told apart with those.
pub(crate) const QUANTISED_CACHE_MARGIN: f32 = 2.0;

/// The references in `tests/data/NAME`.
pub(crate) fn read(name: &str) -> Vec<Reference> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all.as_array().unwrap().iter().map(one).collect()
}

fn one(value: &Value) -> Reference {
    let pairs = |key: &str| -> Vec<(usize, f32)> {
        let pairs = value[key].as_array().unwrap().iter();
        pairs.map(|pair| (integer(&pair[0]) as usize, number(&pair[1]))).collect()
    };
    let tokens = |key: &str| value[key].as_array().unwrap().iter().map(integer).collect();
    Reference {
        name: value["name"].as_str().unwrap().to_owned(),
        prompt: tokens("ids"),
        logits: [pairs("top"), pairs("places")].concat(),
        mean_square: value["mean_square"].as_f64().unwrap(),
        greedy: tokens("greedy"),
        margins: value["margins"].as_array().unwrap().iter().map(number).collect(),
    }
}

fn integer(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

#[expect(clippy::cast_possible_truncation, reason = "logits are f32")]
fn number(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}

impl Reference {
    /// The greedy text, as far as each token leads by more than `margin`.
    pub(crate) fn clear(&self, margin: f32) -> &[u32] {
        let clear = self.margins.iter().take_while(|&&lead| lead > margin).count();
        &self.greedy[..clear]
    }

    /// Fails unless `logits` are as near as `tolerance` says.
    pub(crate) fn check(&self, logits: &[f32], tolerance: Tolerance) {
        let scale = self.mean_square.sqrt();
        let off: Vec<f64> = self
            .logits
            .iter()
            .map(|&(token, wanted)| f64::from((logits[token] - wanted).abs()) / scale)
            .collect();
        let worst = off.iter().copied().fold(0.0, f64::max);
        #[expect(clippy::cast_precision_loss, reason = "a hundred logits")]
        let mean = off.iter().sum::<f64>() / off.len() as f64;
        println!("{}: worst {worst:.5}, mean {mean:.5} of the root mean square", self.name);
        assert!(worst <= tolerance.single, "{}: a logit is off by {worst}", self.name);
        assert!(mean <= tolerance.mean, "{}: logits are off by {mean}", self.name);
    }
}

/// The likeliest token.
pub(crate) fn best(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
    u32::try_from(best).unwrap()
}
