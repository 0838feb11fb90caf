//! The flags of what measures: `bench engine`, `bench serve`.

use crate::cli::{
    ANY_MODEL, BLOCK_SIZE, FIGURES, Group, KV_CACHE_DTYPE, STEP_TOKENS, flag, many, switch,
};

pub(super) const MEASURED_MODEL: Group = Group { title: "Model", flags: &[ANY_MODEL] };
pub(super) const MEASURED: Group = Group {
    title: "What is measured",
    flags: &[
        flag("prompt", "TOKENS", "Prompt tokens of each sequence; 0: none [default: 512]"),
        flag("generate", "TOKENS", "Tokens that each sequence generates; 0: none [default: 128]"),
        flag("batch", "SEQUENCES", "Sequences that run at once [default: 1]"),
        flag("runs", "RUNS", "How often it is repeated; medians are shown [default: 5]"),
        FIGURES,
        STEP_TOKENS,
        BLOCK_SIZE,
        KV_CACHE_DTYPE,
    ],
};

/// Who is asked.
pub(super) const SERVER: Group = Group {
    title: "Server",
    flags: &[
        flag(
            "url",
            "URL",
            "Where the server is, with or without /v1 [default: http://127.0.0.1:8000]",
        ),
        flag(
            "served-model-name",
            "NAME",
            "The model that is asked for [default: the first that the server lists]",
        ),
        many("api-key", "KEY", "The key to show, if the server wants one [default: none]"),
        flag("endpoint", "ENDPOINT", "What is asked: chat or completions [default: chat]"),
    ],
};

/// When requests start.
pub(super) const LOAD: Group = Group {
    title: "Load",
    flags: &[
        flag(
            "concurrency",
            "REQUESTS",
            "Requests under way at once; with --rate the most there may be, and what comes on top is held back [default: 8, with --rate 1024]",
        ),
        flag(
            "rate",
            "PER-SECOND",
            "Requests started a second on average, at random moments (Poisson) [default: as fast as --concurrency allows]",
        ),
        flag(
            "wave",
            "SECONDS",
            "Requests under way swell from one to --concurrency and ebb again, once in so many seconds; excludes --rate [default: they don't]",
        ),
        flag(
            "requests",
            "REQUESTS",
            "How many are started [default: 100, with --duration no limit]",
        ),
        flag("duration", "SECONDS", "After how long no more are started [default: no limit]"),
        flag("timeout", "SECONDS", "Longest that an answer may take [default: 600]"),
        flag("seed", "SEED", "Where prompts, lengths and random moments come from [default: 1]"),
    ],
};

/// What is asked.
pub(super) const REQUESTS: Group = Group {
    title: "Requests",
    flags: &[
        flag(
            "prompt-tokens",
            "LENGTHS",
            "Tokens of synthetic prompts: 128, uniform:32..512, normal:256,64 or exponential:256 [default: 128]",
        ),
        flag(
            "prompts",
            "FILE",
            "Prompts from conversations in ShareGPT's JSON, the first message of each; excludes --prompt-tokens [default: synthetic ones]",
        ),
        flag(
            "answer-tokens",
            "LENGTHS",
            "Most tokens of an answer, as --prompt-tokens [default: 64]",
        ),
        switch(
            "ignore-eos",
            "Whether answers go on to their full length; the server must know this [default: no]",
        ),
        flag("temperature", "TEMPERATURE", "How freely tokens are chosen, 0 to 2 [default: 0]"),
    ],
};

/// Where the figures go.
pub(super) const REPORTS: Group = Group {
    title: "Figures",
    flags: &[
        FIGURES,
        flag(
            "html",
            "FILE",
            "Where a report with charts goes, one page that needs nothing else [default: nowhere]",
        ),
        switch(
            "reconcile",
            "Whether the server's /metrics, before and after, must say what was measured; each mismatch is named, and one makes the command fail. Nobody else may use the server meanwhile [default: no]",
        ),
    ],
};

/// The site of the demo.
pub(super) const DEMO: Group = Group {
    title: "Site",
    flags: &[
        ANY_MODEL,
        flag(
            "world",
            "RANKS",
            "Worker processes that the model is split over [default: the cores, at most 4]",
        ),
        flag(
            "threads",
            "THREADS",
            "Compute threads of each worker [default: the cores, shared among the workers]",
        ),
    ],
};

/// What happens to it, and what must hold.
pub(super) const DEMO_LOAD: Group = Group {
    title: "Demo",
    flags: &[
        flag(
            "minutes",
            "MINUTES",
            "How long requests are sent, with or without a fraction [default: 60]",
        ),
        flag("concurrency", "REQUESTS", "Requests under way at the crest of a wave [default: 8]"),
        flag(
            "prompt-tokens",
            "LENGTHS",
            "Tokens of prompts, as in bench serve [default: uniform:32..256]",
        ),
        flag("answer-tokens", "LENGTHS", "Most tokens of an answer [default: uniform:16..96]"),
        flag("seed", "SEED", "Where prompts and lengths come from [default: 1]"),
        flag(
            "folder",
            "FOLDER",
            "Where the report, the logs and Prometheus' data go [default: arcmesh-demo]",
        ),
        flag(
            "latency-drift",
            "PERCENT",
            "By how much median times of the last quarter may exceed those of the second [default: 50]",
        ),
        flag(
            "memory-drift",
            "PERCENT",
            "By how much a process's memory may, and 16 MiB at least [default: 10]",
        ),
    ],
};
