//! The words that prose here does not use (`xtask/words.txt`). In: the repository's files. Out: a
//! failure if Markdown or the text of an error has one, or if another file has more of them than
//! `xtask/words-allowed.txt` allows, or fewer: then the list is to be lowered
//! (`cargo xtask words --update`), so that a count only ever falls.

mod allowed;
mod prose;

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use self::{
    allowed::Allowed,
    prose::{Kind, Prose},
};
use crate::tools;

/// The words, relative to the root.
const WORDS: &str = "xtask/words.txt";

/// Flags of `cargo xtask words`.
#[derive(clap::Args)]
pub(crate) struct WordsArgs {
    /// Lower the counts of the allow-list to what the files have
    #[arg(long)]
    update: bool,
}

/// A word or phrase, and what to say instead.
#[derive(Debug)]
struct Rule {
    tokens: Vec<String>,
    better: String,
}

/// A place where a rule's word stands.
#[derive(Debug)]
struct Hit {
    line: usize,
    word: String,
    better: String,
    kind: Kind,
}

/// `cargo xtask words`.
///
/// # Errors
/// See [`check`]; with `--update`, more words in all than before.
pub(crate) fn run(args: &WordsArgs) -> Result<()> {
    let root = tools::root();
    if !args.update {
        return check(&root);
    }
    let found = search(&root)?;
    let before = Allowed::read(&root).ok();
    let now =
        Allowed::new(found.iter().map(|(file, hits)| (file.clone(), ratcheted(hits).count())));
    if let Some(before) = before.filter(|before| now.total() > before.total()) {
        bail!("{} words, but {} are allowed: the count must not rise", now.total(), before.total());
    }
    now.write(&root)
}

/// The step of the test run.
///
/// # Errors
/// Names each word that is one too many, or each count that is to be lowered.
pub(crate) fn check(root: &Path) -> Result<()> {
    let allowed = Allowed::read(root)?;
    let mut faults = faults(&search(root)?, &allowed);
    if faults.is_empty() {
        println!("no words beyond the {} that {} allows", allowed.total(), allowed::FILE);
        return Ok(());
    }
    let count = faults.len();
    faults.truncate(40);
    bail!("{count} findings ({WORDS} lists the words):\n{}", faults.join("\n"))
}

/// What is wrong, one line each.
fn faults(found: &[(String, Vec<Hit>)], allowed: &Allowed) -> Vec<String> {
    let mut faults = Vec::new();
    for (file, hits) in found {
        let place =
            |hit: &Hit| format!("{file}:{}: \"{}\": write {}", hit.line, hit.word, hit.better);
        faults.extend(hits.iter().filter(|hit| hit.kind.is_forbidden()).map(place));
        let (count, most) = (ratcheted(hits).count(), allowed.of(file));
        if count > most {
            faults.push(format!("{file}: {count} words, {most} are allowed:"));
            faults.extend(ratcheted(hits).map(place));
        }
        if count < most {
            faults.push(format!(
                "{file}: {count} words, {most} are allowed: lower it (cargo xtask words --update)"
            ));
        }
    }
    let gone = allowed.files().filter(|file| !found.iter().any(|(found, _)| found == *file));
    faults.extend(gone.map(|file| {
        format!("{file} is in {} and does not exist (cargo xtask words --update)", allowed::FILE)
    }));
    faults
}

/// Those that the allow-list counts.
fn ratcheted(hits: &[Hit]) -> impl Iterator<Item = &Hit> {
    hits.iter().filter(|hit| !hit.kind.is_forbidden())
}

/// Each file that is looked at, with the words in it.
fn search(root: &Path) -> Result<Vec<(String, Vec<Hit>)>> {
    let rules = rules(&fs::read_to_string(root.join(WORDS)).context(WORDS)?)?;
    let mut found = Vec::new();
    for file in files(root)? {
        // A file of another encoding has no prose; one that was removed is in the index still.
        let Ok(text) = fs::read_to_string(root.join(&file)) else { continue };
        let Some(prose) = prose::of(&file, &text) else { continue };
        found.push((file, hits(&rules, &prose)));
    }
    Ok(found)
}

/// What git knows of, and what is new, without what is ignored and others' source.
fn files(root: &Path) -> Result<Vec<String>> {
    // Root may run this in another user's folder.
    let args = ["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").current_dir(root).args(args).output().context("git")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut files: Vec<_> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|file| !file.contains("/vendor/") || file.ends_with("/README.md"))
        .map(str::to_owned)
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

fn rules(text: &str) -> Result<Vec<Rule>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rule = |line: &str| {
        let (word, better) = line.split_once(" -> ").with_context(|| format!("no '->': {line}"))?;
        let tokens = word.split(' ').map(str::to_lowercase).collect();
        Ok(Rule { tokens, better: better.to_owned() })
    };
    lines.map(rule).collect()
}

fn hits(rules: &[Rule], prose: &[Prose]) -> Vec<Hit> {
    let mut hits = Vec::new();
    for piece in prose {
        let tokens = piece.tokens();
        for start in 0..tokens.len() {
            for rule in rules {
                let Some(window) = tokens.get(start..start + rule.tokens.len()) else { continue };
                if window.iter().map(|token| &token.word).eq(&rule.tokens) {
                    let (word, better) = (rule.tokens.join(" "), rule.better.clone());
                    hits.push(Hit { line: tokens[start].line, word, better, kind: piece.kind });
                }
            }
        }
    }
    hits
}

#[cfg(test)]
mod tests;
