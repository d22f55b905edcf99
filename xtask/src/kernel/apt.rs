//! apt, asked for packages that are unpacked and never installed. In: a pattern of names. Out: the
//! names that there are, and their archives. First as this machine is set up; where that knows no
//! such package, the backports of the Debian archive that it uses, with separate lists.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::tools;

const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

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

    /// The backports of the Debian archive that this machine uses; lists and caches are kept in
    /// `folder`.
    ///
    /// # Errors
    /// It uses none, or the folder cannot be made.
    pub(super) fn backports(folder: &Path) -> Result<Self> {
        let (archive, release) = Self::archive()?;
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let sources = folder.join("sources.list");
        let line = format!("deb [signed-by={KEYS}] {archive} {release}-backports main\n");
        fs::write(&sources, line)?;
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

    /// The Debian archive that this machine's apt uses, and the name of its release.
    fn archive() -> Result<(String, String)> {
        let output = Command::new("apt-get")
            .args(["indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(RELEASE)"])
            .arg("Created-By: Packages")
            .output()
            .context("apt-get cannot be started: this step needs Debian's packages")?;
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = list.lines().find_map(|line| {
            let mut fields = line.split_whitespace();
            let (origin, archive, release) = (fields.next()?, fields.next()?, fields.next()?);
            let plain = !release.contains(['-', '/']);
            (origin == "Debian" && plain).then(|| (archive.to_owned(), release.to_owned()))
        });
        found.context("apt uses no archive of Debian here, which has the kernels to test on")
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
