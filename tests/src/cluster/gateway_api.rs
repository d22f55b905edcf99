//! The CRDs of the Gateway API, as their project publishes them, from Go's module cache.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use super::binaries::module;

/// The release that the crate `gateway-api` is made for.
const MODULE: &str = "sigs.k8s.io/gateway-api@v1.5.1";
/// The module that `tests/conformance` needs in some release.
const SUITE: &str = "sigs.k8s.io/gateway-api";

/// Whose CRDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Of the release that the crate `gateway-api` is made for.
    Crate,
    /// Of the release of the conformance suite.
    Conformance,
}

/// A release channel: which fields the schemas have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// What is stable.
    Standard,
    /// With experimental fields and kinds (`type: ExternalAuth`, say).
    Experimental,
}

impl Channel {
    /// The files of this channel's CRDs. The admission policy that the release has beside them is
    /// left out: it refuses to change the channel, which tests do.
    ///
    /// # Errors
    /// Go cannot fetch the module, or it has no such folder.
    pub fn files(self, release: Release) -> Result<Vec<PathBuf>> {
        let name = match self {
            Self::Standard => "standard",
            Self::Experimental => "experimental",
        };
        let module = match release {
            Release::Crate => module("cluster", MODULE),
            Release::Conformance => module("conformance", SUITE),
        };
        let folder = module?.join("config/crd").join(name);
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("gateway.networking.") && !name.contains("_vap_")
        });
        files.sort();
        if files.is_empty() {
            bail!("no CRD in {}", folder.display());
        }
        Ok(files)
    }
}
