//! Commands of the host: `ip`, `nft`, and where the `mirror` binary is.

use std::{
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
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
    // Concurrently, because a program that writes while it reads would wait for us as we wait for it.
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

/// The profile whose binary this process uses, if it has chosen one.
static PROFILE: OnceLock<&'static str> = OnceLock::new();

/// From now on [`mirror_binary`] is the one in `target/FOLDER`; the first call counts.
pub fn use_profile(folder: &'static str) {
    let _ = PROFILE.set(folder);
}

/// What `MIRROR_BIN` names, or the binary of `mirror` that this process has chosen ([`use_profile`]), else
/// the release binary.
///
/// # Errors
/// It was not built.
pub fn mirror_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MIRROR_BIN") {
        return Ok(path.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| workspace.join("target"));
    let path = target.join(PROFILE.get().unwrap_or(&"release")).join("mirror");
    path.canonicalize().with_context(|| {
        format!("no {}: cargo build --release -p mirror-user --bin mirror", path.display())
    })
}
