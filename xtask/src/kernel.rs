//! Tests on another kernel: Debian's cloud kernel of a version in QEMU. In: a version such as
//! `6.1`. Out: the counts of the tests that ran there.
//!
//! The guest is an initramfs of busybox, the test binaries and the tools that they call, without
//! a disk and without a network card: it sees nothing of this machine, and cgroup v2 is mounted
//! alone, at /sys/fs/cgroup. It is emulated (no KVM), so that it runs wherever QEMU does.

mod apt;
mod binaries;
mod guest;
mod image;
mod package;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{suite::Tally, tools};

/// The version that `cargo xtask test` runs without being asked.
pub(crate) const DEFAULT: &str = "6.1";

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What every run of the suite can afford.
    Short,
    /// The slow ones as well.
    Long,
}

impl Extent {
    /// How long the guest may run. Emulated code is ten to thirty times slower, and the machine
    /// may be busy.
    fn limit(self) -> Duration {
        match self {
            Self::Short => Duration::from_secs(15 * 60),
            Self::Long => Duration::from_secs(40 * 60),
        }
    }
}

/// Runs the tests that capture on a kernel of this version; `filter`: those of this name alone.
///
/// # Errors
/// The kernel cannot be had, or the image not be made. What goes wrong in the guest is counted.
pub(crate) fn test(version: &str, extent: Extent, filter: Option<&str>) -> Result<Tally> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the kernel step knows QEMU for x86_64 alone; leave it out with --only"
    );
    tools::ensure(&[
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("busybox", "busybox-static"),
        ("dpkg-deb", "dpkg"),
        ("setpriv", "util-linux"),
        ("curl", "curl"),
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("python3", "python3"),
        ("strip", "binutils"),
    ])?;
    let kernel = package::fetch(version)?;
    let binaries = binaries::build(extent)?;
    let begun = Instant::now();
    let image = image::make(&kernel, &binaries, filter)?;
    println!(
        "Linux {}: image of {} MiB in {:.1} s",
        kernel.release,
        std::fs::metadata(&image)?.len() >> 20,
        begun.elapsed().as_secs_f64()
    );
    guest::run(&kernel, &image, binaries.tests.len(), extent.limit())
}
