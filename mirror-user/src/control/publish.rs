//! Publish: resolved frontends in; a snapshot for the data path and the kernel's map out, in the
//! order that never leaves an address captured without a route behind it. Adding: snapshot, then
//! map. Removing: map, then snapshot.
//!
//! Every address has an id for as long as it is known. A removed one becomes a tombstone, whose
//! late connections pass through, and which gives the id back to the same address. A tombstone is
//! forgotten only when too many are known, it is old, and no connection carries its id.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::resolve::{FrontendChanges, ResolvedFrontend};
use crate::route::{
    CaptureMode, ConnectionRef, EndpointChoice, Frontend, FrontendCapture, FrontendId,
    FrontendState, Snapshot,
};

pub use self::map::{FrontendMap, MapEntry, PublishError};

mod map;
#[cfg(test)]
mod tests;

/// Live frontends and tombstones that are kept: what the kernel's maps are made for.
pub const MAX_KNOWN: usize = mirror_common::MAX_FRONTENDS as usize;

/// Age below which a tombstone is never forgotten: far above the time that a connection spends
/// between the hook and accept.
pub const MIN_TOMBSTONE_AGE: Duration = Duration::from_secs(60);

/// Owns the ids, the snapshot's place and the map.
#[derive(Debug)]
pub struct Publisher<M> {
    map: M,
    snapshot: Arc<ArcSwap<Snapshot>>,
    known: BTreeMap<SocketAddr, PublishedFrontend>,
    /// What is not in force yet: there was no room.
    waiting: BTreeMap<SocketAddr, ResolvedFrontend>,
    issued: HashSet<FrontendId>,
    next: FrontendId,
    capacity: usize,
    mode: CaptureMode,
    choice: EndpointChoice,
}

#[derive(Debug)]
struct PublishedFrontend {
    id: FrontendId,
    /// What the map has of it, as far as is known.
    captured: Captured,
    state: State,
}

/// What the map has of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Captured {
    /// Nothing.
    No,
    /// This, or what it had before: the map did not take it.
    As(MapEntry),
}

#[derive(Debug)]
enum State {
    Live(Arc<Frontend>),
    /// Without its routes, and since when.
    Removed(Arc<Frontend>, Instant),
}

impl<M: FrontendMap> Publisher<M> {
    /// Publishes to `snapshot`, which the data path shares, and to `map`, which is empty.
    pub fn new(map: M, snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        Self {
            map,
            snapshot,
            known: BTreeMap::new(),
            waiting: BTreeMap::new(),
            issued: HashSet::new(),
            next: FrontendId::FIRST,
            capacity: MAX_KNOWN,
            mode: CaptureMode::default(),
            choice: EndpointChoice::default(),
        }
    }

    /// The same with frontends captured in this mode, where this chooses the endpoints. Nothing may be in
    /// force yet.
    #[must_use]
    pub fn capturing(self, mode: CaptureMode, choice: EndpointChoice) -> Self {
        Self { mode, choice, ..self }
    }

    /// Puts exactly these frontends in force. Otherwise as [`Publisher::change`].
    pub fn replace(
        &mut self,
        frontends: FrontendChanges,
        now: Instant,
    ) -> Vec<PublishError<M::Error>> {
        let known: Vec<_> = self.live().chain(self.waiting.keys().copied()).collect();
        let mut changes: FrontendChanges = known.into_iter().map(|at| (at, None)).collect();
        changes.extend(frontends);
        self.change(changes, now)
    }

    /// Puts what changed in force, and what was not possible before. `now` ages tombstones. Errors
    /// concern one address each; all others are in force.
    pub fn change(
        &mut self,
        changes: FrontendChanges,
        now: Instant,
    ) -> Vec<PublishError<M::Error>> {
        let mut errors = Vec::new();
        let mut gone = HashSet::new();
        for (address, change) in changes {
            match change {
                Some(frontend) => drop(self.waiting.insert(address, frontend)),
                None => {
                    self.waiting.remove(&address);
                    gone.insert(address);
                }
            }
        }
        gone.retain(|address| self.is_live(address));
        self.make_room(now, &mut errors);
        // Sorted, so that ids do not depend on the order of a hash map.
        for (address, frontend) in std::mem::take(&mut self.waiting) {
            if let Err(frontend) = self.go_live(frontend) {
                self.waiting.insert(address, frontend);
                errors.push(PublishError::Full(address));
            }
        }
        self.store();
        self.capture(&mut errors);
        self.retire(&gone, now, &mut errors);
        errors
    }

    /// The map, for what else its owner does with it.
    pub fn map(&self) -> &M {
        &self.map
    }

    /// How many frontends are live.
    pub fn live_count(&self) -> usize {
        self.live().count()
    }

    fn is_live(&self, address: &SocketAddr) -> bool {
        self.known.get(address).is_some_and(|known| matches!(known.state, State::Live(_)))
    }

    fn live(&self) -> impl Iterator<Item = SocketAddr> {
        self.known.iter().filter(|(_, k)| matches!(k.state, State::Live(_))).map(|(a, _)| *a)
    }

