//! What follows from a survey: what is wrong, and what to do about it.

use serde::Serialize;

use crate::doctor::measure::FailedDevice;
use crate::doctor::release::Release;
use crate::doctor::survey::{CardSurvey, LinkSurvey, Locked, OpenClDevice, OpenClSurvey, Survey};

/// The first kernel whose i915 drives an A series card without being forced to.
const I915_SINCE: Release = Release(6, 2, 0);
/// The first kernel with the xe driver.
const XE_SINCE: Release = Release(6, 8, 0);
/// The first kernel that we would choose for i915: before it, energy was miscounted and kernels hung.
const GOOD_SINCE: Release = Release(6, 8, 0);
/// The window that a card has when nobody resized it.
const SMALL_BAR_BYTES: u64 = 256 << 20;
/// Bytes a second of a link under which collectives dominate: eight lanes of the third generation.
const SLOW_LINK: f64 = 7.9e9;
/// The first release of Intel's OpenCL driver that we would trust with an A770: 22.43, which Debian 12
/// has, hangs when it maps a buffer (intel/compute-runtime issue 619).
const RUNTIME_SINCE: Release = Release(24, 0, 0);
/// Degrees near which an A770 slows down.
const HOT_CELSIUS: f64 = 95.0;

/// Something that somebody should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// What scripts know it by.
    pub(super) code: &'static str,
    /// Which card, by PCI address.
    pub(super) card: Option<String>,
    pub(super) what: String,
    /// What to do.
    pub(super) remedy: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// A card cannot be used, or is far slower than it should be.
    Wrong,
    /// Good to know.
    Remark,
}

/// Judges a survey; the worst first.
pub(super) fn findings(survey: &Survey) -> Vec<Finding> {
    let kernel = survey.kernel.as_deref().and_then(Release::parse);
    let mut found: Vec<Finding> =
        survey.discrete().flat_map(|card| of_card(card, kernel)).flatten().collect();
    if let Some(opencl) = &survey.opencl {
        found.extend(survey.discrete().filter_map(|card| runtime(card, opencl)));
    }
    if survey.discrete().next().is_none() {
        found.push(remark(
            "no-card",
            None,
            "there is no Intel Arc card: the processor computes".to_owned(),
            "nothing, unless there should be one: then look whether `lspci -d 8086::0300` lists it, and \
             in a container whether /sys is the machine's"
                .to_owned(),
        ));
    }
    found.sort_by_key(|finding| finding.severity);
    found
}

/// A device that could not be measured.
pub(super) fn failed(device: &FailedDevice) -> Finding {
    Finding {
        severity: Severity::Wrong,
        code: "device-failed",
        card: device.pci.clone(),
        what: format!("{} cannot be measured: {}", device.name, device.reason),
        remedy: "look at `dmesg` for a hang or a reset of the card; a card that was lost needs a \
                 reboot, and one that hangs again needs a newer kernel or driver"
            .to_owned(),
    }
}

fn of_card(card: &CardSurvey, kernel: Option<Release>) -> [Option<Finding>; 7] {
    [
        driver(card, kernel),
        node(card),
        window(card),
        old_kernel(card, kernel),
        card.link.and_then(|link| narrow(card, link)),
        clock(card),
        heat(card),
    ]
}

fn wrong(code: &'static str, card: &CardSurvey, what: String, remedy: String) -> Finding {
    Finding { severity: Severity::Wrong, code, card: Some(card.pci.clone()), what, remedy }
}

fn remark(code: &'static str, card: Option<&CardSurvey>, what: String, remedy: String) -> Finding {
    let card = card.map(|card| card.pci.clone());
    Finding { severity: Severity::Remark, code, card, what, remedy }
}

