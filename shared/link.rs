//! How every function is linked, and what it is measured against; the build script of all of them.

use std::env;

#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "so cargo and a build script speak with each other"
)]
fn main() {
    // This file is followed as the script's source. Without a line like this, everything else would be, too.
    println!("cargo::rerun-if-changed=Cargo.toml");
    let is = |name, value| env::var(name).is_ok_and(|is| is == value);
    // At a fixed address. Anywhere else, the loader writes thousands of addresses anew at each start, before `main`: up to
    // a quarter of all instructions of a start. docs/DECISIONS.md has what was weighed.
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
