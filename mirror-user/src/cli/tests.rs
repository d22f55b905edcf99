//! Tests of the flags: defaults, bounds and each malformed form.

use clap::Parser;
use proptest::prelude::*;

use super::*;
use crate::{capture::WorkloadOrigin, memory::MemoryLimits};

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    agent: AgentArgs,
}

fn parse(flags: &[&str]) -> Result<AgentArgs, String> {
    let flags = ["mirror", "--routes", "/etc/mirror"].iter().chain(flags);
    Command::try_parse_from(flags).map(|command| command.agent).map_err(|e| e.to_string())
}

#[test]
fn defaults_are_those_that_the_documentation_names() {
    let args = parse(&[]).expect("only --routes is required");
    let folder = SourceChoice::Files("/etc/mirror".into());
    assert_eq!(args.source.choice(true), Ok(folder));
    assert!(args.capture.is_empty() && !args.admin_remote && args.access_log.is_none());
    assert!((1..=64).contains(&args.workers));
    assert_eq!(args.admin.to_string(), "127.0.0.1:15920");
    assert_eq!(args.shadow.host_suffix, "-shadow");
    assert_eq!(args.shadow.from, ShadowFrom::Node);
    assert_eq!(args.shadow.connections, 64);
    assert_eq!(args.shadow.connect_timeout, Duration::from_secs(1));
    assert_eq!(args.shadow.response_timeout, Duration::from_secs(15));
    assert_eq!(args.shadow.response_limit, ByteSize(64 << 20));
    assert_eq!(args.sniff_timeout, Duration::from_millis(200));
    assert_eq!((args.head_timeout, args.grace), (Duration::from_secs(30), Duration::from_secs(30)));
    let budgets = args.budgets.checked().expect("the defaults are in order");
    assert_eq!(budgets, BudgetLimits { request: 64 << 20, backend: 64 << 20, agent: 64 << 20 });
    assert_eq!(args.selection.pod_logs, PathBuf::from("/var/log/pods"));
    let memory = args.memory.checked().expect("the defaults are in order");
    let (connection, workload) = (usize::MAX, usize::MAX);
    let agent = 128 << 20;
    assert_eq!(memory, MemoryLimits { connection, workload, agent, connections: 4096 });
    assert_eq!((args.log.filter.as_str(), args.log.format), ("info", LogFormat::Text));
}

#[test]
fn values_are_taken() {
    let args = parse(&[
        "--capture=shop/curl=/sys/fs/cgroup/a=b",
        "--capture",
        "web.1=/x",
        "--shadow-host-suffix=",
        "--shadow-from=pod",
        "--access-log=json",
        "--log=warn,mirror_user::proxy=debug",
        "--log-format=json",
        "--grace=0s",
        "--workers=64",
    ])
    .expect("all valid");
    let named = |namespace: &str, name: &str, cgroup: &str| WorkloadConfig {
        namespace: namespace.into(),
        name: name.into(),
        cgroup: cgroup.into(),
        origin: WorkloadOrigin::Flag,
    };
    let expected = [named("shop", "curl", "/sys/fs/cgroup/a=b"), named("default", "web.1", "/x")];
    assert_eq!(args.capture, expected);
    assert_eq!(args.shadow.host_suffix, "");
    assert_eq!(args.shadow.from, ShadowFrom::Pod);
    assert_eq!(args.access_log, Some(LineFormat::Json));
    assert_eq!(args.workers, 64);
    assert_eq!(args.log.to_flags()[0], "--log=warn,mirror_user::proxy=debug");
}

#[test]
fn what_is_wrong_is_said() {
    for (flag, said) in [
        ("--capture=curl", "missing '='"),
        ("--capture==/x", "the name before '=' is empty"),
        ("--capture=a/=/x", "the name before '=' is empty"),
        ("--capture=/curl=/x", "the Namespace before '/' is empty"),
        ("--capture=A/curl=/x", "the Namespace \"A\" is not a Kubernetes name"),
        ("--capture=a/b/c=/x", "the name \"b/c\" is not a Kubernetes name"),
        ("--capture=curl-=/x", "the name \"curl-\" is not a Kubernetes name"),
        ("--capture=curl=x", "the cgroup \"x\" is not an absolute path"),
        ("--capture=curl=", "the cgroup \"\" is not an absolute path"),
        ("--workers=0", "1..=64"),
        ("--workers=65", "1..=64"),
        ("--shadow-connections=0", "1..=4096"),
        ("--shadow-connections=4097", "1..=4096"),
        ("--shadow-host-suffix=:80", "':' cannot be part of a host name"),
        ("--sniff-timeout=1h", "must be between 10ms and 1m"),
        ("--head-timeout=30", "write for example 200ms"),
        ("--budget-request=1MB", "write a whole number and B, KiB, MiB or GiB"),
        ("--budget-request=MiB", "write a whole number"),
        ("--budget-request=99999999999GiB", "too large"),
        ("--budget-request=99999999999999999999B", "too large"),
        ("--admin=localhost", "invalid value 'localhost'"),
        ("--log=verbose", "\"verbose\" is neither a level"),
        ("--log=mirror_user=loud", "invalid"),
        ("--access-log=xml", "possible values: text, json"),
    ] {
        let error = parse(&[flag]).expect_err(flag);
        assert!(error.contains(said), "{flag}: {said:?} is not in {error:?}");
    }
}

