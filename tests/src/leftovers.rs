//! Cleaning up: everything that a node makes carries its name, so that it can be removed by name,
//! by its maker or by a successor.

use std::{fs, path::Path, sync::Once};

use anyhow::{Context, Result};

use crate::{cgroup, command::run, namespace};

/// What every name begins with; the process id of the maker follows.
pub(crate) const PREFIX: &str = "mirror-sim-";

/// Removes what makers that no longer live have left.
pub(crate) fn remove_dead() -> Result<()> {
    for name in names()? {
        let pid = name[PREFIX.len()..].split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            remove(&format!("{PREFIX}{pid}-"))?;
        }
    }
    Ok(())
}

/// Removes everything whose name begins so: processes and cgroups first, then namespaces (and
/// with them interfaces, rules and mounts), then folders.
pub(crate) fn remove(prefix: &str) -> Result<()> {
    for folder in [cgroup::mount()?, namespace::FOLDER.into(), std::env::temp_dir()] {
        for name in list(&folder).iter().filter(|name| name.starts_with(prefix)) {
            let path = folder.join(name);
            let removed = if folder == Path::new(namespace::FOLDER) {
                run(&["ip", "netns", "del", name], "").map(drop)
            } else if folder == std::env::temp_dir() {
                fs::remove_dir_all(&path).with_context(|| path.display().to_string())
            } else {
                cgroup::remove(&path)
            };
            // Another test program may have removed it meanwhile.
            removed.or_else(|error| if path.exists() { Err(error) } else { Ok(()) })?;
        }
    }
    Ok(())
}

/// From now on Ctrl-C and SIGTERM remove what this process has made before they end it.
pub(crate) fn on_interrupt() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        result = ctrlc::set_handler(|| {
            eprintln!("\ninterrupted: cleaning up");
            let done = remove(&format!("{PREFIX}{}-", std::process::id()));
            if let Err(error) = done {
                eprintln!("cleaning up failed: {error:#}");
            }
            std::process::exit(130);
        });
    });
    result.context("cannot handle Ctrl-C")
}

fn names() -> Result<Vec<String>> {
    let folders = [cgroup::mount()?, namespace::FOLDER.into(), std::env::temp_dir()];
    let names = folders.iter().flat_map(|folder| list(folder));
    Ok(names.filter(|name| name.starts_with(PREFIX)).collect())
}

fn list(folder: &Path) -> Vec<String> {
    // `ip netns add` makes /run/netns when it is first used.
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
