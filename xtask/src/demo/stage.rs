//! The stage of the demo: the pods, the Services, and what is printed about them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use mirror_tests::{Agent, Node, Pod, Process, Service, Signal, eventually, run};

/// Where the clients of the demo send their requests.
pub(super) const URL: &str = "http://httpbin:8000/headers";

/// Everything that the steps act on.
pub(super) struct Stage<'a> {
    pub(super) node: &'a Node,
    pub(super) curl: Pod,
    pub(super) v1: Version,
    pub(super) v2: Version,
    pub(super) httpbin: Service,
    pub(super) agent: Option<Agent<'a>>,
}

impl<'a> Stage<'a> {
    pub(super) fn set_up(node: &'a Node, gunicorn: Option<PathBuf>) -> Result<Self> {
        println!(
            "\nA node with the pods curl, httpbin-v1 and httpbin-v2, and no route out of it:\n"
        );
        let curl = node.pod("curl")?;
        let v1 = Version::start(node, "httpbin-v1", gunicorn.clone())?;
        let v2 = Version::start(node, "httpbin-v2", gunicorn)?;
        let httpbin = node.service("httpbin", 8000, 80, &[&v1.pod, &v2.pod])?;
        let services = [
            httpbin.clone(),
            node.service("httpbin-v1", 80, 80, &[&v1.pod])?,
            node.service("httpbin-v2", 80, 80, &[&v2.pod])?,
        ];
        println!("  pod      curl        {}", curl.ip());
        for version in [&v1, &v2] {
            println!(
                "  pod      {}  {}  {}",
                version.pod.name(),
                version.pod.ip(),
                version.server()
            );
        }
        for service in &services {
            let endpoints: Vec<_> = service.endpoints.iter().map(ToString::to_string).collect();
            let endpoints = endpoints.join(", ");
            println!("  Service  {:<10}  {} -> {endpoints}", service.name, service.address());
        }
        let manifests: Vec<_> = services.iter().map(Service::manifest).collect();
        node.routes().write("services.yaml", &manifests.join("---\n"))?;
        Ok(Self { node, curl, v1, v2, httpbin, agent: None })
    }

    /// Starts `mirror agent` on the node, capturing the curl pod.
    pub(super) fn start_agent(&mut self) -> Result<()> {
        let agent = Agent::start(self.node, &[&self.curl], &[])?;
        let command = agent.command().replace(" --", " \\\n    --");
        prompt("node", &format!("{command} &"));
        self.agent = Some(agent);
        Ok(())
    }

    /// What the agent says of itself, for whoever looks into a step that failed.
    pub(super) fn show_agent(&self) {
        let Some(agent) = &self.agent else { return };
        eprintln!("\nthe agent's log:\n{}", agent.log());
        if let Ok((_, config)) = agent.get("/config") {
            eprintln!("its /config:\n{config}");
        }
    }

    /// Writes the route's file, as `kubectl apply` would the object.
    pub(super) fn apply(&self, manifest: &str) -> Result<()> {
        let file = self.node.routes().path().join("route.yaml");
        prompt("node", &format!("cat > {} <<EOF\n{manifest}EOF", file.display()));
        self.node.routes().write("route.yaml", manifest)?;
        // What the agent promises for a change to take effect.
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    }

    /// Runs a command in the curl pod and shows it with what it says.
    pub(super) fn in_curl(&self, command: &str) -> Result<String> {
        prompt("curl", command);
        let output = self.curl.run(&["sh", "-c", command], Duration::from_secs(120))?.ok()?;
        show(&output);
        Ok(output)
    }

    /// Sends many requests one after another and shows how they went.
    pub(super) fn requests(&self, count: usize) -> Result<Responses> {
        let command = format!(
            "curl -sS -m 5 -o /dev/null -w '%{{http_code}} %{{time_total}}\\n' '{URL}?[1-{count}]'"
        );
        prompt("curl", &command);
        let output = self.curl.run(&["sh", "-c", &command], Duration::from_secs(300))?;
        show(&output.stderr);
        let responses = Responses::parse(&output.stdout)?;
        let (median, p99, max) = (responses.at(0.5), responses.at(0.99), responses.at(1.0));
        show(&format!(
            "{} responses with 200, {} others; {median:.2?} median, {p99:.2?} p99, {max:.2?} at most",
            responses.good, responses.bad
        ));
        Ok(responses)
    }

