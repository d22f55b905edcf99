//! The tests that `deploy/gateway-api.md` names exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names of all functions in the Rust files of a folder, and of the tests in its Go files.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            functions(&path, names);
            continue;
        }
        // Before a name, and behind it.
        let (before, behind) = match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => ("fn ", '('),
            Some("go") => ("ShortName:   \"", '"'),
            _ => continue,
        };
        let text = fs::read_to_string(&path).expect("a source is text");
        let after = text.lines().filter_map(|line| line.split_once(before));
        names.extend(after.filter_map(|(_, rest)| Some(rest.split_once(behind)?.0.to_owned())));
    }
}

/// The tests in the last column of each row.
fn named(table: &str) -> BTreeSet<String> {
    let rows = table.lines().filter(|line| line.starts_with('|') && line.contains('`'));
    let tests = rows.filter_map(|row| row.trim_end_matches('|').rsplit_once('|'));
    let names = tests.flat_map(|(_, tests)| tests.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

#[test]
fn each_test_that_a_row_names_exists() {
    let table = fs::read_to_string(root().join("deploy/gateway-api.md")).expect("the table");
    let named = named(&table);
    assert!(named.len() > 30, "{} tests are named", named.len());
    let mut known = BTreeSet::new();
    for folder in ["mirror-user/src", "mirror-user/tests", "tests/tests", "tests/conformance/mesh"]
    {
        functions(&root().join(folder), &mut known);
    }
    let missing: Vec<_> = named.difference(&known).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

#[test]
fn each_row_names_a_test() {
    let table = fs::read_to_string(root().join("deploy/gateway-api.md")).expect("the table");
    let rows = table.lines().filter(|line| line.starts_with("| `") || line.starts_with("| parent"));
    let bare: Vec<_> = rows.filter(|row| named(row).is_empty()).collect();
    assert!(bare.is_empty(), "{bare:#?}");
}
