//! `mirror explain` as a program: what it writes where, and its exit codes.

use std::process::{Command, Output};

fn explain(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirror"));
    command.arg("explain").args(args).env_remove("MIRROR_ROUTES");
    command.env_remove("MIRROR_SHADOW_HOST_SUFFIX").output().expect("the program starts")
}

#[test]
fn the_exit_code_says_what_becomes_of_the_request() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/explain");
    let cases: [(&[&str], i32); 6] = [
        (&["GET", "http://nodes.shop:8080/", "--routes", folder], 0),
        (&["GET", "http://cart.shop/", "--routes", folder], 3),
        (&["GET", "http://stock.shop/", "--routes", folder], 4),
        (&["GET", "http://nowhere/", "--routes", folder], 4),
        (&["GET", "http://nodes.shop/", "--routes", "/nonexistent"], 1),
        (&["GET", "https://nodes.shop/", "--routes", folder], 2),
    ];
    for (args, code) in cases {
        let output = explain(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        // An explanation is on stdout alone, an error on stderr alone.
        assert_eq!(output.stdout.is_empty(), matches!(code, 1 | 2), "{args:?}: {output:?}");
        assert_eq!(output.stderr.is_empty(), !matches!(code, 1 | 2), "{args:?}: {output:?}");
    }
}
