//! What agents say at one moment. In: addresses of their admin servers. Out: their statuses, each run of an agent
//! once; what they have counted since an earlier reading, or why that cannot be known.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
};

use serde::de::IgnoredAny;
use tokio::{net::lookup_host, task::JoinSet};

use super::counts::{CountError, Counts};
use crate::{
    admin_client::{self, FetchError},
    dump::{ConfigDump, RunDump, StatusDump},
    error_chain::WithCauses,
    model::{RouteKind, RouteName},
    plain::Plain,
};

type Status = StatusDump<ConfigDump<IgnoredAny>>;

/// Names that are listed in an error.
const LISTED: usize = 10;

/// Each run of an agent, by its id: an agent with two addresses counts once.
#[derive(Debug)]
pub(super) struct Reading {
    agents: BTreeMap<String, AgentReading>,
}

/// What one agent says.
#[derive(Debug)]
pub(super) struct AgentReading {
    pub(super) address: SocketAddr,
    pub(super) run: RunDump,
    pub(super) unready: Option<String>,
    status: Status,
}

/// A shadow of the route, and what was counted of it.
#[derive(Debug)]
pub(super) struct CountedShadow {
    pub(super) shadow: String,
    pub(super) counts: Counts,
    /// Their copies are counted as well.
    pub(super) other_routes: BTreeSet<String>,
    /// The route is tapped at some frontend.
    pub(super) tapped: bool,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadingError {
    #[error("--admin {name} has no address: {}. Give ADDRESS:PORT of each agent", WithCauses(.source))]
    Resolve { name: String, source: io::Error },
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the response from {address} is not the status of an agent of this version: {source}")]
    Malformed { address: SocketAddr, source: serde_json::Error },
    #[error(
        "the agent at {address} is of an older version, which does not report what a verdict needs: \
         upgrade it"
    )]
    Old { address: SocketAddr },
    #[error("{failed} of {all} agents cannot be read, so that their counts are missing:\n{}", .why.join("\n"))]
    Several { failed: usize, all: usize, why: Vec<String> },
    #[error(
        "the agent at {address} was restarted meanwhile, so that what it counted before is missing: \
         start again once it runs"
    )]
    Restarted { address: SocketAddr },
    #[error(
        "the agent at {address} is gone, so that what it counted is missing: start again with the \
         addresses of the agents that run now"
    )]
    Gone { address: SocketAddr },
    #[error(
        "an agent was started at {address} meanwhile: start again, so that it counts as long as the others"
    )]
    New { address: SocketAddr },
    #[error("of the agent at {address} there is no difference: {source}. Start again")]
    Count { address: SocketAddr, source: CountError },
    #[error("no agent knows {route}; {known}. Does it exist, and is its parent a Service?")]
    UnknownRoute { route: String, known: String },
    #[error("there is no {route}, but a {other} of this name: give --kind {other}")]
    OtherKind { route: String, other: &'static str },
    #[error(
        "{route} mirrors to no shadow: it has no RequestMirror filter that is in force (`mirror status` \
         shows its conditions)"
    )]
    NoShadow { route: String },
    #[error("{route} does not mirror to {shadow}; it mirrors to {known}")]
    UnknownShadow { route: String, shadow: String, known: String },
}

impl Reading {
    /// Requests the status of all agents at once.
    ///
    /// # Errors
    /// One of them cannot be read: without its counts there is no verdict.
    pub(super) async fn take(admins: &[String]) -> Result<Self, ReadingError> {
        let mut requests = JoinSet::new();
        let addresses = resolve(admins).await?;
        let all = addresses.len();
        for address in addresses {
            requests.spawn(AgentReading::request(address));
        }
        let (mut agents, mut failures) = (BTreeMap::new(), Vec::new());
        while let Some(read) = requests.join_next().await {
            match read.expect("it does not panic, and is not aborted") {
                Ok(agent) => {
                    agents.insert(agent.run.id.clone(), agent);
                }
                Err(error) => failures.push(error),
            }
        }
        match failures.len() {
            0 => Ok(Self { agents }),
            1 if all == 1 => Err(failures.remove(0)),
            failed => {
                let why = failures.iter().map(|error| WithCauses(error).to_string()).collect();
                Err(ReadingError::Several { failed, all, why })
            }
        }
    }

