//! Builds the programs for the kernel from source. In: which tools there are. Out: target/bpf/mirror
//! and target/bpf/tap with the hash of their sources beside them, and on request the committed copies.
//!
//! rustc alone cannot link for BPF: it needs bpf-linker, and core for that target is not
//! distributed, so that it is built from rust-src, which only an unstable flag of cargo does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

#[path = "../../mirror-ebpf/source_hash.rs"]
mod source_hash;

/// What `build-ebpf` is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Install the Debian packages and bpf-linker when nothing is there.
    pub install: bool,
    /// Copy the result to mirror-ebpf/prebuilt.
    pub commit: bool,
}

/// What the hash is called, beside the objects.
const HASH: &str = "sources.sha256";
const TARGET: &str = "bpfel-unknown-none";
const LINKER_VERSION: &str = "0.13.0";
const PACKAGES: [&str; 7] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "llvm-22-dev",
    "libpolly-22-dev",
    "libzstd-dev",
    "zlib1g-dev",
];

/// The objects, by the names of their binaries.
const OBJECTS: [&str; 2] = ["mirror", "tap"];

/// Builds into target/bpf and returns its path. Says on stderr which tools it chose.
///
/// # Errors
/// No toolchain (with what to install), or a build that fails.
pub fn build(root: &Path, options: Options) -> Result<PathBuf> {
    let toolchain = match Toolchain::find() {
        Some(toolchain) => toolchain,
        None if options.install => {
            install()?;
            Toolchain::find().with_context(|| missing("still missing after the installation"))?
        }
        None => bail!(missing("no tools to build the programs for the kernel with")),
    };
    eprintln!("build-ebpf: {}", toolchain.describe());
    let built = toolchain.build(root)?;
    let folder = root.join("target/bpf");
    store(&built, &folder, "", root)?;
    if options.commit {
        store(&built, &root.join("mirror-ebpf/prebuilt"), ".o", root)?;
    }
    Ok(folder)
}

/// Checks that the committed objects were built from the sources as they are.
///
/// # Errors
/// They were not, or one is missing; with the command that helps.
pub fn check_committed(root: &Path) -> Result<()> {
    let prebuilt = root.join("mirror-ebpf/prebuilt");
    let sources = source_hash::source_hash(root)?;
    let stored = prebuilt.join(HASH);
    let hash = fs::read_to_string(&stored).with_context(|| format!("{}", stored.display()))?;
    let missing = |name| !prebuilt.join(format!("{name}.o")).is_file();
    if hash.trim() != sources || OBJECTS.into_iter().any(missing) {
        bail!(
            "mirror-ebpf/prebuilt is stale: its objects were built from other sources. Run \
             `cargo xtask build-ebpf --commit` and commit the result"
        );
    }
    Ok(())
}

/// How the programs can be built here.
enum Toolchain {
    /// A rustup nightly with rust-src.
    Rustup { toolchain: String, linker: PathBuf },
    /// Debian's rustc with its sources, configured to allow unstable flags.
    Debian { linker: PathBuf },
}

impl Toolchain {
    fn find() -> Option<Self> {
        let linker = find_linker()?;
        if let Some(toolchain) = nightly_with_sources() {
            return Some(Self::Rustup { toolchain, linker });
        }
        let debian = ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/lib/rustlib/src/rust/library/core"];
        debian.iter().all(|path| Path::new(path).exists()).then_some(Self::Debian { linker })
    }

    fn describe(&self) -> String {
        match self {
            Self::Rustup { toolchain, linker } => {
                format!("rustup's {toolchain} and {}", linker.display())
            }
            Self::Debian { linker } => {
                format!("Debian's /usr/bin/rustc (rustc-web) and {}", linker.display())
            }
        }
    }

