//! The goals: each a figure of this run against a bound, reported as met or missed.

use std::fmt;

use serde::Serialize;

/// A goal and what became of it.
#[derive(Debug, Serialize)]
pub(super) struct Goal {
    /// What is compared, as text.
    what: String,
    bound: Bound,
    /// The figure, or why there is none; a goal without a figure is missed.
    figure: Result<f64, String>,
}

/// What the figure has to keep.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    pub(super) fn new(what: impl Into<String>, figure: Result<f64, String>, bound: Bound) -> Self {
        Self { what: what.into(), bound, figure }
    }

    pub(super) fn is_met(&self) -> bool {
        match (&self.figure, self.bound) {
            (Err(_), _) => false,
            (Ok(figure), Bound::AtMost(bound)) => *figure <= bound,
            (Ok(figure), Bound::AtLeast(bound)) => *figure >= bound,
        }
    }
}

/// One figure as a ratio of another.
pub(super) fn ratio(of: Result<f64, String>, to: Result<f64, String>) -> Result<f64, String> {
    let (of, to) = (of?, to?);
    if to > 0.0 { Ok(of / to) } else { Err(format!("{of:.3} against {to:.3}")) }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_met() { "met" } else { "missed" };
        let (words, bound) = match self.bound {
            Bound::AtMost(bound) => ("at most", bound),
            Bound::AtLeast(bound) => ("at least", bound),
        };
        write!(f, "{verdict:<6}  {}: ", self.what)?;
        match &self.figure {
            Ok(figure) => write!(f, "{figure:.3}, {words} {bound}"),
            Err(why) => write!(f, "not measured ({why}), {words} {bound}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_without_a_figure_is_missed() {
        let goal = |figure, bound| Goal::new("GET", figure, bound);
        assert!(goal(Ok(0.3), Bound::AtMost(0.3)).is_met());
        assert!(!goal(Ok(0.31), Bound::AtMost(0.3)).is_met());
        assert!(goal(Ok(1.8), Bound::AtLeast(1.8)).is_met());
        assert!(!goal(Err("it failed".into()), Bound::AtMost(1.0)).is_met());
        let text = goal(Err("it failed".into()), Bound::AtMost(1.0)).to_string();
        assert_eq!(text, "missed  GET: not measured (it failed), at most 1");
    }

    #[test]
    fn ratios_need_both_figures() {
        assert_eq!(ratio(Ok(1.0), Ok(2.0)), Ok(0.5));
        assert!(ratio(Ok(1.0), Ok(0.0)).is_err());
        assert!(ratio(Err("no".into()), Ok(1.0)).is_err());
    }
}