    /// Leaves everything up for trying by hand.
    pub(super) fn keep(&mut self) -> Result<()> {
        println!("\n== The node stays up until Ctrl-C\n");
        self.start_agent()?;
        let (cgroup, netns) = (self.curl.cgroup().display(), self.curl.netns().path());
        let (netns, hosts) = (netns.display(), self.curl.hosts());
        println!("\nA shell in the curl pod (then: curl {URL}):\n");
        println!(
            "    sudo sh -c 'echo 0 > {cgroup}/cgroup.procs && exec nsenter --net={netns} \\\n      \
             unshare --mount sh -c \"mount --bind {} /etc/hosts && exec bash\"'\n",
            hosts.display()
        );
        let (node, binary) = (self.node.netns().path(), mirror_tests::mirror_binary()?);
        println!(
            "The agent's status:\n\n    sudo nsenter --net={} {} status\n",
            node.display(),
            binary.display()
        );
        println!("The YAML that the agent follows:  {}", self.node.routes().path().display());
        println!("The logs:                         {}/logs", self.node.folder().display());
        loop {
            // Ctrl-C cleans up and ends the process.
            std::thread::sleep(Duration::from_secs(3600));
        }
    }

    /// What all names on the stage begin with.
    pub(super) fn names(&self) -> String {
        let folder = self.node.folder().file_name().unwrap_or_default();
        folder.to_string_lossy().into_owned()
    }
}

/// One version of httpbin: its pod, its server, and how much of its log was shown.
pub(super) struct Version {
    pub(super) pod: Pod,
    gunicorn: Option<PathBuf>,
    /// The JSON log of `mirror echo`.
    json: PathBuf,
    process: Process,
    seen: usize,
}

impl Version {
    fn start(node: &Node, name: &str, gunicorn: Option<PathBuf>) -> Result<Self> {
        let pod = node.pod(name)?;
        let json = node.folder().join(format!("{name}.json"));
        let process = serve(&pod, gunicorn.as_deref(), &json)?;
        Ok(Self { pod, gunicorn, json, process, seen: 0 })
    }

    fn server(&self) -> &str {
        if self.gunicorn.is_some() { "gunicorn httpbin:app" } else { "mirror echo" }
    }

    /// The lines of its access log since the last call, after giving up to `expected` of them
    /// time to arrive.
    pub(super) fn log(&mut self, expected: usize) -> Vec<String> {
        let lines = || self.process.stdout().lines().map(str::to_owned).collect::<Vec<_>>();
        // Fewer is for the caller to judge.
        let _ = eventually("log lines", Duration::from_secs(3), || {
            lines().len() >= self.seen + expected
        });
        let new = lines().split_off(self.seen);
        self.seen += new.len();
        new
    }

    /// The Host fields of the last `count` requests.
    pub(super) fn hosts(&self, count: usize) -> Result<Vec<String>> {
        let (file, before, after) = self.host_log();
        let text = fs::read_to_string(&file)?;
        let hosts: Vec<_> = text
            .lines()
            .filter_map(|line| line.split_once(before)?.1.split(after).next())
            .map(str::to_owned)
            .collect();
        let skip = hosts.len().checked_sub(count).context("fewer requests than log lines")?;
        Ok(hosts[skip..].to_vec())
    }

    /// Shows the Host of the last request.
    pub(super) fn show_host(&self) -> Result<()> {
        let (file, before, _) = self.host_log();
        let command = format!("tail -n 1 {} | grep -o '{before}[^\" ]*'", file.display());
        prompt("node", &command);
        show(&run(&["sh", "-c", &command], "")?);
        Ok(())
    }

    /// The file that has Hosts, and what stands before and after each.
    fn host_log(&self) -> (PathBuf, &'static str, &'static str) {
        match self.gunicorn {
            Some(_) => (self.process.stdout_path().to_owned(), "host=", "\n"),
            None => (self.json.clone(), "\"host\":\"", "\""),
        }
    }

