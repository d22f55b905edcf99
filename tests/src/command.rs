//! Commands of the host: `ip`, `nft`, and where the `mirror` binary is.

use std::{
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

/// Runs a command of the host to its end, with `input` on its stdin; its stdout.
///
/// # Errors
/// It is not installed (the message says which package has it), or it failed (with its stderr).
pub fn run(argv: &[&str], input: &str) -> Result<String> {
    let (program, args) = argv.split_first().context("an empty command")?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow::anyhow!(missing(program)),
            _ => anyhow::anyhow!("cannot run {program}: {error}"),
        })?;
    let mut stdin = child.stdin.take().context("a piped stdin is there")?;
    // Beside each other: one that answers while it reads would wait for us as we wait for it.
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // A command that fails early does not read its input; its own message says why.
            let _ = stdin.write_all(input.as_bytes());
        });
        child.wait_with_output()
    });
    let output = output.with_context(|| format!("waiting for {program}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}\n{input}", argv.join(" "), stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn missing(program: &str) -> String {
    let package = match program {
        "ip" => "iproute2",
        "nft" => "nftables",
        other => other,
    };
    format!("`{program}` is not installed: apt-get install {package}")
}

/// The release binary of `mirror`, or what `MIRROR_BIN` names.
///
/// # Errors
/// It was not built.
pub fn mirror_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MIRROR_BIN") {
        return Ok(path.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let path = target.unwrap_or_else(|| workspace.join("target")).join("release/mirror");
    path.canonicalize().with_context(|| {
        format!("no {}: cargo build --release -p mirror-user --bin mirror", path.display())
    })
}
