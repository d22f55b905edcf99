//! Chooses the objects with the programs for the kernel: those built from source when they are there
//! and belong to these sources, else the committed ones when they do, else an error that says what
//! to run. Nothing is compiled for the kernel here, so that stable Rust is enough.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::exit,
};

#[path = "../mirror-ebpf/source_hash.rs"]
mod source_hash;

/// The objects, and the variables by which the program finds them.
const OBJECTS: [(&str, &str); 2] = [("mirror", "MIRROR_OBJECT"), ("tap", "MIRROR_TAP_OBJECT")];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for input in ["target/bpf", "mirror-ebpf", "mirror-common/src", "mirror-user/build.rs"] {
        // A path that does not exist would make cargo run this at every build.
        let input = root.join(input);
        if input.exists() {
            println!("cargo::rerun-if-changed={}", input.display());
        }
    }
    match choose(&root) {
        Ok(objects) => OBJECTS.iter().zip(objects).for_each(|(what, from)| copy(*what, &from)),
        Err(message) => {
            println!("cargo::error={message}");
            exit(1);
        }
    }
}

/// The paths of the objects, in the order of [`OBJECTS`].
fn choose(root: &Path) -> Result<Vec<PathBuf>, String> {
    let sources = source_hash::source_hash(root)
        .map_err(|e| format!("the sources of the programs for the kernel: {e}"))?;
    let fresh = (root.join("target/bpf"), "");
    let committed = (root.join("mirror-ebpf/prebuilt"), ".o");
    for (folder, ending) in [fresh, committed] {
        let hash = fs::read_to_string(folder.join("sources.sha256"));
        let belong = hash.is_ok_and(|hash| hash.trim() == sources);
        let objects: Vec<_> =
            OBJECTS.iter().map(|(name, _)| folder.join(format!("{name}{ending}"))).collect();
        if belong && objects.iter().all(|object| object.exists()) {
            return Ok(objects);
        }
    }
    Err("no objects with the programs for the kernel belong to the sources in mirror-ebpf and \
         mirror-common: they were changed after those in mirror-ebpf/prebuilt were built. Run \
         `cargo xtask build-ebpf` (it says what to install when a tool is missing)"
        .to_owned())
}

fn copy((name, variable): (&str, &str), object: &Path) {
    let target = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"))
        .join(format!("{name}.o"));
    fs::copy(object, &target)
        .unwrap_or_else(|e| panic!("copying {} to {}: {e}", object.display(), target.display()));
    println!("cargo::rustc-env={variable}={}", target.display());
}
