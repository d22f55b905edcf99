//! The `mirror` program: parses the command line and hands over to the library.

mod allocator;
#[cfg(test)]
mod flag_reference;

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use mirror_user::{
    agent::{self, watchdog},
    capture::trial_connect,
    check::{self, CheckArgs},
    cli::AgentArgs,
    controller::{self, ControllerArgs, UninstallArgs},
    echo::{self, EchoArgs},
    error_chain::WithCauses,
    explain::{self, ExplainArgs},
    plain,
    status::{self, StatusArgs},
    verdict::{self, VerdictArgs},
};
use tokio::runtime;

/// Transparent traffic shadowing: captures connections with eBPF, proxies their HTTP requests to the
/// primary, and sends copies of the requests that HTTPRoutes and GRPCRoutes select to a shadow.
#[derive(Parser)]
#[command(name = "mirror", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent of a node, which captures workloads, proxies their requests and mirrors those that
    /// routes select.
    Agent(Box<AgentArgs>),
    /// Run the controller, which writes the status of routes. Of several replicas, the one that holds
    /// the Lease writes.
    Controller(ControllerArgs),
    /// Remove mirror's entries from the status of all routes, and its Lease.
    Uninstall(UninstallArgs),
    /// Run a test server that returns each request in its response, in the format of httpbin.
    Echo(EchoArgs),
    /// Check files of routes without a cluster, and report every problem.
    Check(CheckArgs),
    /// Explain what an agent would do with a request: which rule matches and why, and which copies it
    /// would send.
    Explain(Box<ExplainArgs>),
    /// Show the status of this node's agent: captured pods, pods that are not captured and why,
    /// frontends, routes and copies. The exit code is 3 if the agent is not ready.
    Status(StatusArgs),
    /// Judge whether a shadow is as good as the primary, by what agents count of the responses of both.
    Verdict(Box<VerdictArgs>),
    /// Watch an agent from outside. The agent starts this.
    #[command(hide = true)]
    Watchdog(watchdog::WatchdogArgs),
    /// Connect from a separate cgroup. The agent starts this to try its hooks.
    #[command(hide = true)]
    TrialConnect,
    /// Show on this machine what the watchdog does to a hung agent.
    #[command(hide = true)]
    WatchdogTrial(watchdog::TrialArgs),
}

fn main() -> ExitCode {
    let Cli { command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return unparsed(&error),
    };
    let failure = match command {
        Command::Verdict(_) => verdict::NO_VERDICT.into(),
        _ => ExitCode::FAILURE,
    };
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            let text = WithCauses(error.as_ref()).to_string();
            // A closed stderr must not end the program with a panic.
            let _ = writeln!(io::stderr(), "mirror: {}", plain::message(&text));
            failure
        }
    }
}

/// Help, the version, or what is wrong with the command line. The exit codes of `mirror verdict` mean one
/// thing each, so that an error there is not clap's 2.
fn unparsed(error: &clap::Error) -> ExitCode {
    // A closed stdout or stderr must not end the program with a panic.
    let _ = error.print();
    let command = env::args_os().skip(1).find(|arg| !arg.as_encoded_bytes().starts_with(b"-"));
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if command.is_some_and(|name| name == "verdict") => verdict::NO_VERDICT.into(),
        code => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
    }
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
        Command::Verdict(args) => return current_thread()?.block_on(verdict::run(&args)),
        Command::Watchdog(args) => {
            args.log.start();
            watchdog::run(&args)?;
        }
        Command::TrialConnect => trial_connect()?,
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