    fn build(&self, root: &Path) -> Result<PathBuf> {
        let target_dir = root.join("target/ebpf");
        let (mut command, linker) = match self {
            Self::Rustup { toolchain, linker } => {
                let mut command = Command::new("rustup");
                command.args(["run", toolchain, "cargo"]);
                (command, linker)
            }
            Self::Debian { linker } => {
                let mut command = Command::new("/usr/bin/cargo");
                command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                (command, linker)
            }
        };
        command
            .args(["build", "--locked", "--release", "-Z", "build-std=core", "--target", TARGET])
            .current_dir(root.join("mirror-ebpf"))
            .env("CARGO_TARGET_DIR", &target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, linker))
            // Set by the cargo that runs xtask; they would choose its toolchain.
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("RUSTFLAGS")
            .env_remove("RUSTC_WRAPPER");
        if matches!(self, Self::Rustup { .. }) {
            command.env_remove("RUSTC");
        }
        let status = command.status().with_context(|| format!("starting {command:?}"))?;
        if !status.success() {
            bail!("building the programs for the kernel failed ({status}): {command:?}");
        }
        Ok(target_dir.join(TARGET).join("release"))
    }
}

/// Debug information becomes BTF, which names source files: without the builder's folders the
/// same sources give the same object anywhere.
fn rustflags(root: &Path, linker: &Path) -> String {
    let cargo_home =
        std::env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from);
    let mut flags = vec![
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
    ];
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(root, "mirror");
    remap(&cargo_home, "cargo");
    // The last that fits counts: crates come from whatever registry this machine uses.
    for source in fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten().flatten() {
        remap(&source.path(), "crates");
    }
    flags.join("\x1f")
}

fn find_linker() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([home().join(".cargo/bin")])
        .map(|folder| folder.join("bpf-linker"))
        .find(|linker| linker.is_file())
}

/// The first installed nightly that has rust-src.
fn nightly_with_sources() -> Option<String> {
    let list = Command::new("rustup").args(["toolchain", "list"]).output().ok()?;
    let list = String::from_utf8(list.stdout).ok()?;
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .find(|name| has_sources(name))
        .map(str::to_owned)
}

fn has_sources(toolchain: &str) -> bool {
    let sysroot = Command::new("rustup")
        .args(["run", toolchain, "rustc", "--print", "sysroot"])
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok());
    sysroot.is_some_and(|root| {
        Path::new(root.trim()).join("lib/rustlib/src/rust/library/core").is_dir()
    })
}

fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}

fn missing(what: &str) -> String {
    let packages = PACKAGES.join(" ");
    format!(
        "{what}. Either\n  \
         rustup toolchain install nightly --component rust-src && cargo install bpf-linker\n\
         or, on Debian,\n  \
         sudo apt-get install {packages}\n  \
         LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version {LINKER_VERSION} \
         --no-default-features --features llvm-22\n\
         (`cargo xtask build-ebpf --install` does the latter). Without them the committed object \
         is used, as long as the sources are unchanged."
    )
}

fn install() -> Result<()> {
    eprintln!("build-ebpf: installing {} and bpf-linker {LINKER_VERSION}", PACKAGES.join(" "));
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
        command.status().map(|status| status.success())
    };
    let packages: Vec<&str> = ["install", "-y"].into_iter().chain(PACKAGES).collect();
    if !apt(&packages).context("apt-get cannot be started: is this Debian?")? {
        // An archive that vanished from the mirror, or a broken state: fresh lists, then again.
        apt(&["update"])?;
        apt(&["-f", "install", "-y"])?;
        if !apt(&packages)? {
            bail!("apt-get {} failed; see above", packages.join(" "));
        }
    }
    if find_linker().is_some() {
        return Ok(());
    }
    let status = Command::new("cargo")
        .env("LLVM_PREFIX", "/usr/lib/llvm-22")
        .args(["install", "bpf-linker", "--version", LINKER_VERSION])
        .args(["--no-default-features", "--features", "llvm-22"])
        .status()
        .context("starting cargo install")?;
    if !status.success() {
        bail!("cargo install bpf-linker failed ({status}); see above");
    }
    Ok(())
}

/// Copies the objects, with this ending, and writes their hash last, so that a copy that was cut short
/// never counts.
fn store(built: &Path, folder: &Path, ending: &str, root: &Path) -> Result<()> {
    let hash = folder.join(HASH);
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    if hash.exists() {
        fs::remove_file(&hash).with_context(|| format!("removing {}", hash.display()))?;
    }
    for name in OBJECTS {
        let (object, to) = (built.join(name), folder.join(format!("{name}{ending}")));
        fs::copy(&object, &to)
            .with_context(|| format!("copying {} to {}", object.display(), to.display()))?;
    }
    fs::write(&hash, source_hash::source_hash(root)? + "\n")
        .with_context(|| format!("writing {}", hash.display()))
}
