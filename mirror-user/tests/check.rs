//! `mirror check` as a program: files, folders and stdin; what it writes where; its exit codes.

use std::{
    fs,
    io::Write as _,
    process::{Command, Output, Stdio},
};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

fn check(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mirror"))
        .arg("check")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = child.stdin.take().expect("a piped stdin");
    // It need not read all of it: a command line that is wrong ends it.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    child.wait_with_output().expect("the program ends")
}

fn fixture(name: &str) -> String {
    format!("{FIXTURES}/{name}")
}

#[test]
fn the_exit_code_says_whether_there_is_a_problem() {
    let (services, route) = (fixture("services.yaml"), fixture("route-mirror.yaml"));
    let (cluster, explain) = (fixture("from-cluster.yaml"), fixture("explain"));
    let cases: [(&[&str], i32); 7] = [
        (&[&services, &route], 0),
        (&[&route], 1),
        (&[&route, "--assume-services"], 0),
        (&[&cluster], 1),
        (&[&explain], 1),
        (&["/nonexistent.yaml"], 1),
        (&[], 2),
    ];
    for (args, code) in cases {
        let output = check(args, "");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        // The verdict is on stdout alone, a wrong command line on stderr alone.
        assert_eq!(output.stdout.is_empty(), code == 2, "{args:?}: {output:?}");
        assert_eq!(output.stderr.is_empty(), code != 2, "{args:?}: {output:?}");
    }
}

#[test]
fn stdin_is_read_as_a_file() {
    let text = fs::read_to_string(fixture("services.yaml")).unwrap()
        + "\n---\n"
        + &fs::read_to_string(fixture("route-mirror.yaml")).unwrap();
    assert_eq!(check(&["-"], &text).status.code(), Some(0));
    let output = check(&["-"], &text.replace("requestMirror:", "mirror:"));
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.starts_with("stdin:"), "{stdout}");
    assert!(stdout.contains("spec.rules[0].filters[0].mirror: unknown field"), "{stdout}");
}

#[test]
fn json_has_the_same_verdict() {
    let route = fixture("route-mirror.yaml");
    let output = check(&["--json", &route], "");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["summary"]["errors"], 2);
    let reasons: Vec<_> =
        report["findings"].as_array().unwrap().iter().map(|f| &f["reason"]).collect();
    assert_eq!(reasons, ["NoMatchingParent", "BackendNotFound"]);
    assert_eq!(report["findings"][0]["file"], route.as_str());
    assert_eq!(report["findings"][0]["line"], 1);
}

/// Names and values that make a terminal clear itself, in C0, in C1, and by turning text.
#[test]
fn nothing_of_a_file_makes_a_terminal_obey_or_passes_for_a_verdict() {
    let odd = r"\e[2J\x9b2J\u202e\nerror: forged";
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: \"r{odd}\"}}\n\
         spec:\n  \"field{odd}\": 1\n  parentRefs: [{{group: \"\", kind: Service, name: \"s{odd}\", \
         port: 80}}]\n"
    );
    for flags in [&["-"][..], &["-", "--json"]] {
        let output = check(flags, &text);
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(shown.contains("2J"), "{flags:?}: {shown}");
        let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.contains(obeyed), "{flags:?}: {shown:?}");
        assert!(!shown.lines().any(|line| line.starts_with("error: forged")), "{shown}");
    }
}
