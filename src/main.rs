//! The `arcmesh` command: what was typed becomes one validated configuration; then a part runs.
//!
//! One error is one line on standard error. The exit code is 2 for what was typed or configured
//! wrongly, and 1 for everything else.

mod bench;
mod certs;
mod chart;
mod cli;
mod config;
mod coordinator;
mod demo;
mod device;
mod doctor;
mod drain;
mod exposition;
mod figures;
mod front;
mod generate;
mod handover;
mod load;
mod loading;
mod logging;
mod membership;
mod models;
mod pull;
mod ranks;
mod replay;
mod serve;
mod shutdown;
mod telemetry;
mod terminal;
mod worker;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::config::{Environment, Given, UsageError};

fn main() -> ExitCode {
    let command = cli::command();
    let result = match command.try_get_matches_from(std::env::args_os().collect::<Vec<OsString>>())
    {
        Ok(matches) => run(&matches),
        Err(asked) if !asked.use_stderr() => asked.print().map_err(anyhow::Error::from),
        Err(bare) if bare.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return bare.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(2));
        }
        Err(wrong) => Err(UsageError::from(&wrong).into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(&format!("{error:#}"));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

/// Reads the configuration as a whole before anything starts.
fn run(matches: &clap::ArgMatches) -> anyhow::Result<()> {
    let environment = Environment::read()?;
    let (command, matches) = cli::chosen(matches)?;
    let mut given = Given::collect(command, matches, &environment)?;
    let log = config::log(&given)?;
    match command.name {
        "serve" => {
            let config = config::serve(&mut given, &environment)?;
            in_runtime(&log, serve::run(config))
        }
        "coordinator" => {
            let config = config::coordinator(&mut given, &environment)?;
            in_runtime(&log, coordinator::run(config))
        }
        "worker" => {
            let config = config::worker(&mut given, &environment)?;
            in_runtime(&log, worker::run(config))
        }
        "certs" => {
            let config = config::certs(&given)?;
            logging::start(&log);
            certs::run(&config)
        }
        "drain" => {
            let config = config::drain(&given)?;
            in_runtime(&log, drain::run(config))
        }
        "generate" => {
            let config = config::generate(&mut given, &environment)?;
            in_runtime(&log, generate::run(config))
        }
        "bench engine" => {
            let config = config::bench(&given, &environment)?;
            in_runtime(&log, bench::engine::run(config))
        }
        "bench device" => {
            let config = config::bench_device(&given)?;
            in_runtime(&log, bench::device::run(config))
        }
        "bench serve" => {
            let config = config::bench_serve(&mut given)?;
            in_runtime(&log, bench::serve::run(config))
        }
        "replay" => replay::run(&config::replay(&given)?),
        "demo" => {
            let config = config::demo(&mut given, &environment)?;
            in_runtime(&log, demo::run(config))
        }
        "doctor" => {
            let config = config::doctor(&given, &environment)?;
            in_runtime(&log, doctor::run(config))
        }
        _ => {
            let config = config::pull(&given, &environment)?;
            logging::start(&log);
            pull::run(&config)
        }
    }
}

fn in_runtime(
    log: &config::LogConfig,
    part: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    logging::start(log);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(part)
}
