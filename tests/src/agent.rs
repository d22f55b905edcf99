//! `mirror agent` on the simulated node.

use std::{net::SocketAddr, path::Path, process::ExitStatus, time::Duration};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    command::mirror_binary,
    http,
    metrics::Metrics,
    node::{Node, Pod},
    process::{Process, eventually},
};

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub struct Agent<'a> {
    node: &'a Node,
    process: Process,
    admin: SocketAddr,
    command: String,
}

impl<'a> Agent<'a> {
    /// Starts `mirror agent` on the node, capturing these pods, with further `flags`, and waits
    /// until it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready within 20 s; with what it wrote.
    pub fn start(node: &'a Node, pods: &[&Pod], flags: &[&str]) -> Result<Self> {
        let captures: Vec<_> =
            pods.iter().map(|pod| (pod.name().to_owned(), pod.cgroup().to_owned())).collect();
        let captures: Vec<_> =
            captures.iter().map(|(name, path)| format!("{name}={}", path.display())).collect();
        let captures: Vec<_> = captures.iter().map(String::as_str).collect();
        Self::start_with(node, "agent", &captures, flags)
    }

    /// The same with the values of `--capture` spelled out (`[NAMESPACE/]NAME=CGROUP_PATH`).
    /// `name` names its log files: a second agent needs another name and another `--admin`.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_with(
        node: &'a Node,
        name: &str,
        captures: &[&str],
        flags: &[&str],
    ) -> Result<Self> {
        let binary = mirror_binary()?;
        Self::start_as(node, name, &[&binary.to_string_lossy()], captures, flags)
    }

    /// The same with the command spelled out that `mirror` is called by: another build, or one
    /// that another program starts (`taskset -c 1 target/release/mirror`).
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_as(
        node: &'a Node,
        name: &str,
        command: &[&str],
        captures: &[&str],
        flags: &[&str],
    ) -> Result<Self> {
        let routes = node.routes().path();
        let routes = routes.to_string_lossy();
        // As an environment variable, since older builds are measured as well. The node balances its
        // Services as kube-proxy would.
        let choice: &[_] = &["env", "MIRROR_ENDPOINTS=service"];
        let command = [choice, command, &["agent", "--routes", &*routes]].concat();
        let mut agent = Self::launch(node, name, &command, captures, flags)?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Starts it without waiting, as one that follows the cluster of a kubeconfig; the node is
    /// `node-1`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn follow(
        node: &'a Node,
        name: &str,
        kubeconfig: &Path,
        pods: &[&Pod],
        flags: &[&str],
    ) -> Result<Self> {
        let config = format!("KUBECONFIG={}", kubeconfig.display());
        let binary = mirror_binary()?;
        let binary = binary.to_string_lossy();
        let command = ["env", &*config, &*binary, "agent", "--source", "kube", "--node", "node-1"];
        let capture = |pod: &&Pod| format!("{}={}", pod.name(), pod.cgroup().display());
        let captures: Vec<_> = pods.iter().map(capture).collect();
        let captures: Vec<_> = captures.iter().map(String::as_str).collect();
        Self::launch(node, name, &command, &captures, flags)
    }

    fn launch(
        node: &'a Node,
        name: &str,
        command: &[&str],
        captures: &[&str],
        flags: &[&str],
    ) -> Result<Self> {
        let mut argv = command.to_vec();
        for capture in captures {
            argv.extend(["--capture", capture]);
        }
        argv.extend(flags);
        let admin = argv.iter().position(|arg| *arg == "--admin");
        let admin = admin.and_then(|at| argv.get(at + 1)).unwrap_or(&"127.0.0.1:15920").parse()?;
        let process = node.spawn_apart(name, &argv)?;
        Ok(Self { node, process, admin, command: argv.join(" ") })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready within 20 s; with what it wrote.
    pub fn wait_ready(&mut self) -> Result<()> {
        let mut ended = None;
        let ready = eventually("the agent is ready", Duration::from_secs(20), || {
            ended = self.process.wait(Duration::ZERO).ok().flatten();
            ended.is_some() || matches!(self.get("/readyz"), Ok((200, _)))
        });
        if let Some(status) = ended {
            bail!("`{}`: {status}\n{}", self.command, self.log());
        }
        ready.with_context(|| self.log())
    }

    /// The command that it was started with.
    #[must_use]
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// What it wrote so far, to stdout and stderr.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// GETs a path of its admin endpoint: status and body.
    ///
    /// # Errors
    /// It does not respond within 5 s.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        http::get(self.node.netns(), self.admin, path)
    }

    /// What `/metrics` says now.
    ///
    /// # Errors
    /// It does not respond, or not in the text format.
    pub fn metrics(&self) -> Result<Metrics> {
        let (status, body) = self.get("/metrics")?;
        if status != 200 {
            bail!("/metrics answers {status}: {body}");
        }
        Metrics::parse(&body)
    }

    /// The sum of all samples of this name with these labels.
    ///
    /// # Errors
    /// As [`Agent::metrics`].
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(self.metrics()?.sum(name, labels))
    }

    /// Requests that it took out of connections of this kind (`http1`, `http2`): 0 as long as it
    /// only passed bytes through.
    ///
    /// # Errors
    /// As [`Agent::metrics`].
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters")]
    pub fn parsed(&self, kind: &str) -> Result<u64> {
        let metrics = self.metrics()?;
        let connections = metrics.sum("mirror_connections_total", &[("kind", kind)]);
        let requests = metrics.sum("mirror_requests_total", &[]);
        Ok(if connections > 0.0 { requests as u64 } else { 0 })
    }

    /// The workloads that `/config` lists.
    ///
    /// # Errors
    /// It does not respond, or not with such a list.
    pub fn workloads(&self) -> Result<Vec<Value>> {
        let (_, config) = self.get("/config")?;
        let config: Value = serde_json::from_str(&config)?;
        config["workloads"].as_array().cloned().context("/config lists no workloads")
    }

    /// State and reason of a workload (`namespace/name`); no state, and which there are, if it is not
    /// listed.
    ///
    /// # Errors
    /// As [`Agent::workloads`].
    pub fn workload(&self, name: &str) -> Result<(String, String)> {
        let all = self.workloads()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(all.iter().find(|workload| workload["name"] == *name).map_or_else(
            || (String::new(), format!("{name} is not among {all:?}")),
            |workload| (text(&workload["state"]), text(&workload["reason"])),
        ))
    }

    /// Waits until a workload is in a state. Returns the reason.
    ///
    /// # Errors
    /// It is not within 20 s; with the state that it is in, and the agent's log.
    pub fn wait_for_workload(&self, name: &str, wanted: &str) -> Result<String> {
        let mut last = Default::default();
        let came = eventually(&format!("{name} is {wanted}"), Duration::from_secs(20), || {
            self.workload(name).is_ok_and(|now| {
                last = now;
                last.0 == wanted
            })
        });
        came.with_context(|| format!("{name}: {last:?}\n{}", self.log()))?;
        Ok(last.1)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Sends SIGTERM and waits for its end.
    ///
    /// # Errors
    /// It has ended before, or does not within `timeout`.
    pub fn stop(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.process.signal(Signal::SIGTERM)?;
        self.wait(timeout)?.with_context(|| format!("the agent still drains: {}", self.log()))
    }

    /// Ends it with SIGKILL and waits for it.
    ///
    /// # Errors
    /// What kill(2) or waitpid(2) say.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Waits for its end; None when it still runs after `timeout`.
    ///
    /// # Errors
    /// What waitpid(2) says.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        Ok(self.process.wait(timeout)?)
    }
}
