//! The kernel: a version such as `6.1` in; Debian's newest cloud kernel of that version, unpacked
//! in target/kernel, out. Nothing is installed: the package's scripts would touch the boot loader.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::apt::Apt;
use crate::tools;

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// What `uname -r` says.
    pub(super) release: String,
    /// The image to boot.
    pub(super) image: PathBuf,
    /// The folder of its modules.
    pub(super) modules: PathBuf,
    /// Where files made of it may be kept.
    pub(super) folder: PathBuf,
}

/// Fetches it, unless it was fetched before.
///
/// # Errors
/// No such version, no such package, no network; with what apt-get says.
pub(super) fn fetch(version: &str) -> Result<Kernel> {
    let plain = version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    ensure!(plain && version.contains('.'), "{version} is not a version such as 6.1");
    let folder = tools::root().join("target/kernel").join(version);
    let unpacked = folder.join("unpacked");
    if !folder.join("complete").exists() {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let (apt, package) = newest(version, &folder)?;
        println!("fetching {package}");
        apt.download(&package, &folder)?;
        let archive = only(&folder, |name| name.ends_with(".deb"))?;
        tools::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
        fs::remove_file(archive)?;
        // Last, so that a fetch that was cut short never counts.
        fs::write(folder.join("complete"), package)?;
    }
    let modules = only(&unpacked.join("lib/modules"), |_| true)?;
    let release = modules.file_name().context("a folder has a name")?;
    let release = release.to_string_lossy().into_owned();
    let image = unpacked.join("boot").join(format!("vmlinuz-{release}"));
    ensure!(image.is_file(), "the package has no {}", image.display());
    Ok(Kernel { release, image, modules, folder })
}

/// The newest package of the version, and who has it.
fn newest(version: &str, folder: &Path) -> Result<(Apt, String)> {
    let escaped = version.replace('.', "\\.");
    let pattern = format!("^linux-image-{escaped}\\.[0-9][^ ]*-cloud-amd64$");
    let search = |apt: &Apt| {
        let names = apt.search(&pattern)?;
        anyhow::Ok(names.into_iter().max_by_key(|name| numbers(name)))
    };
    // The lists of a machine may be empty or old; what they name may be gone.
    let here = Apt::here();
    if here.update().is_ok()
        && let Some(package) = search(&here)?
    {
        return Ok((here, package));
    }
    let backports = Apt::backports(&folder.join("apt"))?;
    backports.update()?;
    match search(&backports)? {
        Some(package) => Ok((backports, package)),
        None => bail!("there is no linux-image-{version}.*-cloud-amd64 (Debian 12: 6.1 and 6.12)"),
    }
}

/// 6.1.0-9 comes before 6.1.0-56.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// The one entry of the folder whose name is accepted.
fn only(folder: &Path, accept: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| path.file_name().is_some_and(|n| accept(&n.to_string_lossy()));
    let mut paths = paths.filter(named);
    match (paths.next(), paths.next()) {
        (Some(path), None) => Ok(path),
        (found, _) => bail!(
            "{} has {} where one is expected",
            folder.display(),
            if found.is_none() { "nothing" } else { "several entries" }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_so_by_its_numbers() {
        let names = ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"];
        assert_eq!(names.iter().max_by_key(|name| numbers(name)), Some(&names[1]));
        let names =
            ["linux-image-6.12.117+deb12-cloud-amd64", "linux-image-6.12.9+deb12-cloud-amd64"];
        assert_eq!(names.iter().max_by_key(|name| numbers(name)), Some(&names[0]));
    }

    #[test]
    fn what_is_no_version_is_refused_before_anything_is_fetched() {
        for version in ["", "6", "6.1; true", "../6.1", "v6.1"] {
            assert!(fetch(version).is_err(), "{version}");
        }
    }
}
