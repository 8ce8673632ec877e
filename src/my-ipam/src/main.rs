//! The CNI plugin: see the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use dlmalloc::GlobalDlmalloc;

/// All that a run allocates lies side by side in one mapping. musl's own allocator makes a mapping
/// for every size, and page faults are most of what a run costs.
#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

fn main() -> ExitCode {
    my_ipam::main()
}
