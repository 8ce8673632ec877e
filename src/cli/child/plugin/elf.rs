//! Reads from a program's file how the program is linked (ELF, 64 bits, little-endian).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The bytes of a file that are read: its header and its program headers are at the beginning.
const BYTES_MAX: u64 = 4096;

/// `e_type` of a program that can be loaded anywhere.
const ET_DYN: usize = 3;
/// `p_type` of the program header that names a dynamic linker.
const PT_INTERP: usize = 3;

/// "static-PIE", "static", "dynamic", or a description of any other file.
///
/// # Errors
/// It cannot be read.
pub(super) fn linked(program: &Path) -> io::Result<&'static str> {
    let mut bytes = Vec::new();
    File::open(program)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(kind(&bytes).unwrap_or("not a 64-bit program"))
}

fn kind(file: &[u8]) -> Option<&'static str> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, bytes: usize| {
        let bytes = file.get(at..at.checked_add(bytes)?)?;
        Some(bytes.iter().rev().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte)))
    };
    let (headers, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut has_linker = false;
    for index in 0..count {
        has_linker |= number(headers.checked_add(index * size)?, 4)? == PT_INTERP;
    }
    Some(match (has_linker, number(16, 2)? == ET_DYN) {
        (true, _) => "dynamic",
        (false, true) => "static-PIE",
        (false, false) => "static",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one program header.
    fn file(kind: u8, header: u8) -> Vec<u8> {
        let mut file = vec![0; 120];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (file[16], file[32], file[54], file[56]) = (kind, 64, 56, 1);
        file[64] = header;
        file
    }

    #[test]
    fn the_three_ways_are_told_apart() {
        assert_eq!(kind(&file(3, 1)), Some("static-PIE"));
        assert_eq!(kind(&file(2, 1)), Some("static"));
        assert_eq!(kind(&file(3, 3)), Some("dynamic"));
    }

    #[test]
    fn other_files_and_broken_ones_are_no_programs() {
        assert_eq!(kind(b"#!/bin/sh\n"), None);
        let whole = file(3, 1);
        for bytes in 0..68 {
            assert_eq!(kind(&whole[..bytes]), None, "{bytes} bytes of it");
        }
        let mut far = whole;
        far[32..40].fill(0xff);
        assert_eq!(kind(&far), None);
    }
}
