//! The folder's memory: contents of files in; merged objects and problems out. For each file it
//! keeps the last state that was good, and what stands in the way of the newest. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use super::{
    FolderState, Problem,
    parse::{ParsedObject, parse, problem},
    scan::Contents,
};
use crate::control::objects::{Object, Objects};

#[derive(Debug, Default)]
pub(super) struct Folder {
    files: BTreeMap<PathBuf, File>,
    gone: Option<Problem>,
}

#[derive(Debug, Default)]
struct File {
    /// In force.
    good: Option<Vec<ParsedObject>>,
    /// Parsed, and not in force because of another file.
    waiting: Option<Vec<ParsedObject>>,
    problem: Option<Problem>,
    /// What the above came from.
    text: Option<Result<String, String>>,
}

impl Folder {
    /// Takes the contents of all files of the folder.
    pub(super) fn update(&mut self, contents: Contents) {
        self.gone = None;
        self.files.retain(|path, _| contents.contains_key(path));
        for (path, text) in contents {
            let file = self.files.entry(path.clone()).or_default();
            if file.text.as_ref() != Some(&text) {
                file.read(&path, text);
            }
        }
        self.admit();
    }

    /// The folder itself cannot be read: all stays as it is. True if that is news.
    pub(super) fn folder_is_gone(&mut self, folder: &Path, error: &std::io::Error) -> bool {
        let mut problem = problem(folder, None, error.to_string());
        problem.kept = true;
        let news = self.gone.as_ref() != Some(&problem);
        self.gone = Some(problem);
        news
    }

    /// The folder can be read, and nothing in it changed. True if that is news.
    pub(super) fn folder_is_back(&mut self) -> bool {
        self.gone.take().is_some()
    }

    /// What is in force now.
    pub(super) fn state(&self) -> FolderState {
        let mut objects = Objects::default();
        let mut passed_over = Vec::new();
        for (path, file) in &self.files {
            for parsed in file.good.iter().flatten() {
                if let Object::Unread { .. } = parsed.object {
                    let (number, line) = parsed.document;
                    let identity = parsed.object.identity();
                    passed_over.push(format!(
                        "{}: document {number} (line {line}): {identity} is of a kind that is \
                         not read",
                        path.display()
                    ));
                }
                objects.insert(parsed.object.clone());
            }
        }
        let whole = self.files.values().filter_map(|file| file.problem.clone());
        let partial = self.files.iter().flat_map(|(path, file)| file.partial_problems(path));
        FolderState {
            objects,
            problems: self.gone.iter().cloned().chain(whole).chain(partial).collect(),
            passed_over,
        }
    }

    /// Lets the newest state of each file in force, unless it defines what another file defines:
    /// the one that had it in force before wins, else the first by name. A file that falls back
    /// to its last good state may claim objects again, hence the loop; each turn takes the newest
    /// state of at least one file out, so that it ends.
    fn admit(&mut self) {
        let mut refused: BTreeMap<PathBuf, Problem> = BTreeMap::new();
        loop {
            let clashes = self.clashes(&refused);
            if clashes.is_empty() {
                break;
            }
            refused.extend(clashes);
        }
        for (path, file) in &mut self.files {
            let Some(waiting) = file.waiting.take() else { continue };
            match refused.remove(path) {
                None => (file.good, file.problem) = (Some(waiting), None),
                Some(mut problem) => {
                    problem.kept = file.good.is_some();
                    (file.waiting, file.problem) = (Some(waiting), Some(problem));
                }
            }
        }
    }

    /// Files whose newest state cannot come into force beside the others.
    fn clashes(&self, refused: &BTreeMap<PathBuf, Problem>) -> BTreeMap<PathBuf, Problem> {
        let mut claims: HashMap<String, Vec<(&PathBuf, &ParsedObject)>> = HashMap::new();
        for (path, file) in &self.files {
            let proposed = file.proposed(refused.contains_key(path));
            for parsed in proposed.filter(|parsed| parsed.is_claim()) {
                claims.entry(parsed.object.identity()).or_default().push((path, parsed));
            }
        }
        let mut clashes = BTreeMap::new();
        for (identity, claims) in claims.into_iter().collect::<BTreeMap<_, _>>() {
            let held = claims.iter().find(|(path, _)| self.files[*path].holds(&identity));
            let Some((owner, held)) = held.or(claims.first()) else { continue };
            for (path, parsed) in claims.iter().filter(|(path, _)| path != owner) {
                let (number, line) = held.document;
                let message = format!(
                    "{identity} is already defined by {}: document {number} (line {line})",
                    owner.display()
                );
                let clash = problem(path, Some(parsed.document), message);
                clashes.entry((*path).clone()).or_insert(clash);
            }
        }
        clashes
    }
}

impl File {
    fn read(&mut self, path: &Path, text: Result<String, String>) {
        let parsed = match &text {
            Ok(text) => parse(path, text),
            Err(message) => Err(problem(path, None, message.clone())),
        };
        self.text = Some(text);
        match parsed {
            Ok(mut parsed) => {
                parsed.iter_mut().for_each(|parsed| self.keep_rules(&mut parsed.object));
                (self.waiting, self.problem) = (Some(parsed), None);
            }
            Err(mut problem) => {
                problem.kept = self.good.is_some();
                (self.waiting, self.problem) = (None, Some(problem));
            }
        }
    }

    /// Has the refused rules of a route do what they did in the state in force.
    fn keep_rules(&self, object: &mut Object) {
        let Object::Route(route) = object else { return };
        let old = self.good.iter().flatten().find_map(|parsed| match &parsed.object {
            Object::Route(old) if old.name == route.name => Some(old),
            _ => None,
        });
        if let Some(old) = old {
            route.keep_rules_of(old);
        }
    }

    /// Routes that are in force, but for some of their rules.
    fn partial_problems(&self, path: &Path) -> impl Iterator<Item = Problem> {
        self.good.iter().flatten().filter_map(move |parsed| match &parsed.object {
            Object::Route(route) => {
                Some(problem(path, Some(parsed.document), route.partial_faults()?))
            }
            _ => None,
        })
    }

    /// What the file would say.
    fn proposed(&self, refused: bool) -> impl Iterator<Item = &ParsedObject> {
        let waiting = self.waiting.as_ref().filter(|_| !refused);
        waiting.or(self.good.as_ref()).into_iter().flatten()
    }

    /// Whether the state in force defines the object.
    fn holds(&self, identity: &str) -> bool {
        self.good.iter().flatten().any(|parsed| parsed.object.identity() == identity)
    }
}
