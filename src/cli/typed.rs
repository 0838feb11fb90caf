//! The tables as clap takes them, and which command was typed.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::cli::{PARTS, Part, variable};
use crate::config::UsageError;

/// Commands that come in several kinds: the first word of their names, and what they have in common.
const FAMILIES: &[(&str, &str)] =
    &[("bench", "Measure how fast a model runs, or a server answers")];

/// The command as clap knows it.
pub(crate) fn command() -> Command {
    Command::new("arcmesh")
        .about("One large language model, served across many GPUs")
        .after_help("Each flag can be given as an environment variable (--max-model-len: ARCMESH_MAX_MODEL_LEN)\nand in a TOML file named by --config. A flag wins over the environment, which wins over the file.")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommands(PARTS.iter().filter(|part| !part.name.contains(' ')).map(subcommand))
        .subcommands(FAMILIES.iter().map(family))
}

fn family(&(name, about): &(&'static str, &'static str)) -> Command {
    let kinds =
        PARTS.iter().filter(|part| part.name.split_once(' ').is_some_and(|it| it.0 == name));
    Command::new(name)
        .about(about)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommands(kinds.map(subcommand))
}

fn subcommand(part: &'static Part) -> Command {
    let argument = part.argument.iter().map(|argument| {
        Arg::new(argument.name)
            .value_name(argument.value)
            .help(argument.help)
            .required(argument.required)
    });
    let flags = part.groups.iter().flat_map(|group| {
        group.flags.iter().map(|flag| {
            Arg::new(flag.name)
                .long(flag.name)
                .value_name(flag.value)
                .help(format!("{} [env: {}]", flag.help, variable(flag.name)))
                .help_heading(group.title)
                .action(if flag.many { ArgAction::Append } else { ArgAction::Set })
                .num_args(if flag.switch { 0..=1 } else { 1..=1 })
                .default_missing_value("yes")
                // So that a negative number is refused by the flag's own rule.
                .allow_negative_numbers(true)
        })
    });
    let name = part.name.split_once(' ').map_or(part.name, |(_, kind)| kind);
    Command::new(name).about(part.about).args(argument).args(flags)
}

/// The command that was typed.
pub(crate) fn chosen(matches: &ArgMatches) -> Result<(&'static Part, &ArgMatches), UsageError> {
    let which = || UsageError::new("which command? see --help");
    let (mut name, mut matches) = matches.subcommand().ok_or_else(which)?;
    let full;
    if FAMILIES.iter().any(|family| family.0 == name) {
        let (kind, inner) = matches.subcommand().ok_or_else(which)?;
        full = format!("{name} {kind}");
        (name, matches) = (&full, inner);
    }
    let part = PARTS.iter().find(|part| part.name == name).expect("clap knows only these commands");
    Ok((part, matches))
}