    /// Gives the frontend the id of its address, a new one if it has none. Hands it back when no
    /// more may be known.
    fn go_live(&mut self, resolved: ResolvedFrontend) -> Result<(), ResolvedFrontend> {
        let address = resolved.address;
        let (id, connection_ref, captured) = match self.known.get(&address) {
            Some(known) => (known.id, Arc::clone(&known.frontend().connection_ref), known.captured),
            None if self.known.len() >= self.capacity => return Err(resolved),
            None => (self.issue(), ConnectionRef::default(), Captured::No),
        };
        let capture = self.mode.capture(|| resolved.tap_obstacle(self.choice));
        let frontend = Frontend {
            id,
            address,
            service: resolved.service,
            producer: resolved.producer,
            consumers: resolved.consumers,
            ahead: resolved.ahead,
            capture,
            connection_ref,
        };
        let state = State::Live(Arc::new(frontend));
        self.known.insert(address, PublishedFrontend { id, captured, state });
        Ok(())
    }

    /// The next id upward that nothing known has. (Fewer are known than there are ids.)
    fn issue(&mut self) -> FrontendId {
        loop {
            let id = self.next;
            let last = id == FrontendId::MAX;
            self.next = if last { FrontendId::FIRST } else { FrontendId(id.0 + 1) };
            if self.issued.insert(id) {
                return id;
            }
        }
    }

    /// Publishes the known frontends as the next generation.
    fn store(&self) {
        let frontends = self.known.values().map(|known| {
            let lookup = match &known.state {
                State::Live(frontend) => FrontendState::Live(Arc::clone(frontend)),
                State::Removed(frontend, _) => FrontendState::Tombstone(Arc::clone(frontend)),
            };
            (known.id, lookup)
        });
        let generation = self.snapshot.load().generation + 1;
        self.snapshot.store(Arc::new(Snapshot { generation, frontends: frontends.collect() }));
    }

    /// Enters all live frontends into the map that are not there yet, or otherwise.
    fn capture(&mut self, errors: &mut Vec<PublishError<M::Error>>) {
        for (address, known) in &mut self.known {
            let Some(entry) = known.wanted().filter(|entry| known.captured != Captured::As(*entry))
            else {
                continue;
            };
            match self.map.insert(known.id, *address, entry) {
                Ok(()) => known.captured = Captured::As(entry),
                Err(source) => errors.push(PublishError::Insert { address: *address, source }),
            }
        }
    }

    /// Takes the frontends that are gone out of the map, then out of the snapshot; those as well that the
    /// map would not let go of before, and those that are left alone from now on.
    fn retire(
        &mut self,
        gone: &HashSet<SocketAddr>,
        now: Instant,
        errors: &mut Vec<PublishError<M::Error>>,
    ) {
        for (address, known) in &mut self.known {
            let going = gone.contains(address) || known.wanted().is_none();
            if known.captured == Captured::No || !going {
                continue;
            }
            match self.map.remove(*address) {
                Ok(()) => known.captured = Captured::No,
                Err(source) => errors.push(PublishError::Remove { address: *address, source }),
            }
        }
        for address in gone {
            if let Some(known) = self.known.get_mut(address) {
                known.state = State::Removed(Arc::new(known.frontend().without_routes()), now);
            }
        }
        if !gone.is_empty() {
            self.store();
        }
    }

    /// Forgets as many tombstones as the new addresses that wait need room for, the oldest first:
    /// from the map, then from the snapshot.
    fn make_room(&mut self, now: Instant, errors: &mut Vec<PublishError<M::Error>>) {
        let wanted = &self.waiting;
        let new = wanted.keys().filter(|address| !self.known.contains_key(address)).count();
        let excess = (self.known.len() + new).saturating_sub(self.capacity);
        if excess == 0 {
            return;
        }
        let mut old: Vec<_> = self
            .known
            .iter()
            .filter(|(address, known)| !wanted.contains_key(address) && known.is_forgettable(now))
            .map(|(address, known)| (known.removed_at(), *address))
            .collect();
        old.sort();
        for (_, address) in old.into_iter().take(excess) {
            let Some(known) = self.known.get(&address) else { continue };
            let id = known.id;
            match self.map.forget(id) {
                Ok(()) => {
                    self.known.remove(&address);
                    self.issued.remove(&id);
                }
                Err(source) => errors.push(PublishError::Forget { address, source }),
            }
        }
        self.store();
    }
}

impl PublishedFrontend {
    fn frontend(&self) -> &Frontend {
        match &self.state {
            State::Live(frontend) | State::Removed(frontend, _) => frontend,
        }
    }

    /// What the map is to have of it.
    fn wanted(&self) -> Option<MapEntry> {
        let State::Live(frontend) = &self.state else { return None };
        match frontend.capture {
            FrontendCapture::Proxied(_) => Some(MapEntry::Proxied),
            FrontendCapture::Tapped => Some(MapEntry::Tapped),
            FrontendCapture::Direct(_) | FrontendCapture::Removed => None,
        }
    }

    fn removed_at(&self) -> Option<Instant> {
        match self.state {
            State::Live(_) => None,
            State::Removed(_, at) => Some(at),
        }
    }

    /// The token's own count is one: more are connections, or a snapshot still in use.
    fn is_forgettable(&self, now: Instant) -> bool {
        let old = self
            .removed_at()
            .is_some_and(|at| now.saturating_duration_since(at) >= MIN_TOMBSTONE_AGE);
        old && self.captured == Captured::No
            && Arc::strong_count(&self.frontend().connection_ref) == 1
    }
}
