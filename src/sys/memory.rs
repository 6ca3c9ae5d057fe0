//! The C library's heap: malloc_trim(3), mallopt(3).

/// Returns free memory to the system: malloc_trim(3). Without this call, the GNU C library keeps freed memory that lies between two
/// allocations in use. The time grows with the size of the heap. With another C library, this function does nothing.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointer, and the library locks its own heap.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps all threads on one heap: mallopt(3), `M_ARENA_MAX`. A thread that has a heap of its own keeps it, so this comes before the program
/// starts a second thread. With another C library than GNU's, this function does nothing.
///
/// When the GNU C library first returns memory of a heap other than the first, it opens `/proc/sys/vm/overcommit_memory`. When it makes such
/// a heap, it counts the CPUs.
pub fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes numbers only, and the library locks its own state.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
