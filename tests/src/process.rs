//! Processes inside the simulated node.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::namespace::inside;

/// Where a process runs.
#[derive(Clone, Debug)]
pub(crate) struct ProcessContext {
    pub(crate) cgroup: PathBuf,
    pub(crate) netns: PathBuf,
    /// Appears as /etc/hosts.
    pub(crate) hosts: PathBuf,
    /// Gets the files with what the processes write.
    pub(crate) logs: PathBuf,
}

/// Joins the cgroup `$0` and becomes the program `$1`; says what to do when that is not installed.
const ENTER: &str = "\
    command -v \"$1\" >/dev/null || {
        echo \"$1 is not installed; cargo xtask test --only tools installs what tests need\" >&2
        exit 127
    }
    echo 0 >\"$0/cgroup.procs\" && exec \"$@\"";

impl ProcessContext {
    /// Starts `argv` here; `name` names its log files, which are begun again.
    pub(crate) fn spawn(&self, name: &str, argv: &[&str]) -> Result<Process> {
        let file = |kind| self.logs.join(format!("{name}.{kind}"));
        let (stdout, stderr) = (file("out"), file("err"));
        let open = |path: &Path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        let mut command = Command::new("/bin/sh");
        command
            // The shell moves itself, then becomes the program: sockets that the program makes
            // belong to the cgroup from the first on.
            .args(["-c", ENTER])
            .arg(&self.cgroup)
            .args(argv)
            .stdin(Stdio::null())
            .stdout(open(&stdout)?)
            .stderr(open(&stderr)?)
            // Ctrl-C is for us; we end our processes in order.
            .process_group(0);
        let child = inside(&self.netns, || {
            self.private_hosts().context("a private /etc/hosts")?;
            command.spawn().context("cannot run /bin/sh")
        })?
        .with_context(|| format!("cannot start {}", argv.join(" ")))?;
        Ok(Process { child, name: name.to_owned(), stdout, stderr })
    }

    /// Gives the calling thread, and so its children, a mount namespace with our /etc/hosts.
    fn private_hosts(&self) -> nix::Result<()> {
        const NONE: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        mount(Some(&self.hosts), "/etc/hosts", NONE, MsFlags::MS_BIND, NONE)
    }

    /// Runs `argv` here to its end.
    pub(crate) fn run(&self, name: &str, argv: &[&str], timeout: Duration) -> Result<Output> {
        let mut process = self.spawn(name, argv)?;
        let Some(status) = process.wait(timeout)? else {
            process.kill()?;
            bail!(
                "`{}` did not end within {timeout:?}; its stderr: {}",
                argv.join(" "),
                process.stderr()
            );
        };
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let _ = (fs::remove_file(&process.stdout), fs::remove_file(&process.stderr));
        Ok(Output { command: argv.join(" "), status, stdout, stderr })
    }
}

/// What a finished command said.
#[derive(Debug)]
pub struct Output {
    command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Output {
    /// Its stdout if it exited with 0.
    ///
    /// # Errors
    /// It did not; the message has the command, its status and its stderr.
    pub fn ok(self) -> Result<String> {
        if !self.status.success() {
            bail!("`{}`: {}: {}{}", self.command, self.status, self.stderr, self.stdout);
        }
        Ok(self.stdout)
    }
}

/// A running process of the node. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Its process id, on the host.
    ///
    /// # Panics
    /// Never: Linux process ids fit.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a Linux pid is at most 4194304")
    }

    /// The name that it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything that it has written to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// The file that has what it writes to stdout.
    #[must_use]
    pub fn stdout_path(&self) -> &Path {
        &self.stdout
    }

    /// Everything that it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended and was waited for.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // Only while it was not waited for does the pid belong to it for certain.
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has ended: {status}", self.name);
        }
        kill(Pid::from_raw(self.pid()), signal).with_context(|| format!("kill {}", self.name))
    }

    /// Ends it with SIGKILL and waits for it.
    ///
    /// # Errors
    /// What kill(2) or waitpid(2) say.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end; None when it still runs after `timeout`.
    ///
    /// # Errors
    /// What waitpid(2) says.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended and been waited for; nothing is left to kill then.
        let _ = self.kill();
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// How many times slower than a real machine this one may be: 1, unless `MIRROR_SLOWNESS` says
/// otherwise, as it does where the processor is emulated. Bounds on times are multiplied by it.
///
/// # Panics
/// The variable is there and no number of at least 1.
#[must_use]
pub fn slowness() -> f64 {
    let Ok(text) = std::env::var("MIRROR_SLOWNESS") else { return 1.0 };
    let slowness = text.parse().ok().filter(|slowness| *slowness >= 1.0);
    slowness.unwrap_or_else(|| panic!("MIRROR_SLOWNESS is {text:?}, not a number of at least 1"))
}

/// Tries `condition` every 10 ms until it is true; an error after `timeout`, which says `what`
/// did not happen.
///
/// # Errors
/// The time is over.
pub fn eventually(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    while !condition() {
        if Instant::now() > deadline {
            bail!("not within {timeout:?}: {what}");
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}
