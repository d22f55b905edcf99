//! Pods and an agent for the capture tests: a pod is a Python process in a cgroup and a network
//! namespace of its own that connects when told; the agent answers every connection with the
//! address that it arrived at.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mirror_user::{
    capture::{
        Capture, CapturePlan, Existing, FamilyState, KernelFrontends, KernelHeartbeat, Programs,
        TapCounters, TapRing, WorkloadConfig, WorkloadOrigin, WorkloadState, WorkloadStatus, check,
    },
    control::publish::{FrontendMap as _, MapEntry},
    heartbeat::HeartbeatSink as _,
    memory::{AgentUsage, MemoryLimits},
    route::FrontendId,
    sockets::NetnsSockets,
    workload::{WorkerCommand, Workload},
};
use nix::sched::{CloneFlags, setns};

/// Far from what any test holds.
const LIMITS: MemoryLimits = MemoryLimits {
    connection: usize::MAX,
    workload: usize::MAX,
    agent: 128 << 20,
    connections: 4096,
};

/// On the pod's own loopback, with a server that answers "direct".
pub(crate) const VIP: &str = "10.99.0.1:80";
/// The same server, never a frontend.
pub(crate) const OTHER: &str = "10.99.0.1:81";
/// The pod's own address.
pub(crate) const POD_IP: &str = "10.98.0.7";
/// The same in IPv6.
pub(crate) const VIP6: &str = "[fd00:99::1]:80";
/// Never a frontend.
pub(crate) const OTHER6: &str = "[fd00:99::1]:81";
/// The pod's own IPv6 address.
pub(crate) const POD_IP6: &str = "fd00:98::7";
/// The id that the tests give to [`VIP`].
pub(crate) const ID: FrontendId = FrontendId(0x1_2345);
/// The id that the tests give to [`VIP6`].
pub(crate) const ID6: FrontendId = FrontendId(0x3f_fffe);
pub(crate) const WORKERS: u32 = 2;

/// What the pod does.
const POD: &str = include_str!("pod.py");

/// What a connection of a pod saw.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ObservedConnection {
    pub(crate) peer: String,
    pub(crate) own: String,
    pub(crate) greeting: String,
}

impl ObservedConnection {
    pub(crate) fn is_direct(&self) -> bool {
        self.greeting == "direct"
    }
}

/// Attaches a program that forbids programs below.
const FORBID: &str = include_str!("forbid.py");

/// Runs [`FORBID`].
pub(crate) fn forbid(cgroup: &Cgroup) {
    let status =
        Command::new("python3").args(["-c", FORBID]).arg(&cgroup.0).status().expect("python3");
    assert!(status.success(), "a program without a link can be attached");
}

pub(crate) struct Pod {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(crate) cgroup: Cgroup,
}

/// A cgroup that goes when dropped; its processes have been ended before.
pub(crate) struct Cgroup(pub(crate) PathBuf);

/// Where cgroup v2 is mounted.
pub(crate) fn cgroup2() -> PathBuf {
    check().expect("this machine can capture").cgroup2
}

impl Cgroup {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests attach programs to cgroups: run them as root \
             (sudo -E cargo test -p mirror-user --test capture)"
        );
        let root = cgroup2();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("mirror-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a cgroup can be made");
        Self(path)
    }
}

impl Cgroup {
    /// A cgroup below this one.
    pub(crate) fn child(&self) -> Self {
        let path = self.0.join("child");
        fs::create_dir(&path).expect("a cgroup can be made");
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel counts a process out a moment after it was waited for.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} is left behind", self.0.display());
    }
}

impl Pod {
    /// In a network namespace of its own.
    pub(crate) fn new() -> Self {
        Self::start("exec unshare --net sh -c", &setup_v6())
    }

    /// In a network namespace of its own, with IPv6 disabled.
    pub(crate) fn without_ipv6() -> Self {
        let off = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && export NO_IPV6=1";
        Self::start("exec unshare --net sh -c", off)
    }

    /// In the namespace of the calling thread.
    pub(crate) fn here() -> Self {
        Self::start("exec sh -c", &setup_v6())
    }

    /// Runs a shell's command in the pod's network namespace, but not in its cgroup.
    pub(crate) fn shell(&self, command: &str) -> String {
        shell(self.child.id(), command)
    }

