//! What is measured side by side: no proxy at all, mirror, and the proxies of others. In: the
//! stage. Out: running proxies that have every scenario they can have, each on the same processor.

mod envoy;
mod nginx;
mod traefik;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
};

use anyhow::{Context, Result};
use mirror_tests::{Agent, Pod, Process, usage};

use super::{
    install::Programs,
    pinning::pinned,
    rows::Traffic,
    scenario::{Protocol, Scenario},
    stage::Stage,
};

/// The first port of other proxies; each scenario has the next.
const FIRST_PORT: u16 = 9000;

/// A build of mirror to be measured: its name in the tables, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Build {
    pub(super) name: String,
    pub(super) binary: PathBuf,
    /// Further flags of `mirror agent`.
    pub(super) flags: Vec<String>,
}

/// One of those measured, running. Dropping it ends it.
pub(super) struct Peer<'a> {
    pub(super) name: String,
    /// Where its clients run.
    pub(super) pod: &'a Pod,
    way: RequestPath<'a>,
}

/// How requests get to the primary.
enum RequestPath<'a> {
    Direct,
    Mirror(Box<Agent<'a>>),
    Proxy { process: Process, program: Program },
}

/// A proxy of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// With its default circuit breakers and timeouts; whatever the client speaks, its upstreams
    /// are spoken to in HTTP/1, as by default.
    Envoy,
    /// The same with upstreams of HTTP/2, for clients of HTTP/2.
    EnvoyHttp2,
    /// As Istio configures it: without limits.
    EnvoyIstio,
    Nginx,
    Traefik,
}

impl Program {
    pub(super) const ALL: [Self; 5] =
        [Self::Envoy, Self::EnvoyHttp2, Self::EnvoyIstio, Self::Nginx, Self::Traefik];

    /// Its name in flags and tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::EnvoyHttp2 => "envoy-h2",
            Self::EnvoyIstio => "envoy-istio",
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
        }
    }

    /// nginx proxies to servers of HTTP/1 alone, and has no part in HTTP/2 here.
    fn has(self, scenario: &Scenario) -> bool {
        match self {
            Self::Nginx => scenario.protocol == Protocol::Http1,
            Self::EnvoyHttp2 => scenario.protocol == Protocol::Http2,
            Self::Envoy | Self::EnvoyIstio | Self::Traefik => true,
        }
    }

    /// What it speaks to the primary and the shadow of a scenario.
    fn upstream(self, scenario: &Scenario) -> Protocol {
        match self {
            Self::Envoy | Self::EnvoyIstio | Self::Nginx => Protocol::Http1,
            Self::EnvoyHttp2 | Self::Traefik => scenario.protocol,
        }
    }
}

impl<'a> Peer<'a> {
    /// No proxy: the Service's address, balanced by the node.
    pub(super) fn direct(stage: &Stage<'a>) -> Self {
        Self { name: "direct".to_owned(), pod: &stage.ground.plain, way: RequestPath::Direct }
    }

    /// mirror, as it is used: it captures the connections of `pod` to Services.
    ///
    /// # Errors
    /// The agent does not become ready.
    pub(super) fn mirror(stage: &Stage<'a>, pod: &'a Pod, build: &Build, at: u16) -> Result<Self> {
        Self::mirror_on(stage, pod, build, at, &stage.processors.proxy.to_string())
    }

    /// The same on these processors, as `taskset` has them.
    ///
    /// # Errors
    /// As [`Peer::mirror`].
    pub(super) fn mirror_on(
        stage: &Stage<'a>,
        pod: &'a Pod,
        build: &Build,
        at: u16,
        processors: &str,
    ) -> Result<Self> {
        let (admin, name) = (format!("127.0.0.1:{}", 15_920 + at), format!("agent-{}", build.name));
        let capture = format!("{}={}", pod.name(), pod.cgroup().display());
        // As the environment, since older builds are measured as well: more idle connections than a pod
        // may have by default.
        let binary = build.binary.to_string_lossy();
        let env = ["env", "MIRROR_POD_CONNECTIONS=100000", "MIRROR_AGENT_MEMORY=1GiB"];
        let command = pinned(processors, &[&env[..], &[&*binary]].concat());
        let command: Vec<_> = command.iter().map(String::as_str).collect();
        let mut flags = vec!["--admin", &*admin];
        flags.extend(build.flags.iter().map(String::as_str));
        let node = &stage.ground.node;
        let agent = Agent::start_as(node, &name, &command, &[&capture], &flags)
            .with_context(|| format!("mirror, build {}", build.name))?;
        Ok(Self { name: build.name.clone(), pod, way: RequestPath::Mirror(Box::new(agent)) })
    }

