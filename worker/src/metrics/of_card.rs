//! The series of a graphics card, read once a second by a thread of their own: a card that does not
//! answer holds up neither a scrape nor a step.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus::{CounterVec, GaugeVec, IntCounterVec};

use crate::metrics::WorkerMetrics;
use crate::metrics::declare::Declare;
use crate::telemetry::{Card, Clock, Link, Machine, PciAddress, Reading};

/// How often a card is read.
const PERIOD: Duration = Duration::from_secs(1);

/// Series of cards, by PCI address. A card that does not say something has no such series.
#[derive(Debug, Clone)]
pub(super) struct CardFamilies {
    gauges: BTreeMap<&'static str, GaugeVec>,
    energy: CounterVec,
    readings: IntCounterVec,
}

/// A gauge's name and its labels.
type Point = (&'static str, Vec<String>);

/// Name, help and labels beside `pci`.
const GAUGES: [(&str, &str, &[&str]); 13] = [
    ("arcmesh_device_info", "What the card is: always 1", &["name", "driver", "kernel"]),
    ("arcmesh_device_present", "Whether the card is there: 0 when it was lost", &[]),
    ("arcmesh_device_power_watts", "Power between the last two readings, by energy", &[]),
    ("arcmesh_device_power_limit_watts", "Power that the card may take on average", &[]),
    ("arcmesh_device_voltage_volts", "Voltage of the chip", &[]),
    ("arcmesh_device_temperature_celsius", "How hot it is, by sensor", &["sensor"]),
    ("arcmesh_device_fan_rpm", "Revolutions a minute, by fan", &["fan"]),
    (
        "arcmesh_device_frequency_hertz",
        "Clock of a part: actual, the limit that is set, the most of the hardware",
        &["part", "kind"],
    ),
    (
        "arcmesh_device_throttled",
        "Whether something holds a part's clock back, by reason; status is any",
        &["part", "reason"],
    ),
    (
        "arcmesh_device_engine_busy_ratio",
        "Share of the time in which engines worked for this process, by kind",
        &["engine"],
    ),
    (
        "arcmesh_device_memory_bytes",
        "Memory of the card: its total, and what this process has of it",
        &["kind"],
    ),
    (
        "arcmesh_device_pcie_link_width",
        "Lanes of the link to the machine, now and at most",
        &["kind"],
    ),
    (
        "arcmesh_device_pcie_link_transfers_per_second",
        "Transfers a second and lane, now and at most",
        &["kind"],
    ),
];

impl CardFamilies {
    pub(super) fn declare(declare: &Declare<'_>) -> Self {
        let gauge = |(name, help, by): (&'static str, &str, &[&str])| {
            let labels: Vec<&str> = ["pci"].iter().chain(by).copied().collect();
            (name, declare.real_gauges(name, help, &labels))
        };
        Self {
            gauges: GAUGES.map(gauge).into(),
            energy: declare.real_counters(
                "arcmesh_device_energy_joules_total",
                "Energy that the card took since this process watches it",
                &["pci"],
            ),
            readings: declare.counters(
                "arcmesh_device_readings_total",
                "How often the card was read: once a second, unless it does not answer",
                &["pci"],
            ),
        }
    }
}

/// Reads a card until it is dropped.
#[derive(Debug)]
pub struct CardWatch {
    /// The thread ends when this does.
    _ends: mpsc::Sender<()>,
}

impl WorkerMetrics {
    /// Shows what a card says from now on. The first reading is done when this returns.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn watch(&self, machine: &Machine, card: Card) -> io::Result<CardWatch> {
        let mut shown = Shown {
            families: self.cards.clone(),
            address: card.address,
            about: about(&card, machine),
            points: BTreeMap::new(),
            last: None,
        };
        shown.show(card.read(), Instant::now());
        let (ends, ended) = mpsc::channel();
        thread::Builder::new().name("telemetry".to_owned()).spawn(move || {
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                shown.show(card.read(), Instant::now());
            }
            shown.forget();
        })?;
        Ok(CardWatch { _ends: ends })
    }
}

/// What a card is, in the order of the labels of its series.
fn about(card: &Card, machine: &Machine) -> Vec<String> {
    let driver = card.driver.as_ref().map_or("none", |driver| driver.name());
    let kernel = machine.kernel().unwrap_or_else(|| "unknown".to_owned());
    vec![card.name.clone(), driver.to_owned(), kernel]
}

/// The series of one card, as they stand.
struct Shown {
    families: CardFamilies,
    address: PciAddress,
    about: Vec<String>,
    points: BTreeMap<Point, f64>,
    last: Option<(Reading, Instant)>,
}

