//! A flood, or what receives one, where it is started: in a pod. In: what, and its numbers. Out: a
//! flood's report as JSON, on stdout.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mirror_tests::flood::{attack, send, shadow, sink};

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["send", name, address, connections, seconds] => {
            let attack = attack::named(name)
                .with_context(|| format!("no attack {name}: {}", attack::NAMES.join(", ")))?;
            let duration = Duration::from_secs_f64(seconds.parse()?);
            let report = send::run(&attack, address.parse()?, connections.parse()?, duration)?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
        ["sink", mode, address] => sink::run(mode.parse()?, address.parse()?),
        ["shadow", name, address] => shadow::serve(kind(name)?, address.parse()?),
        ["throw-away", name, address, connections, seconds] => {
            let duration = Duration::from_secs_f64(seconds.parse()?);
            let (address, connections) = (address.parse()?, connections.parse()?);
            let report = shadow::throw_away(&kind(name)?, address, connections, duration)?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
        _ => bail!(
            "flood send ATTACK ADDRESS CONNECTIONS SECONDS | sink MODE ADDRESS | shadow KIND ADDRESS | \
             throw-away KIND ADDRESS CONNECTIONS SECONDS"
        ),
    }
}

fn kind(name: &str) -> Result<shadow::Kind> {
    shadow::named(name).with_context(|| format!("no shadow {name}: {}", shadow::NAMES.join(", ")))
}