#[test]
fn budgets_must_nest() {
    let budgets = |flags: &[&str]| {
        parse(flags).expect("each is valid alone").budgets.checked().map_err(|e| e.to_string())
    };
    let order = |part: &str, whole: &str| {
        Err(format!("{part} is greater than {whole}: raise the second or lower the first"))
    };
    assert_eq!(
        budgets(&["--budget-request=9MiB", "--budget-backend=8MiB"]),
        order("--budget-request 9MiB", "--budget-backend 8MiB")
    );
    assert_eq!(
        budgets(&["--budget-backend=8MiB", "--budget-agent=8191KiB"]),
        order("--budget-backend 8MiB", "--budget-agent 8191KiB")
    );
    // A part without a bound has that of the next.
    assert_eq!(
        budgets(&["--budget-request=65MiB"]),
        order("--budget-request 65MiB", "--budget-agent 64MiB")
    );
    let too_small = |flag: &str, least: &str| {
        Err(format!("{flag} is below the minimum of {least}: one read of a body would exceed it"))
    };
    for flag in ["--budget-request", "--budget-backend"] {
        let below = format!("{flag}=65535B");
        assert_eq!(budgets(&[&below]), too_small(&below.replace('=', " "), "64KiB"));
    }
    assert_eq!(budgets(&["--budget-agent=128KiB"]), too_small("--budget-agent 128KiB", "256KiB"));
    let small = BudgetLimits { request: 8 << 20, backend: 32 << 20, agent: 32 << 20 };
    assert_eq!(budgets(&["--budget-request=8MiB", "--budget-agent=32MiB"]), Ok(small));
    let small = BudgetLimits { request: 256 << 10, backend: 256 << 10, agent: 256 << 10 };
    assert_eq!(budgets(&["--budget-agent=256KiB"]), Ok(small));
}

#[test]
fn the_cluster_chooses_endpoints_by_default_where_there_is_one() {
    let (files, kube) =
        (SourceChoice::Files("/r".into()), SourceChoice::Kube { node: "n1".into() });
    let choice = |line: &[&str], source| parse(line).unwrap().endpoint_choice(source);
    assert_eq!(choice(&[], &files), EndpointChoice::Mirror);
    assert_eq!(choice(&[], &kube), EndpointChoice::Service);
    assert_eq!(choice(&["--endpoints", "service"], &files), EndpointChoice::Service);
    assert_eq!(choice(&["--endpoints", "mirror"], &kube), EndpointChoice::Mirror);
    assert!(parse(&["--endpoints", "cluster"]).is_err());
}

#[test]
fn every_flag_can_come_from_the_environment_under_its_own_name() {
    use clap::CommandFactory;
    let command = Command::command();
    let mut flags = 0;
    for arg in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
        let long = arg.get_long().expect("filtered");
        let name = format!("MIRROR_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(name.as_str()), "--{long}");
        assert!(arg.get_help().is_some(), "--{long} has no help");
        flags += 1;
    }
    assert_eq!(flags, 38);
}

proptest! {
    #[test]
    fn a_size_reads_back_as_written(bytes in any::<u64>()) {
        let size = ByteSize(bytes);
        prop_assert_eq!(size.to_string().parse::<ByteSize>(), Ok(size));
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = text.parse::<ByteSize>();
        if let Ok(spec) = text.parse::<WorkloadConfig>() {
            prop_assert!(spec.cgroup.is_absolute() && !spec.name.is_empty());
        }
    }
}

#[test]
fn bounds_on_memory_are_compared() {
    let checked =
        |flags: &[&str]| parse(flags).unwrap().memory.checked().map_err(|e| e.to_string());
    let taken = checked(&["--connection-memory=1MiB", "--pod-memory=2MiB", "--pod-connections=16"]);
    let expected =
        MemoryLimits { connection: 1 << 20, workload: 2 << 20, agent: 128 << 20, connections: 16 };
    assert_eq!(taken, Ok(expected));
    for (flags, said) in [
        (
            &["--connection-memory=255KiB"][..],
            "--connection-memory 255KiB is below the minimum of 256KiB",
        ),
        (&["--agent-memory=1MiB"], "--agent-memory 1MiB is below the minimum of 4MiB"),
        (&["--pod-memory=129MiB"], "--pod-memory 129MiB is greater than --agent-memory 128MiB"),
        (
            &["--connection-memory=3MiB", "--pod-memory=2MiB"],
            "--connection-memory 3MiB is greater than --pod-memory 2MiB",
        ),
    ] {
        let error = checked(flags).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    assert!(parse(&["--pod-connections=15"]).unwrap_err().contains("16..=1000000"));
}