impl Shown {
    /// Brings the series to what was read `now`.
    fn show(&mut self, reading: Reading, now: Instant) {
        let address = self.address.to_string();
        let mut points = BTreeMap::new();
        let mut point = |name, labels: &[&str], value| {
            let labels = labels.iter().map(|&label| label.to_owned()).collect::<Vec<_>>();
            points.insert((name, labels), value);
        };
        let about: Vec<&str> = self.about.iter().map(String::as_str).collect();
        point("arcmesh_device_info", &about, 1.0);
        point("arcmesh_device_present", &[], f64::from(u8::from(reading.is_present)));
        of_sensors(&reading, &mut point);
        for clock in &reading.clocks {
            of_clock(clock, &mut point);
        }
        if let Some(link) = &reading.link {
            of_link(link, &mut point);
        }
        if let Some(bytes) = reading.memory_bytes {
            point("arcmesh_device_memory_bytes", &["total"], bytes as f64);
        }
        let process = reading.clients.memory_bytes as f64;
        point("arcmesh_device_memory_bytes", &["process"], process);
        let energy = self.families.energy.with_label_values(&[&address]);
        if let Some((last, at)) = &self.last {
            let seconds = now.duration_since(*at).as_secs_f64();
            let energies = reading.sensors.energy_joules.zip(last.sensors.energy_joules);
            // A driver that was loaded anew counts from nothing.
            let taken = energies.map(|(joules, before)| joules - before);
            if let Some(joules) = taken.filter(|joules| *joules >= 0.0 && seconds > 0.0) {
                energy.inc_by(joules);
                point("arcmesh_device_power_watts", &[], joules / seconds);
            }
            for (engine, time) in &reading.clients.engines {
                let before = last.clients.engines.get(engine);
                if let Some(ratio) = before.and_then(|before| time.busy_ratio(*before, seconds)) {
                    point("arcmesh_device_engine_busy_ratio", &[engine], ratio);
                }
            }
        }
        self.replace(points, &address);
        self.families.readings.with_label_values(&[&address]).inc();
        self.last = Some((reading, now));
    }

    /// Takes the card's series away.
    fn forget(&mut self) {
        let address = self.address.to_string();
        self.replace(BTreeMap::new(), &address);
    }

    /// Sets what is there now, and removes what is there no more.
    fn replace(&mut self, points: BTreeMap<Point, f64>, address: &str) {
        let labelled = |labels: &[String]| -> Vec<String> {
            [address.to_owned()].into_iter().chain(labels.iter().cloned()).collect()
        };
        for (name, labels) in self.points.keys().filter(|key| !points.contains_key(*key)) {
            // It was set before, so it is there.
            self.families.gauges[name].remove_label_values(&labelled(labels)).ok();
        }
        for ((name, labels), value) in &points {
            self.families.gauges[name].with_label_values(&labelled(labels)).set(*value);
        }
        self.points = points;
    }
}

