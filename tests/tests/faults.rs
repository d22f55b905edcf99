//! A shadow never harms the primary: whatever the shadow does, every request of the application
//! is answered. The figures for each fault stand beside those of a healthy shadow, of a route
//! without a mirror, and of no agent at all, measured in turns within one run.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    fmt::{self, Write as _},
    fs,
    path::Path,
    time::Duration,
};

use mirror_tests::{
    Agent, Copies, Load, Node, Pod, Process, Service, Shape, Signal, Wrk,
    manifest::{Route, Rule},
    stats::{median, verdict},
    usage,
};

/// Requests that each fault has to bear, and how many wait for a response at a time.
const REQUESTS: u64 = 20_000;
const CONCURRENCY: u32 = 64;

/// Of each of the variants; more when they are too slow for [`REQUESTS`].
const ROUNDS: usize = 3;
const MAX_ROUNDS: usize = 20;
const ROUND: Duration = Duration::from_secs(1);

/// The goal for the 99th percentile against that of an unmirrored route.
const GOAL: f64 = 1.2;

/// Beyond it the test fails: the machine has a say in milliseconds (219 ms was seen where two cores
/// were wanted by ten threads of others, and for a shadow without endpoints, that is for none), but
/// a shadow that is waited for shows as 1 s and more.
const BOUND: Duration = Duration::from_millis(500);

/// How many times as slow as beside a healthy shadow it may be beside a bad one: medians of rounds in
/// turns, so that both see the same machine. A shadow that is waited for shows as far more.
const SLOWER: f64 = 2.0;

/// Rounds of the healthy and of the bad shadow, one after the other, that decide where the first rounds
/// are beyond [`SLOWER`]: they may have seen another machine.
const ROUNDS_IN_DOUBT: usize = 6;

/// All budgets of copies together, the default of `--budget-agent`.
const BUDGET: u64 = 64 << 20;

const FAULTS: [(&str, &[&str]); 8] = [
    ("refused", &["--fault", "refuse"]),
    ("never-answers", &["--fault", "accept-never-read"]),
    ("syn-dropped", &[]),
    ("answers-1s", &["--fault", "delay=1s"]),
    ("reads-1kib-s", &["--fault", "slow-read=1024"]),
    ("closes-mid-answer", &["--fault", "close-mid-answer"]),
    ("stopped", &[]),
    ("no-endpoints", &[]),
];

/// A Service of its own for each variant, all with the same primary.
struct Variant {
    name: &'static str,
    url: String,
    from: Pod,
    shadow: Option<Shadow>,
    /// As many requests as go through.
    flood: Vec<Load>,
    /// Some 3,000 requests per second.
    paced: Vec<Load>,
}

struct Shadow {
    service: Service,
    _pod: Pod,
    _echo: Process,
}