    pub(super) fn agents(&self) -> impl Iterator<Item = &AgentReading> {
        self.agents.values()
    }

    /// Whether these are the same runs of the same agents.
    ///
    /// # Errors
    /// They are not: something was counted that is not known.
    pub(super) fn follows(&self, earlier: &Self) -> Result<(), ReadingError> {
        let new = self.agents.iter().find(|(id, _)| !earlier.agents.contains_key(*id));
        let gone = earlier.agents.iter().find(|(id, _)| !self.agents.contains_key(*id));
        match (gone, new) {
            (None, None) => Ok(()),
            (Some((_, AgentReading { address, .. })), None) => {
                Err(ReadingError::Gone { address: *address })
            }
            (None, Some((_, AgentReading { address, .. }))) => {
                Err(ReadingError::New { address: *address })
            }
            (Some(_), Some((_, AgentReading { address, .. }))) => {
                Err(ReadingError::Restarted { address: *address })
            }
        }
    }

    /// The shadows that the route mirrors to, or that have responded for it; only the wanted one, if any.
    ///
    /// # Errors
    /// The route, or the wanted shadow, is not known.
    pub(super) fn shadows(
        &self,
        route: &RouteName,
        wanted: Option<&str>,
    ) -> Result<Vec<String>, ReadingError> {
        let name = route.to_string();
        let mut shadows = BTreeSet::new();
        for AgentReading { status, .. } in self.agents() {
            let mirrors = status.config.routes.mirrors.iter();
            let in_force = mirrors.filter(|m| m.route == name).map(|m| &m.shadow);
            let counted = status.responses.iter().filter(|pairs| pairs.route == name);
            shadows.extend(in_force.chain(counted.map(|pairs| &pairs.shadow)).cloned());
        }
        if shadows.is_empty() {
            return Err(self.without_shadow(route));
        }
        let Some(wanted) = wanted else { return Ok(shadows.into_iter().collect()) };
        if shadows.contains(wanted) {
            return Ok(vec![wanted.to_owned()]);
        }
        let (route, shadow, known) = (route.identity(), wanted.to_owned(), list(&shadows));
        Err(ReadingError::UnknownShadow { route, shadow, known })
    }

    fn without_shadow(&self, route: &RouteName) -> ReadingError {
        let routes = self.agents().flat_map(|agent| &agent.status.config.routes.routes);
        let known: BTreeSet<_> = routes.map(|route| route.route.clone()).collect();
        if known.contains(&route.to_string()) {
            return ReadingError::NoShadow { route: route.identity() };
        }
        let others = RouteKind::ALL.into_iter().filter(|kind| *kind != route.kind);
        let mut others = others.map(|kind| kind.named(route.object.clone()));
        match others.find(|other| known.contains(&other.to_string())) {
            Some(other) => {
                ReadingError::OtherKind { route: route.identity(), other: other.kind.label() }
            }
            None => {
                let known = match known.is_empty() {
                    true => "they know no route".to_owned(),
                    false => format!("they know {}", list(&known)),
                };
                ReadingError::UnknownRoute { route: route.identity(), known }
            }
        }
    }

