//! Who asks for what, and when.

use std::time::Duration;

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// After the beginning; `None`: when all before it are answered.
    pub(crate) at: Option<Duration>,
    /// Tokens.
    pub(crate) prompt: u32,
    /// Tokens after which each sequence ends by itself.
    pub(crate) answer: u32,
    pub(crate) sequences: u32,
    pub(crate) priority: i32,
    pub(crate) tenant: u32,
}

/// Requests in the order in which they come.
#[derive(Debug)]
pub(crate) struct Load(pub(crate) Vec<Request>);

/// Longest answer, which is what clients ask for.
pub(crate) const ANSWER_MAX: u32 = 1024;

impl Load {
    /// Waves, each when the one before is answered: short and long prompts alike, few long answers.
    pub(crate) fn waves(waves: u32, requests: u32) -> Self {
        let mut random = Random(1);
        let one = |wave: u32, nth: u32, random: &mut Random| Request {
            at: if nth > 0 || wave == 0 { Some(Duration::ZERO) } else { None },
            prompt: 16 + random.below(497),
            answer: random.answer(),
            sequences: 1,
            priority: if random.below(8) == 0 { -1000 } else { 0 },
            tenant: u32::from(random.below(10) == 0),
        };
        let waves = (0..waves).flat_map(|wave| (0..requests).map(move |nth| (wave, nth)));
        Self(waves.map(|(wave, nth)| one(wave, nth, &mut random)).collect())
    }

    /// Streams that never end while long prompts arrive.
    pub(crate) fn streams(streams: u32, long: u32, every: Duration) -> Self {
        let request = |at, prompt, answer| Request {
            at: Some(at),
            prompt,
            answer,
            sequences: 1,
            priority: 0,
            tenant: 0,
        };
        let streams = (0..streams).map(|_| request(Duration::ZERO, 100, ANSWER_MAX));
        let prompts = (1..7).map(|nth| request(every * nth, long, 1));
        Self(streams.chain(prompts).collect())
    }

    /// A single one.
    pub(crate) fn one(prompt: u32, answer: u32, sequences: u32) -> Self {
        let at = Some(Duration::ZERO);
        Self(vec![Request { at, prompt, answer, sequences, priority: 0, tenant: 0 }])
    }
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound)).unwrap_or(0)
    }

    /// Each token is the last with a chance of 1 in 200.
    fn answer(&mut self) -> u32 {
        (1..ANSWER_MAX).find(|_| self.below(200) == 0).unwrap_or(ANSWER_MAX)
    }
}
