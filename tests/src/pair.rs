//! The stage of most suites: a client, a primary and a shadow on one node, with a Service `web`
//! that clients use and one for each of the two.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    agent::Agent,
    manifest::{Route, Rule},
    node::{Node, Pod, Service},
    process::{Process, eventually},
};

/// Three pods, three Services: `web` (port 8000, the primary), `primary` and `shadow` (port 80).
#[derive(Debug)]
pub struct Pair {
    /// Where clients run; the pod that [`Pair::agent`] captures.
    pub client: Pod,
    /// Behind `web:8000` and `primary:80`.
    pub primary: Pod,
    /// Behind `shadow:80`.
    pub shadow: Pod,
    /// The Service that routes are attached to.
    pub web: Service,
    /// Last: its drop removes everything.
    pub node: Node,
}

/// [`Node::service`] or [`Node::dual_service`].
type AddService = fn(&Node, &str, u16, u16, &[&Pod]) -> Result<Service>;

impl Pair {
    /// Makes the node, and writes the Services into the agent's folder. No route yet, no server.
    ///
    /// # Errors
    /// As [`Node::create`].
    pub fn create(name: &str) -> Result<Self> {
        Self::make(name, Node::service, None)
    }

    /// The same with Services that have an IPv6 address as well.
    ///
    /// # Errors
    /// As [`Node::create`].
    pub fn dual(name: &str) -> Result<Self> {
        Self::make(name, Node::dual_service, None)
    }

    /// The same with an `appProtocol` on the ports of `primary` and `shadow`.
    ///
    /// # Errors
    /// As [`Node::create`].
    pub fn speaking(name: &str, protocol: Option<&'static str>) -> Result<Self> {
        Self::make(name, Node::service, protocol)
    }

    fn make(name: &str, add: AddService, protocol: Option<&'static str>) -> Result<Self> {
        let node = Node::create(name)?;
        let [client, primary, shadow] = ["client", "primary", "shadow"].map(|name| node.pod(name));
        let (client, primary, shadow) = (client?, primary?, shadow?);
        let web = add(&node, "web", 8000, 80, &[&primary])?;
        let pair = Self { client, primary, shadow, web, node };
        let mut others = [
            add(&pair.node, "primary", 80, 80, &[&pair.primary])?,
            add(&pair.node, "shadow", 80, 80, &[&pair.shadow])?,
        ];
        others.iter_mut().for_each(|service| service.app_protocol = protocol);
        let manifests = [&pair.web, &others[0], &others[1]].map(Service::manifest);
        pair.node.routes().write("services.yaml", &manifests.join("---\n"))?;
        Ok(pair)
    }

    /// An agent that captures the client.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn agent(&self, flags: &[&str]) -> Result<Agent<'_>> {
        Agent::start(&self.node, &[&self.client], flags)
    }

    /// The same with a route in force that mirrors every request.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn mirroring(&self, flags: &[&str]) -> Result<Agent<'_>> {
        self.write(&[to_primary().mirror("shadow", 80)])?;
        self.agent(flags)
    }

    /// Writes the route of `web`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, rules: &[Rule]) -> Result<()> {
        let route = Route::new("web", &self.web);
        let route = rules.iter().cloned().fold(route, Route::rule);
        self.node.routes().write("route.yaml", &route.manifest())
    }

    /// Writes the route of `web` (it must be another than before), and waits until it is in force;
    /// how long that took.
    ///
    /// # Errors
    /// It is not in force within a second.
    pub fn apply(&self, agent: &Agent<'_>, rules: &[Rule]) -> Result<Duration> {
        let before = generation(agent)?;
        let start = Instant::now();
        self.write(rules)?;
        eventually("the route is in force", Duration::from_secs(1), || {
            generation(agent).is_ok_and(|now| now > before)
        })?;
        Ok(start.elapsed())
    }

    /// Starts `mirror echo` in the primary and in the shadow.
    ///
    /// # Errors
    /// As [`Echo::start`].
    pub fn echoes(&self) -> Result<[Echo; 2]> {
        Ok([Echo::start(&self.node, &self.primary)?, Echo::start(&self.node, &self.shadow)?])
    }

    /// Makes one more pod with a Service of its name on port 80, whose manifest is in the agent's folder.
    ///
    /// # Errors
    /// As [`Node::create`].
    pub fn another(&self, name: &str) -> Result<(Pod, Service)> {
        let pod = self.node.pod(name)?;
        let service = self.node.service(name, 80, 80, &[&pod])?;
        self.node.routes().write(&format!("{name}.yaml"), &service.manifest())?;
        Ok((pod, service))
    }

    /// Sends so many requests to `web` on eight connections, `rate` per second (0: as fast as it goes) and
    /// `posts` percent of them POSTs.
    ///
    /// # Errors
    /// One of them has another response than 200, or a connection was closed.
    pub fn load(&self, tag: &str, count: usize, rate: usize, posts: usize) -> Result<()> {
        let [count_text, rate, posts] = [count, rate, posts].map(|number| number.to_string());
        let args = ["web", "8000", tag, &count_text, "8", &rate, &posts];
        let result = self.script("load.py", &args)?;
        let none = |name: &str| result[name].as_array().is_some_and(Vec::is_empty);
        let ok = result["ok"].as_array().map_or(0, Vec::len);
        ensure!(
            none("errors") && none("closed") && ok == count,
            "{tag}: {ok} of {count} are OK; errors {}, closed {}",
            result["errors"],
            result["closed"]
        );
        Ok(())
    }

    /// Runs a command in the client to its end: its stdout.
    ///
    /// # Errors
    /// It fails, or takes more than two minutes.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        self.client.run(argv, Duration::from_secs(120))?.ok()
    }

    /// Runs one of this crate's Python scripts in the client: what it prints, which is JSON.
    ///
    /// # Errors
    /// As [`Pair::run`], or it prints no JSON.
    pub fn script(&self, name: &str, args: &[&str]) -> Result<Value> {
        let path = script(name);
        let argv: Vec<_> = ["python3", &path].into_iter().chain(args.iter().copied()).collect();
        let text = self.run(&argv)?;
        serde_json::from_str(&text).with_context(|| format!("{name} prints: {text}"))
    }
}

