// SPDX-License-Identifier: Apache-2.0
//! Keeping the daemon small: glibc's allocator keeps freed memory unless told otherwise.
#![expect(unsafe_code, reason = "mallopt and malloc_trim have no safe wrapper")]

/// Two arenas instead of eight per core. Call once, before threads start.
pub fn limit_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and touches only the allocator's settings.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives freed memory back to the kernel. Takes a millisecond or so.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim is safe to call from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
