//! Has the linker put the code of the program in order: `order.ld` says which, and why.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "cargo speaks to this by variables, and this to cargo by standard output"
)]

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=order.ld");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|said| said == value);
    // Both lld, which Rust takes there, and GNU ld know how to insert sections. Without optimization order is of no use.
    if is("CARGO_CFG_TARGET_OS", "linux") && is("PROFILE", "release") {
        let dir = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bin=seaworthy=-Wl,-T,{dir}/order.ld");
    }
}
