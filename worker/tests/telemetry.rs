//! What is read of cards, in trees that look like what each driver of the kernel shows.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;

use fixture::machine::{FIRST_CARD, MadeCard, MadeDriver, MadeMachine};
use tempfile::TempDir;
use worker::telemetry::{Card, Driver, EngineTime, Heat, Machine, Reading};

fn made(card: MadeCard) -> (TempDir, MadeMachine, Card) {
    let root = tempfile::tempdir().unwrap();
    let (made, address) = MadeMachine::at(root.path(), "6.8.0-45-generic").with_card(card);
    assert_eq!(address, FIRST_CARD);
    let card = Machine::at(root.path()).card(address.parse().unwrap()).unwrap();
    (root, made, card)
}

fn of(driver: MadeDriver) -> (TempDir, MadeMachine, Card) {
    made(MadeCard { driver, ..MadeCard::default() })
}

fn heat(sensor: &str, celsius: f64) -> Heat {
    Heat { sensor: sensor.to_owned(), celsius }
}

#[test]
fn a_card_is_found_with_what_drives_it_and_what_programs_open() {
    let (root, _made, card) = of(MadeDriver::I915);
    assert_eq!(card.name, "Intel Arc A770");
    assert_eq!(card.driver, Some(Driver::I915));
    assert!(card.is_discrete() && card.is_present());
    let node = card.render_node.clone().unwrap();
    assert_eq!(node.path, root.path().join("dev/dri/renderD128"));
    node.check().unwrap();
    let bar = card.memory_bar().unwrap();
    assert!(bar.bytes == 16 << 30 && bar.resizable);
    assert_eq!(Machine::at(root.path()).kernel().as_deref(), Some("6.8.0-45-generic"));
    assert_eq!(Machine::at(root.path()).cards(), [card]);
}

#[test]
fn other_devices_and_absent_ones_are_no_cards() {
    let (root, made, card) = of(MadeDriver::I915);
    let folder = MadeMachine::card_folder(FIRST_CARD);
    let machine = Machine::at(root.path());
    assert_eq!(machine.card("0000:09:00.0".parse().unwrap()), None);
    made.write(&format!("{folder}/class"), "0x020000");
    assert!(machine.cards().is_empty());
    made.write(&format!("{folder}/class"), "0x038000");
    assert_eq!(machine.cards().len(), 1);
    made.write(&format!("{folder}/vendor"), "0x10de");
    assert!(machine.cards().is_empty());
    fs::remove_dir_all(root.path().join(folder)).unwrap();
    assert_eq!(card.read(), Reading::default());
}

#[test]
fn i915_says_its_energy_heat_clocks_and_link() {
    let (_root, _made, card) =
        made(MadeCard { throttled: Some("pl1"), clock_limit: 2000, ..MadeCard::default() });
    let reading = card.read();
    // Not the energy of a part, whose folder comes first.
    assert_eq!(reading.sensors.energy_joules, Some(5.0));
    assert_eq!(reading.sensors.power_limit_watts, Some(190.0));
    assert_eq!(reading.sensors.volts, Some(0.975));
    assert_eq!(reading.sensors.heat, [heat("package", 61.0)]);
    assert_eq!(reading.sensors.fans[0].rpm, 1500.0);
    let [clock] = &reading.clocks[..] else { panic!("{:?}", reading.clocks) };
    assert_eq!(clock.part, "gt0");
    assert_eq!(clock.actual_hertz, Some(1.9e9));
    assert_eq!((clock.limit_hertz, clock.hardware_max_hertz), (Some(2.0e9), Some(2.4e9)));
    assert_eq!(clock.reasons().collect::<Vec<_>>(), ["pl1"]);
    assert!(clock.throttled.contains(&("status".to_owned(), true)));
    assert!(clock.throttled.contains(&("thermal".to_owned(), false)));
    // The window reaches all of it.
    assert_eq!(reading.memory_bytes, Some(16 << 30));
}

