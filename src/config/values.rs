//! One value at a time: from what was written to what it is, or why it is not.

use std::fmt;

use catalogue::ModelReference;
use coordinator::Overlong;
use proto::worker::KvDtype;
use scheduler::Admission;
use url::Url;
use worker::Pinning;
use worker::backend::opencl::DeviceChoice;
use worker::collective::LaneChoice;
use worker::telemetry::{Machine, PciAddress};

/// Where something listens: a name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Name or address, an IPv6 address without its brackets.
    pub(crate) host: String,
    /// Port; 0 is any free one.
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// An Arc card where there is one, else the CPU.
    Auto,
    /// Plain and portable: the reference.
    Candle,
    /// Fast on a CPU.
    Cpu,
    /// A GPU, through OpenCL.
    OpenCl,
}

/// A whole number within bounds.
pub(crate) fn number(least: u64, most: u64) -> impl Fn(&str) -> Result<u64, String> {
    move |text| match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("'{text}' is not a whole number from {least} to {most}")),
    }
}

/// A whole number from `least` up, as small as our protocol has it.
pub(crate) fn count(least: u32) -> impl Fn(&str) -> Result<u32, String> {
    move |text| match text.parse() {
        Ok(number) if number >= least => Ok(number),
        _ => Err(format!("'{text}' is not a whole number from {least} to {}", u32::MAX)),
    }
}

/// A port; 0 is any free one.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("'{text}' is not a port from 0 to 65535"))
}

/// A number of bytes: plain, or with KiB, MiB, GiB or TiB.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let shift = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "kib" => 10,
        "mib" => 20,
        "gib" => 30,
        "tib" => 40,
        _ => return Err(format!("'{text}' is not a number of bytes such as 4GiB or 512MiB")),
    };
    let count: u64 = digits
        .parse()
        .map_err(|_| format!("'{text}' is not a whole number of bytes such as 4GiB or 512MiB"))?;
    count.checked_mul(1 << shift).ok_or_else(|| format!("'{text}' is more than a machine has"))
}

/// A name or an address that something can listen on.
pub(crate) fn host(text: &str) -> Result<String, String> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let is_address = inner.parse::<std::net::IpAddr>().is_ok();
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if is_address || (!inner.is_empty() && inner.len() <= 253 && inner.bytes().all(in_name)) {
        return Ok(inner.to_owned());
    }
    Err(format!("'{text}' is not a host name or address"))
}

/// `HOST:PORT`.
pub(crate) fn address(text: &str) -> Result<Address, String> {
    let wrong = || format!("'{text}' is not of the form HOST:PORT");
    let (name, number) = text.rsplit_once(':').ok_or_else(wrong)?;
    if name.contains(':') && !name.starts_with('[') {
        return Err(format!("{}; an IPv6 address stands in brackets", wrong()));
    }
    let host = host(name).map_err(|_| wrong())?;
    Ok(Address { host, port: port(number).map_err(|_| wrong())? })
}

/// The address of a process that listens elsewhere.
pub(crate) fn peer(text: &str) -> Result<Address, String> {
    let address = address(text)?;
    if address.port == 0 {
        return Err(format!("'{text}' has no port that can be reached"));
    }
    Ok(address)
}

/// What computes.
pub(crate) fn backend(text: &str) -> Result<Backend, String> {
    match text {
        "auto" => Ok(Backend::Auto),
        "cpu" => Ok(Backend::Cpu),
        "candle" => Ok(Backend::Candle),
        "opencl" => Ok(Backend::OpenCl),
        _ => Err(format!("'{text}' is not one of auto, candle, cpu and opencl")),
    }
}

/// Whether compute threads stay on one CPU each.
pub(crate) fn pinning(text: &str) -> Result<Pinning, String> {
    match text {
        "auto" => Ok(Pinning::Auto),
        "on" => Ok(Pinning::On),
        "off" => Ok(Pinning::Off),
        _ => Err(format!("'{text}' is not one of auto, on and off")),
    }
}

/// What carries sums to other ranks.
pub(crate) fn lane(text: &str) -> Result<LaneChoice, String> {
    match text {
        "auto" => Ok(LaneChoice::default()),
        "grpc" => Ok(LaneChoice::Grpc),
        _ => Err(format!("'{text}' is not one of auto and grpc")),
    }
}

/// What is done where a request asks for too many tokens.
pub(crate) fn overlong(text: &str) -> Result<Overlong, String> {
    match text {
        "clamp" => Ok(Overlong::Clamp),
        "reject" => Ok(Overlong::Reject),
        _ => Err(format!("'{text}' is not one of clamp and reject")),
    }
}

