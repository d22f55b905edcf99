//! apt, asked for packages that are unpacked and never installed. In: a pattern of names. Out: the
//! names that there are, and their archives. First as this machine is set up, mirrors and all;
//! where that knows no such package (Ubuntu, or no backports), Debian's own archive, with lists of
//! its own, signed by Debian's keys.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::tools;

const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where Debian 12 has its kernels: 6.1 in the first and the last, 6.12 in the second.
const SUITES: [(&str, &str); 3] = [
    ("debian", "bookworm"),
    ("debian", "bookworm-backports"),
    ("debian-security", "bookworm-security"),
];

/// A way of asking apt.
#[derive(Debug)]
pub(super) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// As this machine is set up.
    pub(super) fn here() -> Self {
        // Its download would want to become another user, who may not write to our folder.
        Self { options: vec!["-oAPT::Sandbox::User=root".into()] }
    }

    /// Debian's own archive; lists and caches are kept in `folder`.
    ///
    /// # Errors
    /// Debian's keys cannot be had, or the folder not be made.
    pub(super) fn debian(folder: &Path) -> Result<Self> {
        if !Path::new(KEYS).exists() {
            tools::install(&["debian-archive-keyring"])
                .context("please install: debian-archive-keyring")?;
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let line = |(archive, suite): (&str, &str)| {
            format!("deb [signed-by={KEYS}] http://deb.debian.org/{archive} {suite} main\n")
        };
        let sources = folder.join("sources.list");
        fs::write(&sources, SUITES.map(line).concat())?;
        let mut apt = Self::here();
        let set = |name: &str, path: PathBuf| format!("-oDir::{name}={}", path.display());
        apt.options.extend([
            set("Etc::SourceList", sources),
            set("Etc::SourceParts", "/dev/null".into()),
            set("State::Lists", folder.join("lists")),
            set("Cache", folder.join("cache")),
        ]);
        Ok(apt)
    }

    /// Fresh lists.
    ///
    /// # Errors
    /// What apt-get says.
    pub(super) fn update(&self) -> Result<()> {
        tools::run(self.command("apt-get").args(["-qq", "update"]))
    }

    /// Names that match the expression.
    ///
    /// # Errors
    /// What apt-cache says.
    pub(super) fn search(&self, pattern: &str) -> Result<Vec<String>> {
        let output = self
            .command("apt-cache")
            .args(["search", "--names-only", pattern])
            .output()
            .context("apt-cache cannot be started: this step needs Debian's packages")?;
        if !output.status.success() {
            bail!("apt-cache search: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = list.lines().filter_map(|line| line.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }

    /// Downloads the newest archive of a package into `folder`.
    ///
    /// # Errors
    /// What apt-get says.
    pub(super) fn download(&self, package: &str, folder: &Path) -> Result<()> {
        let mut command = self.command("apt-get");
        tools::run(command.args(["-qq", "download", package]).current_dir(folder))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }
}
