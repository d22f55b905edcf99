//! A captured network namespace: the listeners in it, sk_lookup on it, its entry in the pods map,
//! its canary. Shared by all workloads (cgroups) in it. Dropping it takes everything back.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::Arc,
    time::Instant,
};

use aya::{
    maps::{HashMap, MapData, MapError, SockMap},
    programs::sk_lookup::SkLookupLink,
};
use mirror_common::{FrontendId, PodEntry, PodFlags, socket_index};
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

use super::{
    CanaryState, Hand,
    canary::Canary,
    programs::{PORTS, Programs, ProgramsError},
};
use crate::{
    sockets::{Netns, NetnsSockets, Place, SocketFactory as _, is_free},
    worker::{Command, Workload},
};

/// Why a namespace could not be captured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    #[error("entering the network namespace: {0}")]
    Netns(#[source] io::Error),
    #[error("no port from {} to {} is free on 127.64.0.0 in the network namespace", PORTS.start, PORTS.end - 1)]
    NoPort,
    #[error("listening on {address}: {source}")]
    Listen { address: SocketAddrV4, source: io::Error },
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    #[error("a map of the programs: {0}")]
    Map(#[from] MapError),
}

/// What capturing a namespace needs of the outside; one for the agent.
pub(crate) struct Outside {
    pub(crate) sockets: Arc<NetnsSockets>,
    pub(crate) hand: Hand,
    pub(crate) pods: HashMap<MapData, u64, PodEntry>,
    pub(crate) listeners: SockMap<MapData>,
}

/// One captured namespace.
pub(crate) struct Pod {
    workload: Arc<Workload>,
    cookie: u64,
    inode: u64,
    workers: u32,
    entry: PodEntry,
    port: u16,
    canary: Canary,
    verdict: Option<Result<(), String>>,
    /// None after the end began.
    steer: Option<SkLookupLink>,
}

/// Who a namespace is captured for.
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) key: u64,
    pub(crate) slot: u32,
}

impl Pod {
    /// Takes hold of the namespace behind `fd`, listens in it and steers to the listeners. New
    /// connections still go direct: the canary switches it on.
    pub(crate) fn new(
        (netns, inode): (Netns, u64),
        identity: Identity,
        programs: &mut Programs,
        outside: &mut Outside,
    ) -> Result<Self, PodError> {
        let cookie = netns.cookie;
        let fd: OwnedFd = netns.fd.try_clone().map_err(PodError::Netns)?;
        let Identity { name, namespace, key, slot } = identity;
        let place = Place::Netns(Arc::new(netns));
        let workload = Arc::new(Workload { name, namespace, place, key });
        let port = free_port(&outside.sockets, &workload.place)?;
        let own_address = own_address(&outside.sockets, &workload.place);
        let entry =
            PodEntry { own_address, slot, port: port.to_be(), flags: PodFlags::default(), zero: 0 };
        let mut pod = Self {
            workload,
            cookie,
            inode,
            workers: programs.workers(),
            entry,
            port,
            canary: Canary::new(port, Instant::now()),
            verdict: None,
            steer: None,
        };
        if let Err(error) = pod.open(&fd, programs, outside) {
            pod.close(outside);
            return Err(error);
        }
        Ok(pod)
    }

    fn open(
        &mut self,
        fd: &OwnedFd,
        programs: &mut Programs,
        outside: &mut Outside,
    ) -> Result<(), PodError> {
        let address = SocketAddrV4::new(FrontendId::LISTENER.address(), self.port);
        for worker in 0..self.workers {
            let listener = outside
                .sockets
                .listener(&self.workload.place, address)
                .map_err(|source| PodError::Listen { address, source })?;
            let index = socket_index(self.entry.slot, worker);
            outside.listeners.set(index, &listener, 0)?;
            let workload = Arc::clone(&self.workload);
            (outside.hand)(worker, Command::Serve { workload, listener });
        }
        self.steer = Some(programs.steer(fd, self.entry.slot, self.port)?);
        outside.pods.insert(self.cookie, self.entry, 0)?;
        Ok(())
    }

    /// Takes everything back; the workers drop what they hold.
    pub(crate) fn close(&mut self, outside: &mut Outside) {
        // Neither entry may be there (a worker's closed listener leaves the map by itself).
        let _ = outside.pods.remove(&self.cookie);
        for worker in 0..self.workers {
            let _ = outside.listeners.clear_index(&socket_index(self.entry.slot, worker));
            (outside.hand)(worker, Command::Leave(self.workload.key));
        }
        self.steer = None;
    }

    /// Lets the canary go on and switches capturing accordingly.
    pub(crate) fn tick(&mut self, outside: &mut Outside, now: Instant) {
        let place = &self.workload.place;
        let Some(verdict) = self.canary.poll(&outside.sockets, place, now) else { return };
        let mut entry = self.entry;
        entry.flags = if verdict.is_ok() { PodFlags::CAPTURE_V4 } else { PodFlags::default() };
        // The CNI plugin may have given it an address since.
        entry.own_address = own_address(&outside.sockets, place);
        if entry != self.entry {
            match outside.pods.insert(self.cookie, entry, 0) {
                Ok(()) => self.entry = entry,
                Err(error) => {
                    tracing::error!(workload = self.workload.name, %error, "cannot switch capturing");
                }
            }
        }
        self.verdict = Some(verdict);
    }

    /// Whether new connections are captured.
    pub(crate) fn is_on(&self) -> bool {
        self.entry.flags.contains(PodFlags::CAPTURE_V4)
    }

    /// The last result of the canary, and why it failed.
    pub(crate) fn canary(&self) -> (CanaryState, Option<&str>) {
        match &self.verdict {
            None => (CanaryState::Pending, None),
            Some(Ok(())) => (CanaryState::Passed, None),
            Some(Err(reason)) => (CanaryState::Failed, Some(reason)),
        }
    }

    pub(crate) fn workload(&self) -> &Workload {
        &self.workload
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn slot(&self) -> u32 {
        self.entry.slot
    }

    /// Of the namespace; not reused while it is held.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }
}

fn free_port(sockets: &NetnsSockets, place: &Place) -> Result<u16, PodError> {
    for port in PORTS {
        let address = SocketAddrV4::new(FrontendId::LISTENER.address(), port);
        if is_free(sockets, place, address)
            .map_err(|source| PodError::Listen { address, source })?
        {
            return Ok(port);
        }
    }
    Err(PodError::NoPort)
}

/// The namespace's own IPv4 address in network byte order: the first on an interface that is up
/// and not loopback; 0 when there is none.
fn own_address(sockets: &NetnsSockets, place: &Place) -> u32 {
    let addresses = match sockets.run(place, getifaddrs) {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(_)) | Err(_) => return 0,
    };
    addresses
        .filter(|a| a.flags.contains(InterfaceFlags::IFF_UP))
        .filter(|a| !a.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .find_map(|a| Some(a.address?.as_sockaddr_in()?.ip()))
        .map_or(0, |ip: Ipv4Addr| ip.to_bits().to_be())
}
