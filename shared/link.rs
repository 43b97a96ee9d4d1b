//! How every function is linked; the build script of all of them.

use std::env;

#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "so cargo and a build script speak with each other"
)]
fn main() {
    println!("cargo::rerun-if-changed=../../shared/link.rs");
    // At a fixed address. Anywhere else, the loader writes thousands of addresses anew at each start, before `main`, which
    // took up to a third of all that a start takes of the processor. docs/DECISIONS.md has what was weighed.
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
