//! The project's commands: `cargo xtask run` (the demo), `cargo xtask test` (every check),
//! `cargo xtask bench` (beside other proxies), `cargo xtask cluster` (Kubernetes on this machine),
//! and `cargo xtask build-ebpf`. They need nothing but Rust, and Go for the cluster, and install
//! the rest.

mod bench;
pub mod build_ebpf;
mod cluster;
mod demo;
#[cfg(test)]
mod documents;
mod imports;
mod kernel;
mod suite;
mod tools;
mod vendored;
mod words;

use std::process::ExitCode;

use clap::Parser;

/// The project's commands
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Command {
    /// Show mirror at work on a simulated node, step by step, and check what it shows
    Run(demo::RunArgs),
    /// Run every check; the last line counts them
    Test(suite::TestArgs),
    /// Measure what mirror costs, beside other proxies and in turns with them
    Bench(bench::BenchArgs),
    /// A Kubernetes cluster on this machine, with a real control plane
    #[command(subcommand)]
    Cluster(cluster::Action),
    /// Look for words that the project's prose does not use (xtask/words.txt)
    Words(words::WordsArgs),
    /// Build the programs for the kernel from source
    BuildEbpf {
        /// Install what the build needs
        #[arg(long)]
        install: bool,
        /// Replace the committed object
        #[arg(long)]
        commit: bool,
    },
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Run(args) => demo::run(&args),
        Command::Test(args) => suite::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Cluster(action) => cluster::run(&action),
        Command::Words(args) => words::run(&args),
        Command::BuildEbpf { install, commit } => {
            let options = build_ebpf::Options { install, commit };
            build_ebpf::build(&tools::root(), options)
                .map(|object| println!("{}", object.display()))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nfailed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
