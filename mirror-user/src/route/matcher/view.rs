//! A request's head as matches look at it. In: a head. Out: what they ask of it, and how much work that
//! was, so that a caller that tries many of them can stop in between. The query is read once, however
//! many of them ask for a parameter.

use std::{
    borrow::Cow,
    cell::{Cell, OnceCell},
    collections::HashMap,
};

use http::{HeaderName, HeaderValue, Method, header::GetAll, request};

use super::{Pattern, Target, ValueMatch, query};

/// Parameters that are looked for in the query itself, before an index of it pays.
const DIRECT: usize = 2;

/// What a look at a field or a match costs, in bytes that an expression could have read meanwhile.
const LOOK: usize = 32;

/// A head, and how much was done with it.
pub(in crate::route) struct View<'h> {
    head: &'h request::Parts,
    target: Target<'h>,
    /// Parameters that were looked for.
    looked_for: Cell<usize>,
    /// The first value of each parameter, still encoded, by its decoded name. Its hashes are keyed:
    /// names are a client's.
    params: OnceCell<HashMap<Cow<'h, [u8]>, &'h [u8]>>,
    /// Since it was last taken.
    work: Cell<usize>,
}

impl<'h> View<'h> {
    pub(in crate::route) fn new(head: &'h request::Parts) -> Self {
        let target = Target::of(head);
        let (looked_for, params, work) = Default::default();
        Self { head, target, looked_for, params, work }
    }

    /// Steps since the last call: a step is a byte that an expression reads, a nanosecond or so.
    pub(in crate::route) fn work(&self) -> usize {
        self.work.get()
    }

    pub(super) fn method(&self) -> &'h Method {
        &self.head.method
    }

    pub(in crate::route) fn path(&self) -> &'h [u8] {
        self.target.path()
    }

    pub(super) fn fields(&self, name: &HeaderName) -> GetAll<'h, HeaderValue> {
        self.did(LOOK);
        self.head.headers.get_all(name)
    }

    /// The value, still encoded, of the first parameter called `name`.
    pub(super) fn param(&self, name: &str) -> Option<&'h [u8]> {
        let looked_for = self.looked_for.get();
        let query = self.target.query();
        if looked_for < DIRECT {
            self.looked_for.set(looked_for + 1);
            self.did(query.len());
            return query::first(query, name);
        }
        let params = self.params.get_or_init(|| {
            // Each pair is hashed and stored.
            self.did(16 * query.len());
            query::index(query)
        });
        self.did(LOOK);
        params.get(name.as_bytes()).copied()
    }

    /// Whether `pattern` holds for the concatenation of `parts`.
    pub(super) fn holds<'v, P: Iterator<Item = &'v [u8]>>(
        &self,
        pattern: &Pattern,
        parts: impl Fn() -> P,
    ) -> bool {
        self.did(parts().map(<[u8]>::len).sum());
        pattern.matches_parts(parts)
    }

    /// Whether it is what a parameter's value has to be.
    pub(super) fn is(&self, wanted: &ValueMatch, encoded: &[u8]) -> bool {
        match wanted {
            ValueMatch::Exact(exact) => query::equals(encoded, exact),
            ValueMatch::Regex(pattern) => {
                let value = query::decode(encoded);
                self.holds(pattern, || std::iter::once(&*value))
            }
        }
    }

    /// One more match was looked at.
    pub(super) fn looked(&self) {
        self.did(LOOK);
    }

    pub(super) fn did(&self, steps: usize) {
        self.work.set(self.work.get() + steps);
    }
}
