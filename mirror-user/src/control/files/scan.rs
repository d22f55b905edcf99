//! Scanning: the folder in; the contents of all its files out, when any of them changed.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// A file of routes is small; a larger one is a mistake, and is not read into memory.
const MAX_BYTES: u64 = 16 << 20;

/// A file that was emptied is about to be written (`open` with O_TRUNC, then `write`), unless it
/// stays so for this long.
const EMPTY_FOR: Duration = Duration::from_millis(250);

/// Contents by file, or why a file could not be read.
pub(super) type Contents = BTreeMap<PathBuf, Result<String, String>>;

/// What distinguishes one state of a file from another: device, inode, size, and when content or inode
/// last changed.
type Fingerprint = (u64, u64, u64, i64, i64);

#[derive(Debug)]
pub(super) struct Scan {
    folder: PathBuf,
    fingerprints: Option<BTreeMap<PathBuf, Option<Fingerprint>>>,
}

impl Scan {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.into(), fingerprints: None }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// All contents, if anything changed since the last call; None otherwise.
    pub(super) fn changes(&mut self) -> io::Result<Option<Contents>> {
        let mut fingerprints = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if is_ours(&path) {
                match fs::metadata(&path) {
                    Ok(metadata) if metadata.is_file() => {
                        fingerprints.insert(path, Some(fingerprint(&metadata)))
                    }
                    Ok(_) => continue,
                    // Renamed since it was listed: gone.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(_) => fingerprints.insert(path, None),
                };
            }
        }
        if self.fingerprints.as_ref() == Some(&fingerprints) {
            return Ok(None);
        }
        if self.fingerprints.as_ref().is_some_and(|last| just_emptied(last, &fingerprints)) {
            return Ok(None);
        }
        // The stamps are from before the reading: a change in between is seen the next time.
        let contents = fingerprints.keys().map(|path| (path.clone(), read(path))).collect();
        self.fingerprints = Some(fingerprints);
        Ok(Some(contents))
    }
}

fn just_emptied(
    last: &BTreeMap<PathBuf, Option<Fingerprint>>,
    now: &BTreeMap<PathBuf, Option<Fingerprint>>,
) -> bool {
    let size = |fingerprint: &Option<Fingerprint>| fingerprint.map_or(0, |(_, _, size, ..)| size);
    now.iter().any(|(path, fingerprint)| {
        let emptied = size(fingerprint) == 0 && last.get(path).is_some_and(|last| size(last) > 0);
        let age = || fs::metadata(path).ok()?.modified().ok()?.elapsed().ok();
        emptied && age().is_some_and(|age| age < EMPTY_FOR)
    })
}

fn is_ours(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(OsStr::to_str);
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

fn fingerprint(metadata: &fs::Metadata) -> Fingerprint {
    let nanos = |seconds: i64, nanos: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos);
    (
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        nanos(metadata.mtime(), metadata.mtime_nsec()),
        nanos(metadata.ctime(), metadata.ctime_nsec()),
    )
}

pub(super) fn read(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!("has {size} bytes; at most {MAX_BYTES} are read"));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| format!("is not UTF-8: {error}"))
}
