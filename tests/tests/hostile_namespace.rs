//! A hostile Namespace beside a normal one: 10,000 routes with an expression at its limit each,
//! 66,000 endpoints, and 100,000 changes as fast as they are read. The normal one's routes take
//! effect within a second, and the agent and the controller stay within their memory.
//!
//! The API server is one of watches alone (`scripts/api_server.py`): a real one needs minutes for as
//! many objects, and paces the storm.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use mirror_tests::{
    Agent, Node, Pod, Process, eventually, mirror_binary,
    pair::script,
    slowness,
    stats::verdict,
    usage::{cpu, peak_rss},
};

const PORT: u16 = 18_001;
const ROUTES: &str = "10000";
const ENDPOINTS: &str = "66000";
const CHANGES: usize = 100_000;

/// What the agent and the controller (deploy/controller.yaml) may take.
const MIB: u64 = 1 << 20;
const MOST_MIB: u64 = 256;

/// How soon a change of the normal Namespace must be in force.
const SOON: Duration = Duration::from_secs(1);

/// Its compiled form is about as large as that of an expression may be.
const EXPRESSION: &str = r"\w{18}";

/// Asks the API server of the test, on the node.
fn post(node: &Node, path: &str, patience: Duration) -> String {
    let url = format!("http://127.0.0.1:{PORT}/test/{path}");
    let argv = ["curl", "-sSf", "-X", "POST", "-H", "Content-Length: 0", "-m", "170", &url];
    node.run(&argv, patience).unwrap().ok().unwrap()
}

/// The normal Namespace's client, and what its requests are marked with.
struct Shop {
    app: Pod,
    url: String,
}

impl Shop {
    fn state(&self) -> Option<String> {
        let request = ["curl", "-sS", "-m", "5", &self.url];
        let body = self.app.run(&request, Duration::from_secs(9)).unwrap().ok().ok()?;
        let at = body.find("\"X-State\": \"")? + 12;
        body[at..].split('"').next().map(str::to_owned)
    }

    /// Changes the route; how long until the first request that it holds for.
    fn change(&self, node: &Node, state: &str) -> Duration {
        post(node, &format!("shop?state={state}"), Duration::from_secs(20));
        let returned = Instant::now();
        while self.state().as_deref() != Some(state) {
            assert!(returned.elapsed() < Duration::from_secs(30), "{state} does not come");
        }
        returned.elapsed()
    }
}

/// The API server with everything in it.
fn api_server(node: &Node, address: &str, target: &str) -> Process {
    let (path, port) = (script("api_server.py"), PORT.to_string());
    let argv = ["python3", &path, &port, ROUTES, ENDPOINTS, EXPRESSION, address, target];
    let server = node.spawn("api-server", &argv).unwrap();
    let populated = || server.stdout().contains("populated");
    eventually("the API server has everything", Duration::from_secs(60), populated).unwrap();
    server
}

#[test]
fn a_normal_namespaces_routes_take_effect_beside_a_hostile_one() {
    let node = Node::create("hostile").unwrap();
    let (app, primary) = (node.pod("app").unwrap(), node.pod("primary").unwrap());
    let _echo = primary.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
    let service = node.service("shop", 80, 80, &[&primary]).unwrap();
    let server = api_server(&node, &service.cluster_ip.to_string(), &primary.ip().to_string());
    let config = node.routes().path().with_extension("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:\
         {PORT}'}}}}]\nusers: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: \
         c, user: u}}}}]\ncurrent-context: c\n"
    );
    fs::write(&config, text).unwrap();
    let start = Instant::now();
    let agent = Agent::follow(&node, "agent", &config, &[&app], &[]).unwrap();
    let kubeconfig = format!("KUBECONFIG={}", config.display());
    let mirror = mirror_binary().unwrap().to_string_lossy().into_owned();
    let argv = ["env", &kubeconfig, &mirror, "controller", "--admin", "127.0.0.1:15921"];
    let controller = node.spawn("controller", &argv).unwrap();
    let ready = || matches!(agent.get("/readyz"), Ok((200, _)));
    let synced = eventually("ready", Duration::from_secs(60).mul_f64(slowness()), ready);
    assert!(synced.is_ok(), "{}\n{}", agent.log(), server.stderr());
    println!("ready after {:?} with {:?} of CPU", start.elapsed(), cpu(agent.pid()).unwrap());

    let shop = Shop { app, url: format!("http://{}/headers", service.address()) };
    let mut times = vec![shop.change(&node, "calm")];
    let path = format!("storm?changes={CHANGES}");
    thread::scope(|scope| {
        let storm = scope.spawn(|| post(&node, &path, Duration::from_secs(180)));
        let mut at = 0;
        while !storm.is_finished() {
            times.push(shop.change(&node, &format!("s{at}")));
            at += 1;
            thread::sleep(Duration::from_millis(200));
        }
        println!("the storm: {}", storm.join().unwrap());
    });
    let memory = [("agent", agent.pid()), ("controller", controller.pid())];
    let memory = memory.map(|(who, pid)| (who, peak_rss(pid).unwrap() / MIB));
    times.sort();
    let slowest = times[times.len() - 1];
    println!(
        "{} changes of the normal Namespace: p50 {:?}, slowest {slowest:?}; peak MiB {memory:?}",
        times.len(),
        times[times.len() / 2]
    );
    assert!(times.len() > 5, "{times:?}");
    println!("goal {SOON:?}: {}", verdict(slowest.as_secs_f64(), SOON.as_secs_f64()));
    assert!(slowest < SOON.mul_f64(slowness()), "{times:?}");
    for (who, mib) in memory {
        assert!(mib < MOST_MIB, "{who}: {mib} MiB");
    }
    // What is not in force is told by name.
    let told = || {
        let config = agent.get("/config");
        config.is_ok_and(|(_, config)| config.contains("--namespace-routes"))
    };
    let told = eventually("/config says which flag bounds it", Duration::from_secs(30), told);
    told.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.log()));
}
