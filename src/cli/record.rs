//! Recordings: made by a coordinator, replayed by a command of their own.

use crate::cli::{Argument, Group, PROCESS, Part, flag};

pub(super) const RECORDING: Group = Group {
    title: "Recording",
    flags: &[
        flag(
            "record",
            "FILE",
            "Where it is recorded what the scheduler is told and plans, for arcmesh replay; no text can be read from it [default: nowhere]",
        ),
        flag(
            "record-max",
            "BYTES",
            "At so many bytes the recording ends, as 1073741824 or 1GiB [default: 1GiB]",
        ),
    ],
};

pub(super) const REPLAY_PART: Part = Part {
    name: "replay",
    about: "Run the scheduler on a recording, and say whether it decides the same",
    argument: Some(Argument {
        name: "file",
        value: "FILE",
        help: "What --record has written",
        required: true,
    }),
    groups: &[PROCESS],
};
