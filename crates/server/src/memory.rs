// SPDX-License-Identifier: Apache-2.0
//! Keeping the daemon small.
//!
//! Two things grow that idle does not need. glibc's allocator keeps freed memory unless told otherwise: each large block that
//! is freed raises the size from which blocks are mappings of their own, up to 32 MiB, and from then on requests of megabytes
//! lie in heaps, where one small block above them keeps them from the kernel. And the kernel
//! maps 16 pages of the program for each one that is touched, until nearly all of its code counts as ours and, as
//! mapped code, is the last that the kernel takes when memory is short. Unmapped it stays in the page cache, where
//! it is taken first; what is needed again costs a minor fault.
#![expect(unsafe_code, reason = "mallopt, malloc_trim and madvise have no safe wrapper")]

/// The size from which a block is a mapping of its own, which goes back to the kernel when it is freed: glibc's first value.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 128 << 10;

/// Limits what the allocator keeps: two arenas instead of eight per core, and large blocks are returned to the kernel when they
/// are freed, however many there were before. Call once, before threads start.
pub fn limit_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and touches only the allocator's settings.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        // Given a value, it does not rise any more.
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING);
    }
}

/// Gives the kernel back what idle does not need. Takes a millisecond or so.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim is safe to call from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
    if let (Ok(program), Ok(maps)) = (std::fs::read_link("/proc/self/exe"), std::fs::read("/proc/self/maps"))
    {
        use std::os::unix::ffi::OsStrExt;
        for (start, length) in code(&maps, program.as_os_str().as_bytes()) {
            // SAFETY: the range is a mapping of our own code: private, never writable and never written, since the
            // program is position independent and has no relocations in its code. Dropping its pages changes nothing
            // that can be read there; a thread that runs in them faults them in again.
            unsafe {
                libc::madvise(std::ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED);
            }
        }
    }
}

/// Address and length of the mappings of a file that can be executed and not written (proc(5), "maps"):
/// `START-END r-xp OFFSET DEVICE INODE   PATH`.
fn code(maps: &[u8], file: &[u8]) -> Vec<(usize, usize)> {
    let mapping = |line: &[u8]| {
        let text = std::str::from_utf8(line.strip_suffix(file)?).ok()?;
        let mut words = text.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        // Nothing may stand between the inode and the path: the file's name could be another's end.
        let is_ours = words.next() == Some("r-xp") && words.count() == 3;
        is_ours.then_some((start, end.checked_sub(start)?))
    };
    maps.split(|byte| *byte == b'\n').filter_map(mapping).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
559e36a4c000-559e36e87000 r--p 00000000 fe:00 9986078                    /usr/bin/hull\n\
559e36e87000-559e37880000 r-xp 0043b000 fe:00 9986078                    /usr/bin/hull\n\
559e37880000-559e37919000 r--p 00e33000 fe:00 9986078                    /usr/bin/hull\n\
559e37919000-559e3791e000 rw-p 00ecb000 fe:00 9986078                    /usr/bin/hull\n\
7f5d0c000000-7f5d0c021000 r-xp 00000000 fe:00 77                         /opt/usr/bin/hull\n\
7f5d14000000-7f5d14021000 r-xp 00000000 00:00 0 \n";

    #[test]
    fn only_our_own_code_is_dropped() {
        assert_eq!(code(MAPS, b"/usr/bin/hull"), [(0x559e_36e8_7000, 0x9f_9000)]);
        assert_eq!(code(MAPS, b"/usr/bin/other"), []);
        assert_eq!(code(b"garbage\n\n-", b"garbage"), []);
    }

    #[test]
    fn the_program_runs_on() {
        let before = "still here".to_owned();
        trim();
        assert_eq!(before, "still here");
    }
}
