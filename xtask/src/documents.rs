//! Tests of the documents: README is short and names tests that exist, and links lead somewhere.

use std::{collections::HashSet, fs, path::Path};

use crate::tools;

const DOCUMENTS: [&str; 5] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "deploy/README.md",
    "deploy/walkthrough.md",
];

fn read(file: &str) -> String {
    fs::read_to_string(tools::root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The texts of code spans.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn readme_is_short() {
    assert!(read("README.md").lines().count() <= 200);
}

#[test]
fn every_test_that_readme_names_exists() {
    let readme = read("README.md");
    let (_, section) = readme.split_once("\n## What it does that").expect("the table of facts");
    let (table, _) = section.split_once("\n## ").expect("a section behind it");
    let mut named = 0;
    for row in table.lines().filter(|line| line.starts_with('|')).skip(2) {
        let shown_by = row.split('|').nth(2).expect("a column");
        for span in spans(shown_by).filter(|span| *span != "throughput" && *span != "faults") {
            let (file, test) = span.split_once("::").unwrap_or((span, ""));
            let source = read(&format!("tests/tests/{file}.rs"));
            assert!(test.is_empty() || source.contains(&format!("fn {test}(")), "{span}");
            named += 1;
        }
    }
    assert!(named > 10, "{named}");
}

#[test]
fn links_lead_to_files_and_headings() {
    for document in DOCUMENTS {
        let text = read(document);
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().expect("a closing bracket");
            if link.starts_with("https://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(document).parent().expect("a file");
            let target = if file.is_empty() { document.into() } else { folder.join(file) };
            let target = tools::root().join(target);
            assert!(target.exists(), "{document}: {link}");
            if !heading.is_empty() {
                let text = fs::read_to_string(target).expect("a document");
                assert!(anchors(&text).contains(heading), "{document}: {link}");
            }
        }
    }
}

/// Headings as GitHub makes anchors of them.
fn anchors(text: &str) -> HashSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        title.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(anchor).collect()
}