fn of_sensors(reading: &Reading, point: &mut impl FnMut(&'static str, &[&str], f64)) {
    let sensors = &reading.sensors;
    if let Some(watts) = sensors.power_limit_watts {
        point("arcmesh_device_power_limit_watts", &[], watts);
    }
    if let Some(volts) = sensors.volts {
        point("arcmesh_device_voltage_volts", &[], volts);
    }
    for heat in &sensors.heat {
        point("arcmesh_device_temperature_celsius", &[&heat.sensor], heat.celsius);
    }
    for fan in &sensors.fans {
        point("arcmesh_device_fan_rpm", &[&fan.fan], fan.rpm);
    }
}

fn of_clock(clock: &Clock, point: &mut impl FnMut(&'static str, &[&str], f64)) {
    for (kind, hertz) in [
        ("actual", clock.actual_hertz),
        ("limit", clock.limit_hertz),
        ("hardware_max", clock.hardware_max_hertz),
    ] {
        if let Some(hertz) = hertz {
            point("arcmesh_device_frequency_hertz", &[&clock.part, kind], hertz);
        }
    }
    for (reason, is_now) in &clock.throttled {
        let value = f64::from(u8::from(*is_now));
        point("arcmesh_device_throttled", &[&clock.part, reason], value);
    }
}

fn of_link(link: &Link, point: &mut impl FnMut(&'static str, &[&str], f64)) {
    let port = link.card;
    for (kind, width, transfers) in [
        ("current", port.width, port.transfers_per_second),
        ("max", port.width_max, port.transfers_per_second_max),
    ] {
        point("arcmesh_device_pcie_link_width", &[kind], f64::from(width));
        point("arcmesh_device_pcie_link_transfers_per_second", &[kind], transfers);
    }
}

#[cfg(test)]
mod tests {
    use fixture::machine::{FIRST_CARD, MadeCard, MadeDriver, MadeMachine};

    use super::*;

    fn assert_shown(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }

    #[test]
    fn a_watched_card_is_on_the_page_at_once_and_off_it_in_the_end() {
        let root = tempfile::tempdir().unwrap();
        let (_made, address) = MadeMachine::at(root.path(), "6.8.0").with_card(MadeCard::default());
        let machine = Machine::at(root.path());
        let card = machine.card(address.parse().unwrap()).unwrap();
        let metrics = WorkerMetrics::new();
        assert!(!metrics.render().contains("pci="));
        let watch = metrics.watch(&machine, card).unwrap();
        let text = metrics.render();
        for line in [
            "arcmesh_device_info{driver=\"i915\",kernel=\"6.8.0\",name=\"Intel Arc A770\",pci=\"0000:03:00.0\"} 1",
            "arcmesh_device_present{pci=\"0000:03:00.0\"} 1",
            "arcmesh_device_energy_joules_total{pci=\"0000:03:00.0\"} 0",
            "arcmesh_device_power_limit_watts{pci=\"0000:03:00.0\"} 190",
            "arcmesh_device_temperature_celsius{pci=\"0000:03:00.0\",sensor=\"package\"} 61",
            "arcmesh_device_fan_rpm{fan=\"1\",pci=\"0000:03:00.0\"} 1500",
            "arcmesh_device_frequency_hertz{kind=\"actual\",part=\"gt0\",pci=\"0000:03:00.0\"} 1900000000",
            "arcmesh_device_frequency_hertz{kind=\"limit\",part=\"gt0\",pci=\"0000:03:00.0\"} 2400000000",
            "arcmesh_device_throttled{part=\"gt0\",pci=\"0000:03:00.0\",reason=\"pl1\"} 0",
            "arcmesh_device_memory_bytes{kind=\"total\",pci=\"0000:03:00.0\"} 17179869184",
            "arcmesh_device_memory_bytes{kind=\"process\",pci=\"0000:03:00.0\"} 0",
            "arcmesh_device_pcie_link_width{kind=\"current\",pci=\"0000:03:00.0\"} 16",
            "arcmesh_device_pcie_link_transfers_per_second{kind=\"max\",pci=\"0000:03:00.0\"} 16000000000",
            "arcmesh_device_readings_total{pci=\"0000:03:00.0\"} 1",
        ] {
            assert_shown(&text, line);
        }
        drop(watch);
    }

    /// A card's series, read when a test says so.
    fn shown(metrics: &WorkerMetrics) -> Shown {
        Shown {
            families: metrics.cards.clone(),
            address: FIRST_CARD.parse().unwrap(),
            about: ["a", "b", "c"].map(str::to_owned).into(),
            points: BTreeMap::new(),
            last: None,
        }
    }

    #[test]
    fn power_is_energy_between_two_readings_and_a_lost_card_says_so() {
        let root = tempfile::tempdir().unwrap();
        let xe = MadeCard { driver: MadeDriver::Xe, ..MadeCard::default() };
        let (made, address) = MadeMachine::at(root.path(), "6.8.0").with_card(xe);
        let card = Machine::at(root.path()).card(address.parse().unwrap()).unwrap();
        let folder = MadeMachine::card_folder(&address);
        let metrics = WorkerMetrics::new();
        let mut shown = shown(&metrics);
        let begun = Instant::now();
        let client = |busy, passed| {
            made.write(
                "proc/self/fdinfo/3",
                &format!(
                    "drm-pdev: {FIRST_CARD}\ndrm-client-id: 1\ndrm-cycles-ccs: {busy}\n\
                     drm-total-cycles-ccs: {passed}"
                ),
            );
        };
        client(100, 1000);
        shown.show(card.read(), begun);
        assert!(!metrics.render().contains("arcmesh_device_power_watts{"));

        client(350, 2000);
        made.write(&format!("{folder}/hwmon/hwmon3/energy2_input"), "307000000");
        shown.show(card.read(), begun + Duration::from_secs(2));
        let text = metrics.render();
        assert_shown(&text, "arcmesh_device_power_watts{pci=\"0000:03:00.0\"} 150");
        assert_shown(&text, "arcmesh_device_energy_joules_total{pci=\"0000:03:00.0\"} 300");
        assert_shown(
            &text,
            "arcmesh_device_engine_busy_ratio{engine=\"ccs\",pci=\"0000:03:00.0\"} 0.25",
        );

        // The driver was loaded anew: what it took in between nobody knows.
        made.write(&format!("{folder}/hwmon/hwmon3/energy2_input"), "1000000");
        shown.show(card.read(), begun + Duration::from_secs(3));
        let text = metrics.render();
        assert!(!text.contains("arcmesh_device_power_watts{"), "{text}");
        assert_shown(&text, "arcmesh_device_energy_joules_total{pci=\"0000:03:00.0\"} 300");

        std::fs::remove_dir_all(root.path().join(folder)).unwrap();
        shown.show(card.read(), begun + Duration::from_secs(4));
        let text = metrics.render();
        assert_shown(&text, "arcmesh_device_present{pci=\"0000:03:00.0\"} 0");
        assert!(!text.contains("arcmesh_device_temperature_celsius{"), "{text}");

        shown.forget();
        assert!(!metrics.render().contains("arcmesh_device_present{"));
    }
}
