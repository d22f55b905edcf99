//! A captured network namespace: the listeners in it, sk_lookup on it, its entry in the pods map,
//! a canary for each family. Shared by all workloads (cgroups) in it. Dropping it takes everything
//! back.
//!
//! The families stand on their own: what IPv6 lacks never switches IPv4 off, nor the reverse.

mod addresses;
mod seat;
mod v6;

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Instant};

use aya::{
    maps::{HashMap, MapData, MapError, SockMap},
    programs::sk_lookup::SkLookupLink,
};
use mirror_common::{Family, PodEntry, PodFlags};

use super::{
    CanaryState, FamilyState, FamilyStatus, Hand,
    canary::{Canary, Obstacle},
    programs::{PORTS, Programs, ProgramsError},
};
use crate::{
    sockets::{Netns, NetnsSockets, Place, netlink::Bell},
    worker::{Command, Workload},
};
use addresses::Own;
use seat::Seat;
use v6::Loopback6;

/// Why a namespace could not be captured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    #[error("entering the network namespace: {0}")]
    Netns(#[source] io::Error),
    #[error("no port from {} to {} is free on the listeners' addresses in the network namespace", PORTS.start, PORTS.end - 1)]
    NoPort,
    #[error("listening on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
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
    seat: Seat,
    cookie: u64,
    inode: u64,
    entry: PodEntry,
    v4: Way,
    v6: Way,
    loopback6: Loopback6,
    /// None where the kernel gave none: the canaries find out in time.
    bell: Option<Bell>,
    /// None after the end began.
    steer: Option<SkLookupLink>,
}

/// The way of one family's connections, and what its canary last said.
struct Way {
    family: Family,
    canary: Canary,
    verdict: Option<Result<(), Obstacle>>,
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
    /// connections still go direct: the canaries switch it on.
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
        v6::remove_stale(&outside.sockets, &place);
        let port = seat::free_port(&outside.sockets, &place)?;
        let bell = outside.sockets.run(&place, Bell::new).and_then(|bell| bell);
        let bell = bell.inspect_err(|error| tracing::debug!(name, %error, "no news of routes"));
        let workload = Arc::new(Workload { name, namespace, place, key });
        let entry = PodEntry { slot, port: port.to_be(), ..PodEntry::default() };
        let way = |family| Way {
            family,
            canary: Canary::new(family, port, Instant::now()),
            verdict: None,
        };
        let mut pod = Self {
            seat: Seat { workload, slot, port, workers: programs.workers() },
            cookie,
            inode,
            entry,
            v4: way(Family::V4),
            v6: way(Family::V6),
            loopback6: Loopback6::new(port),
            bell: bell.ok(),
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
        self.seat.listen(Family::V4, outside)?;
        self.steer = Some(programs.steer(fd, self.seat.slot, self.seat.port)?);
        outside.pods.insert(self.cookie, self.entry, 0)?;
        Ok(())
    }

    /// Takes everything back; the workers drop what they hold.
    pub(crate) fn close(&mut self, outside: &mut Outside) {
        // The entry may not be there.
        let _ = outside.pods.remove(&self.cookie);
        self.seat.leave(outside);
        self.steer = None;
        self.loopback6.close(&outside.sockets, &self.seat.workload);
    }

    /// Lets the canaries go on and switches capturing accordingly.
    pub(crate) fn tick(&mut self, outside: &mut Outside, now: Instant) {
        if self.bell.as_ref().is_some_and(Bell::rang) {
            self.v4.canary.hurry(now);
            self.v6.canary.hurry(now);
        }
        let sockets = Arc::clone(&outside.sockets);
        let Self { seat, v4, v6, loopback6, .. } = self;
        let place = &seat.workload.place;
        let heard_v4 = v4.canary.poll(&sockets, place, now, || Ok(()));
        let heard_v6 = v6.canary.poll(&sockets, place, now, || loopback6.prepare(seat, outside));
        if heard_v4.is_none() && heard_v6.is_none() {
            return;
        }
        // The CNI plugin may have given it an address since.
        let own = Own::of(&sockets, place);
        let mut entry = self.entry;
        (entry.own_address, entry.own_address_v6) = own.words();
        for (way, heard) in [(v4, heard_v4), (v6, heard_v6)] {
            if let Some(heard) = heard {
                way.hear(heard, &mut entry.flags, &seat.workload.name);
            }
        }
        if entry != self.entry {
            match outside.pods.insert(self.cookie, entry, 0) {
                Ok(()) => self.entry = entry,
                Err(error) => {
                    let workload = &self.seat.workload.name;
                    tracing::error!(workload, %error, "cannot switch capturing");
                }
            }
        }
    }

    /// Whether new connections of the family are captured.
    pub(crate) fn is_on(&self, family: Family) -> bool {
        self.entry.flags.contains(family.flag())
    }

    /// Whether the canaries of both families have come back at least once.
    pub(crate) fn is_settled(&self) -> bool {
        self.v4.verdict.is_some() && self.v6.verdict.is_some()
    }

    /// The last result of the IPv4 canary, and why it failed.
    pub(crate) fn canary(&self) -> (CanaryState, Option<&str>) {
        match &self.v4.verdict {
            None => (CanaryState::Pending, None),
            Some(Ok(())) => (CanaryState::Passed, None),
            Some(Err(Obstacle::Absent(why) | Obstacle::Broken(why))) => {
                (CanaryState::Failed, Some(why))
            }
        }
    }

    /// How it stands with IPv6.
    pub(crate) fn ipv6(&self) -> FamilyStatus {
        let (state, reason) = match &self.v6.verdict {
            None => (FamilyState::Starting, None),
            Some(Ok(())) if self.is_on(Family::V6) => (FamilyState::On, None),
            Some(Ok(())) => (FamilyState::Off, None),
            Some(Err(Obstacle::Absent(why))) => (FamilyState::Absent, Some(why.clone())),
            Some(Err(Obstacle::Broken(why))) => (FamilyState::Off, Some(why.clone())),
        };
        FamilyStatus { state, reason }
    }

    pub(crate) fn workload(&self) -> &Workload {
        &self.seat.workload
    }

    pub(crate) fn port(&self) -> u16 {
        self.seat.port
    }

    pub(crate) fn slot(&self) -> u32 {
        self.seat.slot
    }

    /// Of the namespace; not reused while it is held.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }
}

impl Way {
    /// Takes the canary's word: switches the family's bit, and tells of what is new.
    fn hear(&mut self, heard: Result<(), Obstacle>, flags: &mut PodFlags, workload: &str) {
        let flag = self.family.flag();
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let was = flags.contains(flag);
        *flags = if heard.is_ok() { flags.with(flag) } else { flags.without(flag) };
        match &heard {
            Ok(()) if !was => tracing::info!(workload, family, "new connections are captured"),
            Err(Obstacle::Broken(reason)) if was => {
                tracing::warn!(workload, family, reason, "new connections go direct");
            }
            Err(Obstacle::Absent(reason)) if self.verdict.as_ref() != Some(&heard) => {
                tracing::info!(workload, family, reason, "nothing to capture");
            }
            _ => {}
        }
        self.verdict = Some(heard);
    }
}