    /// Kills its server, all processes of it.
    pub(super) fn kill(&mut self) -> Result<()> {
        prompt("node", &format!("kill -KILL {}   # {}", self.process.pid(), self.pod.name()));
        self.pod.signal(Signal::SIGKILL)?;
        self.process.kill()
    }

    /// Starts its server again; the log begins again as well.
    pub(super) fn restart(&mut self) -> Result<()> {
        prompt(self.pod.name(), &format!("{} &", self.server()));
        self.process = serve(&self.pod, self.gunicorn.as_deref(), &self.json)?;
        self.seen = 0;
        Ok(())
    }

    /// Stops its server where it is: connections to it are accepted by the kernel, and silent.
    pub(super) fn stall(&mut self) -> Result<()> {
        prompt("node", &format!("kill -STOP {}   # {}", self.process.pid(), self.pod.name()));
        self.pod.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub(super) fn resume(&mut self) -> Result<()> {
        prompt("node", &format!("kill -CONT {}   # {}", self.process.pid(), self.pod.name()));
        self.pod.signal(Signal::SIGCONT)
    }
}

fn serve(pod: &Pod, gunicorn: Option<&Path>, json: &Path) -> Result<Process> {
    const FORMAT: &str = "%(h)s %(l)s %(u)s %(t)s \"%(r)s\" %(s)s %(b)s \"%(f)s\" \"%(a)s\" \
                          host=%({host}i)s";
    let Some(gunicorn) = gunicorn else {
        return pod.echo(&["--listen", "0.0.0.0:80", "--log-json", &json.to_string_lossy()]);
    };
    let gunicorn = gunicorn.to_string_lossy();
    let log = ["--access-logfile", "-", "--access-logformat", FORMAT];
    let mut argv = vec![&*gunicorn, "-b", "0.0.0.0:80", "httpbin:app"];
    argv.extend(log);
    let mut process = pod.spawn("gunicorn", &argv)?;
    pod.listening(&mut process, 80)?;
    Ok(process)
}

/// How a series of requests went.
pub(super) struct Responses {
    pub(super) good: usize,
    pub(super) bad: usize,
    times: Vec<Duration>,
}

impl Responses {
    /// Lines of status and seconds, as curl's `-w` writes them.
    fn parse(text: &str) -> Result<Self> {
        let (mut good, mut times) = (0, Vec::new());
        for line in text.lines() {
            let (code, seconds) = line.split_once(' ').context("a line without a time")?;
            good += usize::from(code == "200");
            times.push(Duration::from_secs_f64(seconds.parse()?));
        }
        times.sort_unstable();
        Ok(Self { good, bad: times.len() - good, times })
    }

    /// The time that this share of the requests stayed within.
    pub(super) fn at(&self, share: f64) -> Duration {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to len")]
        #[expect(clippy::cast_precision_loss, reason = "some hundred")]
        let index = (self.times.len() as f64 * share).ceil() as usize;
        self.times.get(index.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// Announces a step.
pub(super) fn title(text: &str) {
    println!("\n== {text}\n");
}

/// Shows a command and where it runs.
pub(super) fn prompt(place: &str, command: &str) {
    println!("{place}$ {command}");
}

/// Shows what a command said.
pub(super) fn show(output: &str) {
    for line in output.lines() {
        println!("    {line}");
    }
}

/// Shows the new lines of a version's log, the first few of many.
pub(super) fn show_log(name: &str, lines: &[String]) {
    const FEW: usize = 3;
    match lines.len() {
        0 => println!("{name}'s access log has no new line"),
        1 => println!("{name}'s access log has a new line:"),
        count => println!("{name}'s access log has {count} new lines:"),
    }
    lines.iter().take(FEW).for_each(|line| show(line));
    if lines.len() > FEW {
        show("...");
    }
}

/// What the step claims: printed when it holds, an error when not.
pub(super) fn check(claim: &str, holds: bool) -> Result<()> {
    if !holds {
        bail!("this does not hold: {claim}");
    }
    println!("  ok: {claim}");
    Ok(())
}

/// A pause for what happens out of band to happen, when the claim is that nothing does.
pub(super) fn settle() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        std::thread::sleep(Duration::from_millis(50));
    }
}
