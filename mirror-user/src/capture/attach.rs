//! The programs on one workload's cgroup. Dropping the links detaches them.

use std::{fs::File, io, os::unix::fs::MetadataExt as _, path::Path};

use aya::programs::{cgroup_skb::CgroupSkbLink, cgroup_sock_addr::CgroupSockAddrLink};

use super::{
    cgroup::is_shortage,
    programs::{Hook, Programs, ProgramsError, program_name},
};
use crate::sockets::sys;

/// `BPF_F_ALLOW_MULTI`: programs below are allowed.
const ALLOW_MULTI: u32 = 2;

/// Why the hooks could not be attached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error("opening the cgroup: {0}")]
    Open(#[source] io::Error),
    #[error("{0}")]
    Forbidden(String),
    #[error(transparent)]
    Programs(#[from] ProgramsError),
}

/// The links on one cgroup.
pub(crate) struct Attached {
    /// First, so that a drop ends capturing before the names go.
    connect: Vec<CgroupSockAddrLink>,
    _names: Vec<CgroupSockAddrLink>,
    /// None where nothing is tapped, or the kernel does not allow it here.
    egress: Option<CgroupSkbLink>,
    /// No other agent that was here before marks sockets.
    first: bool,
    inode: u64,
}

impl Attached {
    /// Attaches all hooks; the connect hooks last, when everything that it needs is there.
    pub(crate) fn new(programs: &mut Programs, path: &Path) -> Result<Self, AttachError> {
        let cgroup = File::open(path).map_err(AttachError::Open)?;
        let inode = cgroup.metadata().map_err(AttachError::Open)?.ino();
        let names = attach_all(programs, &Hook::NAMES, &cgroup, path)?;
        // Before the hooks that mark: a connection is copied from its first byte, or not at all.
        let egress = attach_egress(programs, &cgroup, path);
        let connect = attach_all(programs, &Hook::CONNECT, &cgroup, path)?;
        Ok(Self { connect, _names: names, egress, first: false, inode })
    }

    /// Whether connections to tapped frontends are to be tapped here. Of two agents the one that was here
    /// first does it, until it has detached; then those of the other, which it proxied meanwhile, are.
    pub(crate) fn taps(&mut self, programs: &mut Programs, path: &Path) -> bool {
        if self.egress.is_none() || self.connect.is_empty() {
            return false;
        }
        // Whoever comes later stands behind.
        self.first = self.first || is_first(programs, path).unwrap_or(false);
        self.first
    }

    /// Captures no more connections; getpeername still returns the original destinations.
    pub(crate) fn stop(&mut self) {
        self.connect.clear();
    }

    /// Whether the path still is the cgroup that the links are on, as far as is known now.
    pub(crate) fn is_on(&self, path: &Path) -> bool {
        match std::fs::metadata(path) {
            Ok(now) => now.ino() == self.inode,
            Err(error) => is_shortage(&error),
        }
    }
}

fn attach_all(
    programs: &mut Programs,
    hooks: &[Hook],
    cgroup: &File,
    path: &Path,
) -> Result<Vec<CgroupSockAddrLink>, AttachError> {
    let attach = |hook: &Hook| {
        programs.attach(*hook, cgroup).map_err(|error| match forbidden(&error, *hook, path) {
            Some(text) => AttachError::Forbidden(text),
            None => error.into(),
        })
    };
    hooks.iter().map(attach).collect()
}

/// None, with a line in the log, where the kernel does not allow it: what would be tapped is proxied.
fn attach_egress(programs: &mut Programs, cgroup: &File, path: &Path) -> Option<CgroupSkbLink> {
    programs.attach_egress(cgroup).unwrap_or_else(|error| {
        let cgroup = path.display();
        tracing::warn!(%cgroup, %error, "cannot tap: all its captured connections are proxied");
        None
    })
}

/// Whether of the programs on the cgroup that mark sockets this agent's is the first; None if that
/// cannot be seen.
fn is_first(programs: &mut Programs, path: &Path) -> Option<bool> {
    let own = programs.marker()?;
    let (_, ids) =
        sys::cgroup_programs(File::open(path).ok()?, Hook::Connect4.attach_type()).ok()?;
    Some(ids.into_iter().find(|id| *id == own || programs.marks(*id)) == Some(own))
}

/// For EPERM: whose program on which ancestor forbids attaching.
fn forbidden(error: &ProgramsError, hook: Hook, path: &Path) -> Option<String> {
    if !error.is_forbidden() {
        return None;
    }
    let culprit = path.ancestors().find_map(|cgroup| {
        let (flags, ids) =
            sys::cgroup_programs(File::open(cgroup).ok()?, hook.attach_type()).ok()?;
        (flags & ALLOW_MULTI == 0 && !ids.is_empty()).then(|| (cgroup.to_owned(), ids))
    });
    Some(match culprit {
        Some((cgroup, ids)) => {
            let names: Vec<_> =
                ids.iter().map(|id| format!("program {id} ({})", program_name(*id))).collect();
            format!(
                "{} cannot be attached: {} on {} was attached without BPF_F_ALLOW_MULTI, which \
                 forbids programs below; its owner must attach it with that flag",
                hook.name(),
                names.join(", "),
                cgroup.display()
            )
        }
        None => format!(
            "{} cannot be attached (EPERM): either a capability is missing (CAP_NET_ADMIN and \
             CAP_BPF) or a program on an ancestor of {} forbids it",
            hook.name(),
            path.display()
        ),
    })
}
