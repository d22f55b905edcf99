//! What a process holds of the kernel's BPF objects: links, and the entries of its maps.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData, MapInfo};

/// How many descriptors of BPF links the process has open (proc_pid_fdinfo(5)).
///
/// # Errors
/// The process is gone.
pub fn links(pid: i32) -> Result<usize> {
    Ok(fdinfos(pid)?.iter().filter(|info| field(info, "link_id:").is_some()).count())
}

/// The number of entries of the process's hash map of this name, with keys of `K` and values of
/// `V` bytes.
///
/// # Errors
/// The process is gone, or has no such map.
pub fn entries<const K: usize, const V: usize>(pid: i32, name: &str) -> Result<usize> {
    let infos = fdinfos(pid)?;
    let ids: BTreeSet<_> = infos.iter().filter_map(|info| field(info, "map_id:")).collect();
    for id in ids {
        if MapInfo::from_id(id)?.name_as_str() == Some(name) {
            let map = Map::HashMap(MapData::from_id(id)?);
            let map = HashMap::<_, [u8; K], [u8; V]>::try_from(map)?;
            return map.keys().map(|key| Ok(key.map(|_| 1)?)).sum();
        }
    }
    anyhow::bail!("process {pid} has no map {name}")
}

fn fdinfos(pid: i32) -> Result<Vec<String>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let files = fs::read_dir(&folder).with_context(|| format!("process {pid}"))?;
    // A descriptor may be closed between the listing and the reading.
    Ok(files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok()).collect())
}

fn field(info: &str, name: &str) -> Option<u32> {
    info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read() {
        let info = "pos:\t0\nflags:\t02000002\nlink_type:\tcgroup\nlink_id:\t77\nprog_id:\t12\n";
        assert_eq!(field(info, "link_id:"), Some(77));
        assert_eq!(field(info, "map_id:"), None);
    }
}
