//! Tests of the flags: defaults, bounds and each malformed form.

use clap::Parser;
use proptest::prelude::*;

use super::*;
use crate::capture::Origin;

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
    assert_eq!(args.sniff_timeout, Duration::from_millis(200));
    assert_eq!((args.head_timeout, args.grace), (Duration::from_secs(30), Duration::from_secs(30)));
    let budgets = args.budgets.checked().expect("the defaults are in order");
    assert_eq!(budgets, Budgets { request: 1 << 20, backend: 8 << 20, agent: 64 << 20 });
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
        origin: Origin::Flag,
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
        ("--capture=curl", "there is no '='"),
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
        ("--sniff-timeout=1h", "not within 10ms to 1m"),
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
    assert_eq!(
        budgets(&["--budget-request=9MiB"]),
        Err("--budget-request 9MiB exceeds --budget-backend 8MiB: raise the second or lower the \
             first"
            .into())
    );
    assert_eq!(
        budgets(&["--budget-agent=8191KiB"]),
        Err("--budget-backend 8MiB exceeds --budget-agent 8191KiB: raise the second or lower the \
             first"
            .into())
    );
    assert!(budgets(&["--budget-request=65535B"]).is_err_and(|e| e.contains("below 64KiB")));
    assert!(budgets(&["--budget-request=8MiB", "--budget-agent=8MiB"]).is_ok());
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
    assert_eq!(flags, 24);
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