fn driver(card: &CardSurvey, kernel: Option<Release>) -> Option<Finding> {
    match card.driver.as_deref() {
        Some("i915" | "xe") => None,
        Some(other) => Some(wrong(
            "other-driver",
            card,
            format!("it is bound to {other}, which does not let programs compute on it"),
            format!(
                "unbind it from {other} (for a guest, give it back first) and let i915 or xe have it"
            ),
        )),
        None => {
            let too_old = kernel.filter(|kernel| *kernel < I915_SINCE);
            let remedy = match too_old {
                Some(kernel) => format!(
                    "kernel {kernel} does not drive this card: install {GOOD_SINCE} or newer"
                ),
                None => "look at `dmesg | grep -iE 'i915|xe|guc'`: often the firmware package is \
                         missing (linux-firmware, firmware-misc-nonfree), or the module is blacklisted"
                    .to_owned(),
            };
            Some(wrong("no-driver", card, "no driver of the kernel has it".to_owned(), remedy))
        }
    }
}

fn node(card: &CardSurvey) -> Option<Finding> {
    let node = card.render_node.as_deref();
    let shown = node.unwrap_or("/dev/dri/renderD128");
    match card.locked? {
        Locked::Missing => Some(wrong(
            "no-render-node",
            card,
            format!("{shown} is not there, though the driver made it"),
            "in a container, pass it in: --device /dev/dri; elsewhere, see whether udev runs"
                .to_owned(),
        )),
        Locked::Forbidden => Some(wrong(
            "no-permission",
            card,
            format!("this user may not open {shown}"),
            "sudo usermod -aG render $USER, then log in again; in a container, \
             --group-add $(stat -c %g /dev/dri/renderD128)"
                .to_owned(),
        )),
        Locked::Broken => Some(wrong(
            "broken-render-node",
            card,
            format!("{shown} cannot be opened"),
            "look at `dmesg`: a card that was lost needs a reboot".to_owned(),
        )),
    }
}

fn window(card: &CardSurvey) -> Option<Finding> {
    let bar = card.memory_bar_bytes?;
    let reaches = card.memory_bytes.map_or(bar > SMALL_BAR_BYTES, |memory| bar >= memory);
    if reaches || card.driver.as_deref().is_none_or(|driver| driver != "i915" && driver != "xe") {
        return None;
    }
    let can = if card.memory_bar_resizable {
        "in the firmware's setup, turn on Above 4G Decoding and Re-Size BAR, and turn CSM off"
    } else {
        "the card's window cannot be resized as it is: update the firmware of the board and of the card, \
         then turn on Above 4G Decoding and Re-Size BAR"
    };
    Some(wrong(
        "small-bar",
        card,
        format!(
            "the processor sees only {} MiB of its memory: every copy is several times slower",
            bar >> 20
        ),
        can.to_owned(),
    ))
}

fn old_kernel(card: &CardSurvey, kernel: Option<Release>) -> Option<Finding> {
    let kernel = kernel?;
    let driver = card.driver.as_deref()?;
    let (severity, since) = match driver {
        "i915" if kernel < I915_SINCE => (Severity::Wrong, GOOD_SINCE),
        "i915" if kernel < GOOD_SINCE => (Severity::Remark, GOOD_SINCE),
        "xe" if kernel < XE_SINCE => (Severity::Wrong, XE_SINCE),
        _ => return None,
    };
    Some(Finding {
        severity,
        code: "old-kernel",
        card: Some(card.pci.clone()),
        what: format!("kernel {kernel} is early for {driver} with this card"),
        remedy: format!("install kernel {since} or newer"),
    })
}

fn narrow(card: &CardSurvey, link: LinkSurvey) -> Option<Finding> {
    let is_full =
        link.width >= link.width_max && link.transfers_per_second >= link.transfers_per_second_max;
    if is_full {
        return None;
    }
    let what = format!(
        "its link has {} lanes at {} GT/s of {} at {}: {:.1} GB/s",
        link.width,
        link.transfers_per_second / 1e9,
        link.width_max,
        link.transfers_per_second_max / 1e9,
        link.bytes_per_second / 1e9
    );
    let slot = link.slot_width_max.filter(|slot| *slot < link.width_max);
    let remedy = match slot {
        Some(lanes) => format!("its slot has {lanes} lanes: put it in a wider one"),
        None if link.width < link.width_max => {
            "seat the card anew, check the riser, and see how the board shares lanes among its slots"
                .to_owned()
        }
        None => "an idle link may rest at a low speed: look again under load; else raise the slot's \
                 generation in the firmware's setup"
            .to_owned(),
    };
    if link.bytes_per_second < SLOW_LINK && link.width < link.width_max {
        Some(wrong("narrow-link", card, what, remedy))
    } else {
        Some(remark("narrow-link", Some(card), what, remedy))
    }
}

