//! What the regular expressions of routes may cost. In: the expressions of one route, one by one. Out:
//! each compiled, or why its route is refused. Within a route the first that does not fit is refused;
//! among the routes of a Namespace, and of all, the first to come have what there is. What holds
//! nothing back is counted as well: compiling takes time, so that a Namespace that has used up its
//! share has nothing compiled any more until it gives something back.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::RouteName,
    route::{Pattern, PatternError},
};

/// Bytes of the expressions of one route.
pub const ROUTE_BYTES: usize = 1 << 20;

/// Bytes of the expressions of all routes of a Namespace.
pub const NAMESPACE_BYTES: usize = 4 << 20;

/// Bytes of the expressions of all routes.
pub const TOTAL_BYTES: usize = 32 << 20;

/// Steps that the expressions of one route may take for one request: each takes one for each byte that
/// it may be matched against. A step is a nanosecond or so, and others have their turn every half
/// millisecond.
pub const ROUTE_STEPS: usize = 32 << 20;

/// What a header's value may be long: a whole head.
const HEADER_STEPS: usize = 256 * 1024;

/// What a path or a query may be long.
const TARGET_STEPS: usize = 64 * 1024;

/// Where an expression looks, which decides what it costs for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchInput {
    /// The path, or a parameter of the query.
    Target,
    /// A header.
    Header,
}

impl MatchInput {
    fn steps(self) -> usize {
        match self {
            Self::Target => TARGET_STEPS,
            Self::Header => HEADER_STEPS,
        }
    }
}

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Whatever else there is.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// See [`ROUTE_STEPS`].
    #[error(
        "is one too many: for one request the expressions of a route may look at 32 MiB together (128 \
         headers of up to 256 KiB, or 512 paths or parameters of up to 64 KiB)"
    )]
    Steps,
    /// See [`ROUTE_BYTES`].
    #[error("does not fit: compiled, the expressions of the route would take more than 1 MiB")]
    Route,
    /// See [`NAMESPACE_BYTES`].
    #[error(
        "does not fit: compiled, the expressions of all routes of the Namespace would take more than \
         4 MiB; simplify or remove some of them, then apply this route again"
    )]
    Namespace,
    /// See [`TOTAL_BYTES`].
    #[error(
        "does not fit: compiled, the expressions of all routes would take more than 32 MiB; once others \
         are gone, apply this route again"
    )]
    Total,
}

/// What the expressions of one route may cost, and have cost so far.
#[derive(Clone, Debug)]
pub struct Allowance {
    bytes: usize,
    steps: usize,
    /// What else there is, which may be less than a route's own share.
    namespace: usize,
    total: usize,
    /// What was refused since other routes have what there is.
    refused: Option<ExpressionError>,
}

impl Default for Allowance {
    /// Of a route that is alone.
    fn default() -> Self {
        let (bytes, steps, refused) = Default::default();
        Self { bytes, steps, namespace: NAMESPACE_BYTES, total: TOTAL_BYTES, refused }
    }
}

impl Allowance {
    /// Compiles an expression, if it fits.
    ///
    /// # Errors
    /// See [`ExpressionError`].
    pub fn compile(&mut self, source: &str, input: MatchInput) -> Result<Pattern, ExpressionError> {
        if self.steps + input.steps() > ROUTE_STEPS {
            return Err(ExpressionError::Steps);
        }
        self.check(0)?;
        let pattern = Pattern::new(source)?;
        self.check(pattern.cost())?;
        self.bytes += pattern.cost();
        self.steps += input.steps();
        Ok(pattern)
    }

    fn check(&mut self, more: usize) -> Result<(), ExpressionError> {
        let bytes = self.bytes + more;
        let refusal = if bytes > ROUTE_BYTES {
            ExpressionError::Route
        } else if bytes > self.namespace || self.namespace == 0 {
            ExpressionError::Namespace
        } else if bytes > self.total || self.total == 0 {
            ExpressionError::Total
        } else {
            return Ok(());
        };
        self.refused = (refusal != ExpressionError::Route).then(|| refusal.clone());
        Err(refusal)
    }
}

/// What the expressions of all routes cost.
#[derive(Debug, Default)]
pub struct Expressions {
    routes: BTreeMap<RouteName, usize>,
    namespaces: BTreeMap<String, usize>,
    total: usize,
    /// Namespaces whose own share was used up once, and has not been made larger since.
    full: BTreeSet<String>,
    /// The same of all.
    all_full: bool,
}

impl Expressions {
    /// What the expressions of a route may cost, which takes the place of what it was before.
    pub fn allow(&mut self, route: &RouteName) -> Allowance {
        self.forget(route);
        let used = self.namespaces.get(&route.object.namespace).copied().unwrap_or_default();
        let full = self.full.contains(&route.object.namespace);
        let namespace = if full { 0 } else { NAMESPACE_BYTES.saturating_sub(used) };
        let total = if self.all_full { 0 } else { TOTAL_BYTES.saturating_sub(self.total) };
        Allowance { namespace, total, ..Allowance::default() }
    }

    /// The route is in force, but for rules that found no room, and costs what was spent.
    pub fn keep(&mut self, route: &RouteName, spent: &Allowance) {
        self.refuse(route, spent);
        if spent.bytes > 0 {
            self.routes.insert(route.clone(), spent.bytes);
            *self.namespaces.entry(route.object.namespace.clone()).or_default() += spent.bytes;
            self.total += spent.bytes;
        }
    }

