//! Graphics cards, found by what PCI says they are.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use opencl::PciAddress;

use crate::telemetry::machine::{Machine, hexadecimal, names, number, text};

/// Intel's number among makers of PCI devices.
const INTEL: u32 = 0x8086;
/// The class of displays; below it are the kinds of display.
const DISPLAY: u32 = 0x03;
/// The memory of an Arc card is behind this of its windows; 0 has registers.
const MEMORY_BAR: usize = 2;

/// Numbers of the cards that we name; from the PCI ID database.
const NAMES: [(u32, &str); 16] = [
    (0x5690, "Intel Arc A770M"),
    (0x5691, "Intel Arc A730M"),
    (0x5692, "Intel Arc A550M"),
    (0x5693, "Intel Arc A370M"),
    (0x5694, "Intel Arc A350M"),
    (0x56a0, "Intel Arc A770"),
    (0x56a1, "Intel Arc A750"),
    (0x56a2, "Intel Arc A580"),
    (0x56a5, "Intel Arc A380"),
    (0x56a6, "Intel Arc A310"),
    (0x56c0, "Intel Data Center GPU Flex 170"),
    (0x56c1, "Intel Data Center GPU Flex 140"),
    (0xe20b, "Intel Arc B580"),
    (0xe20c, "Intel Arc B570"),
    (0xe211, "Intel Arc Pro B60"),
    (0xe212, "Intel Arc Pro B50"),
];

/// A graphics card of Intel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Where it sits.
    pub address: PciAddress,
    /// What it is called, or its number where we know no name.
    pub name: String,
    /// What the kernel drives it with; none: nothing does.
    pub driver: Option<Driver>,
    /// What programs open; none without a driver.
    pub render_node: Option<RenderNode>,
    folder: PathBuf,
    machine: Machine,
}

/// The kernel's driver of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// The older one, for all generations up to the A series.
    I915,
    /// The newer one.
    Xe,
    /// Another, such as `vfio-pci`, which keeps it for a guest.
    Other(String),
}

/// The file that programs open to use a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderNode {
    /// Where it is.
    pub path: PathBuf,
}

/// A window of a card's into the addresses of the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// How large it is; 0: it was given no addresses.
    pub bytes: u64,
    /// Whether the card can be given another size.
    pub resizable: bool,
}

impl Machine {
    /// Intel's graphics cards, by address.
    #[must_use]
    pub fn cards(&self) -> Vec<Card> {
        let devices = self.path("sys/bus/pci/devices");
        let addresses = names(&devices).into_iter().filter_map(|name| name.parse().ok());
        addresses.filter_map(|address| self.card(address)).collect()
    }

    /// The card at an address; none where there is none, or it is no graphics card of Intel's.
    #[must_use]
    pub fn card(&self, address: PciAddress) -> Option<Card> {
        let listed = self.path("sys/bus/pci/devices").join(address.to_string());
        // Its real place tells what it hangs on.
        let folder = fs::canonicalize(listed).ok()?;
        let is_ours = hexadecimal(&folder.join("vendor"))? == INTEL
            && hexadecimal(&folder.join("class"))? >> 16 == DISPLAY;
        let number = hexadecimal(&folder.join("device"))?;
        let name = NAMES.iter().find(|(known, _)| *known == number);
        is_ours.then(|| Card {
            address,
            name: name.map_or_else(
                || format!("Intel graphics 8086:{number:04x}"),
                |(_, name)| (*name).to_owned(),
            ),
            driver: driver(&folder),
            render_node: node(&folder, "renderD")
                .map(|node| RenderNode { path: self.path("dev/dri").join(node) }),
            folder,
            machine: self.clone(),
        })
    }
}

impl Card {
    /// Whether it has memory of its own. A processor's own graphics are a device of the first bus.
    #[must_use]
    pub fn is_discrete(&self) -> bool {
        self.address.bus != 0
    }

    /// Where the kernel tells of it.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the kernel's part for graphics tells of it.
    pub(super) fn drm_folder(&self) -> Option<PathBuf> {
        node(&self.folder, "card").map(|node| self.folder.join("drm").join(node))
    }

    /// The machine it is in.
    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Whether the card is still there.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.folder.join("vendor").exists()
    }

    /// The window into its memory.
    #[must_use]
    pub fn memory_bar(&self) -> Option<Bar> {
        let resources = text(&self.folder.join("resource"))?;
        let mut fields = resources.lines().nth(MEMORY_BAR)?.split_whitespace();
        let mut address = || {
            let field = fields.next()?.trim_start_matches("0x");
            u64::from_str_radix(field, 16).ok()
        };
        let (first, last) = (address()?, address()?);
        let bytes = if last == 0 { 0 } else { last.checked_sub(first)?.saturating_add(1) };
        let resizable = self.folder.join(format!("resource{MEMORY_BAR}_resize")).exists();
        Some(Bar { bytes, resizable })
    }

    /// How much memory it has; none where the kernel does not say. A window that reaches all of it
    /// tells too.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        let tiles = names(&self.folder).into_iter().filter(|name| {
            name.strip_prefix("tile").is_some_and(|number| number.parse::<u8>().is_ok())
        });
        let of_tiles: Vec<u64> = tiles
            .filter_map(|tile| {
                let tile = self.folder.join(tile);
                let inside = "physical_vram_size_bytes";
                number(&tile.join(inside)).or_else(|| number(&tile.join("memory").join(inside)))
            })
            .collect();
        if !of_tiles.is_empty() {
            return Some(of_tiles.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)));
        }
        let told = self.drm_folder().and_then(|folder| number(&folder.join("lmem_total_bytes")));
        // The smallest window that an A series card has without resizing is 256 MiB.
        told.or_else(|| Some(self.memory_bar()?.bytes).filter(|bytes| *bytes > 256 << 20))
    }
}

impl RenderNode {
    /// Whether this process may use the card.
    ///
    /// # Errors
    /// What the system says when not.
    pub fn check(&self) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        // In a tree that was made up it is a plain file, which opens all the same.
        let kind = file.metadata()?.file_type();
        if kind.is_char_device() || kind.is_file() {
            Ok(())
        } else {
            Err(io::Error::other("it is not a device"))
        }
    }
}

impl Driver {
    /// As the kernel calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::I915 => "i915",
            Self::Xe => "xe",
            Self::Other(name) => name,
        }
    }
}

/// What a device is bound to.
fn driver(folder: &Path) -> Option<Driver> {
    let link = fs::read_link(folder.join("driver")).ok()?;
    let name = link.file_name()?.to_string_lossy().into_owned();
    Some(match name.as_str() {
        "i915" => Driver::I915,
        "xe" => Driver::Xe,
        _ => Driver::Other(name),
    })
}

/// A node that the kernel's part for graphics made for a device, such as `card0`.
fn node(folder: &Path, kind: &str) -> Option<String> {
    names(&folder.join("drm"))
        .into_iter()
        .find(|name| name.strip_prefix(kind).is_some_and(|number| number.parse::<u32>().is_ok()))
}
