//! The `mirror` program: parses the command line and hands over to the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mirror_user::{
    agent::{self, watchdog},
    capture::{TrialConnectArgs, trial_connect},
    check::{self, CheckArgs},
    cli::AgentArgs,
    controller::{self, ControllerArgs, UninstallArgs},
    echo::{self, EchoArgs},
    explain::{self, ExplainArgs},
    status::{self, StatusArgs},
};
use tokio::runtime;

/// Transparent traffic shadowing: takes connections by eBPF, proxies HTTP to the primary, and
/// copies the requests that HTTPRoutes select to a shadow.
#[derive(Parser)]
#[command(name = "mirror", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Captures workloads, proxies their requests and shadows those that routes select.
    Agent(Box<AgentArgs>),
    /// Writes the status of HTTPRoutes: what the agents make of them. One of several replicas,
    /// elected by a Lease.
    Controller(ControllerArgs),
    /// Removes mirror's entries from the status of HTTPRoutes, and its Lease.
    Uninstall(UninstallArgs),
    /// A server that answers with what it was asked, in the form of httpbin.
    Echo(EchoArgs),
    /// Says what is wrong with files of routes, without a cluster; the exit code is 1 if anything
    /// is.
    Check(CheckArgs),
    /// Says what an agent would do with a request: which rule matches and why, and which copies
    /// it makes.
    Explain(Box<ExplainArgs>),
    /// Shows what the agent of this node does: captured pods and why others are not, frontends,
    /// routes, copies. The exit code is 3 when the agent is not ready.
    Status(StatusArgs),
    /// Watches an agent from outside; the agent starts it.
    #[command(hide = true)]
    Watchdog(watchdog::WatchdogArgs),
    /// Connects from a cgroup of its own; the agent starts it to try its hooks.
    #[command(hide = true)]
    TrialConnect(TrialConnectArgs),
    /// Shows on this machine what the watchdog does to a hung agent.
    #[command(hide = true)]
    WatchdogTrial(watchdog::TrialArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mirror: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes in one line; a cause that an error has quoted is not said twice.
fn describe(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said {
        said if said.is_empty() => cause,
        said if said.contains(&cause) => said,
        said => format!("{said}: {cause}"),
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Agent(args) => {
            let log = args.log.start_apart();
            agent::run(&args, &log)?;
        }
        Command::Controller(args) => {
            args.log.start();
            current_thread()?.block_on(controller::run(&args))?;
        }
        Command::Uninstall(args) => {
            current_thread()?.block_on(controller::uninstall::run(&args))?;
        }
        Command::Echo(args) => current_thread()?.block_on(echo::run(args))?,
        Command::Check(args) => return check::run(&args),
        Command::Explain(args) => return explain::run(&args),
        Command::Status(args) => return current_thread()?.block_on(status::run(&args)),
        Command::Watchdog(args) => {
            args.log.start();
            watchdog::run(&args)?;
        }
        Command::TrialConnect(args) => trial_connect(&args)?,
        Command::WatchdogTrial(args) => {
            args.log.start();
            watchdog::run_trial(&args)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn current_thread() -> std::io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}
