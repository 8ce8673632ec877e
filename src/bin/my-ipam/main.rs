//! The CNI plugin: see `leasehold::plugin`.
//!
//! A process that starts with the C library asks the processor 50 times what it can do. In a
//! virtual machine each of these questions goes to the hypervisor, and together they can take half
//! of the time from exec to exit. So on x86-64 the usual call is carried out before the C library
//! is set up (`early.rs`), and whatever is unusual is left to the ordinary program.
//!
//! That one comes without Rust's own start-up code, which looks for the guard page of the main
//! thread and sets up a signal stack: of no use here, and another 50 us.

#![no_main]
// No loop of `memory.rs` may become a call of what it defines.
#![no_builtins]

#[cfg(early)]
mod early;
#[cfg(early)]
mod json;
#[cfg(early)]
mod memory;
#[cfg(early)]
mod sys;

/// The C library's entry, once it is set up.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main() -> std::ffi::c_int {
    #[cfg(early)]
    let begun = early::begun();
    #[cfg(not(early))]
    let begun = leasehold::plugin::Begun::default();
    leasehold::plugin::main(begun)
}