fn clock(card: &CardSurvey) -> Option<Finding> {
    let (limit, most) = (card.clock_limit_hertz?, card.clock_hardware_max_hertz?);
    if !card.throttled.is_empty() {
        return Some(remark(
            "throttled",
            Some(card),
            format!("its clock is held back now, by {}", card.throttled.join(", ")),
            "pl1, pl2 and pl4 are power limits, thermal and prochot are heat: see to the supply and the \
             cooling"
                .to_owned(),
        ));
    }
    (limit < most).then(|| {
        remark(
            "clock-limited",
            Some(card),
            format!("its clock is limited to {:.0} of {:.0} MHz", limit / 1e6, most / 1e6),
            "write the greater number to rps_max_freq_mhz (i915) or freq0/max_freq (xe) of the card"
                .to_owned(),
        )
    })
}

/// Whether programs can compute on a card that the kernel drives.
fn runtime(card: &CardSurvey, opencl: &OpenClSurvey) -> Option<Finding> {
    if card.locked.is_some() || !matches!(card.driver.as_deref(), Some("i915" | "xe")) {
        return None;
    }
    let install = "install Intel's current release of intel-opencl-icd (from \
                   github.com/intel/compute-runtime or repositories.intel.com/gpu), and \
                   ocl-icd-libopencl1";
    // A driver that does not say where its devices are is believed to mean this card.
    let is_it = |device: &&OpenClDevice| device.pci.as_ref().is_none_or(|pci| *pci == card.pci);
    let Some(device) = opencl.devices.iter().find(is_it) else {
        let reason = opencl.absent.as_deref().unwrap_or("its driver does not list it");
        let what = format!("OpenCL does not know it: {reason}");
        return Some(wrong("no-opencl", card, what, install.to_owned()));
    };
    let release = Release::parse(&device.driver).filter(|release| *release < RUNTIME_SINCE)?;
    let what = format!("its OpenCL driver is {release}, which is known to hang on such cards");
    Some(wrong("old-opencl", card, what, install.to_owned()))
}

