//! Checks at start, in plain words: what this machine lacks for capturing. Features are probed,
//! versions never compared: distributions backport.

use std::{fs, io, path::PathBuf};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported, is_program_supported},
};

use crate::error_chain::WithCauses;

/// What makes capturing impossible.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// No cgroup2 in /proc/self/mountinfo.
    #[error(
        "no cgroup v2 hierarchy is mounted: programs attach to cgroups of version 2 only. Mount \
         one with `mount -t cgroup2 none /sys/fs/cgroup/unified`, or boot with \
         systemd.unified_cgroup_hierarchy=1"
    )]
    NoCgroup2,
    /// Capabilities that are not effective.
    #[error(
        "missing capabilities: {}. Run as root, or give the container these capabilities",
        .0.join(", ")
    )]
    Capabilities(Vec<&'static str>),
    /// CLOCK_MONOTONIC of this process is not the kernel's.
    #[error(
        "this process is in a time namespace whose monotonic clock is offset by {0} s: the \
         programs would take every heartbeat for stale. Start the agent outside of it"
    )]
    TimeNamespace(i64),
    /// A feature that the kernel does not have.
    #[error("the kernel lacks {feature} (mainline since Linux {since})")]
    Feature {
        /// What is missing.
        feature: &'static str,
        /// Where mainline has it.
        since: &'static str,
    },
    /// A probe that failed for another reason.
    #[error("probing the kernel for {feature}: {message}")]
    Probe {
        /// What was probed.
        feature: &'static str,
        /// What the kernel said.
        message: String,
    },
    /// A file of /proc.
    #[error("reading {path}: {source}")]
    Read {
        /// The file.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// What was found, for the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    /// Where cgroup v2 is mounted.
    pub cgroup2: PathBuf,
    /// What is missing without harm, in plain words.
    pub warnings: Vec<String>,
}

/// Checks all that capturing needs, before anything is loaded.
///
/// # Errors
/// The first thing that is missing.
pub fn check() -> Result<Notice, CheckError> {
    let cgroup2 = cgroup2_mount(&read("/proc/self/mountinfo")?).ok_or(CheckError::NoCgroup2)?;
    let missing = missing_capabilities(&read("/proc/self/status")?);
    if !missing.is_empty() {
        return Err(CheckError::Capabilities(missing));
    }
    // Absent where the kernel has no time namespaces.
    if let Ok(offsets) = fs::read_to_string("/proc/self/timens_offsets")
        && let Some(offset) = monotonic_offset(&offsets)
    {
        return Err(CheckError::TimeNamespace(offset));
    }
    features()?;
    let mut warnings = Vec::new();
    if !PathBuf::from("/sys/kernel/btf/vmlinux").exists() {
        warnings.push(
            "the kernel has no BTF (/sys/kernel/btf/vmlinux; CONFIG_DEBUG_INFO_BTF): capturing \
             works, but the kernel's tools show less of the programs"
                .to_owned(),
        );
    }
    Ok(Notice { cgroup2, warnings })
}

/// Where cgroup v2 is mounted: fields 5 (mount point, octal escapes) and the type after " - ".
fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        (rest.split(' ').next()? == "cgroup2")
            .then(|| fields.split(' ').nth(4).map(|path| path.replace("\\040", " ").into()))?
    })
}

/// What CapEff lacks, by name; CAP_SYS_ADMIN stands for CAP_BPF.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    const NEEDED: [(u32, &str); 3] =
        [(12, "CAP_NET_ADMIN"), (19, "CAP_SYS_PTRACE"), (21, "CAP_SYS_ADMIN")];
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED.into_iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| name).collect()
}

/// The whole seconds that the monotonic clock is offset by (1 for less); None when it is not.
fn monotonic_offset(offsets: &str) -> Option<i64> {
    let line = offsets.lines().find(|line| line.split_whitespace().next() == Some("monotonic"))?;
    let mut numbers = line.split_whitespace().skip(1).map(|n| n.parse::<i64>().unwrap_or(0));
    match (numbers.next()?, numbers.next()?) {
        (0, 0) => None,
        (0, _) => Some(1),
        (seconds, _) => Some(seconds),
    }
}

fn features() -> Result<(), CheckError> {
    let programs = [
        (ProgramType::CgroupSockAddr, "programs on connect() (cgroup/connect4)", "4.17"),
        (ProgramType::SkLookup, "sk_lookup programs", "5.9"),
    ];
    for (kind, feature, since) in programs {
        probed(is_program_supported(kind), feature, since)?;
    }
    let sock_addr = ProgramType::CgroupSockAddr;
    let helpers = [
        (BpfHelper::BPF_FUNC_get_netns_cookie, sock_addr, "bpf_get_netns_cookie", "5.7"),
        (BpfHelper::BPF_FUNC_sk_lookup_tcp, sock_addr, "bpf_sk_lookup_tcp", "4.20"),
        (
            BpfHelper::BPF_FUNC_sk_assign,
            ProgramType::SkLookup,
            "bpf_sk_assign in sk_lookup programs",
            "5.9",
        ),
    ];
    for (helper, kind, feature, since) in helpers {
        probed(is_helper_supported(kind, helper), feature, since)?;
    }
    Ok(())
}

fn probed<E: std::error::Error + 'static>(
    result: Result<bool, E>,
    feature: &'static str,
    since: &'static str,
) -> Result<(), CheckError> {
    match result {
        Ok(true) => Ok(()),
        Ok(false) => Err(CheckError::Feature { feature, since }),
        Err(error) => Err(CheckError::Probe { feature, message: WithCauses(&error).to_string() }),
    }
}

fn read(path: &'static str) -> Result<String, CheckError> {
    fs::read_to_string(path).map_err(|source| CheckError::Read { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_wherever_it_is_mounted() {
        let hybrid = "24 30 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
            31 24 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_mount(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_mount("24 30 0:22 / /sys/fs/cgroup ro - cgroup cgroup ro\n"), None);
        assert_eq!(cgroup2_mount("nonsense\n\n - \n"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert!(missing_capabilities("CapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(missing_capabilities("CapEff:\t0000000000201000\n"), ["CAP_SYS_PTRACE"]);
        assert_eq!(missing_capabilities("").len(), 3);
    }

    #[test]
    fn a_refused_probe_names_the_errno() {
        let refused = aya::sys::SyscallError {
            call: "bpf_prog_load",
            io_error: io::Error::from_raw_os_error(1),
        };
        let error = probed(Err(refused), "sk_lookup programs", "5.9").unwrap_err().to_string();
        assert!(error.contains("sk_lookup programs"), "{error}");
        assert!(error.contains("bpf_prog_load"), "{error}");
        assert!(error.contains("Operation not permitted (os error 1)"), "{error}");
    }

    #[test]
    fn an_offset_of_the_monotonic_clock_is_seen() {
        assert_eq!(monotonic_offset("monotonic  0  0\nboottime  5  0\n"), None);
        assert_eq!(monotonic_offset("monotonic  -7  0\nboottime  0  0\n"), Some(-7));
        assert_eq!(monotonic_offset("monotonic  0  500\n"), Some(1));
    }
}
