//! `mirror verdict` as a program: exit codes of what is not a verdict. (tests/tests/verdict.rs has those that are.)

use std::{net::TcpListener, process::Command};

fn verdict(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirror"));
    let output =
        command.args(args).env_remove("MIRROR_ADMIN").output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// An address where nothing listens.
fn nothing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").to_string()
}

#[test]
fn no_error_has_the_exit_code_of_a_verdict() {
    let admin = nothing();
    let cases: [(&[&str], &str); 8] = [
        (&["verdict", "web", "--admin", &admin], "cannot connect to an agent"),
        (&["verdict"], "ROUTE"),
        (&["verdict", "web", "--no-such-flag"], "--no-such-flag"),
        (&["verdict", "a/b/c"], "not a Kubernetes name"),
        (&["verdict", "/web"], "not a Kubernetes name"),
        (&["verdict", "web", "--max-lost", "0%"], "never happens"),
        (&["verdict", "web", "--for", "25h"], "between 0s and 1day"),
        (&["verdict", "web", "--kind", "TCPRoute"], "HTTPRoute and GRPCRoute"),
    ];
    for (args, why) in cases {
        let (code, stdout, stderr) = verdict(args);
        assert_eq!((code, &*stdout), (Some(3), ""), "{args:?}: {stderr}");
        assert!(stderr.contains(why), "{args:?}: {stderr}");
    }
    // Those of other commands are as they were.
    assert_eq!(verdict(&["status", "--no-such-flag"]).0, Some(2));
    assert_eq!(verdict(&["status", "--admin", &admin]).0, Some(1));
    let (code, stdout, _) = verdict(&["verdict", "--help"]);
    assert!(code == Some(0) && stdout.contains("Exit code: 0"), "{stdout}");
}
