//! Gathering: paths in; all objects with their places, and what could not be read or decoded, out.
//! Unlike the agent's own reading it does not stop at the first problem of a file.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::control::{
    decode::DecodeError,
    files::{self, Entry, ParseError},
    objects::{Object, Objects},
};

/// Where an object stands.
#[derive(Clone, Debug)]
pub(super) struct SourceLocation {
    pub(super) file: String,
    /// First line of its document, or the line of a syntax error.
    pub(super) line: Option<u64>,
}

/// What the files said.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) files: usize,
    pub(super) objects: Objects,
    /// By identity, as `HTTPRoute default/httpbin`.
    pub(super) places: BTreeMap<String, SourceLocation>,
    pub(super) refused: Vec<(SourceLocation, InputError)>,
    /// Routes that only Gateways are parents of.
    pub(super) gateway_routes: Vec<(SourceLocation, String)>,
    /// Objects of kinds that mirror does not read.
    pub(super) unread: Vec<(SourceLocation, String)>,
}

/// Why something of a file is not among the objects.
#[derive(Debug)]
pub(super) enum InputError {
    /// The file as a whole, or all behind a syntax error.
    File(String),
    /// An object.
    Object(DecodeError),
    /// An object that another place defines.
    Twice { identity: String, first: SourceLocation },
}

/// Reads everything; a path given twice is read once.
pub(super) fn gather(paths: &[PathBuf]) -> Input {
    let mut input = Input::default();
    let mut seen = BTreeSet::new();
    for path in paths.iter().filter(|path| seen.insert((*path).clone())) {
        if path.as_os_str() == "-" {
            input.add("stdin".into(), false, stdin());
        } else if path.is_dir() {
            input.folder(path);
        } else {
            input.add(path.display().to_string(), files::is_json(path), files::text(path));
        }
    }
    input
}

fn stdin() -> Result<String, String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

impl Input {
    fn folder(&mut self, folder: &Path) {
        match files::texts(folder) {
            Ok(texts) => {
                for (path, text) in texts {
                    self.add(path.display().to_string(), files::is_json(&path), text);
                }
            }
            Err(error) => self.refuse_file(folder.display().to_string(), error.to_string()),
        }
    }

    pub(super) fn add(&mut self, file: String, json: bool, text: Result<String, String>) {
        self.files += 1;
        match text {
            Err(message) => self.refuse_file(file, message),
            Ok(text) => {
                for entry in files::entries(json, &text) {
                    self.entry(&file, entry);
                }
            }
        }
    }

    fn refuse_file(&mut self, file: String, message: String) {
        self.refused.push((SourceLocation { file, line: None }, InputError::File(message)));
    }

    fn entry(&mut self, file: &str, entry: Entry) {
        let (_, line) = entry.document;
        let location = SourceLocation { file: file.into(), line: (line > 0).then_some(line) };
        let object = match entry.outcome {
            Ok(object) => object,
            Err(ParseError::Syntax(message)) => {
                return self.refused.push((location, InputError::File(message)));
            }
            Err(ParseError::Decode(error)) => {
                return self.refused.push((location, InputError::Object(error)));
            }
        };
        let identity = object.identity();
        if !object.is_read() {
            return self.unread.push((location, identity));
        }
        if let Some(first) = self.places.get(&identity) {
            let first = first.clone();
            return self.refused.push((location, InputError::Twice { identity, first }));
        }
        if let Object::GatewayRoute { misgrouped, .. } = &object
            && misgrouped.is_empty()
        {
            self.gateway_routes.push((location.clone(), identity.clone()));
        }
        self.places.insert(identity, location);
        self.objects.insert(object);
    }
}