fn heat(card: &CardSurvey) -> Option<Finding> {
    let celsius = card.celsius_max.filter(|celsius| *celsius >= HOT_CELSIUS)?;
    Some(remark(
        "hot",
        Some(card),
        format!("it is {celsius:.0} °C hot"),
        "see to the cooling: it slows down from about 100 °C on".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An A770 as it should be.
    fn card() -> CardSurvey {
        CardSurvey {
            pci: "0000:03:00.0".to_owned(),
            name: "Intel Arc A770".to_owned(),
            discrete: true,
            driver: Some("i915".to_owned()),
            render_node: Some("/dev/dri/renderD128".to_owned()),
            memory_bytes: Some(16 << 30),
            memory_bar_bytes: Some(16 << 30),
            memory_bar_resizable: true,
            clock_limit_hertz: Some(2.4e9),
            clock_hardware_max_hertz: Some(2.4e9),
            ..CardSurvey::default()
        }
    }

    fn codes(card: CardSurvey, kernel: &str) -> Vec<(Severity, &'static str)> {
        codes_with(card, kernel, None)
    }

    fn codes_with(
        card: CardSurvey,
        kernel: &str,
        opencl: Option<OpenClSurvey>,
    ) -> Vec<(Severity, &'static str)> {
        let survey = Survey { kernel: Some(kernel.to_owned()), cards: vec![card], opencl };
        findings(&survey).iter().map(|finding| (finding.severity, finding.code)).collect()
    }

    #[test]
    fn a_good_card_has_no_findings() {
        assert_eq!(codes(card(), "6.8.0"), []);
    }

    #[test]
    fn a_card_that_may_not_be_opened_is_wrong() {
        let locked = CardSurvey { locked: Some(Locked::Forbidden), ..card() };
        assert_eq!(codes(locked, "6.8.0"), [(Severity::Wrong, "no-permission")]);
        let broken = CardSurvey { locked: Some(Locked::Broken), ..card() };
        assert_eq!(codes(broken, "6.8.0"), [(Severity::Wrong, "broken-render-node")]);
    }

    #[test]
    fn kernels_are_judged_by_driver_and_wrong_comes_first() {
        assert_eq!(codes(card(), "6.1.0-30-amd64"), [(Severity::Wrong, "old-kernel")]);
        assert_eq!(codes(card(), "6.6.27"), [(Severity::Remark, "old-kernel")]);
        assert_eq!(codes(card(), "unknown"), []);
        let xe = CardSurvey {
            driver: Some("xe".to_owned()),
            throttled: vec!["pl1".to_owned()],
            ..card()
        };
        assert_eq!(
            codes(xe, "6.5.0"),
            [(Severity::Wrong, "old-kernel"), (Severity::Remark, "throttled")]
        );
    }

    #[test]
    fn a_link_that_is_slow_is_wrong_and_one_that_rests_is_not() {
        let link = LinkSurvey {
            transfers_per_second: 8e9,
            width: 4,
            transfers_per_second_max: 16e9,
            width_max: 16,
            slot_width_max: Some(16),
            bytes_per_second: 3.9e9,
        };
        let narrow = CardSurvey { link: Some(link), ..card() };
        assert_eq!(codes(narrow, "6.8.0"), [(Severity::Wrong, "narrow-link")]);
        let resting = LinkSurvey { transfers_per_second: 2.5e9, width: 16, ..link };
        let resting = CardSurvey { link: Some(resting), ..card() };
        assert_eq!(codes(resting, "6.8.0"), [(Severity::Remark, "narrow-link")]);
    }

    #[test]
    fn a_card_that_opencl_does_not_know_or_drives_with_an_old_driver_is_wrong() {
        let device = |driver: &str, pci: Option<&str>| OpenClDevice {
            name: "Intel(R) Arc(TM) A770 Graphics".to_owned(),
            driver: driver.to_owned(),
            pci: pci.map(str::to_owned),
        };
        let with = |devices: Vec<OpenClDevice>| {
            codes_with(card(), "6.8.0", Some(OpenClSurvey { absent: None, devices }))
        };
        let here = Some("0000:03:00.0");
        assert_eq!(with(vec![device("24.39.31294", here)]), []);
        assert_eq!(with(vec![device("24.39.31294", None)]), []);
        assert_eq!(with(vec![device("22.43.24595.41", here)]), [(Severity::Wrong, "old-opencl")]);
        let elsewhere = with(vec![device("24.39.31294", Some("0000:06:00.0"))]);
        assert_eq!(elsewhere, [(Severity::Wrong, "no-opencl")]);
        let absent = Some("libOpenCL.so.1 is missing".to_owned());
        let absent = Some(OpenClSurvey { absent, devices: Vec::new() });
        assert_eq!(codes_with(card(), "6.8.0", absent.clone()), [(Severity::Wrong, "no-opencl")]);
        // The first thing first: without a driver of the kernel there can be none of OpenCL's.
        let bare = CardSurvey { driver: None, ..card() };
        assert_eq!(codes_with(bare, "6.8.0", absent), [(Severity::Wrong, "no-driver")]);
    }

    #[test]
    fn graphics_of_a_processor_are_no_card() {
        let own = CardSurvey { discrete: false, driver: None, ..card() };
        assert_eq!(codes(own, "6.8.0"), [(Severity::Remark, "no-card")]);
    }
}
