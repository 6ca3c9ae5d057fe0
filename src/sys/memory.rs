//! The C library's heap: malloc_trim(3).

/// malloc_trim(3): gives free memory back to the system. Without it the GNU C library keeps what was freed between two pieces that are
/// still in use. Takes time that grows with the size of the heap. Does nothing where the C library has no such call.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointer, and the library locks its own heap.
    unsafe {
        libc::malloc_trim(0);
    }
}
