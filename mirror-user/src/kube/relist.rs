//! Which rows a new list does not name. In: the names that are known when it begins, and those
//! that it names. Out: when it is complete, the names that are gone. Rows stay where they are
//! meanwhile, so that a list doubles names at most; one that is cut in the middle leaves no
//! ghost, since the next begins again.

use crate::model::ObjectName;
use std::collections::BTreeSet;

/// The names that a list has not named yet.
#[derive(Clone, Debug, Default)]
pub struct RelistTracker(BTreeSet<ObjectName>);

impl RelistTracker {
    /// A list begins ([`super::Event::Started`]); these names are known.
    pub fn start<'a>(&mut self, known: impl Iterator<Item = &'a ObjectName>) {
        self.0 = known.cloned().collect();
    }

    /// The list, or a change after it, named this one.
    pub fn present(&mut self, name: &ObjectName) {
        self.0.remove(name);
    }

    /// The list is complete ([`super::Event::Complete`]): these are gone.
    #[must_use]
    pub fn complete(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "default".into(), name: name.into() }
    }

    #[test]
    fn what_a_list_does_not_name_is_gone() {
        let mut call = RelistTracker::default();
        call.start([name("a"), name("b")].iter());
        call.present(&name("b"));
        call.present(&name("new"));
        assert_eq!(call.complete(), BTreeSet::from([name("a")]));
        assert!(call.complete().is_empty(), "once");
    }

    #[test]
    fn a_cut_list_leaves_no_ghost() {
        let mut call = RelistTracker::default();
        call.start([].iter());
        // The list names one that is then deleted, and is cut: it is known when the next begins.
        call.present(&name("ghost"));
        call.start([name("ghost")].iter());
        assert_eq!(call.complete(), BTreeSet::from([name("ghost")]));
    }
}
