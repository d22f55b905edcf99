//! Tests of the search: what counts as prose, and what the allow-list makes of it.

use super::*;

const RULES: &str = "anew -> again\nanswer -> response\nof its own -> separate\n";

fn found(file: &str, text: &str) -> Vec<Hit> {
    hits(&rules(RULES).unwrap(), &prose::of(file, text).expect("a file with prose"))
}

/// Lines of the words in a file.
fn lines(file: &str, text: &str) -> Vec<usize> {
    found(file, text).iter().map(|hit| hit.line).collect()
}

#[test]
fn a_planted_line_is_found() {
    let list = Allowed::parse("1 a.rs\n").unwrap();
    let faults = |text: &str| faults(&[("a.rs".into(), found("a.rs", text))], &list);
    assert!(faults("// It begins anew.\n").is_empty());
    let more = faults("// It begins anew.\n// An answer.\n");
    assert_eq!(more.len(), 3, "{more:?}");
    assert_eq!(more[2], "a.rs:2: \"answer\": write response");
    let fewer = faults("// It begins again.\n");
    assert!(fewer[0].contains("lower it"), "{fewer:?}");
    let gone = super::faults(&[], &list);
    assert!(gone[0].contains("does not exist"), "{gone:?}");
}

#[test]
fn nothing_is_allowed_in_markdown_and_errors() {
    let list = Allowed::parse("5 a.md\n5 a.rs\n").unwrap();
    for (file, text) in [
        ("a.md", "An answer.\n"),
        ("a.rs", "#[error(\"no answer\")]\n"),
        ("a.rs", "#[error(\n    \"no answer: {0}\"\n)]\n"),
        ("a.rs", "bail!(\"no answer\");\n"),
        ("a.rs", "read().context(\"no answer\")?;\n"),
        ("a.rs", "read().with_context(|| format!(\"no answer of {a}\"))?;\n"),
    ] {
        let faults = faults(&[(file.into(), found(file, text))], &list);
        assert!(faults[0].ends_with("\"answer\": write response"), "{text}: {faults:?}");
    }
}

#[test]
fn code_is_no_prose() {
    for (file, text) in [
        ("a.md", "The label `answer`.\n\n    answer\n\n```\nanswer\n```\n"),
        ("a.rs", "fn answer() { let anew = '\"'; answer(\"x\"); }\n"),
        ("a.rs", "/// The label `answer`, and [`answer`].\nfn a<'answer>() {}\n"),
        ("a.rs", "let x = \"early-answer\";\n"),
        ("tests/a.rs", "let x = \"an answer\";\n"),
        ("a.rs", "#[cfg(test)]\nmod tests {\n    const A: &str = \"an answer\";\n}\n"),
        ("a.yaml", "answer: anew\n"),
    ] {
        assert!(lines(file, text).is_empty(), "{text}");
    }
}

#[test]
fn words_are_found_with_their_lines() {
    for (file, text, expected) in [
        ("a.md", "One.\n\nA thing of its\nown, Anew.\n", &[3, 4][..]),
        ("a.md", "| a | answer |\n|---|---|\n| anew | b |\n", &[1, 3]),
        ("a.rs", "//! A task of\n//! its own.\n\nfn a() {} // the answer's end\n", &[1, 4]),
        ("a.rs", "let a = \"one \\\n    answer\";\n// anew\n", &[2, 3]),
        ("a.rs", "let a = r#\"an \"answer\" \"#; // anew\n", &[1, 1]),
        ("a.rs", "let a = b'\\''; let b = '\\u{27}'; // anew\n", &[1]),
        ("tests/a.rs", "let a = \"answer\"; // anew\n", &[1]),
        ("a.yaml", "a: b # an answer\n", &[1]),
        ("Dockerfile", "# anew\nFROM a\n", &[1]),
    ] {
        assert_eq!(lines(file, text), expected, "{text}");
    }
}

#[test]
fn phrases_do_not_cross_code() {
    assert!(lines("a.rs", "// a part of\nlet a = 1;\n// its own\n").is_empty());
}
