//! The model on whichever device it is.

use crate::backend::Capabilities;
use crate::backend::candle::Candle;
use crate::backend::cpu::CpuBackend;
use crate::backend::opencl::OpenClBackend;
use crate::model::Model;

/// A rank's model.
pub(super) enum Device {
    Candle(Box<Model<Candle>>),
    Cpu(Box<Model<CpuBackend>>),
    OpenCl(Box<Model<OpenClBackend>>),
}

impl Device {
    /// What it is.
    pub(super) fn capabilities(&self) -> Capabilities {
        match self {
            Self::Candle(model) => model.capabilities(),
            Self::Cpu(model) => model.capabilities(),
            Self::OpenCl(model) => model.capabilities(),
        }
    }

    /// Kernels that its queue took so far; 0 where there is no queue.
    pub(super) fn launches(&self) -> u64 {
        match self {
            Self::Candle(model) => model.launches(),
            Self::Cpu(model) => model.launches(),
            Self::OpenCl(model) => model.launches(),
        }
    }
}
