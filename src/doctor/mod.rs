//! `arcmesh doctor`: what this machine's cards are, what is wrong with them and what to do about it, and
//! how fast a model would be with more or fewer ranks.
//!
//! A *survey* is what the kernel says; *findings* are what follows from it; *measured* is what memory and
//! links really do; *predicted* is arithmetic over that. It ends with 1 when something is wrong.

mod report;

mod predict;

mod measure;

mod findings;

mod release;
mod survey;

use std::sync::Arc;

use anyhow::{Context as _, bail};
use checkpoint::Checkpoint;
use opencl::DeviceChoice;
use tokio::task::spawn_blocking;

use crate::config::DoctorConfig;
use crate::device;
use crate::doctor::findings::{Severity, findings};
use crate::doctor::measure::Measured;
use crate::doctor::predict::Prediction;
use crate::doctor::report::Report;
use crate::doctor::survey::{OpenClSurvey, Survey};
use crate::figures::Figures;
use crate::models;

/// Looks, measures, says what came of it.
pub(crate) async fn run(config: DoctorConfig) -> anyhow::Result<()> {
    let DoctorConfig { machine, devices, threads, model, json } = config;
    let figures = Figures::to(json)?;
    let mut survey = Survey::of(&machine);
    let is_auto = devices.device == DeviceChoice::Auto;
    // Starting a driver takes a moment.
    let opened = spawn_blocking(move || device::open(devices)).await.context("the search died")?;
    if machine.is_real() {
        survey.opencl = Some(OpenClSurvey::of(&opened));
    }
    let mut findings = findings(&survey);
    let opened = match (opened, is_auto) {
        (Err(error), false) => return Err(error.context("--device")),
        (opened, _) => opened.unwrap_or_default(),
    };
    let checkpoint: Option<Arc<Checkpoint>> = match model {
        Some(model) => Some(models::open(model).await?),
        None => None,
    };
    // Collectives wait on their own threads, which must not be the runtime's.
    let measured = spawn_blocking(move || Measured::of(threads, &opened));
    let measured = measured.await.context("the measurement died")??;
    findings.splice(0..0, measured.failed.iter().map(findings::failed));
    let predicted =
        checkpoint.map(|checkpoint| Prediction::of(&checkpoint, &measured)).transpose()?;
    let wrong = findings.iter().filter(|finding| finding.severity == Severity::Wrong).count();
    let report = Report { survey, findings, measured, predicted };
    figures.say(&report, &report.text())?;
    match wrong {
        0 => Ok(()),
        1 => bail!("one thing is wrong: see above"),
        _ => bail!("{wrong} things are wrong: see above"),
    }
}
