//! The order of a crate made for the test, and each way to break it.

use super::*;

/// What is wrong with these files in this order.
fn findings(order: &str, files: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let modules = graph::modules(folder.path()).unwrap();
    compare(&Order::parse(order).unwrap(), &modules).unwrap()
}

const LIB: (&str, &str) = ("lib.rs", "mod a;\nmod b;\nmod c;\n");

#[test]
fn an_import_from_below_is_in_order_and_one_from_above_is_not() {
    let files = [LIB, ("a.rs", "use crate::b::B;\n"), ("b.rs", "pub struct B;\n"), ("c.rs", "")];
    assert_eq!(findings("crate\na\nb\nc\n", &files), Vec::<String>::new());
    let found = findings("crate\nb\na\nc\n", &files);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("a.rs: a imports from b, which stands above it"), "{found:?}");
}

#[test]
fn paths_groups_macros_and_supers_are_imports_and_tests_are_not() {
    let below = ("c.rs", "pub fn f() {}\n");
    for text in [
        "use crate::{c::{self}, b};",
        "use super::c;",
        "fn g() { crate::c::f(); }",
        "fn g() { println!(\"{}\", crate::c::f()); }",
        "fn g() -> super::c::C { todo!() }",
        "mod inner { use super::super::c::f; }",
    ] {
        let found = findings("crate\nb\nc\na\n", &[LIB, ("a.rs", text), ("b.rs", ""), below]);
        assert!(found.iter().any(|found| found.contains("a imports from c")), "{text}: {found:?}");
    }
    for text in
        ["#[cfg(test)]\nmod tests { use crate::c; }", "pub(in crate::c) fn g() {}", "// crate::c"]
    {
        let found = findings("crate\nb\nc\na\n", &[LIB, ("a.rs", text), ("b.rs", ""), below]);
        assert_eq!(found, Vec::<String>::new(), "{text}");
    }
}

#[test]
fn places_on_one_line_know_nothing_of_each_other() {
    let files = [LIB, ("a.rs", "use super::b;"), ("b.rs", ""), ("c.rs", "")];
    let found = findings("crate\na | b\nc\n", &files);
    assert!(found[0].contains("a imports from b, of which it is to know nothing"), "{found:?}");
    let within = [("lib.rs", "mod a;"), ("a.rs", "mod b;"), ("a/b.rs", "use super::X;")];
    assert_eq!(findings("crate\na\n", &within), Vec::<String>::new(), "a place is free within");
}

#[test]
fn exceptions_are_needed_and_every_module_has_a_place() {
    let files = [LIB, ("a.rs", "use crate::b;"), ("b.rs", ""), ("c.rs", "")];
    assert_eq!(findings("crate\nb\na\nc\na -> b\n", &files), Vec::<String>::new());
    let found = findings("crate\na\nb\nc\na -> b\n", &files);
    assert_eq!(found, ["the exception `a -> b` is not needed: remove it"]);
    let found = findings("crate\na\nb\n", &files);
    assert!(found[0].ends_with("the module c has no place in the order"), "{found:?}");
    assert_eq!(findings("crate\na\nb\nc\nd\n", &files), ["no module is called d"]);
}

#[test]
fn a_list_of_another_form_is_refused() {
    for (text, said) in [
        ("a\na\n", "line 2: a stands twice"),
        ("a b\n", "line 1: \"a b\" is not the path of a module"),
        ("a\nb -> a\nb -> a\n", "line 3: this exception stands twice"),
    ] {
        assert_eq!(Order::parse(text).unwrap_err().to_string(), said);
    }
}
