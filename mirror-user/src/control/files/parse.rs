//! Parsing: the text of one file in; its objects out, each with its place, or the first problem.

use std::path::Path;

use serde_json::Value;
use serde_saphyr::Spanned;

use super::Problem;
use crate::control::{
    decode::{decode, expand},
    objects::Object,
};

/// An object and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) object: Object,
    /// Number of the document from 1, and its first line.
    pub(super) document: (usize, u64),
}

impl Placed {
    /// Whether nobody else may define it: not so for what is passed over.
    pub(super) fn is_claim(&self) -> bool {
        !matches!(self.object, Object::Unread { .. })
    }
}

/// All objects of a file. Two of the same identity are a problem of the file.
pub(super) fn parse(file: &Path, text: &str) -> Result<Vec<Placed>, Problem> {
    let mut placed: Vec<Placed> = Vec::new();
    for (number, document) in (1..).zip(documents(file, text)) {
        let (line, value) =
            document.map_err(|(line, message)| problem(file, Some((number, line)), message))?;
        let document = (number, line);
        for member in expand(value) {
            let object =
                decode(member).map_err(|error| problem(file, Some(document), error.to_string()))?;
            let identity = object.identity();
            if let Some(twin) =
                placed.iter().find(|other| other.object.identity() == identity && other.is_claim())
            {
                let (number, line) = twin.document;
                let message =
                    format!("{identity} is defined by document {number} (line {line}) already");
                return Err(problem(file, Some(document), message));
            }
            placed.push(Placed { object, document });
        }
    }
    Ok(placed)
}

pub(super) fn problem(file: &Path, document: Option<(usize, u64)>, message: String) -> Problem {
    Problem { file: file.into(), document, message, kept: false }
}

type Document = Result<(u64, Value), (u64, String)>;

/// The documents that are not empty, with their first lines.
fn documents(file: &Path, text: &str) -> Vec<Document> {
    if file.extension().is_some_and(|extension| extension == "json") {
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
    serde_saphyr::read_with_options::<_, Spanned<Value>>(&mut reader, options)
        .map(|document| match document {
            Ok(spanned) => Ok((spanned.referenced.line(), spanned.value)),
            Err(error) => {
                Err((error.location().map_or(0, |location| location.line()), error.to_string()))
            }
        })
        .collect()
}