    /// Runs `work` on a thread inside the pod's network namespace; sockets that it makes stay there.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let netns = fs::File::open(format!("/proc/{}/ns/net", self.child.id())).expect("it lives");
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&netns, CloneFlags::CLONE_NEWNET).expect("root");
                work()
            });
            inside.join().expect("no panic")
        })
    }

    fn start(enter: &str, then: &str) -> Self {
        let cgroup = Cgroup::new();
        let inner = format!(
            "ip link set lo up && ip address add 10.99.0.1/32 dev lo && ip link add eth0 type veth \
             peer name eth1 && ip link set eth1 up && ip address add {POD_IP}/24 dev eth0 && \
             ip link set eth0 up && {then} && exec python3 -c \"$POD\""
        );
        // First the cgroup, then the namespace: the order in which a race can go wrong.
        let outer = format!("echo $$ > {}/cgroup.procs && {enter} '{inner}'", cgroup.0.display());
        let mut child = Command::new("sh")
            .args(["-c", &outer])
            .env("POD", POD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut pod = Self { child, stdin, stdout, cgroup };
        assert_eq!(pod.line(), "ready", "the pod starts (needs sh, unshare, ip and python3)");
        pod
    }

    /// Moves the pod to another cgroup; sockets made from then on count there.
    pub(crate) fn join(&self, cgroup: &Cgroup) {
        let pid = self.child.id().to_string();
        fs::write(cgroup.0.join("cgroup.procs"), pid).expect("the cgroup takes it");
    }

    pub(crate) fn config(&self, name: &str) -> WorkloadConfig {
        config(name, &self.cgroup)
    }

    pub(crate) fn connect(&mut self, address: &str) -> ObservedConnection {
        self.send("connect", address)
    }

    pub(crate) fn send(&mut self, word: &str, address: &str) -> ObservedConnection {
        writeln!(self.stdin, "{word} {address}").expect("the pod listens");
        let line = self.line();
        let [peer, own, greeting] =
            line.splitn(3, ' ').collect::<Vec<_>>().try_into().expect("three words");
        ObservedConnection { peer: peer.into(), own: own.into(), greeting: greeting.into() }
    }

    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the pod answers");
        line.trim().to_owned()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.end();
    }
}

