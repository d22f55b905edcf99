//! Expressions: what they match, and what they may cost.

use super::*;
use crate::work::ratio;

fn pattern(source: &str) -> Pattern {
    Pattern::new(source).unwrap_or_else(|error| panic!("{source}: {error}"))
}

#[test]
fn the_whole_value_must_match_whatever_alternative_comes_first() {
    for (source, value, expected) in [
        ("a|ab", "ab", true),
        ("a|ab", "abc", false),
        ("a*?", "aaa", true),
        ("a??b?", "ab", true),
        ("", "", true),
        ("", "a", false),
        ("a$", "a", true),
        ("^a", "a", true),
        ("(?m)a$\nb", "a\nb", true),
        ("(?m:a$)b", "ab", false),
        (".", "\n", false),
        ("(?s).", "\n", true),
        ("é", "é", true),
        (".", "é", true),
        ("[^a]", "é", true),
    ] {
        assert_eq!(pattern(source).matches(value.as_bytes()), expected, "{source} on {value}");
    }
}

#[test]
fn perl_classes_and_word_boundaries_are_those_of_ascii() {
    for (source, value, expected) in [
        (r"\d+", "12", true),
        (r"\d", "\u{661}", false),
        (r"\w+", "a_1", true),
        (r"\w", "é", false),
        (r"\W", "é", true),
        (r"[\w-]+", "a-1", true),
        (r"[^\w]", "é", true),
        (r"\s", "\u{a0}", false),
        (r"(?i)[\d\W]", "é", true),
        (r".*\bfoo\b.*", "a foo;", true),
        (r".*\bfoo\b.*", "afoo", false),
        (r".*\bfoo\b.*", "éfoo", true),
        (r"a\Bb", "ab", true),
        (r"\p{L}", "é", true),
    ] {
        assert_eq!(pattern(source).matches(value.as_bytes()), expected, "{source} on {value}");
    }
}

#[test]
fn parts_are_matched_as_their_concatenation() {
    let expression = pattern("a,b(,.*)?");
    let parts = |parts: &[&'static [u8]]| expression.matches_parts(|| parts.iter().copied());
    assert!(parts(&[b"a", b",", b"b"]));
    assert!(parts(&[b"a,", b"b,", b"", b"\xff"]));
    assert!(!parts(&[b"a", b",", b"c"]));
    assert!(pattern(r"a(?-u:\xff)").matches(b"a\xff"), "a byte that is named");
    assert!(pattern("a\u{fffd}b").matches(b"a\xffb"));
}

/// Every one of them was made to take long, or much memory, with some engine.
#[test]
fn no_expression_takes_long_to_compile_or_much_memory() {
    let hostile = [
        r"[ab]*a[ab]{5000}c".to_owned(),
        r"[ab]*a[ab]{20}c".to_owned(),
        r"((a{0,100}){0,100}){0,100}".to_owned(),
        r"(?:[^\x00]*a){30}.{20}".to_owned(),
        r"(\w{1,10}\W?){50}".to_owned(),
        r"(.?){900}".to_owned(),
        r"(a?){40}".repeat(100),
        r"\p{L}".repeat(1000),
        format!("(?i){}", r"\p{L}".repeat(1000)),
        format!("(?i){}", r"[\x{100}-\x{10ffff}]".repeat(500)),
        format!("(?i)[{}]", r"\x{100}-\x{10ffff}".repeat(500)),
        "a|".repeat(8000),
        "(".repeat(5000),
        "a".repeat(SOURCE_LIMIT + 1),
    ];
    for source in hostile {
        let shown = &source[..source.len().min(40)];
        let mut cost = 0;
        let took = crate::work::cpu(|| match Pattern::new(&source) {
            Ok(compiled) => cost = compiled.cost(),
            Err(error) => assert!(!error.to_string().is_empty()),
        });
        // Built without optimization it takes ten times as long.
        assert!(took.as_millis() < 500, "{shown} took {took:?}");
        assert!(cost < 2 * DFA_LIMIT, "{shown} takes {cost} bytes");
    }
}

#[test]
fn what_is_too_large_says_so() {
    for (source, expected) in [
        ("(a{1000}){1000}".to_owned(), PatternError::Large),
        ("[ab]*a[ab]{5000}c".to_owned(), PatternError::Large),
        (format!("(?i){}", r"\p{L}".repeat(5)), PatternError::Wide),
        ("a".repeat(SOURCE_LIMIT + 1), PatternError::Long),
    ] {
        assert_eq!(Pattern::new(&source).unwrap_err(), expected, "{source}");
    }
    assert!(matches!(Pattern::new("(").unwrap_err(), PatternError::Syntax(_)));
}

#[test]
fn common_expressions_are_small() {
    for source in [
        "/v[0-9]+/.*",
        r"\w{3,20}",
        r"[\w-]{1,64}",
        r"\d+",
        "(?i)canary|beta",
        "/api/(v1|v2)/users/[^/]+/orders/[^/]+",
        "[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}",
        "(.*,)?canary(,.*)?",
        ".*session=[^;]+;.*user=(a|b|c).*",
    ] {
        let cost = pattern(source).cost();
        assert!(cost < 64 * 1024, "{source} takes {cost} bytes");
    }
    assert!(pattern(r"\p{L}+").cost() < DFA_LIMIT);
}

#[test]
fn a_match_takes_time_that_is_linear_in_the_value_alone() {
    // With an engine that simulates states: (a|b)*a(a|b){10}c has 17, and a thousand times as many
    // would cost a thousand times as much.
    let (small, large) = (pattern("[ab]*"), pattern("[ab]*a[ab]{10}c?"));
    let value = "ab".repeat(128 * 1024);
    let look = |expression: &Pattern, n: usize| {
        std::hint::black_box(expression.matches(&value.as_bytes()[..n]));
    };
    let grows = ratio(|n| look(&large, n), value.len() / 4);
    assert!(grows < 8.0, "{grows}");
    let time = |expression: &Pattern| crate::work::cpu(|| look(expression, value.len()));
    let (small, large) = (time(&small), time(&large));
    assert!(large < 4 * small, "{large:?}, and {small:?} of a small one");
}
