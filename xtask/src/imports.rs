//! The order of mirror-user's modules (`xtask/imports.txt`). In: the sources. Out: a failure if a module
//! imports from one that stands above it, or from one that it is to know nothing of; and if an exception
//! is listed that no longer exists, so that the list of exceptions only ever shrinks.

mod graph;
mod order;

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, bail};

use self::order::Order;

/// The list, relative to the root.
const ORDER: &str = "xtask/imports.txt";

/// The crate whose modules it orders.
const SOURCES: &str = "mirror-user/src";

/// Compares the imports with the order.
///
/// # Errors
/// Each import against the order; each exception that is not needed.
pub(crate) fn check(root: &Path) -> Result<()> {
    let text = fs::read_to_string(root.join(ORDER)).context(ORDER)?;
    let order = Order::parse(&text).context(ORDER)?;
    let modules = graph::modules(&root.join(SOURCES))?;
    let findings = compare(&order, &modules)?;
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{}\n(the order is {ORDER}; CONTRIBUTING.md says how to read it)", findings.join("\n"));
}

/// What is wrong, a line each.
fn compare(order: &Order, modules: &[graph::Module]) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let mut needed = BTreeSet::new();
    for module in modules {
        if order.place(&module.path).is_none() {
            findings.push(format!(
                "{}: the module {} has no place in the order",
                module.file, module.path
            ));
        }
        for target in &module.imports {
            let Some(reason) = order.forbids(&module.path, target) else { continue };
            let exception = (module.path.clone(), target.clone());
            if order.is_exception(&exception) {
                needed.insert(exception);
            } else {
                let (file, path) = (&module.file, &module.path);
                findings.push(format!("{file}: {path} imports from {target}, {reason}"));
            }
        }
    }
    for (from, to) in order.exceptions().filter(|exception| !needed.contains(*exception)) {
        findings.push(format!("the exception `{from} -> {to}` is not needed: remove it"));
    }
    for place in
        order.places().filter(|place| !modules.iter().any(|of| order::is_within(&of.path, place)))
    {
        findings.push(format!("no module is called {place}"));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests;
