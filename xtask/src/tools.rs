//! What the commands need besides Rust: found, or installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask is a folder of the workspace").to_owned()
}

/// A cargo command in the workspace, by the cargo that runs us.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Runs a command to its end, showing what it writes.
///
/// # Errors
/// It cannot be started, or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        bail!("`{name} {}`: {status}", args.join(" "));
    }
    Ok(())
}

/// Builds the release binary, with cargo's progress on stderr.
///
/// # Errors
/// The build fails.
pub(crate) fn build_mirror() -> Result<()> {
    run(&mut cargo(&["build", "--release", "-p", "mirror-user", "--bin", "mirror"]))
}

/// Fails unless root, saying what to type.
///
/// # Errors
/// Not root.
pub(crate) fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let args: Vec<_> = env::args().skip(1).collect();
    bail!(
        "this needs root (network namespaces, cgroups, eBPF). Type:\n\n    \
         sudo -E env PATH=\"$PATH\" cargo xtask {}\n",
        args.join(" ")
    );
}

/// Installs the packages of the programs that are missing; pairs of program and Debian package.
///
/// # Errors
/// Something is missing and cannot be installed; the message names the packages.
pub(crate) fn ensure(programs: &[(&str, &str)]) -> Result<()> {
    let missing = programs.iter().filter(|(program, _)| find(program).is_none());
    let packages: Vec<_> = missing.map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    install(&packages).with_context(|| format!("please install: {}", packages.join(" ")))
}

/// Installs Debian packages.
///
/// # Errors
/// No apt-get, not root, or what apt-get says.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if find("apt-get").is_none() {
        bail!("no apt-get here");
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("installing packages needs root");
    }
    eprintln!("installing {}", packages.join(" "));
    let _quiet = NoServices::begin()?;
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(args);
        run(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(packages);
    // The lists of a fresh container are empty, and old ones name packages that are gone.
    apt(&args).or_else(|_| apt(&["update"]).and_then(|()| apt(&args)))
}

/// While it lives, installing a package starts no service: nginx would take port 80 of the host.
struct NoServices(Option<&'static Path>);

impl NoServices {
    fn begin() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let path = Path::new("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(Self(None));
        }
        fs::write(path, "#!/bin/sh\nexit 101\n").context("/usr/sbin/policy-rc.d")?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(Some(path)))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// The Python packages of the demo and the end-to-end tests. `h2` is what scripts build odd HTTP/2
/// peers from, `wsproto` does the frames of a WebSocket inside of one.
const PACKAGES: [&str; 8] =
    ["grpcio", "gunicorn", "h2", "httpbin", "httpx", "hypercorn", "websockets", "wsproto"];

/// A Python environment in target/venv with [`PACKAGES`]; its bin folder.
///
/// # Errors
/// No Python, or pip fails.
pub(crate) fn venv() -> Result<PathBuf> {
    environment(&root().join("target/venv"), &PACKAGES).map(|folder| folder.join("bin"))
}

/// A Python environment in this folder with these packages; the folder.
///
/// # Errors
/// No Python, or pip fails.
pub(crate) fn environment(folder: &Path, packages: &[&str]) -> Result<PathBuf> {
    // What is installed: an environment that an older list made is brought up to this one.
    let stamp = folder.join("installed");
    let wanted = packages.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder.to_owned());
    }
    ensure(&[("python3", "python3")])?;
    let ensurepip = Command::new("python3").args(["-c", "import ensurepip, venv"]).output()?;
    if !ensurepip.status.success() {
        install(&["python3-venv"]).context("please install: python3-venv")?;
    }
    eprintln!("installing {} into {}", packages.join(", "), folder.display());
    run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    let pip = ["install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(folder.join("bin/pip")).args(pip).args(packages))?;
    fs::write(stamp, wanted)?;
    Ok(folder.to_owned())
}

/// Where PATH (or a system folder that sudo's PATH may lack) has a program.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut files = env::split_paths(&path).chain(system).map(|folder| folder.join(program));
    files.find(|file| file.is_file())
}
