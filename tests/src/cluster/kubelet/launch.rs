//! Starting a container's program: namespaces, a separate root, a cgroup, privileges.
//!
//! In: a [`StartSpec`]. Out: a process, whose output goes to a file. The root is this machine's, with
//! an overlay in memory above it, so that whatever the container writes is its own; volumes are
//! bound over it. It has a separate mount, UTS, IPC and cgroup namespace, and a PID namespace
//! unless the pod asks for the host's. The tools of util-linux do what needs a separate process.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    os::unix::{fs::symlink, process::CommandExt},
    path::{Component, Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::security::Security;
use crate::namespace::inside;

/// A volume in a container.
#[derive(Clone, Debug)]
pub(super) struct Mount {
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    pub(super) read_only: bool,
}

/// What to start, and where.
#[derive(Clone, Debug)]
pub(super) struct StartSpec {
    pub(super) argv: Vec<String>,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) folder: Option<String>,
    pub(super) security: Security,
    pub(super) mounts: Vec<Mount>,
    /// Files of the root: path and content.
    pub(super) files: Vec<(PathBuf, String)>,
    pub(super) hostname: Option<String>,
    pub(super) host_pid: bool,
    pub(super) cgroup: PathBuf,
    pub(super) netns: PathBuf,
    /// Where the overlay is mounted, in the container's view alone.
    pub(super) root: PathBuf,
    pub(super) log: PathBuf,
}

const NONE: Option<&str> = None;

/// $0: the cgroup, $1: the root. The program is PID 1 of its namespace from here on, since each
/// step becomes the next.
const ENTER: &str = "\
    echo 0 >\"$0/cgroup.procs\" || exit 125
    root=$1; shift
    /bin/mount -t proc proc \"$root/proc\" || exit 125
    exec /usr/bin/unshare --cgroup -- /usr/sbin/chroot \"$root\" \"$@\"";

impl StartSpec {
    /// Starts it.
    pub(super) fn start(&self) -> Result<Child> {
        fs::create_dir_all(&self.root)?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", ENTER])
            .args([&self.cgroup, &self.root.join("root")])
            .args(self.program(&self.argv))
            .env_clear()
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        inside(&self.netns, || {
            self.isolate()?;
            command.spawn().context("cannot run /bin/sh")
        })?
    }

    /// setpriv and the folder before a program.
    fn program(&self, argv: &[String]) -> Vec<String> {
        let mut full = vec!["/usr/bin/setpriv".to_owned()];
        full.extend(self.security.setpriv());
        full.push("--".into());
        if let Some(folder) = &self.folder {
            full.extend(["/usr/bin/env".into(), format!("--chdir={folder}"), "--".into()]);
        }
        full.extend_from_slice(argv);
        full
    }

    /// A command that runs `argv` inside the running container, whose process is `pid`.
    pub(super) fn exec(&self, pid: i32, argv: &[String]) -> Command {
        let mut command = Command::new("/bin/sh");
        let script = "echo 0 >\"$0/cgroup.procs\" || exit 125\nexec \"$@\"";
        command.args(["-c", script]).arg(&self.cgroup).args([
            "/usr/bin/nsenter",
            "--target",
            &pid.to_string(),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
            "--root",
            "--wd",
            "--",
        ]);
        command.args(self.program(argv)).env_clear().envs(&self.variables);
        command
    }