/// Which OpenCL device.
pub(crate) fn opencl_device(text: &str) -> Result<DeviceChoice, String> {
    text.parse()
}

/// In which order requests are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Fcfs,
    Priority,
    Fair,
}

/// In which order requests are served.
pub(crate) fn order(text: &str) -> Result<Order, String> {
    match text {
        "fcfs" => Ok(Order::Fcfs),
        "priority" => Ok(Order::Priority),
        "fair" => Ok(Order::Fair),
        _ => Err(format!("'{text}' is not one of fcfs, priority and fair")),
    }
}

/// What a request that is let in gets room for.
pub(crate) fn admission(text: &str) -> Result<Admission, String> {
    match text {
        "prompt" => Ok(Admission::Prompt),
        "expected" => Ok(Admission::Expected),
        _ => Err(format!("'{text}' is not one of prompt and expected")),
    }
}

/// What keys and values are kept as.
pub(crate) fn kv_dtype(text: &str) -> Result<KvDtype, String> {
    match text {
        "f16" => Ok(KvDtype::F16),
        "q8_0" => Ok(KvDtype::Q8),
        _ => Err(format!("'{text}' is not one of f16 and q8_0")),
    }
}

/// A card, by where it sits.
pub(crate) fn card(text: &str) -> Result<PciAddress, String> {
    text.parse().map_err(|error: worker::telemetry::PciAddressError| error.to_string())
}

/// Files that tell of a machine.
pub(crate) fn machine(text: &str) -> Result<Machine, String> {
    let machine = Machine::at(text);
    if machine.path("sys").is_dir() {
        return Ok(machine);
    }
    Err(format!("'{text}' is not a folder with sys in it"))
}

/// A model.
pub(crate) fn model(text: &str) -> Result<ModelReference, String> {
    ModelReference::parse(text).map_err(|error| error.to_string())
}

/// A key that clients show in a header. A wrong one is not repeated: it is a secret all the same.
pub(crate) fn key(text: &str) -> Result<catalogue::Secret, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a key is one or more visible ASCII characters without blanks".to_owned());
    }
    Ok(catalogue::Secret(text.to_owned()))
}

/// A name that is shown to clients.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(format!("'{}' cannot be a name", text.escape_debug()));
    }
    Ok(text.to_owned())
}

/// `NAME:PASSWORD`. A wrong one is not repeated: it is a secret all the same.
pub(crate) fn user(text: &str) -> Result<(String, catalogue::Secret), String> {
    match text.split_once(':') {
        Some((name, password)) if !name.is_empty() && !password.is_empty() => {
            Ok((name.to_owned(), catalogue::Secret(password.to_owned())))
        }
        _ => Err("it must be of the form NAME:PASSWORD".to_owned()),
    }
}

/// Yes or no.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("'{text}' is not one of yes and no")),
    }
}

/// The name of a cluster: a part of keys and of file names.
pub(crate) fn cluster(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || text.len() > 63 || !text.bytes().all(fits) {
        return Err(format!(
            "'{}' is not 1 to 63 letters, digits, dots, dashes and underscores",
            text.escape_debug()
        ));
    }
    Ok(text.to_owned())
}

/// An address of the web.
pub(crate) fn url(text: &str) -> Result<String, String> {
    // What follows the scheme is left to who knows how addresses are written.
    if !["https://", "http://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Err("it must be an address that starts with https:// or http://".to_owned());
    }
    if text.contains(char::is_whitespace) {
        return Err("an address has no blanks".to_owned());
    }
    match Url::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("it is no address: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_plain_or_have_a_binary_unit() {
        for (text, expected) in
            [("0", 0), ("512", 512), ("3KiB", 3072), ("2GiB", 2 << 30), ("1 tib", 1 << 40)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "GiB", "-1", "1.5GiB", "2GB", "2G", "99999999TiB", "1GiBx", "é"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_a_host_and_a_port() {
        for text in ["127.0.0.1:7001", "worker-1.local:0", "[::1]:9"] {
            assert_eq!(address(text).unwrap().to_string(), text);
        }
        for text in
            ["", ":1", "a", "a:", "a:x", "a:65536", "::1:7001", "a b:1", "http://a:1", "[]:1"]
        {
            assert!(address(text).is_err(), "{text}");
        }
        assert!(peer("a:0").is_err());
    }
}
