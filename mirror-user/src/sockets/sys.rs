//! The one module of the agent with unsafe code: five system calls that no crate here
//! wraps.
//! Each function is safe to call with any argument.

use std::{
    ffi::{CStr, c_int, c_long, c_uint},
    io, mem,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    ptr,
    time::Duration,
};

use super::{AcceptQueue, Keepalive};

/// `FSOPEN_CLOEXEC`, and `FSMOUNT_CLOEXEC` (include/uapi/linux/mount.h).
const CLOEXEC: c_uint = 1;
/// `FSCONFIG_CMD_CREATE`.
const FSCONFIG_CMD_CREATE: c_uint = 6;
/// `BPF_PROG_QUERY` (include/uapi/linux/bpf.h).
const BPF_PROG_QUERY: c_int = 16;
/// Programs of one type on one cgroup that are listed (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// The cookie of the network namespace that a socket is in: `SO_NETNS_COOKIE`, Linux 5.14.
///
/// # Errors
/// ENOPROTOOPT where the kernel does not know the option.
pub(crate) fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).expect("eight fits");
    // SAFETY: both pointers are to live variables of the given lengths.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            ptr::from_mut(&mut cookie).cast(),
            &mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// A listener's accept queue: `tcpi_unacked` of `tcpi_sacked` in `TCP_INFO` (tcp_get_info() in
/// net/ipv4/tcp.c puts sk_ack_backlog and sk_max_ack_backlog there).
///
/// # Errors
/// What `getsockopt(2)` says.
pub(crate) fn accept_queue(listener: impl AsFd) -> io::Result<AcceptQueue> {
    // SAFETY: the structure is made of integers, for which all zeroes are a value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).expect("some hundred fit");
    // SAFETY: both pointers are to live variables of the given lengths.
    let result = unsafe {
        libc::getsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            ptr::from_mut(&mut info).cast(),
            &mut length,
        )
    };
    if result == 0 {
        Ok(AcceptQueue { waiting: info.tcpi_unacked, limit: info.tcpi_sacked })
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `SO_KEEPALIVE`, and the given times. An invalid descriptor, or one that is not a socket, is an
/// error like any other.
///
/// # Errors
/// What `setsockopt(2)` says.
pub(crate) fn set_keepalive(fd: RawFd, keepalive: Keepalive) -> io::Result<()> {
    let seconds = |time: Duration| c_int::try_from(time.as_secs()).unwrap_or(c_int::MAX);
    let times = [
        (libc::TCP_KEEPIDLE, keepalive.idle.map(seconds)),
        (libc::TCP_KEEPINTVL, keepalive.interval.map(seconds)),
    ];
    let times = times.into_iter().filter_map(|(name, time)| Some((libc::IPPROTO_TCP, name, time?)));
    for (level, name, value) in times.chain([(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)]) {
        let length = libc::socklen_t::try_from(size_of::<c_int>()).expect("four fits");
        // SAFETY: the pointer is to a live variable of the given length; the kernel checks the rest.
        let result =
            unsafe { libc::setsockopt(fd, level, name, ptr::from_ref(&value).cast(), length) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A bpffs that is mounted nowhere: reached through `/proc/self/fd`, gone with its descriptor.
///
/// # Errors
/// What `fsopen(2)`, `fsconfig(2)` or `fsmount(2)` says.
pub(crate) fn detached_bpffs() -> io::Result<OwnedFd> {
    detached(c"bpf")
}

/// The same of cgroup v2; its root is that of the calling thread's cgroup namespace.
///
/// # Errors
/// As of [`detached_bpffs`].
pub(crate) fn detached_cgroup2() -> io::Result<OwnedFd> {
    detached(c"cgroup2")
}

fn detached(name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the name is a valid C string.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), CLOEXEC) })?;
    // SAFETY: the command takes neither key nor value.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            ptr::null::<u8>(),
            ptr::null::<u8>(),
            0,
        )
    };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes no pointer.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, 0) })
}

/// The part of `union bpf_attr` that `BPF_PROG_QUERY` reads and writes.
#[repr(C, align(8))]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The ids of the programs that are attached to this very cgroup, with the flags that they were
/// attached with (`BPF_F_ALLOW_*`; 0 forbids programs below).
///
/// # Errors
/// What `bpf(2)` says.
pub(crate) fn cgroup_programs(cgroup: impl AsFd, attach_type: u32) -> io::Result<(u32, Vec<u32>)> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut query = Query {
        target_fd: u32::try_from(cgroup.as_fd().as_raw_fd()).expect("descriptors are positive"),
        attach_type,
        prog_ids: ids.as_mut_ptr().expose_provenance() as u64,
        prog_cnt: u32::try_from(MAX_PROGRAMS).expect("64 fits"),
        ..Query::default()
    };
    // SAFETY: `query` has the given length, all of it is initialized, and `prog_ids` points to
    // `prog_cnt` live words.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, ptr::from_mut(&mut query), size_of::<Query>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let count = usize::try_from(query.prog_cnt).unwrap_or(MAX_PROGRAMS).min(MAX_PROGRAMS);
    Ok((query.attach_flags, ids[..count].to_vec()))
}

fn owned(fd: c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = c_int::try_from(fd).expect("a descriptor is an int");
    // SAFETY: the kernel just made this descriptor for us, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const _: () = assert!(mem::size_of::<Query>() == 64);
