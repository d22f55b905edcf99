//! The components: one binary, built by Go from `tests/cluster`, with a link for each name.
//!
//! In: the sources. Out: `target/cluster/bin`. Go rebuilds only what has changed; the first build
//! takes some six minutes. It never installs Go: `cargo xtask` does.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};

/// The release of Kubernetes that `go.mod` names.
const VERSION: &str = "v1.36.3";
/// The release of Go that `go.mod` wants: 1.26.
const MINOR: u32 = 26;
/// The folder of the module.
const MODULE: &str = "cluster";
const BINARY: &str = "cluster";
const LINKS: [&str; 6] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubectl",
];

/// The folder of the components.
#[derive(Clone, Debug)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// Builds them if they are older than their sources; once per process.
    ///
    /// # Errors
    /// Go is missing or does not build them; with what it says.
    pub fn build() -> Result<Self> {
        static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &*built {
            return Ok(Self(folder.clone()));
        }
        let folder = target().join("cluster/bin");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        compile(&folder.join(BINARY))?;
        for name in LINKS {
            match symlink(BINARY, folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("link {name}"));
                }
                _ => {}
            }
        }
        *built = Some(folder.clone());
        Ok(Self(folder))
    }

    /// Where they are, for a PATH.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// A component's file, as text for a command line.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
}

fn compile(output: &Path) -> Result<()> {
    let version = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion={VERSION} \
         -X k8s.io/client-go/pkg/version.gitVersion={VERSION}"
    );
    let mut command = go()?;
    command.args(["build", "-trimpath", "-ldflags", &version, "-o"]).arg(output).arg(".");
    run(&mut command)
}

/// Runs a go command to its end.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("cannot run go")?;
    if !output.status.success() {
        let folder = command.get_current_dir().unwrap_or(Path::new(".")).display();
        bail!("go in {folder}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Where Go has a module's files, which it downloads when they are not there; without a version in its
/// name, those of the version that `go.mod` in this folder of `tests` names.
pub(super) fn module(folder: &str, name: &str) -> Result<PathBuf> {
    let output =
        go_in(folder)?.args(["mod", "download", "-json", name]).output().context("go mod")?;
    let response: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("go mod download {name} answers no JSON"))?;
    match (response["Dir"].as_str(), response["Error"].as_str()) {
        (Some(folder), None) => Ok(folder.into()),
        (_, error) => bail!("go mod download {name}: {}", error.unwrap_or("no folder")),
    }
}

/// Where `cargo xtask` installs Go on a machine that has none.
#[must_use]
pub fn go_folder() -> PathBuf {
    target().join("go")
}

/// A go command in the module of the control plane: of PATH, of where Go's own archive is unpacked, or of
/// [`go_folder`]. One that is older than `go.mod` wants is passed over.
///
/// # Errors
/// Go is not installed.
pub fn go() -> Result<Command> {
    go_in(MODULE)
}

/// The same in the module of this folder of `tests`.
pub(super) fn go_in(folder: &str) -> Result<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/local/go/bin".into(), go_folder().join("bin")]);
    let go = folders.map(|folder| folder.join("go")).find(|file| file.is_file() && is_recent(file));
    let go = go.context(
        "Go 1.26 is not installed, by which the control plane is built: cargo xtask test --only cluster \
         installs it",
    )?;
    let mut command = Command::new(go);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    Ok(command)
}

/// Whether this is Go 1.26 or later.
fn is_recent(go: &Path) -> bool {
    let output = Command::new(go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output();
    output.is_ok_and(|output| minor(&String::from_utf8_lossy(&output.stdout)) >= Some(MINOR))
}

/// The second number of a version as Go says it, `go1.26.8`.
fn minor(version: &str) -> Option<u32> {
    version.trim().strip_prefix("go1.")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

pub(super) fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| workspace.unwrap_or(Path::new(".")).join("target"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_read() {
        assert_eq!(minor("go1.26.8\n"), Some(26));
        assert_eq!(minor("go1.30rc1"), Some(30));
        assert_eq!(minor("go1.19"), Some(19));
        assert_eq!(minor("devel go1.27"), None);
        assert_eq!(minor(""), None);
    }
}