    /// Gives the calling thread, and so its children, the container's namespaces and mounts.
    fn isolate(&self) -> Result<()> {
        let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
        flags |= CloneFlags::CLONE_NEWIPC;
        if !self.host_pid {
            flags |= CloneFlags::CLONE_NEWPID;
        }
        unshare(flags).context("unshare")?;
        if let Some(hostname) = &self.hostname {
            fs::write("/proc/sys/kernel/hostname", hostname).context("hostname")?;
        }
        // Nothing that is mounted here is seen outside; what the host mounts later is seen here.
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)
            .context("slave mounts")?;
        let root = self.overlay().context("the root")?;
        devices(&root.join("dev")).context("/dev")?;
        let sys = root.join("sys");
        mount(Some("sysfs"), &sys, Some("sysfs"), MsFlags::empty(), NONE).context("/sys")?;
        for (path, content) in &self.files {
            let folder = below(&root, path.parent().unwrap_or(path));
            let path = folder.join(path.file_name().unwrap_or_default());
            // It may be a link, which would be followed.
            let _ = fs::remove_file(&path);
            fs::write(&path, content).with_context(|| path.display().to_string())?;
        }
        for mount in &self.mounts {
            mount.bind(&root).with_context(|| format!("mounting {}", mount.target.display()))?;
        }
        if self.security.read_only_root {
            remount_read_only(&root).context("the read-only root")?;
        }
        Ok(())
    }

    fn overlay(&self) -> Result<PathBuf> {
        let base = &self.root;
        mount(Some("tmpfs"), base, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        let [upper, work, root] = ["upper", "work", "root"].map(|name| base.join(name));
        for folder in [&upper, &work, &root] {
            fs::create_dir(folder)?;
        }
        let (upper, work) = (upper.display(), work.display());
        let options = format!("lowerdir=/,upperdir={upper},workdir={work}");
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(&*options))?;
        Ok(root)
    }
}

impl Mount {
    fn bind(&self, root: &Path) -> Result<()> {
        let target = below(root, &self.target);
        if self.source.is_dir() {
            fs::create_dir_all(&target)?;
        } else {
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            File::options().create(true).append(true).open(&target)?;
        }
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&self.source), &target, NONE, flags, NONE)?;
        if self.read_only {
            remount_read_only(&target)?;
        }
        Ok(())
    }
}

fn remount_read_only(target: &Path) -> nix::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(NONE, target, NONE, flags, NONE)
}

/// The devices that every container has.
fn devices(dev: &Path) -> Result<()> {
    mount(Some("tmpfs"), dev, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let (source, target) = (Path::new("/dev").join(name), dev.join(name));
        File::create(&target)?;
        // The host's /dev is hidden only below the container's root.
        mount(Some(&source), &target, NONE, MsFlags::MS_BIND, NONE)?;
    }
    for (name, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        symlink(format!("/proc/self/fd{target}"), dev.join(name))?;
    }
    let shm = dev.join("shm");
    fs::create_dir(&shm)?;
    mount(Some("tmpfs"), &shm, Some("tmpfs"), MsFlags::empty(), Some("mode=1777"))?;
    Ok(())
}

/// An absolute path of the container, from outside. Links lead to where they would inside: followed
/// by the kernel, `/var/run` would be the machine's `/run`.
fn below(root: &Path, path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    let mut rest: Vec<_> = parts(path).rev().collect();
    // As many as the kernel follows (MAXSYMLINKS).
    let mut links = 40;
    while let Some(part) = rest.pop() {
        if part == ".." {
            resolved.pop();
            continue;
        }
        match fs::read_link(root.join(&resolved).join(&part)) {
            Ok(target) if links > 0 => {
                links -= 1;
                if target.is_absolute() {
                    resolved.clear();
                }
                rest.extend(parts(&target).rev());
            }
            _ => resolved.push(part),
        }
    }
    root.join(resolved)
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_where_they_would_inside() {
        let root = std::env::temp_dir().join(format!("below-{}", std::process::id()));
        fs::create_dir_all(root.join("var/lib")).expect("a folder");
        symlink("/run", root.join("var/run")).expect("an absolute link");
        symlink("../../etc", root.join("var/lib/etc")).expect("a relative link");
        symlink("loop", root.join("loop")).expect("a link to itself");
        let inside = |path: &str| below(&root, Path::new(path));
        assert_eq!(inside("/var/run/secrets"), root.join("run/secrets"));
        assert_eq!(inside("/var/lib/etc/hosts"), root.join("etc/hosts"));
        assert_eq!(inside("/../../new"), root.join("new"));
        assert_eq!(inside("/loop/x"), root.join("loop/x"));
        fs::remove_dir_all(root).expect("it was made above");
    }
}
