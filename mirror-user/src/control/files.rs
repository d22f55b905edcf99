//! Files: a folder of YAML and JSON documents as the source of objects. In: the folder. Out: the
//! merged [`Objects`] and the current problems, again after each change.
//!
//! - Read are the files directly in the folder whose name ends in `.yaml`, `.yml` or `.json` and
//!   does not start with a dot. Subfolders are not; symbolic links are followed, so that a mounted
//!   ConfigMap works.
//! - A file counts as a whole: if any of its documents is refused, all that it said before stays
//!   in force, and the problem names the file, the document and the field. Other files go on.
//! - An HTTPRoute of which some rules are refused, and others are not, is not refused: its file takes
//!   effect, and each refused rule does what it did in its last valid state, or responds 500.
//! - A file that is removed takes its objects with it.
//! - Kinds that mirror does not read (a Deployment beside its Service) are passed over, and
//!   reported as such.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use notify::Watcher as _;
use tokio::sync::watch;

use self::{
    folder::Folder,
    scan::{Contents, Scan},
};
use super::{Diagnostics, objects::Objects};

mod folder;
mod parse;
mod scan;
#[cfg(test)]
mod tests;

pub use self::parse::{Entry, ParseError, entries, is_json};

/// Changes that come closer together than this are taken as one: editors write a file in steps.
const SETTLE: Duration = Duration::from_millis(50);

/// Longest that a steady flow of changes can put off a reading.
const SETTLE_MAX: Duration = Duration::from_millis(300);

/// The folder is looked at this often even if nothing was reported (inotify does not see every
/// file system, loses a folder that is replaced, and its queue can overflow).
const RESCAN: Duration = Duration::from_millis(500);

/// What the folder says at one moment.
#[derive(Clone, Debug, Default)]
pub struct FolderState {
    /// Objects of all files.
    pub objects: Objects,
    /// What was refused; empty when all is well.
    pub problems: Vec<Problem>,
    /// Documents that were passed over, as `FILE: document N (line L): apps/v1 Deployment ...`.
    pub passed_over: Vec<String>,
}

impl FolderState {
    /// What there is to say beside the objects.
    #[must_use]
    pub fn diagnostics(&self) -> Diagnostics {
        Diagnostics {
            problems: self.problems.iter().map(ToString::to_string).collect(),
            warnings: self.passed_over.clone(),
        }
    }
}

/// A file, or a document of one, that was refused. What the file said before stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message}{}", file.display(), place(.document), aftermath(*.kept))]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Number of the document within the file, from 1, empty ones not counted, and the line that
    /// it starts on or, for a syntax error, the line of the error.
    pub document: Option<(usize, u64)>,
    /// What is wrong, with the field's path.
    pub message: String,
    /// Whether an earlier state of the file is in force.
    pub kept: bool,
}

impl Problem {
    /// Stable name, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        if self.kept { "file_kept" } else { "file_refused" }
    }
}

fn place(document: &Option<(usize, u64)>) -> String {
    document.map_or_else(String::new, |(number, line)| format!(": document {number} (line {line})"))
}

fn aftermath(kept: bool) -> &'static str {
    if kept { "; the file's last valid state stays in force" } else { "" }
}

/// Why a folder cannot be watched at all.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The folder cannot be read.
    #[error("cannot read the folder {}: {source}", folder.display())]
    Read {
        /// The folder.
        folder: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// The thread that watches it cannot be started.
    #[error("cannot start the thread that watches {}: {source}", folder.display())]
    Thread {
        /// The folder.
        folder: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
}

impl FilesError {
    /// Stable name, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Read { .. } => "folder_read",
            Self::Thread { .. } => "folder_thread",
        }
    }
}

/// Reads the folder once.
///
/// # Errors
/// When the folder cannot be read. A file in it that is refused is a [`Problem`] of the state.
pub fn read(folder: &Path) -> Result<FolderState, FilesError> {
    let mut files = Folder::default();
    files.update(first_contents(&mut Scan::new(folder))?);
    Ok(files.state())
}

/// The text of one file, or why it cannot be read.
///
/// # Errors
/// As text: the system's error, too many bytes, not UTF-8.
pub fn text(file: &Path) -> Result<String, String> {
    scan::read(file)
}

/// The texts of the folder's files, by path.
///
/// # Errors
/// When the folder cannot be read.
pub fn texts(folder: &Path) -> Result<BTreeMap<PathBuf, Result<String, String>>, FilesError> {
    first_contents(&mut Scan::new(folder))
}

fn first_contents(scan: &mut Scan) -> Result<Contents, FilesError> {
    let contents = scan.changes();
    let contents =
        contents.map_err(|source| FilesError::Read { folder: scan.folder().into(), source })?;
    Ok(contents.unwrap_or_default())
}

/// Reads the folder, and reads it again whenever it changes, on a separate thread that ends
/// soon after the last receiver is dropped. The receiver holds the first state already.
///
/// # Errors
/// When the folder cannot be read now. (If that happens later, it is a [`Problem`], and the last
/// state stays.)
pub fn watch(folder: &Path) -> Result<watch::Receiver<FolderState>, FilesError> {
    let mut scan = Scan::new(folder);
    let mut files = Folder::default();
    files.update(first_contents(&mut scan)?);
    let (sender, receiver) = watch::channel(files.state());
    // Before the thread starts: what changes from here on is reported.
    let (events, watcher) = events(folder);
    std::thread::Builder::new()
        .name("routes".into())
        .spawn(move || {
            let _watcher = watcher;
            follow(&mut scan, &mut files, &events, &sender);
        })
        .map_err(|source| FilesError::Thread { folder: folder.into(), source })?;
    Ok(receiver)
}

/// Wakes at changes. Without inotify (its limits are per user) only the rescan is left.
fn events(folder: &Path) -> (mpsc::Receiver<()>, Option<notify::RecommendedWatcher>) {
    let (sender, receiver) = mpsc::channel();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the folder is itself an event of access.
        if event.map_or(true, |event| !event.kind.is_access()) {
            // The receiver is gone only when the agent is.
            let _ = sender.send(());
        }
    });
    let watcher = watcher.and_then(|mut watcher| {
        watcher.watch(folder, notify::RecursiveMode::NonRecursive).map(|()| watcher)
    });
    let watcher = watcher.inspect_err(|error| {
        tracing::warn!(%error, folder = %folder.display(), "no change notification: rescanning");
    });
    (receiver, watcher.ok())
}

fn follow(
    scan: &mut Scan,
    files: &mut Folder,
    events: &mpsc::Receiver<()>,
    sender: &watch::Sender<FolderState>,
) {
    while !sender.is_closed() {
        match events.recv_timeout(RESCAN) {
            Ok(()) => settle(events),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            // No watcher: the rescan alone.
            Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(RESCAN),
        }
        let changed = match scan.changes() {
            Ok(None) => files.folder_is_back(),
            Ok(Some(contents)) => {
                files.update(contents);
                true
            }
            Err(error) => files.folder_is_gone(scan.folder(), &error),
        };
        if changed {
            sender.send_replace(files.state());
        }
    }
}

/// Waits until nothing was reported for a while.
fn settle(events: &mpsc::Receiver<()>) {
    let start = std::time::Instant::now();
    while start.elapsed() < SETTLE_MAX && events.recv_timeout(SETTLE).is_ok() {}
}
