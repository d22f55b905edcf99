//! Plays the corpus where it is started: in a pod's namespace and cgroup, so that the client's
//! sockets are the pod's. In: what to play, the server's namespace, the address to connect to, the
//! first port. Out: what each conversation saw, as JSON. It judges nothing.

use std::path::Path;

use anyhow::{Context, Result, bail};
use mirror_tests::corpus;

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [what, netns, address, base] = args.as_slice() else {
        bail!("converse play|ambiguous NETNS ADDRESS PORT");
    };
    let (netns, address, base) = (Path::new(netns), address.parse()?, base.parse()?);
    let text = match what.as_str() {
        "play" => {
            let outcomes = corpus::run_all(&corpus::load()?, netns, address, base)?;
            serde_json::to_string(&outcomes)
        }
        "ambiguous" => {
            let seen = corpus::ambiguous::run_all(netns, address, base)?;
            serde_json::to_string(&seen)
        }
        other => bail!("play or ambiguous, not {other}"),
    };
    println!("{}", text.context("what was seen is JSON")?);
    Ok(())
}
