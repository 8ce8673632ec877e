//! Has the plugin start at its own first instruction instead of the C library's, where that is
//! worth it: see `src/bin/my-ipam/main.rs`.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=.cargo/build.rs");
    println!("cargo::rustc-check-cfg=cfg(early)");
    let is = |what: &str, value: &str| {
        let found = env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
        found.split(',').any(|one| one == value)
    };
    let linux = is("OS", "linux") && is("ENV", "gnu") && is("FEATURE", "crt-static");
    if linux && is("ARCH", "x86_64") && links_with_gcc() {
        println!("cargo::rustc-cfg=early");
        // At a fixed place: what runs before the C library finds no pointer that is not one yet.
        for arg in ["-no-pie", "-static", "-Wl,--entry=my_ipam_start"] {
            println!("cargo::rustc-link-arg-bin=my-ipam={arg}");
        }
    }
}

/// Whether these options are known to be understood after those of `rustc`.
fn links_with_gcc() -> bool {
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let said = Command::new(linker).arg("-v").output();
    said.is_ok_and(|said| String::from_utf8_lossy(&said.stderr).contains("gcc version"))
}
