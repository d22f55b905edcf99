//! The metrics reference of `deploy/README.md`, compared with what the program exposes. In: an
//! exposition that has a sample of every family, and the heading of a table. Out: a failing test if a
//! name, a type or a label differs.

use std::collections::BTreeMap;

const DOCUMENT: &str = include_str!("../../deploy/README.md");

/// Name, type and labels of a family, as the columns of the table.
type Family = (String, (String, String));

/// Fails unless the table below the heading lists exactly the families of the exposition.
pub(crate) fn assert_documented(heading: &str, exposition: &str) {
    let (exposed, documented) = (families(exposition), table(heading));
    for (name, is) in &exposed {
        let said = documented.get(name);
        assert!(said.is_some(), "{name} is not in the table \"{heading}\" of deploy/README.md");
        assert_eq!(said, Some(is), "type and labels of {name} in deploy/README.md");
    }
    let stale: Vec<_> = documented.keys().filter(|name| !exposed.contains_key(*name)).collect();
    assert!(stale.is_empty(), "deploy/README.md lists metrics that do not exist: {stale:?}");
}

/// The families of an exposition in OpenMetrics text.
fn families(exposition: &str) -> BTreeMap<String, (String, String)> {
    let types = exposition.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| family(line, exposition)).collect()
}

fn family(line: &str, exposition: &str) -> Family {
    let (name, kind) = line.split_once(' ').expect("NAME TYPE");
    // Prometheus stores a counter under the name of its sample.
    let (name, sample) = match kind {
        "counter" => (format!("{name}_total"), format!("{name}_total")),
        "histogram" => (name.to_owned(), format!("{name}_bucket")),
        _ => (name.to_owned(), name.to_owned()),
    };
    let mut samples = exposition.lines().filter_map(|line| line.strip_prefix(&sample));
    let sample = samples.find(|rest| rest.starts_with(['{', ' ']));
    let sample = sample.unwrap_or_else(|| panic!("{name} has no sample in this exposition"));
    let labels = sample.strip_prefix('{').map_or("", |rest| rest.split('}').next().unwrap_or(""));
    // No value of a label in these expositions has a comma.
    let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(key, _)| key);
    let labels: Vec<_> = labels.filter(|key| *key != "le").map(|key| format!("`{key}`")).collect();
    (name, (kind.to_owned(), labels.join(", ")))
}

/// The rows of the table below a heading.
fn table(heading: &str) -> BTreeMap<String, (String, String)> {
    let below = DOCUMENT.split_once(&format!("\n{heading}\n")).expect("the heading").1;
    let rows = below.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    let mut table = BTreeMap::new();
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`').to_owned();
        let row = (cells[2].to_owned(), cells[3].to_owned());
        assert!(table.insert(name.clone(), row).is_none(), "{name} is listed twice");
    }
    table
}