    /// What was counted of these shadows of the route since `earlier`, or since the agents' starts. Shadows
    /// that it no longer mirrors to are left out if nothing was.
    ///
    /// # Errors
    /// Counts do not fit each other, or no shadow is left.
    pub(super) fn counted(
        &self,
        earlier: Option<&Self>,
        route: &RouteName,
        shadows: &[String],
    ) -> Result<Vec<CountedShadow>, ReadingError> {
        let name = route.to_string();
        let mut counted = Vec::new();
        for shadow in shadows {
            let mut found = CountedShadow {
                shadow: shadow.clone(),
                counts: Counts::default(),
                other_routes: BTreeSet::new(),
                tapped: false,
            };
            let mut in_force = false;
            for (id, agent) in &self.agents {
                let earlier = earlier.and_then(|earlier| earlier.agents.get(id));
                let failed = |source| ReadingError::Count { address: agent.address, source };
                let counts = agent.counts(&name, shadow);
                let before = earlier.map(|earlier| earlier.counts(&name, shadow));
                let counts = counts.since(&before.unwrap_or_default()).map_err(failed)?;
                found.counts.absorb(&counts).map_err(failed)?;
                found.other_routes.extend(agent.other_routes(earlier, &name, shadow));
                for reading in [Some(agent), earlier].into_iter().flatten() {
                    let mirrors = reading.status.config.routes.mirrors.iter();
                    let mut mirrors = mirrors.filter(|m| m.route == name && m.shadow == *shadow);
                    in_force |= mirrors.clone().next().is_some();
                    found.tapped |= mirrors.any(|mirror| mirror.tapped);
                }
            }
            if in_force || found.counts.cells().next().is_some() {
                counted.push(found);
            }
        }
        match counted.is_empty() {
            true => Err(ReadingError::NoShadow { route: route.identity() }),
            false => Ok(counted),
        }
    }
}

impl AgentReading {
    async fn request(address: SocketAddr) -> Result<Self, ReadingError> {
        let body = admin_client::get(address, "/status").await?;
        let status: Status = serde_json::from_slice(&body)
            .map_err(|source| ReadingError::Malformed { address, source })?;
        let run = status.run.clone().ok_or(ReadingError::Old { address })?;
        Ok(Self { address, run, unready: status.unready.clone(), status })
    }

    fn counts(&self, route: &str, shadow: &str) -> Counts {
        let mut responses = self.status.responses.iter();
        let mut copies = self.status.copies.iter();
        Counts::new(
            responses.find(|pairs| pairs.route == route && pairs.shadow == shadow),
            copies.find(|copies| copies.shadow == shadow),
        )
    }

    /// Which others mirror to the shadow, or have got responses from it meanwhile.
    fn other_routes(&self, earlier: Option<&Self>, route: &str, shadow: &str) -> BTreeSet<String> {
        let mirrors = self.status.config.routes.mirrors.iter();
        let mut routes: BTreeSet<_> = mirrors
            .filter(|mirror| mirror.shadow == shadow && mirror.route != route)
            .map(|mirror| mirror.route.clone())
            .collect();
        for pairs in &self.status.responses {
            let of = |reading: &Self| {
                reading.counts(&pairs.route, shadow).cells().map(|(.., n)| n).sum::<u64>()
            };
            if pairs.shadow == shadow && pairs.route != route && of(self) > earlier.map_or(0, of) {
                routes.insert(pairs.route.clone());
            }
        }
        routes
    }
}

/// All addresses, each once.
async fn resolve(admins: &[String]) -> Result<BTreeSet<SocketAddr>, ReadingError> {
    let mut addresses = BTreeSet::new();
    for name in admins {
        let failed = |source| ReadingError::Resolve { name: name.clone(), source };
        let before = addresses.len();
        let found: Vec<_> =
            match name.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}")) {
                // The admin server listens on IPv4's by default.
                Some(local) => lookup_host(local).await.map_err(failed)?.collect(),
                None => lookup_host(name).await.map_err(failed)?.collect(),
            };
        if found.is_empty() && before == addresses.len() {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        addresses.extend(found);
    }
    Ok(addresses)
}

/// Names of others, for an error.
fn list(names: &BTreeSet<String>) -> String {
    let listed: Vec<_> = names.iter().take(LISTED).map(|name| Plain(name).to_string()).collect();
    let more = names.len() - listed.len();
    match more {
        0 => listed.join(", "),
        _ => format!("{} and {more} more", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests;
