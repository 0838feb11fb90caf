//! What was given: flags over environment over file, each value with where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;

use clap::ArgMatches;

use crate::cli::{self, Part};

/// Longest file of settings, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What was typed or configured wrongly: one line that names it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(String);

impl UsageError {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self(line.into())
    }
}

impl From<&clap::Error> for UsageError {
    /// The first paragraph says what is wrong; the rest repeats the usage.
    fn from(error: &clap::Error) -> Self {
        let text = error.to_string();
        let paragraph = text.split("\n\n").next().unwrap_or(&text);
        Self::new(format!("{} (see --help)", paragraph.trim_start_matches("error: ")))
    }
}

/// The environment variables that mean something to us.
#[derive(Debug, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the environment, once.
    pub(crate) fn read() -> Result<Self, UsageError> {
        let mut kept = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            if !is_ours(&name) {
                continue;
            }
            let value = value
                .into_string()
                .map_err(|_| UsageError::new(format!("{name}: the value is not Unicode")))?;
            kept.insert(name, value);
        }
        Ok(Self(kept))
    }

    /// A variable. An empty one counts as not given, so that a script can pass one on unset.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Refuses what starts like ours but is no setting: it is misspelt.
    fn check(&self) -> Result<(), UsageError> {
        let known = |name: &str| {
            cli::PARTS
                .iter()
                .flat_map(Part::flags)
                .any(|flag| cli::variable(flag.name) == name || flag.also.contains(&name))
        };
        let wrong = self.0.iter().find(|(name, value)| {
            name.starts_with("ARCMESH_") && !known(name) && !is_service_link(name, value)
        });
        match wrong {
            Some((name, _)) => Err(UsageError::new(format!("{name}: there is no such setting"))),
            None => Ok(()),
        }
    }
}

fn is_ours(name: &str) -> bool {
    ["ARCMESH_", "HF_"].iter().any(|start| name.starts_with(start))
        || ["HOME", "XDG_CACHE_HOME", "PIP_INDEX_URL"].contains(&name)
}

/// Kubernetes sets such variables in every pod for each service, and one may be called arcmesh.
fn is_service_link(name: &str, value: &str) -> bool {
    let port = name
        .split_once("_PORT_")
        .is_some_and(|(_, rest)| rest.starts_with(|letter: char| letter.is_ascii_digit()));
    port || name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

/// Where a value came from; a later one wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    File { path: String, key: String },
    Variable(String),
    Argument(String),
}

impl Origin {
    /// Which of the three layers.
    fn layer(&self) -> u8 {
        match self {
            Self::File { .. } => 0,
            Self::Variable(_) => 1,
            Self::Argument(_) => 2,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, key } => write!(formatter, "{key} in {path}"),
            Self::Variable(name) | Self::Argument(name) => formatter.write_str(name),
        }
    }
}

/// A setting that was given.
#[derive(Debug)]
struct Setting {
    values: Vec<String>,
    origin: Origin,
}

/// Every setting that was given, the winner of each.
#[derive(Debug)]
pub(crate) struct Given(BTreeMap<String, Setting>);

impl Given {
    /// Lays flags over environment over file.
    pub(crate) fn collect(
        part: &Part,
        matches: &ArgMatches,
        environment: &Environment,
    ) -> Result<Self, UsageError> {
        environment.check()?;
        let mut flags = BTreeMap::new();
        let names = part.flags().map(|flag| (flag.name, format!("--{}", flag.name)));
        let argument = part.argument().map(|name| (name, name.to_ascii_uppercase()));
        for (name, shown) in names.chain(argument) {
            if let Some(values) = matches.get_many::<String>(name) {
                let origin = Origin::Argument(shown);
                flags
                    .insert(name.to_owned(), Setting { values: values.cloned().collect(), origin });
            }
        }
        let mut given = variables(environment);
        given.extend(flags);
        if let Some(config) = given.get("config") {
            let path = config.values.first().map_or("", String::as_str);
            let mut all = file(path, &config.origin)?;
            all.extend(given);
            given = all;
        }
        Ok(Self(given))
    }

    /// The value of a setting that is given at most once, understood by `parse`.
    pub(crate) fn one<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, UsageError> {
        Ok(self.many(name, parse)?.pop())
    }

    /// The values of a setting, each understood by `parse`.
    pub(crate) fn many<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, UsageError> {
        let Some(setting) = self.0.get(name) else { return Ok(Vec::new()) };
        let parse = |value: &String| parse(value).map_err(|reason| wrong(&setting.origin, &reason));
        setting.values.iter().map(parse).collect()
    }

    /// Of two settings that exclude each other, keeps the one of the higher layer.
    pub(crate) fn exclude(&mut self, one: &str, other: &str) -> Result<(), UsageError> {
        let (Some(first), Some(second)) = (self.0.get(one), self.0.get(other)) else {
            return Ok(());
        };
        let weaker = match first.origin.layer().cmp(&second.origin.layer()) {
            std::cmp::Ordering::Less => one,
            std::cmp::Ordering::Greater => other,
            std::cmp::Ordering::Equal => {
                let reason = format!("it cannot be given together with {}", second.origin);
                return Err(wrong(&first.origin, &reason));
            }
        };
        self.0.remove(weaker);
        Ok(())
    }
}

fn wrong(origin: &Origin, reason: &str) -> UsageError {
    UsageError::new(format!("{origin}: {reason}"))
}

