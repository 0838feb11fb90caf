//! The same events by length: long prompts are slow to begin, long answers are slow to end.

use prometheus::{Histogram, IntCounter, Registry};

use crate::metrics::declare::{Declare, REQUEST, TTFT};
use crate::metrics::seen::GroupSeen;

/// Classes of length, by their last length in tokens. Few, since each is a histogram of its own; 2048 is
/// among the bounds since prompts beyond it are where first tokens usually become late.
const CLASSES: [(u32, &str); 8] = [
    (128, "0-128"),
    (512, "129-512"),
    (1024, "513-1024"),
    (2048, "1025-2048"),
    (4096, "2049-4096"),
    (8192, "4097-8192"),
    (32_768, "8193-32768"),
    (u32::MAX, "32769+"),
];

/// What happened to requests, by the length of prompt or answer.
#[derive(Debug)]
pub(super) struct ByLength {
    classes: [Class; CLASSES.len()],
}

/// One class's series; resolved once, so that an event costs no look-up by label.
#[derive(Debug)]
struct Class {
    first_token: Histogram,
    e2e_by_prompt: Histogram,
    e2e_by_output: Histogram,
    failed: IntCounter,
    refused: IntCounter,
}

impl ByLength {
    pub(super) fn declare(registry: &Registry, model_name: &str) -> Self {
        let d = Declare::of_model(registry, model_name);
        let first = d.histograms(
            "arcmesh_ttft_by_prompt_len_seconds",
            "From the request's arrival to its first token, by tokens of its prompt.",
            &["prompt_len_bucket"],
            TTFT,
        );
        let by_prompt = d.histograms(
            "arcmesh_e2e_by_prompt_len_seconds",
            "From arrival to the end of the group, by tokens of its prompt.",
            &["prompt_len_bucket"],
            REQUEST,
        );
        let by_output = d.histograms(
            "arcmesh_e2e_by_output_len_seconds",
            "From arrival to the end of the group, by tokens of its longest sequence.",
            &["output_len_bucket"],
            REQUEST,
        );
        let errors = d.counters_by(
            "arcmesh_errors_by_prompt_len_total",
            "Groups that ended with an error, or were refused, by tokens of the prompt.",
            &["prompt_len_bucket", "kind"],
        );
        let class = |(_, label): (u32, &str)| Class {
            first_token: first.with_label_values(&[label]),
            e2e_by_prompt: by_prompt.with_label_values(&[label]),
            e2e_by_output: by_output.with_label_values(&[label]),
            failed: errors.with_label_values(&[label, "failed"]),
            refused: errors.with_label_values(&[label, "refused"]),
        };
        Self { classes: CLASSES.map(class) }
    }

    pub(super) fn first_token(&self, prompt_tokens: u32, seconds: f64) {
        self.of(prompt_tokens).first_token.observe(seconds);
    }

    pub(super) fn finished(&self, group: &GroupSeen) {
        let seconds = group.e2e.as_secs_f64();
        let prompt = self.of(group.prompt_tokens);
        prompt.e2e_by_prompt.observe(seconds);
        self.of(group.generated_max).e2e_by_output.observe(seconds);
        prompt.failed.inc_by(u64::from(group.failed));
    }

    pub(super) fn refused(&self, prompt_tokens: u32) {
        self.of(prompt_tokens).refused.inc();
    }

    fn of(&self, tokens: u32) -> &Class {
        let at = CLASSES.iter().position(|(last, _)| tokens <= *last);
        &self.classes[at.unwrap_or(CLASSES.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_the_class_whose_name_holds_it() {
        let lengths = ByLength::declare(&Registry::new(), "a-model");
        for tokens in [0, 1, 128, 129, 512, 2048, 2049, 8192, 8193, 32_768, 32_769, u32::MAX] {
            lengths.refused(tokens);
        }
        let counts: Vec<u64> = lengths.classes.iter().map(|class| class.refused.get()).collect();
        assert_eq!(counts, [3, 2, 0, 1, 1, 1, 2, 2]);
    }
}