    /// A proxy of others, in the network namespace of its clients, as a sidecar is.
    ///
    /// # Errors
    /// It does not listen within 10 s.
    pub(super) fn other(stage: &Stage<'a>, programs: &Programs, program: Program) -> Result<Self> {
        let pod = &stage.ground.plain;
        let folder = stage.ground.node.folder().join(program.name());
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let scenarios: Vec<_> =
            stage.scenarios.iter().filter(|scenario| program.has(scenario)).collect();
        let scenarios: Vec<_> =
            scenarios.iter().map(|scenario| (program.port(stage, scenario), *scenario)).collect();
        let argv = match program {
            Program::Envoy | Program::EnvoyHttp2 | Program::EnvoyIstio => {
                envoy::prepare(program, &folder, &programs.envoy, &scenarios)?
            }
            Program::Nginx => nginx::prepare(&folder, &scenarios)?,
            Program::Traefik => traefik::prepare(&folder, &programs.traefik, &scenarios)?,
        };
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let argv = pinned(stage.processors.proxy, &argv);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let mut process = pod.spawn_apart(program.name(), &argv)?;
        for (port, _) in scenarios {
            pod.listening(&mut process, port)?;
        }
        Ok(Self {
            name: program.name().to_owned(),
            pod,
            way: RequestPath::Proxy { process, program },
        })
    }

    /// Where clients connect to for a scenario; None when it has no such scenario.
    pub(super) fn address(&self, stage: &Stage<'_>, scenario: &Scenario) -> Option<SocketAddrV4> {
        match &self.way {
            RequestPath::Direct if scenario.mirror.is_some() => None,
            RequestPath::Direct | RequestPath::Mirror(_) => Some(scenario.service),
            RequestPath::Proxy { program, .. } if !program.has(scenario) => None,
            RequestPath::Proxy { program, .. } => {
                Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, program.port(stage, scenario)))
            }
        }
    }

    /// Whether it can carry this traffic: a call of gRPC needs HTTP/2 all the way.
    pub(super) fn carries(&self, scenario: &Scenario, traffic: Traffic) -> bool {
        match &self.way {
            RequestPath::Proxy { program, .. } => {
                traffic != Traffic::Grpc || program.upstream(scenario) == Protocol::Http2
            }
            RequestPath::Direct | RequestPath::Mirror(_) => true,
        }
    }

    /// It is no proxy of others.
    pub(super) fn stays(&self) -> bool {
        !matches!(self.way, RequestPath::Proxy { .. })
    }

    /// The agent, when this is mirror.
    pub(super) fn agent(&self) -> Option<&Agent<'a>> {
        match &self.way {
            RequestPath::Mirror(agent) => Some(agent),
            _ => None,
        }
    }

    /// Its first process; None without a proxy.
    pub(super) fn pid(&self) -> Option<i32> {
        match &self.way {
            RequestPath::Direct => None,
            RequestPath::Mirror(agent) => Some(agent.pid()),
            RequestPath::Proxy { process, .. } => Some(process.pid()),
        }
    }

    /// CPU time of all its processes so far, in seconds; None without a proxy.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn cpu(&self) -> Result<Option<f64>> {
        let usage = self.pid().map(usage::cpu_of_cgroup).transpose()?;
        Ok(usage.map(|time| time.as_secs_f64()))
    }
}

impl Program {
    fn port(self, stage: &Stage<'_>, scenario: &Scenario) -> u16 {
        let same = |other: &Scenario| other.name == scenario.name;
        let at = stage.scenarios.iter().position(same).unwrap_or_default() as u16;
        // Each has a hundred ports: they live in one network namespace.
        FIRST_PORT + 100 * self as u16 + at
    }
}
