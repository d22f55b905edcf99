//! What is in `mirror-user/vendor/` is upstream's source and the patch that stands beside it, and
//! nothing else. In: a crate's folder. Out: an error that names the file that is another.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::tools;

/// The crate, and its version.
const H2: (&str, &str) = ("h2", "0.4.20");

/// Takes the patch back from a copy, and compares what is left with upstream's hashes, and with its files
/// where cargo has them.
///
/// # Errors
/// A difference, or git cannot be run.
pub(crate) fn check(root: &Path) -> Result<()> {
    let (name, version) = H2;
    let folder = root.join("mirror-user/vendor").join(name);
    let copy = env::temp_dir().join(format!("mirror-vendored-{}", std::process::id()));
    let checked = compare(&folder, &copy, &format!("{name}-{version}"));
    // Whether there is a copy depends on how far it came.
    let _ = fs::remove_dir_all(&copy);
    checked.with_context(|| format!("{} is not upstream's and its patch", folder.display()))
}

fn compare(folder: &Path, copy: &Path, release: &str) -> Result<()> {
    for (file, bytes) in files(folder, &folder.join("src"))? {
        let to = copy.join(file);
        fs::create_dir_all(to.parent().expect("within the copy"))?;
        fs::write(to, bytes)?;
    }
    let mut apply = Command::new("git");
    // Outside of any repository, so that the paths are those of the patch.
    apply.env("GIT_DIR", "/nonexistent").current_dir(copy);
    tools::run(apply.args(["apply", "--reverse", "-p1"]).arg(folder.join("mirror.patch")))?;
    let found = files(copy, &copy.join("src"))?;
    let mut hashes: BTreeMap<_, _> =
        found.iter().map(|(file, bytes)| (file.clone(), hash(bytes))).collect();
    for line in fs::read_to_string(folder.join("UPSTREAM.sha256"))?.lines() {
        let (hash, file) = line.split_once("  ").context("HASH  FILE")?;
        let found = hashes.remove(Path::new(file)).with_context(|| format!("{file} is missing"))?;
        ensure!(found == hash, "{file} differs from upstream's by more than the patch");
    }
    if let Some((file, _)) = hashes.first_key_value() {
        bail!("{} is not upstream's", file.display());
    }
    for upstream in downloaded(release) {
        ensure!(files(&upstream, &upstream.join("src"))? == found, "{}", upstream.display());
    }
    Ok(())
}

/// Files below a folder, by their path from `root`.
fn files(root: &Path, folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let listed = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in listed {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(root, &path)?);
        } else {
            let bytes = fs::read(&path)?;
            found.insert(path.strip_prefix(root).expect("below it").to_owned(), bytes);
        }
    }
    Ok(found)
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where cargo has unpacked upstream's release, if it has.
fn downloaded(release: &str) -> Vec<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let registries = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let registries = registries.into_iter().flatten().flatten();
    registries.map(|entry| entry.path().join(release)).filter(|path| path.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_upstreams_with_the_patch_and_one_byte_more_is_seen() {
        let root = tools::root();
        check(&root).unwrap();
        let other = env::temp_dir().join(format!("mirror-vendored-test-{}", std::process::id()));
        for (file, bytes) in files(&root, &root.join("mirror-user/vendor")).unwrap() {
            fs::create_dir_all(other.join(&file).parent().unwrap()).unwrap();
            fs::write(other.join(file), bytes).unwrap();
        }
        let lib = other.join("mirror-user/vendor/h2/src/lib.rs");
        let mut source = fs::read(&lib).unwrap();
        source.push(b'\n');
        fs::write(&lib, source).unwrap();
        let error = format!("{:#}", check(&other).unwrap_err());
        fs::remove_dir_all(other).unwrap();
        assert!(error.contains("src/lib.rs differs"), "{error}");
    }
}
