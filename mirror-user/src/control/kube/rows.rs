//! What is known of a cluster: rows by kind, and what did not decode, by name.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::kinds::Watched;
use crate::{
    control::objects::{Changes, ObjectName, Objects},
    kube::RollCall,
};

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) objects: Objects,
    /// Why objects are left out.
    refused: BTreeMap<(Watched, ObjectName), String>,
    lists: BTreeMap<Watched, RollCall>,
}

impl Rows {
    /// A list of the kind begins.
    pub(super) fn start(&mut self, kind: Watched) {
        let refused = self.refused.keys().filter(|(other, _)| *other == kind);
        let refused = refused.map(|(_, name)| name);
        let known = self.objects.names(kind.kind()).chain(refused);
        self.lists.entry(kind).or_default().start(known);
    }

    /// Takes an object as it came. True if a problem is new, changed or gone.
    pub(super) fn apply(
        &mut self,
        kind: Watched,
        name: ObjectName,
        object: &RawValue,
        changes: &mut Changes,
    ) -> bool {
        self.lists.entry(kind).or_default().present(&name);
        match kind.decode(object) {
            Ok(object) => {
                self.objects.apply(object, changes);
                self.refused.remove(&(kind, name)).is_some()
            }
            Err(error) => {
                // What it said before is not what its owner wants now.
                self.objects.remove(kind.kind(), &name, changes);
                self.refused.insert((kind, name), error.clone()) != Some(error)
            }
        }
    }

    /// An object is gone. True if a problem goes with it.
    pub(super) fn delete(
        &mut self,
        kind: Watched,
        name: &ObjectName,
        changes: &mut Changes,
    ) -> bool {
        self.lists.entry(kind).or_default().present(name);
        self.objects.remove(kind.kind(), name, changes);
        self.refused.remove(&(kind, name.clone())).is_some()
    }

    /// The list is complete: what it did not name is gone. True if a problem goes with it.
    pub(super) fn complete(&mut self, kind: Watched, changes: &mut Changes) -> bool {
        let gone = self.lists.entry(kind).or_default().complete();
        // All of them, not up to the first that had a problem.
        gone.iter().map(|name| self.delete(kind, name, changes)).filter(|had| *had).count() > 0
    }

    /// What was left out, one line each.
    pub(super) fn problems(&self) -> Vec<String> {
        let problem = |((kind, name), error): (&(Watched, ObjectName), &String)| {
            let own = format!("{} {name}", kind.label());
            match error.starts_with(&own) {
                true => error.clone(),
                false => format!("{own}: {error}"),
            }
        };
        self.refused.iter().map(problem).collect()
    }
}
