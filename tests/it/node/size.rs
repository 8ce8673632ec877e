//! Sizes: the plugin's file, and the memory of a daemon with huge ranges.

use std::fs;

use super::{add_many, config};
use crate::common::{Daemon, LEASEHOLD, Options, builds};

/// ADDs on each network.
const ADDS: usize = 1000;
/// The most memory that a huge range may cost above a small one, in KiB: only noise.
const DIFFERENCE_KIB_MAX: u64 = 4 << 10;
/// The type of a file that can be loaded to any address.
const ET_DYN: [u8; 2] = [3, 0];
/// The type of the program header that names a dynamic linker.
const PT_INTERP: u32 = 3;
/// The type of the program headers of the parts that are loaded into memory.
const PT_LOAD: u32 = 1;

/// A program header of a 64-bit ELF file: its type, and the piece of the file that it is about.
fn segments(elf: &[u8]) -> Vec<(u32, &[u8])> {
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "a 64-bit little-endian ELF file");
    let number = |at: usize, bytes: usize| {
        elf[at..at + bytes].iter().rev().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte))
    };
    let (headers, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let segment = |index| {
        let at = headers + index * size;
        let kind = u32::try_from(number(at, 4)).expect("four bytes");
        let (offset, length) = (number(at + 8, 8), number(at + 32, 8));
        (kind, &elf[offset..offset + length])
    };
    (0..count).map(segment).collect()
}

fn has_linker(elf: &[u8]) -> bool {
    segments(elf).iter().any(|(kind, _)| *kind == PT_INTERP)
}

/// True if a word is in what a program loads; notes for debuggers are not.
fn loads(elf: &[u8], word: &str) -> bool {
    segments(elf)
        .iter()
        .filter(|(kind, _)| *kind == PT_LOAD)
        .any(|(_, bytes)| bytes.windows(word.len()).any(|window| window == word.as_bytes()))
}

/// True if a program can be loaded at any address.
fn is_movable(elf: &[u8]) -> bool {
    elf[16..18] == ET_DYN
}

#[test]
fn the_plugin_is_one_static_file_without_a_runtime() {
    for build in builds() {
        let (elf, target) = (fs::read(&build.program).expect("the plugin"), &build.target);
        assert!(!has_linker(&elf), "{target}: the plugin needs a dynamic linker");
        assert!(is_movable(&elf), "{target}: the plugin is loaded to a fixed address");
        for word in ["tokio", "actix", "tracing_core", "redb", "hyper"] {
            assert!(!loads(&elf, word), "{target}: the plugin has {word} in it");
        }
    }
}

#[test]
fn the_checks_of_the_plugin_can_fail() {
    let shell = fs::read("/bin/sh").expect("a shell");
    assert!(has_linker(&shell), "a usual program names its linker");
    let mut fixed = shell;
    // ET_EXEC
    fixed[16] = 2;
    assert!(!is_movable(&fixed), "this is a program at a fixed address");
    let daemon = fs::read(LEASEHOLD).expect("the daemon");
    assert!(loads(&daemon, "tokio") && loads(&daemon, "actix"), "the daemon has a runtime");
    assert!(!has_linker(&daemon), "the daemon is static too");
}

/// The resident memory of a daemon after many ADDs on one network, in KiB.
fn resident_after_adds(subnet: &str) -> u64 {
    let daemon = Daemon::start(&Options::default());
    let answers = add_many(&mut daemon.client(), &config("net", &[subnet]), ADDS);
    let last = &answers.last().expect("an answer").expect_result()["ips"][0]["address"];
    let resident = daemon.memory_kib("VmRSS");
    println!("{subnet}: the last of {ADDS} is {last}, resident memory {resident} KiB");
    resident
}

#[test]
fn huge_ranges_cost_nothing_until_they_are_used() {
    // The smallest subnet of each family that has room for as many.
    for (small, huge) in [
        ("10.80.0.0/22", "11.0.0.0/8"),
        ("2001:db8:80::/118", "2001:db8:81::/48"),
        ("2001:db8:80::/118", "2001:db8:82::/64"),
        ("2001:db8:80::/118", "2000::/3"),
    ] {
        let (small, huge_resident) = (resident_after_adds(small), resident_after_adds(huge));
        let difference = huge_resident.saturating_sub(small);
        assert!(difference < DIFFERENCE_KIB_MAX, "{huge} costs {difference} KiB more");
    }
}
