//! Parsing: the text of one file in; its objects out, each with its place, or the first problem.

use std::path::Path;

use serde_json::Value;
use serde_saphyr::Spanned;

use super::Problem;
use crate::control::{
    decode::{DecodeError, decode, expand},
    objects::Object,
};

/// An object and where it stands.
#[derive(Clone, Debug)]
pub(super) struct ParsedObject {
    pub(super) object: Object,
    /// Number of the document from 1, and its first line.
    pub(super) document: (usize, u64),
}

impl ParsedObject {
    /// Whether no other document may define it; objects that are not read may be defined twice.
    pub(super) fn is_claim(&self) -> bool {
        self.object.is_read()
    }
}

/// What one object of a text came to.
#[derive(Debug)]
pub struct Entry {
    /// Number of the document from 1, and its first line or, for a syntax error, the error's.
    pub document: (usize, u64),
    /// The object, or why there is none.
    pub outcome: Result<Object, ParseError>,
}

/// Why an object of a text could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not YAML, or not JSON; nothing behind it is read.
    #[error("{0}")]
    Syntax(String),
    /// No object that mirror accepts.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// All objects of a file. Two of the same identity are a problem of the file.
pub(super) fn parse(file: &Path, text: &str) -> Result<Vec<ParsedObject>, Problem> {
    let mut parsed: Vec<ParsedObject> = Vec::new();
    for Entry { document, outcome } in entries(is_json(file), text) {
        let object = outcome.map_err(|error| problem(file, Some(document), error.to_string()))?;
        let identity = object.identity();
        if let Some(twin) =
            parsed.iter().find(|other| other.object.identity() == identity && other.is_claim())
        {
            let (number, line) = twin.document;
            let message =
                format!("{identity} is already defined by document {number} (line {line})");
            return Err(problem(file, Some(document), message));
        }
        parsed.push(ParsedObject { object, document });
    }
    Ok(parsed)
}

/// Every object of a text, good or bad, up to the first syntax error.
pub fn entries(json: bool, text: &str) -> impl Iterator<Item = Entry> {
    (1..).zip(documents(json, text)).flat_map(|(number, document)| match document {
        Err((line, message)) => {
            vec![Entry { document: (number, line), outcome: Err(ParseError::Syntax(message)) }]
        }
        Ok((line, value)) => expand(value)
            .into_iter()
            .map(|member| Entry {
                document: (number, line),
                outcome: decode(member).map_err(ParseError::Decode),
            })
            .collect(),
    })
}

/// Whether a file is read as JSON, by its name.
#[must_use]
pub fn is_json(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "json")
}

pub(super) fn problem(file: &Path, document: Option<(usize, u64)>, message: String) -> Problem {
    Problem { file: file.into(), document, message, kept: false }
}

type Document = Result<(u64, Value), (u64, String)>;

/// The documents that are not empty, with their first lines, up to the first error.
fn documents(json: bool, text: &str) -> Vec<Document> {
    if json {
        let mut documents = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let mut all = Vec::new();
        loop {
            let before = text.get(documents.byte_offset()..).unwrap_or_default();
            let blank = before.len() - before.trim_start().len();
            let start = text.get(..documents.byte_offset() + blank).unwrap_or_default();
            let line = start.matches('\n').count() as u64 + 1;
            match documents.next() {
                None => return all,
                Some(Ok(value)) => all.push(Ok((line, value))),
                Some(Err(error)) => {
                    all.push(Err((error.line() as u64, error.to_string())));
                    return all;
                }
            }
        }
    }
    // A message of one line: the file and the line stand before it. YAML 1.2's booleans: a name
    // `y` or a header's value `on` is a string.
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    let mut reader = text.as_bytes();
    let mut all = Vec::new();
    for document in serde_saphyr::read_with_options::<_, Spanned<Value>>(&mut reader, options) {
        match document {
            Ok(spanned) => all.push(Ok((spanned.referenced.line(), spanned.value))),
            Err(error) => {
                let line = error.location().map_or(0, |location| location.line());
                all.push(Err((line, error.to_string())));
                return all;
            }
        }
    }
    all
}
