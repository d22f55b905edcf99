//! `cargo xtask run`: the demo. A simulated node, real clients, servers and eBPF; every step
//! prints the commands that it runs and what they say, and checks what it claims.

mod stage;
mod steps;

use anyhow::Result;

use crate::tools;
use stage::Stage;

/// Flags of `cargo xtask run`.
#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// Use the real httpbin under gunicorn, in a Python environment made for it
    #[arg(long)]
    httpbin: bool,
    /// Leave the node up at the end, to try things by hand, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Use a build with optimization, which takes some minutes more the first time
    #[arg(long)]
    release: bool,
}

/// Runs the demo.
///
/// # Errors
/// Not root, something cannot be installed or built, or a step does not show what it claims.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    tools::require_root()?;
    tools::ensure(&[("curl", "curl"), ("ip", "iproute2"), ("nft", "nftables"), ("make", "make")])?;
    let gunicorn = if args.httpbin { Some(tools::venv()?.join("gunicorn")) } else { None };
    if args.release {
        tools::build_mirror()?;
    } else {
        // It shares all that it depends on with this program, whose build has compiled it.
        tools::run(&mut tools::cargo(&["build", "-p", "mirror-user", "--bin", "mirror"]))?;
        mirror_tests::use_profile("debug");
    }
    let node = mirror_tests::Node::create("demo")?;
    let mut stage = Stage::set_up(&node, gunicorn)?;
    steps(&mut stage).inspect_err(|_| stage.show_agent())?;
    if args.keep {
        stage.keep()?;
    }
    let names = stage.names();
    drop(stage);
    drop(node);
    steps::cleaned_up(&names)?;
    println!("\nEvery step showed what it claims.");
    Ok(())
}

fn steps(stage: &mut Stage<'_>) -> Result<()> {
    steps::no_route(stage)?;
    steps::default_route(stage)?;
    steps::mirror(stage)?;
    steps::percent(stage)?;
    steps::good_verdict(stage)?;
    steps::bad_shadow(stage)?;
    steps::dead_agent(stage)
}
