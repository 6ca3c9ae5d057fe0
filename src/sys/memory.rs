//! The C library's heap: malloc_trim(3).

/// Returns free memory to the system: malloc_trim(3). Without this call, the GNU C library keeps freed memory that lies between two
/// allocations in use. The time grows with the size of the heap. With another C library, this function does nothing.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointer, and the library locks its own heap.
    unsafe {
        libc::malloc_trim(0);
    }
}
