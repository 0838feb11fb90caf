//! Rotary frequencies, with the scalings that stretch a model's context.

use std::f64::consts::PI;

use crate::config::{HEAD_SIZE_MAX, RopeConfig};

/// What a file says about its rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    pub(crate) base: f64,
    pub(crate) scaling: Scaling,
}

/// How frequencies are changed for contexts longer than those of the first training.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scaling {
    None,
    /// Every frequency divided by a factor.
    Linear {
        factor: f64,
    },
    /// Low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// The same idea by rotations; attention is sharpened, too.
    Yarn(Yarn),
    /// Every pair's frequency divided by its own factor, after dividing all by `factor`.
    Factors {
        factor: f64,
        each: Vec<f32>,
    },
}

/// Parameters of `YaRN`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Yarn {
    pub(crate) factor: f64,
    pub(crate) original: f64,
    pub(crate) beta_fast: f64,
    pub(crate) beta_slow: f64,
    /// Whether the ramp's ends are whole pairs.
    pub(crate) truncate: bool,
    pub(crate) attention_factor: f64,
}

/// The usual sharpening of `YaRN`: `0.1 × scale × ln(factor) + 1`.
pub(crate) fn yarn_attention(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

impl Rope {
    /// Frequencies for heads of `head_size`; or what is not a sane number.
    pub(crate) fn tabulate(&self, head_size: usize) -> Result<RopeConfig, String> {
        if head_size > HEAD_SIZE_MAX {
            return Err(format!("the head size is {head_size}"));
        }
        positive("the rotary base", self.base)?;
        self.scaling.check(head_size)?;
        let mut attention_factor = 1.0;
        let plain = (0..head_size / 2).map(|pair| plain_frequency(self.base, pair, head_size));
        let scaled: Vec<f64> = match &self.scaling {
            Scaling::None => plain.collect(),
            Scaling::Linear { factor } => plain.map(|frequency| frequency / factor).collect(),
            Scaling::Llama3 { factor, low, high, original } => {
                plain.map(|frequency| llama3(frequency, *factor, *low, *high, *original)).collect()
            }
            Scaling::Yarn(yarn) => {
                attention_factor = yarn.attention_factor;
                yarn.frequencies(self.base, head_size)
            }
            Scaling::Factors { factor, each } => {
                plain.zip(each).map(|(f, own)| f / factor / f64::from(*own)).collect()
            }
        };
        Ok(RopeConfig {
            inverse_frequencies: scaled.into_iter().map(rounded).collect(),
            attention_factor: rounded(attention_factor),
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounded to f32 on purpose")]
fn rounded(number: f64) -> f32 {
    number as f32
}

#[expect(clippy::cast_precision_loss, reason = "a head is far smaller than 2^52")]
fn plain_frequency(base: f64, pair: usize, head_size: usize) -> f64 {
    base.powf(-2.0 * pair as f64 / head_size as f64)
}

fn llama3(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let rotations = original * frequency / (2.0 * PI);
    if rotations < low {
        frequency / factor
    } else if rotations > high {
        frequency
    } else {
        let kept = (rotations - low) / (high - low);
        (1.0 - kept) * frequency / factor + kept * frequency
    }
}

impl Yarn {
    #[expect(clippy::cast_precision_loss, reason = "a head is far smaller than 2^52")]
    fn frequencies(&self, base: f64, head_size: usize) -> Vec<f64> {
        let size = head_size as f64;
        // The pair that turns so often over the original context.
        let pair_of = |rotations: f64| {
            size * (self.original / (rotations * 2.0 * PI)).ln() / (2.0 * base.ln())
        };
        let (mut start, mut end) = (pair_of(self.beta_fast), pair_of(self.beta_slow));
        if self.truncate {
            (start, end) = (start.floor(), end.ceil());
        }
        let (start, end) = (start.max(0.0), end.min(size - 1.0));
        (0..head_size / 2)
            .map(|pair| {
                let frequency = plain_frequency(base, pair, head_size);
                let slowed = ((pair as f64 - start) / (end - start).max(0.001)).clamp(0.0, 1.0);
                slowed * frequency / self.factor + (1.0 - slowed) * frequency
            })
            .collect()
    }
}

impl Scaling {
    fn check(&self, head_size: usize) -> Result<(), String> {
        match self {
            Self::None => Ok(()),
            Self::Linear { factor } => positive("the rotary scaling factor", *factor),
            Self::Llama3 { factor, low, high, original } => {
                positive("the rotary scaling factor", *factor)?;
                positive("low_freq_factor", *low)?;
                positive("the original context", *original)?;
                if high > low && high.is_finite() {
                    Ok(())
                } else {
                    Err("high_freq_factor is not above low_freq_factor".to_owned())
                }
            }
            Self::Yarn(yarn) => {
                positive("the rotary scaling factor", yarn.factor)?;
                positive("the original context", yarn.original)?;
                positive("beta_fast", yarn.beta_fast)?;
                positive("beta_slow", yarn.beta_slow)?;
                positive("the attention factor", yarn.attention_factor)
            }
            Self::Factors { factor, each } => {
                positive("the rotary scaling factor", *factor)?;
                if each.len() != head_size / 2 {
                    return Err(format!(
                        "{} rotary factors for {} pairs",
                        each.len(),
                        head_size / 2
                    ));
                }
                each.iter().try_for_each(|&own| positive("a rotary factor", own.into()))
            }
        }
    }
}

fn positive(what: &str, number: f64) -> Result<(), String> {
    // Bounds that keep every quotient and logarithm within f32.
    if (1e-6..=1e12).contains(&number) { Ok(()) } else { Err(format!("{what} is {number}")) }
}

#[cfg(test)]
mod tests {
    use super::{Rope, Scaling, Yarn, yarn_attention};

    /// Some frequencies of a head of 128, to six digits.
    fn assert_near(rope: &Rope, wanted: &[(usize, f32)]) {
        let found = rope.tabulate(128).unwrap().inverse_frequencies;
        assert_eq!(found.len(), 64);
        for &(pair, wanted) in wanted {
            let error = (found[pair] - wanted).abs() / wanted;
            assert!(error < 1e-6, "pair {pair} is {}, not {wanted}", found[pair]);
        }
    }

    #[test]
    fn yarn_of_qwen_is_as_llama_cpp_computes_it() {
        let yarn = Yarn {
            factor: 4.0,
            original: 32768.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
            attention_factor: yarn_attention(4.0, 1.0),
        };
        let rope = Rope { base: 1e6, scaling: Scaling::Yarn(yarn) };
        assert_near(
            &rope,
            &[
                (0, 1.0),
                (20, 1.333_521_4e-2),
                (24, 5.375_321_5e-3),
                (30, 1.064_361e-3),
                (36, 1.798_411_6e-4),
                (40, 4.445_698_5e-5),
                (63, 3.102_344_4e-7),
            ],
        );
        let sharpened = rope.tabulate(128).unwrap().attention_factor;
        assert!((sharpened - 1.138_629_4).abs() < 1e-6);
    }

    #[test]
    fn llama_3_1_is_as_transformers_computes_it() {
        let scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        assert_near(
            &Rope { base: 500_000.0, scaling },
            &[
                (0, 1.0),
                (20, 1.656_044e-2),
                (28, 3.211_446e-3),
                (30, 1.371_893_6e-3),
                (32, 5.248_461_6e-4),
                (34, 1.785_078e-4),
                (36, 7.784_655e-5),
                (63, 3.068_926e-7),
            ],
        );
    }

    #[test]
    fn what_is_no_frequency_is_refused() {
        for base in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Rope { base, scaling: Scaling::None }.tabulate(64).is_err());
        }
        let rope = |scaling| Rope { base: 1e4, scaling };
        assert!(rope(Scaling::Linear { factor: 0.0 }).tabulate(64).is_err());
        let equal = Scaling::Llama3 { factor: 8.0, low: 4.0, high: 4.0, original: 8192.0 };
        assert!(rope(equal).tabulate(64).is_err());
        for each in [vec![1.0; 31], vec![f32::NAN; 32], vec![0.0; 32]] {
            assert!(rope(Scaling::Factors { factor: 1.0, each }).tabulate(64).is_err());
        }
        assert!(rope(Scaling::None).tabulate(usize::MAX).is_err());
    }
}
