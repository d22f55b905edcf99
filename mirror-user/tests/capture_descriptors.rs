//! An agent that is out of descriptors. A test binary of its own, since the limit is the process's.

#[path = "capture/fixture.rs"]
mod fixture;

use std::{thread, time::Duration};

use fixture::{Agent, Pod, VIP};
use mirror_user::capture::WorkloadState;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[test]
fn an_agent_without_descriptors_lets_go_of_nobody() {
    let mut pod = Pod::new();
    let agent = Agent::new(vec![pod.config("default/web")]);
    agent.wait_for(WorkloadState::On);
    assert!(!pod.send("keep", VIP).is_direct());
    let listeners = || agent.served.lock().unwrap().len();
    let before = listeners();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Those that are open stay so; of new ones there are none, for any thread of the agent.
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
    thread::sleep(Duration::from_millis(1500));
    let meanwhile = listeners();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert_eq!(meanwhile, before, "{:?}", agent.status());
    agent.wait_for(WorkloadState::On);
    assert!(!pod.connect(VIP).is_direct());
    assert_eq!(pod.send("again", VIP).peer, VIP);
}
