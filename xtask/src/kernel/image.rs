//! The guest's file system: binaries, tools, libraries and modules in; one initramfs out. Each
//! file stands where it stands on this machine, so that every path in a binary holds.

use std::{
    fs,
    fs::File,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::{binaries::Binaries, package::Kernel};
use crate::tools;

const INIT: &str = include_str!("init.sh");

/// What the tests call, beside busybox; the shell as well, since busybox's own would take its
/// applets for the tools of the same name.
const TOOLS: [&str; 7] = ["sh", "ip", "nft", "curl", "unshare", "nsenter", "setpriv"];

/// What the tests' bounds on times are multiplied by: the processor is emulated, and the machine
/// that does it may be busy.
const SLOWNESS: u32 = 8;

/// Folders of modules: all of the network's, since the kernel asks for them by itself.
const MODULES: [&str; 4] = ["net", "lib", "drivers/net/veth.ko", "drivers/net/dummy.ko"];

/// Parts of Python's library that are large and that no test uses.
const UNUSED: [&str; 7] =
    ["test", "idlelib", "tkinter", "ensurepip", "site-packages", "dist-packages", "pydoc_data"];

/// Makes the image; its path.
///
/// # Errors
/// A file or a tool is missing.
pub(super) fn make(kernel: &Kernel, binaries: &Binaries, filter: Option<&str>) -> Result<PathBuf> {
    let tree = Tree::new(kernel.folder.join("root"))?;
    for folder in ["etc", "proc", "sys", "dev", "run", "tmp", "root"] {
        fs::create_dir_all(tree.0.join(folder))?;
    }
    // As Debian has them: /bin/sh and /usr/bin/sh are one file.
    for folder in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(tree.0.join("usr").join(folder))?;
        symlink(Path::new("usr").join(folder), tree.0.join(folder))?;
    }
    tree.busybox()?;
    tree.modules(kernel)?;
    for tool in TOOLS {
        tree.program(&tools::find(tool).with_context(|| format!("no {tool} here"))?)?;
    }
    tree.python()?;
    for test in &binaries.tests {
        tree.program(&test.file)?;
        fs::create_dir_all(tree.at(&test.folder))?;
    }
    tree.program(&binaries.mirror)?;
    tree.folder(&tools::root().join("tests/scripts"), &|_| true)?;
    fs::write(tree.0.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    tree.script("init", INIT)?;
    tree.script("tests.sh", &script(binaries, filter)?)?;
    tree.pack(&kernel.folder.join("initramfs"))
}

/// What the init runs: each binary, with what became of it.
fn script(binaries: &Binaries, filter: Option<&str>) -> Result<String> {
    let filter = filter.unwrap_or_default();
    ensure!(
        filter.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:".contains(&b)),
        "{filter:?} is no part of a test's name"
    );
    let mut script =
        format!("export MIRROR_BIN={} MIRROR_SLOWNESS={SLOWNESS}\n", binaries.mirror.display());
    for test in &binaries.tests {
        let (name, folder, file) = (test.name, test.folder.display(), test.file.display());
        script += &format!(
            "echo \"mirror-kernel: begin {name}\"\ncd {folder}\n{file} --test-threads=1 {filter}\n\
             echo \"mirror-kernel: end {name} $?\"\n"
        );
    }
    Ok(script)
}

/// The guest's root folder, while it is filled.
struct Tree(PathBuf);

impl Tree {
    fn new(root: PathBuf) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir_all(&root).with_context(|| root.display().to_string())?;
        Ok(Self(root))
    }

    /// Where a file of this machine stands in the guest.
    fn at(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn copy(&self, from: &Path) -> Result<()> {
        let to = self.at(from);
        if to.exists() {
            return Ok(());
        }
        fs::create_dir_all(to.parent().context("a file has a folder")?)?;
        // Debug information is most of a binary, and the guest's memory is this machine's.
        let mut strip = Command::new("strip");
        strip.args(["--strip-debug", "-o"]).arg(&to).arg(from).stderr(Stdio::null());
        let stripped = strip.status();
        if !stripped.is_ok_and(|status| status.success()) {
            fs::copy(from, &to).with_context(|| from.display().to_string())?;
        }
        Ok(())
    }

    /// A program and the libraries that it is linked to.
    fn program(&self, path: &Path) -> Result<()> {
        let real = path.canonicalize().with_context(|| path.display().to_string())?;
        for library in libraries(&real)? {
            self.copy(&library)?;
        }
        self.copy(&real)?;
        if real != path {
            let link = self.at(path);
            fs::create_dir_all(link.parent().context("a file has a folder")?)?;
            if link.symlink_metadata().is_err() {
                symlink(&real, &link)?;
            }
        }
        Ok(())
    }

    /// A folder with all that `keep` accepts, by name.
    fn folder(&self, from: &Path, keep: &dyn Fn(&str) -> bool) -> Result<()> {
        fs::create_dir_all(self.at(from))?;
        for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !keep(&name) {
                continue;
            }
            if path.is_dir() {
                self.folder(&path, keep)?;
            } else if name.ends_with(".so") {
                self.program(&path)?;
            } else if path.is_file() {
                fs::copy(&path, self.at(&path)).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }

    fn busybox(&self) -> Result<()> {
        let busybox = tools::find("busybox").context("no busybox here")?;
        ensure!(libraries(&busybox)?.is_empty(), "busybox is not static: install busybox-static");
        fs::copy(&busybox, self.0.join("usr/bin/busybox"))?;
        // What the kernel calls for a module that it lacks.
        symlink("/bin/busybox", self.0.join("usr/sbin/modprobe"))?;
        Ok(())
    }

    fn modules(&self, kernel: &Kernel) -> Result<()> {
        let release = &kernel.release;
        let folder = self.0.join("lib/modules").join(release);
        for part in MODULES {
            let from = kernel.modules.join("kernel").join(part);
            // From some release on Debian compresses them.
            let packed = from.with_extension("ko.xz");
            let from = if packed.exists() { packed } else { from };
            let to = folder.join("kernel").join(part);
            let parent = to.parent().context("a path has a folder")?;
            fs::create_dir_all(parent)?;
            tools::run(Command::new("cp").arg("-r").args([&from, parent]))?;
        }
        let unpack = ["-name", "*.ko.xz", "-exec", "busybox", "unxz", "{}", "+"];
        tools::run(Command::new("find").arg(&folder).args(unpack))?;
        for list in ["modules.builtin", "modules.order", "modules.builtin.modinfo"] {
            fs::copy(kernel.modules.join(list), folder.join(list))?;
        }
        tools::run(Command::new("busybox").args(["depmod", "-b"]).arg(&self.0).arg(release))
    }

    /// The interpreter that `python3` means, with its library.
    fn python(&self) -> Result<()> {
        const ASK: &str = "import os, sys, sysconfig\nprint(os.path.realpath(sys.executable))\n\
                           print(sysconfig.get_path('stdlib'))";
        let output = Command::new("python3").args(["-c", ASK]).output().context("python3")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines().map(PathBuf::from);
        let (Some(program), Some(library)) = (lines.next(), lines.next()) else {
            bail!("python3: {}", String::from_utf8_lossy(&output.stderr).trim());
        };
        self.program(&program)?;
        let unused = |name: &str| UNUSED.contains(&name) || name.starts_with("config-");
        self.folder(&library, &|name| !unused(name))?;
        let link = self.0.join("usr/bin/python3");
        if link.symlink_metadata().is_err() {
            symlink(&program, link)?;
        }
        Ok(())
    }

    fn script(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// Packs it (not compressed: unpacking would take longer than reading) and removes it.
    fn pack(&self, image: &Path) -> Result<PathBuf> {
        let pack = "set -e; find . | busybox cpio -o -H newc";
        let mut command = Command::new("sh");
        command.args(["-c", pack]).current_dir(&self.0).stderr(Stdio::null());
        tools::run(command.stdout(File::create(image)?))?;
        fs::remove_dir_all(&self.0)?;
        Ok(image.to_owned())
    }
}

/// What ld.so would load, itself included; nothing for a static program.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let missing: Vec<_> = text.lines().filter(|line| line.contains("not found")).collect();
    ensure!(missing.is_empty(), "{} lacks {}", program.display(), missing.join(", "));
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}
