//! What the commands that print do if their stdout is closed (`mirror status | head -1`) or full.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::TcpListener,
    process::{Command, Output, Stdio},
    thread,
};

const ROUTES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/explain");
const STATUS: &str = r#"{"ready": true, "unready": null, "endpoints": "service", "workloads": [],
    "frontends": {}, "routes": [], "copies": [], "uncopied": {}, "refused": {}, "problems": [],
    "warnings": []}"#;

fn mirror(args: &[&str], stdout: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirror"));
    command.args(args).env_remove("MIRROR_SHADOW_HOST_SUFFIX").stdout(stdout);
    command.stderr(Stdio::piped()).output().expect("the program starts")
}

fn closed_pipe() -> Stdio {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// The address of a server that responds to each of `count` requests with a status.
fn agent(count: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket").to_string();
    thread::spawn(move || {
        for stream in listener.incoming().take(count) {
            let mut stream = stream.expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a whole head");
                request.push(byte[0]);
            }
            let length = STATUS.len();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{STATUS}")
                .expect("the client reads");
        }
    });
    address
}

/// Each command that prints, with its exit code.
fn for_each_command(test: impl Fn(&[&str], i32)) {
    let agent = agent(3);
    test(&["status", "--admin", &agent], 0);
    test(&["status", "--admin", &agent, "-o", "json"], 0);
    test(&["status", "--admin", &agent, "--json"], 0);
    test(&["check", ROUTES], 1);
    test(&["check", ROUTES, "--json"], 1);
    test(&["explain", "GET", "http://nodes.shop:8080/", "--routes", ROUTES], 0);
    test(&["explain", "GET", "http://nodes.shop:8080/", "--routes", ROUTES, "--json"], 0);
}

#[test]
fn a_closed_pipe_changes_neither_the_exit_code_nor_stderr() {
    for_each_command(|args, code| {
        let output = mirror(args, closed_pipe());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    });
    let help = mirror(&["--help"], closed_pipe());
    assert!(!String::from_utf8_lossy(&help.stderr).contains("panicked"), "{help:?}");
}

#[test]
fn a_full_disk_is_an_error() {
    for_each_command(|args, _| {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = mirror(args, full.into());
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "mirror: writing to stdout: No space left on device (os error 28)\n",
            "{args:?}"
        );
    });
}

#[test]
fn a_closed_stderr_is_no_panic() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirror"));
    command.args(["check", "--nonexistent"]).stderr(closed_pipe());
    assert_eq!(command.status().unwrap().code(), Some(2));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirror"));
    command.args(["explain", "GET", "http://a/", "--routes", "/nonexistent"]).stderr(closed_pipe());
    assert_eq!(command.status().unwrap().code(), Some(1));
}
