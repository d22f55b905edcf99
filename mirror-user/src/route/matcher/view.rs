//! A request's head as matches look at it. In: a head. Out: what they ask of it, and how much work that
//! was, so that a caller that tries many of them can stop in between. The query is read once, however
//! many of them ask for a parameter.

use std::{
    borrow::Cow,
    cell::{Cell, OnceCell},
    collections::HashMap,
};

use http::{
    HeaderName, HeaderValue, Method,
    header::{GetAll, Keys},
    request,
};

use super::{
    Pattern, Target, ValueMatch,
    query::{self, Pairs},
};

/// Parameters that are looked for in the query itself, before an index of it pays.
const DIRECT: usize = 2;

/// What a look at a field or a match costs, in bytes that an expression could have read meanwhile.
const LOOK: usize = 32;

/// A head, and how much was done with it.
pub(in crate::route) struct View<'h> {
    head: &'h request::Parts,
    path: &'h [u8],
    /// Always the same slice, so that the places of parameters in it can be compared.
    query: &'h [u8],
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
        let (path, query) = (target.path(), target.query());
        let (looked_for, params, work) = Default::default();
        Self { head, path, query, looked_for, params, work }
    }

    /// Steps since the last call: a step is a byte that an expression reads, a nanosecond or so.
    pub(in crate::route) fn work(&self) -> usize {
        self.work.get()
    }

    pub(in crate::route) fn method(&self) -> &'h Method {
        &self.head.method
    }

    pub(in crate::route) fn path(&self) -> &'h [u8] {
        self.path
    }

    pub(super) fn fields(&self, name: &HeaderName) -> GetAll<'h, HeaderValue> {
        self.did(LOOK);
        self.head.headers.get_all(name)
    }

    /// The names of all fields, each once.
    pub(in crate::route) fn names(&self) -> Keys<'h, HeaderValue> {
        self.head.headers.keys()
    }

    /// What the value of a header is compared with: that of the field, or those of all fields of this name.
    pub(in crate::route) fn value(&self, name: &HeaderName) -> Option<Cow<'h, [u8]>> {
        let all = self.fields(name);
        let values = || all.iter().map(HeaderValue::as_bytes);
        let first = values().next()?;
        if values().nth(1).is_none() {
            return Some(Cow::Borrowed(first));
        }
        let joined = values().collect::<Vec<_>>().join(&b","[..]);
        self.did(joined.len());
        Some(Cow::Owned(joined))
    }

    /// Names and values of all parameters, still encoded.
    pub(in crate::route) fn params(&self) -> Pairs<'h> {
        Pairs::of(self.query)
    }

    /// The value, still encoded, of the first parameter called `name`.
    pub(in crate::route) fn param(&self, name: &str) -> Option<&'h [u8]> {
        let looked_for = self.looked_for.get();
        let query = self.query;
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

    /// One more match, or field or parameter, was looked at.
    pub(in crate::route) fn looked(&self) {
        self.did(LOOK);
    }

    pub(super) fn did(&self, steps: usize) {
        self.work.set(self.work.get() + steps);
    }
}
