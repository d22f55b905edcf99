//! The Gateway API's conformance suite, and the program that its pods run, as their projects publish them.
//!
//! In: the sources of `tests/conformance`, which name both in one release each. Out:
//! `target/conformance/bin`, built by Go: `suite`, the tests of the Gateway API, and ours of the same form;
//! `server` and `client`, the two programs of the image `echo-advanced`, which are Istio's.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{
    ControlPlane, Image,
    binaries::{go_in, run, target},
};

/// The folder of the module.
const MODULE: &str = "conformance";
const ECHO: &str = "istio.io/istio/pkg/test/echo/cmd/";
/// Without symbols, as the control plane.
const LINK: [&str; 3] = ["-trimpath", "-ldflags", "-s -w"];

/// The folder of the programs.
#[derive(Clone, Debug)]
pub struct Conformance(PathBuf);

/// What became of one of the tests.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct TestResult {
    /// Its name in its suite.
    pub name: String,
    /// Whether it is of `tests/conformance/mesh`, and not the Gateway API's.
    pub ours: bool,
    /// `passed`, `failed` or `skipped`.
    pub result: String,
    /// Features that it needs and that were not declared: why it was skipped.
    pub undeclared: Vec<String>,
}

impl Conformance {
    /// Builds them if they are older than their sources (some two minutes the first time).
    ///
    /// # Errors
    /// Go is missing or does not build them; with what it says.
    pub fn build() -> Result<Self> {
        let folder = target().join("conformance/bin");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut suite = go_in(MODULE)?;
        run(suite.args(["test", "-c"]).args(LINK).arg("-o").arg(folder.join("suite")))?;
        let mut echo = go_in(MODULE)?;
        let programs = ["server", "client"].map(|name| format!("{ECHO}{name}"));
        // With a slash at its end: a folder.
        run(echo.arg("build").args(LINK).arg("-o").arg(folder.join("")).args(programs))?;
        Ok(Self(folder))
    }

    /// The image `echo-advanced`: its server, its client in PATH, and a certificate, which is the node's.
    #[must_use]
    pub fn image(&self, plane: &ControlPlane<'_>) -> Image {
        let file = |name: &str, inside: &str| (plane.pki(name).into(), inside.into());
        Image {
            entrypoint: vec![self.0.join("server").to_string_lossy().into_owned()],
            path: vec![self.0.clone()],
            files: vec![file("node.crt", "/cert.crt"), file("node.key", "/cert.key")],
        }
    }

    /// Runs the suite with these flags against the cluster, from within its node, and then our tests; the
    /// results of those of a mesh, in the order in which they ran. The report, which has the suite's alone, is
    /// written to `report`, and what both say beside it.
    ///
    /// # Errors
    /// It does not end within `timeout`, or before its first test.
    pub fn run(
        &self,
        plane: &ControlPlane<'_>,
        flags: &[String],
        report: &Path,
        timeout: Duration,
    ) -> Result<Vec<TestResult>> {
        let suite = self.0.join("suite").to_string_lossy().into_owned();
        let config = format!("KUBECONFIG={}", plane.kubeconfig().display());
        let results = report.with_extension("results");
        // Those of an earlier run.
        let _ = (fs::remove_file(report), fs::remove_file(&results));
        let mut argv = vec!["env".to_owned(), config, suite];
        argv.push(format!("-test.timeout={}s", timeout.as_secs()));
        // They wait more than they compute: more at a time than there are processors.
        argv.push("-test.parallel=8".to_owned());
        argv.push(format!("-report-output={}", report.display()));
        argv.push(format!("-results={}", results.display()));
        argv.extend_from_slice(flags);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        // It may fail: which of its tests did is for the caller to judge.
        let mut process = plane.node().spawn("conformance", &argv)?;
        let status = process.wait(timeout + Duration::from_secs(10))?;
        let log = process.stdout() + &process.stderr();
        fs::write(report.with_extension("log"), &log)?;
        let lines = fs::read_to_string(&results).unwrap_or_default();
        let parsed = lines.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>();
        let parsed = parsed.with_context(|| results.display().to_string())?;
        if status.is_none() || parsed.is_empty() {
            bail!("the suite: {status:?}: {log}");
        }
        Ok(parsed)
    }
}
