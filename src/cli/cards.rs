//! Flags about devices and graphics cards.

use crate::cli::{FIGURES, Flag, Group, flag, many};

const SYSFS_ROOT: Flag = flag(
    "sysfs-root",
    "FOLDER",
    "Where sys, proc and dev are that tell of cards, for a container or a test [default: /]",
);

pub(super) const DEVICE: Group = Group {
    title: "Device",
    flags: &[
        flag(
            "backend",
            "BACKEND",
            "What computes: candle (plain, the reference), cpu (fast), opencl (a GPU), or auto: an Arc card where there is one, else cpu [default: auto]",
        ),
        flag(
            "threads",
            "THREADS",
            "Compute threads of each rank [default: the cores, shared among the ranks]",
        ),
        flag(
            "pin",
            "WHEN",
            "Whether each compute thread of the cpu backend stays on one CPU, on another core than its fellows where there are enough: off, on (where there are as many CPUs as threads), or auto: where the ranks of this machine have one thread for every core or every CPU that they may use [default: off]",
        ),
    ],
};

pub(super) const OPENCL: Group = Group {
    title: "OpenCL",
    flags: &[
        flag(
            "device",
            "DEVICE",
            "Which device: a PCI address such as 0000:03:00.0, a UUID, auto (Arc cards first; ranks of one process take one each), or cpu for a test [default: auto]",
        ),
        flag(
            "opencl-library",
            "FILE",
            "OpenCL library [default: libOpenCL.so.1 where the system has it]",
        ),
    ],
};

pub(super) const MEASURED_DEVICE: Group = Group { title: "What is measured", flags: &[FIGURES] };

pub(super) const TELEMETRY: Group = Group {
    title: "Telemetry",
    flags: &[
        many(
            "telemetry",
            "CARD",
            "A card whose power, heat, clocks and link are on /metrics, by PCI address such as 0000:03:00.0; may be repeated [default: those that the opencl backend drives]",
        ),
        SYSFS_ROOT,
    ],
};

pub(super) const DIAGNOSED: Group = Group {
    title: "What is looked at",
    flags: &[
        flag(
            "model",
            "MODEL",
            "What tokens/s are predicted for: a name of the catalogue, hf:ORG/REPO[:FILE], a GGUF file or a folder of safetensors; fetched unless it is here [default: nothing is predicted]",
        ),
        SYSFS_ROOT,
        flag(
            "threads",
            "THREADS",
            "Threads that compute on this machine, shared among its ranks [default: the cores]",
        ),
        flag(
            "json",
            "FILE",
            "Where the findings go as JSON as well; - is standard output, and the text then goes to standard error [default: nowhere]",
        ),
    ],
};
