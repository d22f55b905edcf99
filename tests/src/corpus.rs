//! The corpus: raw conversations between a scripted client and a scripted server, as data.
//!
//! In: the files of `tests/corpus`. Out: what both sides saw of each conversation, direct and
//! through the agent, and every difference that the allow-list does not name. Nothing here knows
//! what mirror does to a message: that is what the list says.

pub mod allow;
pub mod ambiguous;
mod frames;
mod kinds;
mod message;
mod peer;
mod play;
mod script;
pub mod stage;
pub mod strict;
mod trace;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

pub use play::{Outcome, run_all};
pub use script::{Conversation, parse};
pub use trace::{Trace, diff};

/// Where the corpus is.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// All conversations, in the order of the files' names.
///
/// # Errors
/// A file cannot be read or understood (with its name and line), or two conversations share a name.
pub fn load() -> Result<Vec<Conversation>> {
    let mut all: Vec<Conversation> = Vec::new();
    for (file, text) in files("conversation")? {
        for conversation in parse(&text).with_context(|| file.clone())? {
            let known = all.iter().any(|other| other.name == conversation.name);
            ensure!(!known, "{file}: there are two conversations {}", conversation.name);
            all.push(conversation);
        }
    }
    Ok(all)
}

/// Name and text of the corpus's files with this extension, by name.
fn files(extension: &str) -> Result<Vec<(String, String)>> {
    let folder = folder();
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, text));
        }
    }
    files.sort();
    Ok(files)
}