/// A rule that sends all requests to `primary`.
#[must_use]
pub fn to_primary() -> Rule {
    Rule::to("primary", 80)
}

/// The generation of the snapshot in force.
///
/// # Errors
/// `/config` does not say.
pub fn generation(agent: &Agent<'_>) -> Result<u64> {
    config(agent)?["generation"].as_u64().context("no generation in /config")
}

/// What `/config` says.
///
/// # Errors
/// The status is not 200, or the body is not JSON.
pub fn config(agent: &Agent<'_>) -> Result<Value> {
    match agent.get("/config")? {
        (200, body) => Ok(serde_json::from_str(&body)?),
        (status, body) => bail!("/config answers {status}: {body}"),
    }
}

/// Where a script of this crate is.
#[must_use]
pub fn script(name: &str) -> String {
    format!("{}/scripts/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A program of the Python environment in target/venv.
///
/// # Errors
/// It is not installed; the message says how to.
pub fn venv(program: &str) -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin");
    // Not of the program: python is a link out of the environment, and looks where it was called.
    let path = folder.canonicalize().unwrap_or(folder).join(program);
    if !path.exists() {
        bail!("no {}: cargo xtask test --only tools installs it", path.display());
    }
    Ok(path.to_string_lossy().into_owned())
}

/// `mirror echo` on port 80 of a pod, with its JSON log.
#[derive(Debug)]
pub struct Echo {
    /// The server.
    pub process: Process,
    json: PathBuf,
}

impl Echo {
    /// Starts it.
    ///
    /// # Errors
    /// As [`Pod::echo`].
    pub fn start(node: &Node, pod: &Pod) -> Result<Self> {
        Self::listening_on(node, pod, "0.0.0.0:80")
    }

    /// Starts it for both families.
    ///
    /// # Errors
    /// As [`Pod::echo`].
    pub fn dual(node: &Node, pod: &Pod) -> Result<Self> {
        Self::listening_on(node, pod, "[::]:80")
    }

    fn listening_on(node: &Node, pod: &Pod, address: &str) -> Result<Self> {
        let json = node.folder().join(format!("{}.json", pod.name()));
        let args = ["--listen", address, "--quiet", "--log-json", &json.to_string_lossy()];
        Ok(Self { process: pod.echo(&args)?, json })
    }

    /// What arrived so far, a line for each request.
    ///
    /// # Panics
    /// A line is no JSON.
    #[must_use]
    pub fn seen(&self) -> Vec<Value> {
        lines(&self.json)
    }

    /// The requests whose target holds this, once there are `count` of them; more are an error, as
    /// is waiting for more than 10 s.
    ///
    /// # Errors
    /// See above.
    pub fn wait(&self, part: &str, count: usize) -> Result<Vec<Value>> {
        let tagged = || {
            let seen = self.seen().into_iter();
            seen.filter(|line| line["target"].as_str().is_some_and(|t| t.contains(part)))
                .collect::<Vec<_>>()
        };
        let what = format!("{count} requests {part}");
        let arrived = eventually(&what, Duration::from_secs(10), || tagged().len() >= count);
        let seen = tagged();
        arrived.with_context(|| format!("there are {}", seen.len()))?;
        if seen.len() != count {
            bail!("{} requests {part}, not {count}", seen.len());
        }
        Ok(seen)
    }
}

/// The lines of a file of JSON lines; a last line that is still being written is left out.
///
/// # Panics
/// Another line is no JSON.
#[must_use]
pub fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    whole.lines().map(parse).collect()
}