#[test]
fn no_shadow_harms_the_primary() {
    let node = Node::create("faults").unwrap();
    let primary = node.pod("primary").unwrap();
    let _echo = primary.echo(&["--listen", "0.0.0.0:80", "--quiet"]).unwrap();
    let backend = node.service("primary", 80, 80, &[&primary]).unwrap();
    node.routes().write("primary.yaml", &backend.manifest()).unwrap();
    let mut variants = vec![
        Variant::new(&node, "direct", &primary, None),
        Variant::new(&node, "unmirrored", &primary, None),
        Variant::new(&node, "healthy", &primary, Some(Shadow::new(&node, "healthy", &[]))),
    ];
    for (name, flags) in FAULTS {
        let shadow = Shadow::new(&node, name, flags);
        variants.push(Variant::new(&node, name, &primary, Some(shadow)));
    }
    // The application of "direct" is not captured.
    let captured: Vec<_> = variants[1..].iter().map(|variant| &variant.from).collect();
    let agent = Agent::start(&node, &captured, &[]).unwrap();
    let peak = measure(&node, &agent, &mut variants);
    let slowest = relative(&node, &mut variants);

    let table = table(&agent, &variants, peak);
    println!("{table}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    fs::write(target.join("faults.txt"), &table).unwrap();
    for variant in &variants {
        let (name, all) = (variant.name, || variant.flood.iter().chain(&variant.paced));
        assert_eq!(all().map(|load| load.errors).sum::<u64>(), 0, "{name}\n{}", agent.log());
        assert!(requests(&variant.flood) >= REQUESTS, "{name}: {:?}", variant.flood);
        for loads in [&variant.flood, &variant.paced] {
            assert!(p99(loads) < BOUND.as_secs_f64(), "{name}: {loads:?}");
        }
    }
    assert!(peak < BUDGET, "the agent grew by {peak} bytes");
    for (name, slower) in slowest {
        println!("{name:<18} {slower} (at most {SLOWER})");
        assert!(slower.most() <= SLOWER, "beside {name} all is slower than healthy: {slower}");
    }
}

/// How much slower requests are beside a bad shadow than beside a healthy one.
struct Slowdown {
    flood_mean: f64,
    flood_p50: f64,
    paced_p50: f64,
}

impl Slowdown {
    fn between(bad: &Variant, healthy: &Variant) -> Self {
        let p50 = |loads: &[Load]| median(loads.iter().map(|load| load.p50.as_secs_f64()));
        // As many connections wait all the time: the mean is their number divided by the rate.
        let mean = |loads: &[Load]| median(loads.iter().map(|load| 1.0 / load.rate));
        Self {
            flood_mean: mean(&bad.flood) / mean(&healthy.flood),
            flood_p50: p50(&bad.flood) / p50(&healthy.flood),
            paced_p50: p50(&bad.paced) / p50(&healthy.paced),
        }
    }

    fn most(&self) -> f64 {
        self.flood_mean.max(self.flood_p50).max(self.paced_p50)
    }
}

impl fmt::Display for Slowdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flood_mean, flood_p50, paced_p50 } = self;
        write!(f, "flood: mean x{flood_mean:.2}, p50 x{flood_p50:.2}; paced: p50 x{paced_p50:.2}")
    }
}

/// Each bad shadow beside the healthy one; measured again, in turns, where the first rounds leave a
/// doubt.
fn relative(node: &Node, variants: &mut [Variant]) -> Vec<(&'static str, Slowdown)> {
    let wrk = Wrk::new(node);
    let (others, bad) = variants.split_at_mut(3);
    let healthy = &mut others[2];
    let decide = |variant: &mut Variant| {
        let first = Slowdown::between(variant, healthy);
        if first.most() <= SLOWER {
            return (variant.name, first);
        }
        println!("{} once more: {first}", variant.name);
        for _ in 0..ROUNDS_IN_DOUBT {
            for side in [&mut *healthy, &mut *variant] {
                let run =
                    |shape| wrk.run(&side.from, &side.url, shape, CONCURRENCY, ROUND).unwrap();
                let (paced, flood) = (run(Shape::Paced), run(Shape::Get));
                side.paced.push(paced);
                side.flood.push(flood);
            }
        }
        (variant.name, Slowdown::between(variant, healthy))
    };
    bad.iter_mut().map(decide).collect()
}

/// Runs the variants in turns, each round beginning with another one; the agent's growth.
fn measure(node: &Node, agent: &Agent<'_>, variants: &mut [Variant]) -> u64 {
    let wrk = Wrk::new(node);
    // Unmeasured, and what memory grows to without any mirror is known.
    wrk.run(&variants[1].from, &variants[1].url, Shape::Get, CONCURRENCY, ROUND).unwrap();
    let base = usage::rss(agent.pid()).unwrap();
    usage::reset_peak(agent.pid()).unwrap();
    for round in 0..MAX_ROUNDS {
        let count = variants.len();
        for at in (0..count).map(|at| (at + round * 4) % count) {
            let variant = &mut variants[at];
            let Variant { from, url, .. } = &*variant;
            if round < ROUNDS {
                let load = wrk.run(from, url, Shape::Paced, CONCURRENCY, ROUND).unwrap();
                variant.paced.push(load);
            }
            let Variant { from, url, .. } = &*variant;
            if round < ROUNDS || requests(&variant.flood) < REQUESTS {
                let load = wrk.run(from, url, Shape::Get, CONCURRENCY, ROUND).unwrap();
                variant.flood.push(load);
            }
        }
    }
    usage::peak_rss(agent.pid()).unwrap().saturating_sub(base)
}