#[test]
fn xe_says_the_same_in_other_places() {
    let (_root, _made, card) = made(MadeCard {
        driver: MadeDriver::Xe,
        throttled: Some("thermal"),
        bar_bytes: 256 << 20,
        ..MadeCard::default()
    });
    assert_eq!(card.driver, Some(Driver::Xe));
    let reading = card.read();
    assert_eq!(reading.sensors.energy_joules, Some(7.0));
    assert_eq!(reading.sensors.power_limit_watts, Some(190.0));
    assert_eq!(reading.sensors.volts, Some(0.975));
    assert_eq!(reading.sensors.heat, [heat("package", 55.0), heat("vram", 70.0)]);
    let [clock] = &reading.clocks[..] else { panic!("{:?}", reading.clocks) };
    assert_eq!((clock.actual_hertz, clock.limit_hertz), (Some(1.9e9), Some(2.4e9)));
    assert_eq!(clock.reasons().collect::<Vec<_>>(), ["thermal"]);
    assert_eq!(reading.memory_bytes, Some(16 << 30));
}

#[test]
fn the_link_is_the_slots_and_not_that_within_the_card() {
    let (_root, _made, card) =
        made(MadeCard { width: 4, speed: "8.0 GT/s PCIe", ..MadeCard::default() });
    let link = card.link().unwrap();
    assert_eq!(link.address.to_string(), "0000:01:00.0");
    assert_eq!((link.card.width, link.card.width_max), (4, 16));
    assert_eq!(link.card.transfers_per_second, 8e9);
    assert_eq!(link.slot.unwrap().width_max, 16);
}

#[test]
fn engines_and_memory_of_this_process_are_counted_once_a_client() {
    let (_root, made, card) = of(MadeDriver::I915);
    let client = |id: u32, busy: u64| {
        format!(
            "pos:\t0\ndrm-driver:\ti915\ndrm-pdev:\t{FIRST_CARD}\ndrm-client-id:\t{id}\n\
             drm-total-local0:\t9 MiB\ndrm-resident-local0:\t2 MiB\n\
             drm-engine-compute:\t{busy} ns\ndrm-engine-copy:\t0 ns\n\
             drm-engine-capacity-compute:\t2"
        )
    };
    made.write("proc/self/fdinfo/3", &client(7, 100));
    made.write("proc/self/fdinfo/4", &client(7, 100));
    made.write("proc/self/fdinfo/5", &client(8, 30));
    let other = client(9, 1000).replace(FIRST_CARD, "0000:06:00.0");
    made.write("proc/self/fdinfo/6", &other);
    made.write("proc/self/fdinfo/0", "pos:\t0\nflags:\t02");
    let clients = card.clients();
    assert_eq!(clients.memory_bytes, 4 << 20);
    let compute = EngineTime::Nanoseconds { busy: 130, engines: 2 };
    assert_eq!(clients.engines["compute"], compute);
    assert_eq!(clients.engines.len(), 2);
}

#[test]
fn cycles_of_xe_are_read_with_the_clock_they_are_counted_by() {
    let (_root, made, card) = of(MadeDriver::Xe);
    let client = |id: u32, busy: u64, passed: u64| {
        format!(
            "drm-driver:\txe\ndrm-pdev:\t{FIRST_CARD}\ndrm-client-id:\t{id}\n\
             drm-resident-vram0:\t64 KiB\ndrm-cycles-ccs:\t{busy}\n\
             drm-total-cycles-ccs:\t{passed}\ndrm-engine-capacity-ccs:\t1"
        )
    };
    made.write("proc/self/fdinfo/3", &client(1, 10, 1000));
    made.write("proc/self/fdinfo/4", &client(2, 5, 1001));
    let clients = card.clients();
    assert_eq!(clients.memory_bytes, 128 << 10);
    let ccs = EngineTime::Cycles { busy: 15, passed: 1001, engines: 1 };
    assert_eq!(clients.engines["ccs"], ccs);
}

#[test]
fn files_that_say_nonsense_are_as_good_as_absent() {
    let (_root, made, card) = of(MadeDriver::I915);
    let folder = MadeMachine::card_folder(FIRST_CARD);
    for name in ["hwmon/hwmon2/energy1_input", "hwmon/hwmon2/temp1_input", "resource"] {
        made.write(&format!("{folder}/{name}"), "Unknown \u{fffd} 0xzz");
    }
    made.write("sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/current_link_speed", "Unknown");
    made.write("proc/self/fdinfo/3", &format!("drm-pdev: {FIRST_CARD}\ndrm-client-id\n:::"));
    let reading = card.read();
    assert!(reading.is_present);
    assert_eq!(reading.sensors.energy_joules, None);
    assert!(reading.sensors.heat.is_empty());
    assert_eq!(reading.memory_bytes, None);
    assert_eq!(reading.clients.memory_bytes, 0);
}