    /// The route was refused. If it found no room, no room is left.
    pub fn refuse(&mut self, route: &RouteName, spent: &Allowance) {
        match spent.refused {
            Some(ExpressionError::Namespace) => {
                self.full.insert(route.object.namespace.clone());
            }
            Some(_) => self.all_full = true,
            None => {}
        }
    }

    /// The route is gone.
    pub fn forget(&mut self, route: &RouteName) {
        let Some(bytes) = self.routes.remove(route) else { return };
        self.total -= bytes;
        if let Some(used) = self.namespaces.get_mut(&route.object.namespace) {
            *used -= bytes;
            if *used == 0 {
                self.namespaces.remove(&route.object.namespace);
            }
        }
        // What others lacked may be there now.
        self.full.remove(&route.object.namespace);
        self.all_full = false;
    }

    /// Bytes in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ObjectName, RouteKind};

    fn name(namespace: &str, name: &str) -> RouteName {
        RouteKind::Http.named(ObjectName { namespace: namespace.into(), name: name.into() })
    }

    /// Adds a route with so many expressions.
    fn add(all: &mut Expressions, route: &RouteName, count: usize) -> Result<(), ExpressionError> {
        let mut allowance = all.allow(route);
        for n in 0..count {
            // 65 KiB.
            let source = format!("{n}[ab]*a[ab]{{10}}c");
            if let Err(refusal) = allowance.compile(&source, MatchInput::Target) {
                all.refuse(route, &allowance);
                return Err(refusal);
            }
        }
        all.keep(route, &allowance);
        Ok(())
    }

    /// Adds a route whose expressions take so many bytes.
    fn charge(
        all: &mut Expressions,
        route: &RouteName,
        bytes: usize,
    ) -> Result<(), ExpressionError> {
        let mut allowance = all.allow(route);
        if let Err(refusal) = allowance.check(bytes) {
            all.refuse(route, &allowance);
            return Err(refusal);
        }
        allowance.bytes = bytes;
        all.keep(route, &allowance);
        Ok(())
    }

    #[test]
    fn a_route_has_a_share_and_so_has_a_namespace() {
        let mut all = Expressions::default();
        assert_eq!(add(&mut all, &name("a", "large"), 100), Err(ExpressionError::Route));
        assert_eq!(all.total(), 0, "a refused one holds nothing");
        for n in 0..4 {
            assert_eq!(charge(&mut all, &name("a", &n.to_string()), ROUTE_BYTES), Ok(()));
        }
        assert_eq!(all.total(), NAMESPACE_BYTES);
        assert_eq!(add(&mut all, &name("a", "one more"), 1), Err(ExpressionError::Namespace));
        assert_eq!(add(&mut all, &name("b", "another's"), 1), Ok(()));
        // The same again takes nothing more.
        for _ in 0..5 {
            assert_eq!(charge(&mut all, &name("a", "0"), ROUTE_BYTES), Ok(()));
        }
        all.forget(&name("b", "another's"));
        assert_eq!(all.total(), NAMESPACE_BYTES);
        all.forget(&name("a", "1"));
        assert_eq!(add(&mut all, &name("a", "one more"), 1), Ok(()), "there is room again");
    }

    #[test]
    fn nothing_is_compiled_for_a_namespace_that_is_full() {
        let mut all = Expressions::default();
        for n in 0..3 {
            assert_eq!(charge(&mut all, &name("a", &n.to_string()), ROUTE_BYTES), Ok(()));
        }
        // There is some left, and this one finds out that it is too little.
        assert_eq!(charge(&mut all, &name("a", "most"), ROUTE_BYTES - 1000), Ok(()));
        assert_eq!(add(&mut all, &name("a", "late"), 1), Err(ExpressionError::Namespace));
        let took = crate::work::cpu(|| {
            for n in 0..1000 {
                let route = name("a", &format!("late-{n}"));
                assert_eq!(add(&mut all, &route, 1), Err(ExpressionError::Namespace));
            }
        });
        // Compiling one takes a millisecond, and twenty without optimization.
        assert!(took.as_millis() < 200, "{took:?}");
    }

    #[test]
    fn all_namespaces_share_what_there_is() {
        let mut all = Expressions::default();
        let of = |n: usize| name(&format!("ns-{}", n / 4), &n.to_string());
        let refused = (0..).find_map(|n| charge(&mut all, &of(n), ROUTE_BYTES).err());
        assert_eq!((refused, all.total()), (Some(ExpressionError::Total), TOTAL_BYTES));
        assert_eq!(add(&mut all, &name("late", "late"), 1), Err(ExpressionError::Total));
        all.forget(&of(0));
        assert_eq!(add(&mut all, &name("late", "late"), 1), Ok(()));
    }

    #[test]
    fn what_a_request_may_cost_is_bounded_whatever_the_expressions_take() {
        let mut allowance = Allowance::default();
        let mut compile = |n: usize, input| allowance.compile(&format!("{}", n % 10), input);
        let headers = (0..).take_while(|n| compile(*n, MatchInput::Header).is_ok()).count();
        assert_eq!(headers, ROUTE_STEPS / HEADER_STEPS);
        assert_eq!(compile(0, MatchInput::Target).unwrap_err(), ExpressionError::Steps);
    }
}
