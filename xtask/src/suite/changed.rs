//! `cargo xtask test --changed`: which steps, and which end-to-end programs, a change can affect. In: paths of
//! the files that changed. Out: names. What is not known affects everything.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, bail};

use crate::tools;

/// What is to be run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Affected {
    /// Steps by name.
    pub(super) steps: BTreeSet<&'static str>,
    /// End-to-end programs by name; None: all.
    pub(super) programs: Option<BTreeSet<String>>,
}

/// End-to-end programs that an area of the sources can affect.
#[derive(Clone, Copy)]
enum Programs {
    None,
    All,
    Some(&'static [&'static str]),
    /// The program that the file is.
    Own,
}

/// What a file of an area affects: the first prefix that fits holds.
const AREAS: [(&str, &[&str], Programs); 14] = [
    ("mirror-user/vendor/", &["committed", "lint", "unit", "docs", "build", "e2e"], Programs::All),
    ("mirror-user/src/capture", CAPTURE, Programs::All),
    ("mirror-user/src/selection", CAPTURE, Programs::All),
    ("mirror-user/src/sockets", CAPTURE, Programs::All),
    ("mirror-user/src/", SOURCE, Programs::All),
    ("mirror-user/tests/", &["lint", "unit"], Programs::None),
    ("mirror-user/benches/", &["lint"], Programs::None),
    ("tests/tests/", &["lint", "build", "cluster", "e2e"], Programs::Own),
    ("tests/cluster/", &["cluster", "e2e"], Programs::All),
    ("tests/conformance/", &["build", "cluster", "e2e"], Programs::Some(&["conformance"])),
    ("tests/", &["lint", "unit", "docs", "build", "cluster", "e2e"], Programs::All),
    ("xtask/", &["lint", "unit", "docs"], Programs::None),
    (
        "deploy/",
        &["unit", "build", "cluster", "e2e"],
        Programs::Some(&["deploy", "cluster_walkthrough", "cluster_upgrade", "conformance"]),
    ),
    ("README.md", &["unit"], Programs::None),
];

const SOURCE: &[&str] = &["imports", "lint", "unit", "docs", "build", "cluster", "e2e"];
const CAPTURE: &[&str] = &["imports", "lint", "unit", "docs", "build", "cluster", "e2e", "kernel"];

/// Steps that read every file, and take a second.
const CHEAP: [&str; 3] = ["tools", "format", "words"];

/// What these files affect; `all`: the names of all steps.
pub(super) fn affected(files: &[String], all: &[&'static str]) -> Affected {
    let mut steps: BTreeSet<&'static str> = CHEAP.into();
    let mut programs = Some(BTreeSet::new());
    for file in files {
        let is_prose = Path::new(file).extension().is_some_and(|extension| extension == "md");
        let area = AREAS.iter().find(|(prefix, ..)| file.starts_with(prefix));
        let (names, which) = match area {
            Some((_, names, which)) => (*names, *which),
            None if is_prose => (&["unit"][..], Programs::None),
            None => (all, Programs::All),
        };
        steps.extend(names);
        match (which, &mut programs) {
            (Programs::All, programs) => *programs = None,
            (Programs::Some(names), Some(programs)) => {
                programs.extend(names.iter().map(|name| (*name).to_owned()));
            }
            (Programs::Own, Some(programs)) => {
                // A file beside a program, or in its folder.
                let name =
                    file["tests/tests/".len()..].split(['/', '.']).next().unwrap_or_default();
                programs.insert(name.to_owned());
            }
            (Programs::None, _) | (_, None) => {}
        }
    }
    Affected { steps, programs }
}

/// Files that differ from a commit, in the index and the working tree too.
///
/// # Errors
/// Git is missing, or knows no such commit.
pub(super) fn files(since: &str) -> Result<Vec<String>> {
    let git = |args: &[&str]| -> Result<Vec<String>> {
        let mut command = std::process::Command::new("git");
        let output = command.args(args).current_dir(tools::root()).output().context("git")?;
        if !output.status.success() {
            bail!("git {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    };
    let base = git(&["merge-base", since, "HEAD"])?.into_iter().next().context("no merge base")?;
    let mut files = git(&["diff", "--name-only", &base])?;
    files.extend(git(&["ls-files", "--others", "--exclude-standard"])?);
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::steps;

    fn of(files: &[&str]) -> (Vec<&'static str>, Option<Vec<String>>) {
        let all: Vec<_> = steps::ALL.iter().map(|(name, _)| *name).collect();
        let files: Vec<_> = files.iter().map(|file| (*file).to_owned()).collect();
        let Affected { mut steps, programs } = affected(&files, &all);
        CHEAP.iter().for_each(|step| assert!(steps.remove(step)));
        (steps.into_iter().collect(), programs.map(|programs| programs.into_iter().collect()))
    }

    #[test]
    fn a_change_runs_what_it_can_affect() {
        let none = Some(Vec::new());
        assert_eq!(of(&[]), (vec![], none.clone()));
        assert_eq!(of(&["ARCHITECTURE.md"]), (vec!["unit"], none.clone()));
        assert_eq!(of(&["mirror-user/tests/proxy/http1.rs"]), (vec!["lint", "unit"], none));
        let grpc = Some(vec!["grpc".to_owned()]);
        let steps = vec!["build", "cluster", "e2e", "lint"];
        assert_eq!(of(&["tests/tests/grpc.rs"]), (steps.clone(), grpc));
        let own = Some(vec!["clients".to_owned(), "grpc".to_owned()]);
        assert_eq!(of(&["tests/tests/grpc.rs", "tests/tests/clients/chunks.py"]), (steps, own));
        let (steps, programs) = of(&["mirror-user/src/capture/pod.rs", "tests/tests/grpc.rs"]);
        assert!(steps.contains(&"kernel") && programs.is_none());
        let (steps, _) = of(&["mirror-user/src/proxy/tee.rs"]);
        assert!(!steps.contains(&"kernel") && steps.contains(&"imports"));
    }

    #[test]
    fn what_is_not_known_runs_everything() {
        for file in
            ["Cargo.lock", "mirror-ebpf/src/main.rs", "mirror-common/src/lib.rs", "new/file"]
        {
            let (steps, programs) = of(&[file]);
            assert_eq!(steps.len() + CHEAP.len(), steps::ALL.len(), "{file}");
            assert_eq!(programs, None);
        }
    }

    #[test]
    fn every_area_names_steps_that_exist() {
        for step in AREAS.iter().flat_map(|(_, steps, _)| *steps).chain(&CHEAP) {
            assert!(steps::ALL.iter().any(|(name, _)| name == step), "{step}");
        }
    }
}
