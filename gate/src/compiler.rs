//! `ocloc`, Intel's offline compiler.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The disassembler that `ocloc` opens by a name that Debian's package does not have.
const DISASSEMBLER: &str = "libiga64.so";
/// Where libraries may be.
const LIBRARY_FOLDERS: [&str; 4] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
/// Without it, releases of 2022 write a form that says nothing of registers.
const INTERNAL_OPTIONS: &str = "-cl-intel-allow-zebin";

/// One program to compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What it is called in tables.
    pub name: String,
    /// OpenCL C.
    pub text: String,
    /// As for `clBuildProgram`.
    pub options: String,
}

/// What became of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// What the compiler says of each kernel's needs, as YAML.
    pub info: String,
    /// Each kernel's instructions, by its name.
    pub listings: Vec<(String, String)>,
}

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum CompilerError {
    /// It is not installed.
    #[error("there is no ocloc: on Debian 12, apt-get install intel-opencl-icd libigc-tools")]
    Absent,
    /// It does not know the device.
    #[error("this ocloc does not know {0}")]
    UnknownDevice(String),
    /// It did not like the source.
    #[error("{program} does not compile for {device}:\n{said}")]
    Refused {
        /// Which program.
        program: String,
        /// For what.
        device: String,
        /// What it said.
        said: String,
    },
    /// The result could not be taken apart.
    #[error("{program} cannot be disassembled: {said}")]
    Opaque {
        /// Which program.
        program: String,
        /// What it said.
        said: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The compiler, found.
#[derive(Debug)]
pub struct Compiler {
    scratch: TempDir,
    version: String,
}

impl Compiler {
    /// Looks for `ocloc` on the path.
    ///
    /// # Errors
    /// [`CompilerError::Absent`] when it is not there.
    pub fn find() -> Result<Self, CompilerError> {
        let scratch = tempfile::tempdir()?;
        let libraries = scratch.path().join("lib");
        fs::create_dir(&libraries)?;
        let has = |name: &str| {
            LIBRARY_FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|it| it.exists())
        };
        if has(DISASSEMBLER).is_none()
            && let Some(versioned) = has("libiga64.so.1").or_else(|| has("libiga64.so.2"))
        {
            std::os::unix::fs::symlink(versioned, libraries.join(DISASSEMBLER))?;
        }
        let mut compiler = Self { scratch, version: String::new() };
        match compiler.run("query", &["query", "OCL_DRIVER_VERSION"]) {
            Err(CompilerError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CompilerError::Absent);
            }
            Err(error) => return Err(error),
            // Releases that do not answer this have no version to compare.
            Ok(_) => {
                let answer = compiler.scratch.path().join("query/OCL_DRIVER_VERSION");
                let answer = fs::read_to_string(answer).unwrap_or_default();
                let version = answer.trim_matches(['\0', '\n', ' ']);
                compiler.version =
                    if version.is_empty() { "unknown".to_owned() } else { version.to_owned() };
            }
        }
        Ok(compiler)
    }

    /// The release of the driver that it belongs to.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Compiles a program for a device such as `acm-g10`, and takes it apart.
    ///
    /// # Errors
    /// When the device is unknown to this release, or the program is refused.
    pub fn compile(&self, source: &Source, device: &str) -> Result<Compiled, CompilerError> {
        let folder =
            format!("{}-{device}", source.name.replace(|it: char| !it.is_alphanumeric(), "_"));
        let inside = self.folder(&folder)?;
        fs::write(inside.join("program.cl"), &source.text)?;
        let output = self.run(
            &folder,
            &[
                "compile",
                "-file",
                "program.cl",
                "-device",
                device,
                "-output",
                "program",
                "-out_dir",
                "out",
                "-options",
                &source.options,
                "-internal_options",
                INTERNAL_OPTIONS,
            ],
        )?;
        let said = said(&output);
        let unknown = ["Cannot get HW Info", "Unsupported device", "Unknown device"];
        if unknown.iter().any(|it| said.contains(it)) {
            return Err(CompilerError::UnknownDevice(device.to_owned()));
        }
        let opaque = |said: String| CompilerError::Opaque { program: source.name.clone(), said };
        let Some(binary) = binary(&inside.join("out"))? else {
            let (program, device) = (source.name.clone(), device.to_owned());
            return Err(CompilerError::Refused { program, device, said });
        };
        let parts = inside.join("parts");
        fs::create_dir_all(&parts)?;
        let binary = binary.display().to_string();
        let output =
            self.run(&folder, &["disasm", "-file", &binary, "-dump", "parts", "-device", device])?;
        let info = fs::read_to_string(parts.join(".ze_info"))
            .map_err(|_| opaque(said_or_nothing(&output)))?;
        let listings = listings(&parts)?;
        if listings.is_empty() {
            return Err(opaque(said_or_nothing(&output)));
        }
        Ok(Compiled { info, listings })
    }

    /// A folder of its own for one run, empty.
    fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.scratch.path().join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn run(&self, folder: &str, words: &[&str]) -> Result<Output, CompilerError> {
        let folder = self.scratch.path().join(folder);
        fs::create_dir_all(&folder)?;
        let mut libraries = self.scratch.path().join("lib").into_os_string();
        if let Some(others) = env::var_os("LD_LIBRARY_PATH").filter(|others| !others.is_empty()) {
            libraries.push(":");
            libraries.push(others);
        }
        let mut command = Command::new("ocloc");
        command.args(words).current_dir(folder).env("LD_LIBRARY_PATH", libraries);
        Ok(command.output()?)
    }
}

/// What a run said, on either stream.
fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

fn said_or_nothing(output: &Output) -> String {
    let said = said(output);
    if said.is_empty() { "ocloc says nothing".to_owned() } else { said }
}

/// The one device binary in a folder.
fn binary(folder: &Path) -> io::Result<Option<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(None) };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "bin") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Files such as `.text.NAME.asm`, by name.
fn listings(folder: &Path) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kernel = name.strip_prefix(".text.").and_then(|rest| rest.strip_suffix(".asm"));
        if let Some(kernel) = kernel {
            found.push((kernel.to_owned(), fs::read_to_string(&path)?));
        }
    }
    found.sort();
    Ok(found)
}