fn shell(pid: u32, command: &str) -> String {
    let output = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-n", "sh", "-c", command])
        .output()
        .expect("nsenter (util-linux)");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Adds the IPv6 addresses, usable at once; the server's never as a source.
fn setup_v6() -> String {
    format!(
        "ip address add fd00:99::1/128 dev lo nodad preferred_lft 0 && \
         ip address add {POD_IP6}/64 dev eth0 nodad"
    )
}

/// A process that only lives.
pub(crate) struct Sleeper {
    child: Child,
    pub(crate) cgroup: Cgroup,
}

impl Sleeper {
    /// In a network namespace of its own, with loopback up and an IPv6 address.
    pub(crate) fn new() -> Self {
        Self::start(&format!(
            "exec unshare --net sh -c 'ip link set lo up && ip link add eth0 type veth peer name \
             eth1 && ip link set eth0 up && ip address add {POD_IP6}/64 dev eth0 nodad && \
             exec sleep 1000'"
        ))
    }

    /// What a command prints in its network namespace.
    pub(crate) fn shell(&self, command: &str) -> String {
        shell(self.child.id(), command)
    }

    /// In the namespace of the calling thread.
    pub(crate) fn here() -> Self {
        Self::start("exec sleep 1000")
    }

    /// In the namespace of a pod that is there already.
    pub(crate) fn beside(pod: &Pod) -> Self {
        Self::start(&format!("exec nsenter -t {} -n sleep 1000", pod.child.id()))
    }

    /// Moves the process to another cgroup.
    pub(crate) fn join(&self, cgroup: &Cgroup) {
        let pid = self.child.id().to_string();
        fs::write(cgroup.0.join("cgroup.procs"), pid).expect("the cgroup takes it");
    }

    fn start(then: &str) -> Self {
        let cgroup = Cgroup::new();
        let script = format!("echo $$ > {}/cgroup.procs && {then}", cgroup.0.display());
        let child = Command::new("sh").args(["-c", &script]).spawn().expect("sh starts");
        eventually("the process joins its cgroup", || {
            let list = fs::read_to_string(cgroup.0.join("cgroup.procs")).expect("a cgroup");
            if list.contains(&child.id().to_string()) { Ok(()) } else { Err(list) }
        });
        Self { child, cgroup }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn config(name: &str, cgroup: &Cgroup) -> WorkloadConfig {
    format!("{name}={}", cgroup.0.display()).parse().expect("a valid flag")
}

/// The same as the selection of pods hands it over.
pub(crate) fn pod_config(name: &str, cgroup: &Cgroup) -> WorkloadConfig {
    WorkloadConfig { origin: WorkloadOrigin::Pod { uid: name.into() }, ..config(name, cgroup) }
}

/// Heartbeats that the agent's loop writes.
#[derive(Clone, Copy)]
pub(crate) enum Beats {
    Fresh = 0,
    Full = 1,
    None = 2,
    /// Of worker 0 only.
    First = 3,
}

/// Connections by worker.
type Accepted = Arc<[AtomicU32; WORKERS as usize]>;
type ServedListeners = Arc<Mutex<Vec<(u32, Arc<Workload>, TcpListener)>>>;

/// A capture with workers that greet.
pub(crate) struct Agent {
    pub(crate) capture: Option<Capture>,
    pub(crate) frontends: KernelFrontends,
    pub(crate) served: ServedListeners,
    beats: Arc<AtomicU8>,
    accepted: Accepted,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    pub(crate) fn new(workloads: Vec<WorkloadConfig>) -> Self {
        Self::with_log(workloads, false)
    }

    /// With what the programs log.
    pub(crate) fn with_log(workloads: Vec<WorkloadConfig>, log: bool) -> Self {
        let programs = Programs::load(WORKERS, log).unwrap_or_else(|e| panic!("{e}"));
        Self::with(workloads, programs, MapEntry::Proxied)
    }

    /// One that taps, with rings of so many bytes, and what its programs copy.
    pub(crate) fn tapping(
        workloads: Vec<WorkloadConfig>,
        ring: u32,
    ) -> (Self, Vec<TapRing>, TapCounters) {
        let mut programs = Programs::load(WORKERS, false).unwrap_or_else(|e| panic!("{e}"));
        let tap = programs.load_tap(ring, false);
        let (rings, counters) = tap.unwrap_or_else(|e| panic!("{e}"));
        (Self::with(workloads, programs, MapEntry::Tapped), rings, counters)
    }

    fn with(workloads: Vec<WorkloadConfig>, programs: Programs, entry: MapEntry) -> Self {
        let mut frontends = KernelFrontends::new(&programs).expect("the maps open");
        for (id, vip) in [(ID, VIP), (ID6, VIP6)] {
            let vip: SocketAddr = vip.parse().expect("an address");
            frontends.insert(id, vip, entry).expect("the map takes it");
        }
        let heartbeat = KernelHeartbeat::new(&programs).expect("the map opens");
        let served = ServedListeners::default();
        let beats = Arc::new(AtomicU8::new(Beats::Fresh as u8));
        let accepted = Accepted::default();
        let end = Arc::new(AtomicBool::new(false));
        let thread = {
            let (served, beats, end) = (served.clone(), beats.clone(), end.clone());
            let accepted = accepted.clone();
            thread::spawn(move || work(heartbeat, &served, &beats, &accepted, &end))
        };
        let sockets = Arc::new(NetnsSockets::new().expect("/proc is mounted"));
        let command_sender = command_sender(served.clone());
        let memory = Arc::new(AgentUsage::new(LIMITS));
        let plan =
            CapturePlan { workloads, routes: Arc::default(), existing: Existing::Keep, memory };
        let capture = Capture::start(plan, programs, sockets, command_sender).expect("it starts");
        Self {
            capture: Some(capture),
            frontends,
            served,
            beats,
            accepted,
            end,
            thread: Some(thread),
        }
    }

    pub(crate) fn beat(&self, beats: Beats) {
        self.beats.store(beats as u8, Ordering::Relaxed);
    }

    pub(crate) fn accepted(&self) -> Vec<u32> {
        self.accepted.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    pub(crate) fn status(&self) -> Vec<WorkloadStatus> {
        self.capture.as_ref().expect("not dropped").status().unwrap_or_default()
    }

    /// Waits until IPv6 stands so in the first workload.
    pub(crate) fn wait_for_v6(&self, state: FamilyState) -> Option<String> {
        eventually(&format!("IPv6 {state:?}"), || {
            let status = self.status();
            let ipv6 = status.first().and_then(|status| status.ipv6.clone());
            match ipv6 {
                Some(ipv6) if ipv6.state == state => Ok(ipv6.reason),
                _ => Err(format!("{status:?}")),
            }
        })
    }

    /// Waits until all workloads are in the state.
    pub(crate) fn wait_for(&self, state: WorkloadState) {
        let what = format!("all workloads {state:?}");
        eventually(&what, || {
            let status = self.status();
            // There is none before the first look.
            let all = !status.is_empty() && status.iter().all(|s| s.state == state);
            all.then_some(()).ok_or(format!("{status:?}"))
        });
    }

    /// From now on these are the pods.
    pub(crate) fn select(&self, pods: Vec<WorkloadConfig>) {
        self.capture.as_ref().expect("not dropped").pod_sender().send(pods);
    }

    /// Waits until the workload is in the state, and returns the reason.
    pub(crate) fn wait_for_one(&self, name: &str, state: WorkloadState) -> String {
        eventually(&format!("{name} {state:?}"), || {
            let all = self.status();
            let status = all.iter().find(|s| s.name == name && s.state == state);
            status.map(|s| s.reason.clone().unwrap_or_default()).ok_or(format!("{all:?}"))
        })
    }

    pub(crate) fn count(&self, label: &str) -> u64 {
        let counters = self.capture.as_ref().expect("not dropped").counters().read();
        let counters = counters.expect("the map reads");
        counters.iter().find(|(reason, _)| reason.label() == label).expect("a reason").1
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.capture = None;
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn command_sender(served: ServedListeners) -> Box<dyn Fn(u32, WorkerCommand) + Send> {
    Box::new(move |worker, command| {
        let mut served = served.lock().expect("no panic");
        match command {
            WorkerCommand::Serve { workload, listener } => {
                served.push((worker, workload, listener));
            }
            WorkerCommand::Drain | WorkerCommand::End => {
                panic!("the capture only opens and closes")
            }
            WorkerCommand::Leave(key) => served.retain(|(of, w, _)| (*of, w.key) != (worker, key)),
        }
    })
}

/// Beats and greets until the end.
fn work(
    mut heartbeat: KernelHeartbeat,
    served: &ServedListeners,
    beats: &AtomicU8,
    accepted: &Accepted,
    end: &AtomicBool,
) {
    let mut beaten = None::<Instant>;
    // Open connections, so that the pod sees no end of them before it asked for its names.
    let mut open = Vec::new();
    while !end.load(Ordering::Relaxed) {
        if beaten.is_none_or(|at| at.elapsed() >= Duration::from_millis(100)) {
            let state = beats.load(Ordering::Relaxed);
            let beating = match state {
                state if state == Beats::None as u8 => 0,
                state if state == Beats::First as u8 => 1,
                _ => WORKERS,
            };
            for worker in 0..beating {
                heartbeat.beat(worker, state == Beats::Full as u8);
            }
            beaten = Some(Instant::now());
        }
        for (worker, workload, listener) in served.lock().expect("no panic").iter() {
            while let Ok((mut stream, _)) = listener.accept() {
                let at = stream.local_addr().expect("connected");
                // The canary does not listen.
                let _ = stream.write_all(format!("{} {at}", workload.name).as_bytes());
                accepted[*worker as usize].fetch_add(1, Ordering::Relaxed);
                open.push(stream);
            }
        }
        open.drain(..open.len().saturating_sub(64));
        thread::sleep(Duration::from_millis(1));
    }
}

/// Longer than anything takes on a loaded or emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tries for as long as [`PATIENCE`].
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if start.elapsed() > PATIENCE => {
                panic!("waited {PATIENCE:?} for {what}: {last}")
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}
