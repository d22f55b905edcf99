//! Chooses the object with the programs for the kernel: the one built from source when it is
//! there and belongs to these sources, else the committed one when it does, else an error that
//! says what to run. Nothing is compiled for the kernel here, so that stable Rust is enough.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::exit,
};

#[path = "../mirror-ebpf/source_hash.rs"]
mod source_hash;

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
        Ok(object) => copy(&object),
        Err(message) => {
            println!("cargo::error={message}");
            exit(1);
        }
    }
}

fn choose(root: &Path) -> Result<PathBuf, String> {
    let sources = source_hash::source_hash(root)
        .map_err(|e| format!("the sources of the programs for the kernel: {e}"))?;
    let fresh = (root.join("target/bpf/mirror"), root.join("target/bpf/mirror.sha256"));
    let committed = (
        root.join("mirror-ebpf/prebuilt/mirror.o"),
        root.join("mirror-ebpf/prebuilt/mirror.o.sha256"),
    );
    for (object, hash) in [fresh, committed] {
        let belongs = fs::read_to_string(hash).is_ok_and(|hash| hash.trim() == sources);
        if belongs && object.exists() {
            return Ok(object);
        }
    }
    Err("no object with the programs for the kernel belongs to the sources in mirror-ebpf and \
         mirror-common: they were changed after mirror-ebpf/prebuilt/mirror.o was built. Run \
         `cargo xtask build-ebpf` (it says what to install when a tool is missing)"
        .to_owned())
}

fn copy(object: &Path) {
    let target =
        PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("mirror.o");
    fs::copy(object, &target)
        .unwrap_or_else(|e| panic!("copying {} to {}: {e}", object.display(), target.display()));
    println!("cargo::rustc-env=MIRROR_OBJECT={}", target.display());
}
