//! The CNI plugin: see `leasehold::plugin`.
//!
//! Without Rust's own start-up code: it looks for the guard page of the main thread and sets up a
//! signal stack, which is of no use here and takes 50 us, where the exec of an empty program takes
//! 400 and the whole call to the daemon another 40.

#![cfg_attr(not(test), no_main)]

/// The C library's entry.
#[cfg(not(test))]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main() -> std::ffi::c_int {
    leasehold::plugin::main()
}
