//! What is tested: an extent in; test binaries and the `mirror` that they start out, built as the
//! other steps build them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Extent;
use crate::tools;

/// A test target and its package. Left out are those with bounds on time (an emulated processor is
/// too slow for them) and those that need clients and servers of others.
const SHORT: [(&str, &str); 4] = [
    ("mirror-user", "capture"),
    ("mirror-user", "capture_tap"),
    ("mirror-tests", "walkthrough"),
    ("mirror-tests", "starts"),
];

const LONG: [(&str, &str); 4] = [
    ("mirror-user", "capture_v6"),
    ("mirror-tests", "routes"),
    ("mirror-tests", "node"),
    ("mirror-user", "capture_leaks"),
];

/// Built for this machine, and its libraries.
#[derive(Debug)]
pub(super) struct Binaries {
    /// In the order in which they run, each with its package's folder.
    pub(super) tests: Vec<Test>,
    /// The release binary, which the end-to-end tests start.
    pub(super) mirror: PathBuf,
}

/// A test binary.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) name: &'static str,
    pub(super) file: PathBuf,
    /// Where cargo test would start it.
    pub(super) folder: PathBuf,
}

/// Builds them.
///
/// # Errors
/// The build fails.
pub(super) fn build(extent: Extent) -> Result<Binaries> {
    tools::build_mirror()?;
    let long = if extent == Extent::Long { &LONG[..] } else { &[] };
    let chosen: Vec<_> = SHORT.iter().chain(long).collect();
    let mut built = BTreeMap::new();
    for package in ["mirror-user", "mirror-tests"] {
        let targets = chosen.iter().filter(|(of, _)| *of == package);
        let targets: Vec<_> = targets.flat_map(|(_, target)| ["--test", target]).collect();
        for message in messages(package, &targets)? {
            // The binaries of the package, and what has none, are named as well.
            let (Some("test"), Some(name), Some(file)) = (
                message["target"]["kind"][0].as_str(),
                message["target"]["name"].as_str(),
                message["executable"].as_str(),
            ) else {
                continue;
            };
            let manifest = message["manifest_path"].as_str().context("cargo names the manifest")?;
            let folder = Path::new(manifest).parent().context("a manifest has a folder")?;
            built.insert(name.to_owned(), (PathBuf::from(file), folder.to_owned()));
        }
    }
    let test = |(_, name): &(&str, &'static str)| {
        let (file, folder) = built.get(*name).with_context(|| format!("cargo built no {name}"))?;
        Ok(Test { name, file: file.clone(), folder: folder.clone() })
    };
    Ok(Binaries {
        tests: chosen.into_iter().map(test).collect::<Result<_>>()?,
        mirror: tools::root().join("target/release/mirror"),
    })
}

/// What cargo says of the files that it makes.
fn messages(package: &str, targets: &[&str]) -> Result<Vec<Value>> {
    let mut command = tools::cargo(&["test", "--no-run", "--message-format=json", "-p", package]);
    let output = command.args(targets).stderr(Stdio::inherit()).output().context("cargo test")?;
    if !output.status.success() {
        bail!("cargo test --no-run -p {package}: {}", output.status);
    }
    let text = String::from_utf8(output.stdout).context("cargo's messages are UTF-8")?;
    text.lines().map(|line| serde_json::from_str(line).context("cargo's message")).collect()
}
