//! Floods: what one hostile pod sends, and what may receive it. In: the name of an attack, an
//! address, how many connections, for how long. Out: bytes on sockets, and a report as JSON.
//!
//! The program `flood` runs them inside a pod, so that the same bytes go to a captured Service or,
//! for comparison, to a process that throws them away.

pub mod attack;
pub mod beside;
pub mod send;
pub mod shadow;
pub mod shadows;
pub mod sink;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many descriptors as the system allows.
fn raise_descriptors() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}
