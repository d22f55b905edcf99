//! Who imports from whom. In: a folder of sources. Out: each module with the modules that its `use`
//! items, its paths and its macros name. What only tests need does not count.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use syn::{
    Attribute, ItemMod, ItemUse, Macro, UseTree,
    visit::{self, Visit},
};

use crate::tools;

/// A file of the crate.
#[derive(Debug)]
pub(super) struct Module {
    /// Without `crate::`, for example `proxy::shadow`; that of the root is `crate`.
    pub(super) path: String,
    /// As a reader types it.
    pub(super) file: String,
    /// The modules that it names.
    pub(super) imports: BTreeSet<String>,
}

/// All modules of a crate's `src`.
///
/// # Errors
/// A file cannot be read, or is not Rust.
pub(super) fn modules(source: &Path) -> Result<Vec<Module>> {
    let mut files = Vec::new();
    list(source, &mut files)?;
    files.sort();
    let paths: Vec<Vec<String>> = files.iter().map(|file| segments(source, file)).collect();
    let known: BTreeSet<String> = paths.iter().map(|path| path.join("::")).collect();
    let mut modules = Vec::new();
    for (file, path) in files.iter().zip(paths) {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let parsed = syn::parse_file(&text).with_context(|| file.display().to_string())?;
        let module = path.clone();
        let mut names = Names { module: path, known: &known, imports: BTreeSet::new() };
        names.visit_file(&parsed);
        let (own, mut imports) = (module.join("::"), names.imports);
        imports.remove(&own);
        modules.push(Module {
            path: if own.is_empty() { "crate".to_owned() } else { own },
            file: file.strip_prefix(tools::root()).unwrap_or(file).display().to_string(),
            imports,
        });
    }
    Ok(modules)
}

/// Files of the crate, without those of tests.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default();
        if name == "tests" {
            continue;
        }
        if path.is_dir() {
            list(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The module of a file; none for the crate's root.
fn segments(source: &Path, file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(source).unwrap_or(file).with_extension("");
    let mut path: Vec<_> =
        relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.len() == 1 && path[0] == "lib" {
        path.clear();
    }
    path
}

/// Gathers what a file names.
struct Names<'a> {
    module: Vec<String>,
    known: &'a BTreeSet<String>,
    imports: BTreeSet<String>,
}

impl Names<'_> {
    /// A path was named. One that begins with neither `crate`, `self` nor `super` is of another crate,
    /// or of what was imported.
    fn add(&mut self, path: &[String]) {
        let mut base = self.module.clone();
        let mut rest = path;
        let Some(first) = rest.first() else { return };
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => drop(base.pop()),
            _ => return,
        }
        rest = &rest[1..];
        while rest.first().is_some_and(|part| part == "super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend(rest.iter().cloned());
        // The rest are items.
        while !base.is_empty() && !self.known.contains(&base.join("::")) {
            base.pop();
        }
        if !base.is_empty() {
            self.imports.insert(base.join("::"));
        }
    }

    fn add_tree(&mut self, tree: &UseTree, path: &mut Vec<String>) {
        match tree {
            UseTree::Path(of) => {
                path.push(of.ident.to_string());
                self.add_tree(&of.tree, path);
                path.pop();
            }
            UseTree::Name(of) => {
                path.push(of.ident.to_string());
                self.add(path);
                path.pop();
            }
            UseTree::Rename(of) => {
                path.push(of.ident.to_string());
                self.add(path);
                path.pop();
            }
            UseTree::Glob(_) => self.add(path),
            UseTree::Group(of) => of.items.iter().for_each(|item| self.add_tree(item, path)),
        }
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.add_tree(&item.tree, &mut Vec::new());
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_for_tests(&item.attrs) {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if segments.len() > 1 {
            self.add(&segments);
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(in crate::proxy)` imports nothing.
    }

    fn visit_macro(&mut self, of: &'ast Macro) {
        visit::visit_macro(self, of);
        // As it is written there, each token is apart.
        let text = of.tokens.to_string();
        let tokens: Vec<_> = text.split_whitespace().collect();
        for (at, token) in tokens.iter().enumerate() {
            let begins = matches!(*token, "crate" | "super" | "self")
                && tokens.get(at + 1) == Some(&"::")
                && (at == 0 || tokens[at - 1] != "::");
            if begins {
                let path = tokens[at..].chunks(2).scan(true, |goes_on, pair| {
                    let part = goes_on.then(|| pair[0].to_owned());
                    *goes_on = pair.get(1) == Some(&"::");
                    part
                });
                let path: Vec<_> = path.collect();
                self.add(&path);
            }
        }
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}
