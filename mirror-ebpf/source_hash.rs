//! The hash that ties a built object to its sources. In: the root of the repository. Out: SHA-256,
//! hexadecimal. Included by mirror-user's build script and by xtask, so that they cannot disagree.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// Hashes the paths (sorted, relative to `root`) and contents of everything that the object is
/// built from: mirror-ebpf's manifest, lock file and sources, and mirror-common's sources.
///
/// # Errors
/// A file or folder that cannot be read, by name.
pub(crate) fn source_hash(root: &Path) -> io::Result<String> {
    let mut files = vec![root.join("mirror-ebpf/Cargo.toml"), root.join("mirror-ebpf/Cargo.lock")];
    for folder in ["mirror-ebpf/src", "mirror-common/src"] {
        walk(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in &files {
        let contents = fs::read(file).map_err(|e| named(file, &e))?;
        let name = file.strip_prefix(root).unwrap_or(file).to_string_lossy();
        // Lengths first, so that no two lists of files give the same bytes.
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update((contents.len() as u64).to_le_bytes());
        hash.update(&contents);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| named(folder, &e))? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