/// The middle layer. Several values of one setting are parted by commas.
fn variables(environment: &Environment) -> BTreeMap<String, Setting> {
    let mut found = BTreeMap::new();
    for flag in cli::PARTS.iter().flat_map(Part::flags) {
        let own = cli::variable(flag.name);
        let names = std::iter::once(own.as_str()).chain(flag.also.iter().copied());
        let mut given = names.filter_map(|name| Some((name, environment.get(name)?)));
        let Some((name, value)) = given.find(|(name, value)| !is_service_link(name, value)) else {
            continue;
        };
        let values = if flag.many {
            value.split(',').map(|value| value.trim().to_owned()).collect()
        } else {
            vec![value.to_owned()]
        };
        let setting = Setting { values, origin: Origin::Variable(name.to_owned()) };
        found.insert(flag.name.to_owned(), setting);
    }
    found
}

/// The lowest layer: a flat table whose keys are named like the flags.
fn file(path: &str, origin: &Origin) -> Result<BTreeMap<String, Setting>, UsageError> {
    let text = read(path).map_err(|reason| wrong(origin, &format!("'{path}': {reason}")))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        UsageError::new(format!("{path}, line {line}: {}", error.message()))
    })?;
    let mut found = BTreeMap::new();
    for (key, value) in table {
        let origin = Origin::File { path: path.to_owned(), key: key.clone() };
        if !cli::is_setting(&key) || key == "config" {
            return Err(wrong(&origin, "there is no such setting"));
        }
        let many = cli::PARTS.iter().flat_map(Part::flags).any(|f| f.name == key && f.many);
        let values = match value {
            toml::Value::Array(values) if many => values.iter().map(scalar).collect(),
            value => scalar(&value).map(|value| vec![value]),
        };
        let values = values
            .ok_or_else(|| wrong(&origin, "it must be a text, a whole number, true or false"))?;
        found.insert(key, Setting { values, origin });
    }
    Ok(found)
}

fn read(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let count = file
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if count as u64 > FILE_BYTES_MAX {
        return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        _ => None,
    }
}

#[cfg(test)]
impl Given {
    /// What `words` give to the command they start with, under `variables`.
    pub(crate) fn of(words: &[&str], variables: &[(&str, &str)]) -> Result<Self, UsageError> {
        let words = std::iter::once("arcmesh").chain(words.iter().copied());
        let matches =
            cli::command().try_get_matches_from(words).map_err(|error| UsageError::from(&error))?;
        let (part, matches) = cli::chosen(&matches)?;
        Self::collect(part, matches, &Environment::of(variables))
    }
}

#[cfg(test)]
impl Environment {
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self(variables.iter().map(owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Result<String, String> {
        Ok(value.to_owned())
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, "host = 'file'\nport = 1\nworld = 1\nlisten = 'x'\n").unwrap();
        let config = path.to_str().unwrap();
        let variables = [("ARCMESH_HOST", "environment"), ("ARCMESH_PORT", "2")];
        let given =
            Given::of(&["serve", "--config", config, "--host", "flag"], &variables).unwrap();
        let value = |name| given.one(name, text).unwrap();
        assert_eq!(value("host").as_deref(), Some("flag"));
        assert_eq!(value("port").as_deref(), Some("2"));
        assert_eq!(value("world").as_deref(), Some("1"));
        assert_eq!(value("threads"), None);
    }

    #[test]
    fn repeated_flags_replace_the_layers_below() {
        let variables = [("ARCMESH_WORKER", "a:1, b:2")];
        let given = Given::of(&["coordinator"], &variables).unwrap();
        assert_eq!(given.many("worker", text).unwrap(), ["a:1", "b:2"]);
        let words = ["coordinator", "--worker", "c:3", "--worker", "d:4"];
        let given = Given::of(&words, &variables).unwrap();
        assert_eq!(given.many("worker", text).unwrap(), ["c:3", "d:4"]);
    }

    #[test]
    fn settings_that_exclude_each_other_are_weighed_by_layer() {
        let words = ["serve", "--kv-blocks", "9"];
        let mut given = Given::of(&words, &[("ARCMESH_KV_CACHE_MEMORY", "1GiB")]).unwrap();
        given.exclude("kv-blocks", "kv-cache-memory").unwrap();
        assert_eq!(given.one("kv-blocks", text).unwrap().as_deref(), Some("9"));
        assert_eq!(given.one("kv-cache-memory", text).unwrap(), None);
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_called_arcmesh_is_no_mistake() {
        let variables = [
            ("ARCMESH_PORT", "tcp://10.0.0.1:8000"),
            ("ARCMESH_PORT_8000_TCP_ADDR", "10.0.0.1"),
            ("ARCMESH_SERVICE_HOST", "10.0.0.1"),
            ("ARCMESH_SERVICE_PORT_HTTP", "8000"),
            ("ARCMESH_HOST", ""),
        ];
        let given = Given::of(&["serve"], &variables).unwrap();
        assert_eq!(given.one("port", text).unwrap(), None);
        assert_eq!(given.one("host", text).unwrap(), None);
    }

    #[test]
    fn another_tools_variable_yields_to_ours() {
        let index = |variables: &[(&str, &str)]| {
            Given::of(&["pull"], variables).unwrap().one("pypi-index", text).unwrap()
        };
        assert_eq!(index(&[("PIP_INDEX_URL", "pip")]).as_deref(), Some("pip"));
        let both = [("PIP_INDEX_URL", "pip"), ("ARCMESH_PYPI_INDEX", "ours")];
        assert_eq!(index(&both).as_deref(), Some("ours"));
    }
}