fn table(agent: &Agent<'_>, variants: &[Variant], peak: u64) -> String {
    let cores = std::thread::available_parallelism().unwrap();
    let mut text = format!(
        "{CONCURRENCY} connections, GET, rounds of {ROUND:?} in turns, medians; client, agent, \
         primary and shadow share {cores} cores.\nflood: the next request at once; paced: 20 ms \
         later. x: p99 against unmirrored, goal at most {GOAL}.\n\n\
         {:<18} {:>8} {:>6} | {:>7} {:>7} {:>7} {:>12} | {:>7} {:>7} {:>7} {:>12}\n",
        "shadow",
        "requests",
        "errors",
        "flood/s",
        "p50 ms",
        "p99 ms",
        "x",
        "paced/s",
        "p50 ms",
        "p99 ms",
        "x"
    );
    for Variant { name, flood, paced, shadow, .. } in variants {
        let (count, errors) = (
            requests(flood) + requests(paced),
            flood.iter().chain(paced).map(|load| load.errors).sum::<u64>(),
        );
        let _ = write!(text, "{name:<18} {count:>8} {errors:>6}");
        for (loads, base) in [(flood, &variants[1].flood), (paced, &variants[1].paced)] {
            let rate = median(loads.iter().map(|load| load.rate));
            let p50 = median(loads.iter().map(|load| load.p50.as_secs_f64())) * 1e3;
            let (p99, ratio) = (p99(loads) * 1e3, p99(loads) / p99(base));
            let goal = if shadow.is_some() { verdict(ratio, GOAL) } else { "" };
            let _ = write!(text, " | {rate:>7.0} {p50:>7.2} {p99:>7.2} {ratio:>5.2} {goal:<6}");
        }
        text.push('\n');
    }
    text.push('\n');
    for Variant { name, flood, paced, shadow, .. } in variants {
        let Some(Shadow { service, .. }) = shadow else { continue };
        let service = format!("default/{}:80", service.name);
        // A response that never comes is waited for 15 s.
        let copies = Copies::settled_for(agent, &service).unwrap();
        assert!(copies.selected >= requests(flood) + requests(paced), "{name}: {copies}");
        let _ = writeln!(text, "{name:<18} {copies}");
    }
    let _ = writeln!(text, "\nthe agent grew by {:.1} MiB at most", peak as f64 / 1_048_576.0);
    text
}

fn requests(loads: &[Load]) -> u64 {
    loads.iter().map(|load| load.requests).sum()
}

/// In seconds.
fn p99(loads: &[Load]) -> f64 {
    median(loads.iter().map(|load| load.p99.as_secs_f64()))
}

impl Variant {
    fn new(node: &Node, name: &'static str, primary: &Pod, shadow: Option<Shadow>) -> Self {
        let from = node.pod(&format!("client-{name}")).unwrap();
        let service = node.service(&format!("app-{name}"), 80, 80, &[primary]).unwrap();
        let mut rule = Rule::to("primary", 80);
        let mut manifest = service.manifest() + "---\n";
        if let Some(shadow) = &shadow {
            rule = rule.mirror(&shadow.service.name, 80);
            manifest += &(shadow.service.manifest() + "---\n");
        }
        manifest += &Route::new(name, &service).rule(rule).manifest();
        node.routes().write(&format!("{name}.yaml"), &manifest).unwrap();
        Self {
            name,
            url: format!("http://app-{name}/get"),
            from,
            shadow,
            flood: Vec::new(),
            paced: Vec::new(),
        }
    }
}

impl Shadow {
    fn new(node: &Node, name: &str, flags: &[&str]) -> Self {
        let pod = node.pod(&format!("shadow-{name}")).unwrap();
        let mut args = vec!["--listen", "0.0.0.0:80", "--quiet"];
        args.extend(flags);
        let echo = pod.echo(&args).unwrap();
        let endpoints: &[&Pod] = if name == "no-endpoints" { &[] } else { &[&pod] };
        let service = node.service(&format!("shadow-{name}"), 80, 80, endpoints).unwrap();
        match name {
            "stopped" => pod.signal(Signal::SIGSTOP).unwrap(),
            "syn-dropped" => {
                let script = "table inet t { chain c { type filter hook input priority 0; \
                              tcp dport 80 drop; }; }\n";
                pod.netns().nft(script).unwrap();
            }
            _ => {}
        }
        Self { service, _pod: pod, _echo: echo }
    }
}
