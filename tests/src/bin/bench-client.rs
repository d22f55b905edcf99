//! The clients of `cargo xtask bench`, one at a time. In: which, and its numbers. Out: its report
//! as JSON, on stdout.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mirror_tests::client::{connects, hold, paced};

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let report = match args.as_slice() {
        ["paced", address, rate, connections, seconds] => {
            let duration = Duration::from_secs(seconds.parse()?);
            let (address, rate) = (address.parse()?, rate.parse()?);
            let plan = paced::Plan { address, rate, connections: connections.parse()?, duration };
            serde_json::to_string(&paced::run(&plan)?)
        }
        ["unreachable", ip, port, count] => {
            let report = connects::unreachable(ip.parse()?, port.parse()?, count.parse()?)?;
            serde_json::to_string(&report)
        }
        ["established", address, count] => {
            serde_json::to_string(&connects::established(address.parse()?, count.parse()?)?)
        }
        ["hold", address, count, seconds] => {
            let duration = Duration::from_secs(seconds.parse()?);
            return hold::run(address.parse()?, count.parse()?, duration);
        }
        _ => bail!(
            "bench-client paced ADDRESS RATE CONNECTIONS SECONDS | unreachable IP PORT COUNT | \
             established ADDRESS COUNT | hold ADDRESS COUNT SECONDS"
        ),
    };
    println!("{}", report.context("a report is JSON")?);
    Ok(())
}
