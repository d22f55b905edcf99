//! The programs on one workload's cgroup. Dropping the links detaches them.

use std::{fs::File, io, os::unix::fs::MetadataExt as _, path::Path};

use aya::programs::{ProgramInfo, cgroup_sock_addr::CgroupSockAddrLink, loaded_programs};

use super::{
    cgroup::is_shortage,
    programs::{Hook, Programs, ProgramsError},
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
    inode: u64,
}

impl Attached {
    /// Attaches all hooks; the connect hooks last, when everything that it needs is there.
    pub(crate) fn new(programs: &mut Programs, path: &Path) -> Result<Self, AttachError> {
        let cgroup = File::open(path).map_err(AttachError::Open)?;
        let inode = cgroup.metadata().map_err(AttachError::Open)?.ino();
        let mut attach = |hook| {
            programs.attach(hook, &cgroup).map_err(|error| match forbidden(&error, hook, path) {
                Some(text) => AttachError::Forbidden(text),
                None => error.into(),
            })
        };
        let names = Hook::NAMES.into_iter().map(&mut attach).collect::<Result<_, _>>()?;
        let connect = Hook::CONNECT.into_iter().map(&mut attach).collect::<Result<_, _>>()?;
        Ok(Self { connect, _names: names, inode })
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
            let names: Vec<String> = ids.iter().map(|id| program_name(*id)).collect();
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

fn program_name(id: u32) -> String {
    let info: Option<ProgramInfo> =
        loaded_programs().filter_map(Result::ok).find(|program| program.id() == id);
    let name = info.as_ref().and_then(|info| info.name_as_str()).unwrap_or("?").to_owned();
    format!("program {id} ({name})")
}
