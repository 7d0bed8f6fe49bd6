//! Memory of this process.

/// Gives back to the kernel what the allocator keeps of what was freed.
///
/// The allocator does so itself a while after, but only when it is asked for more: a process that freed much and then
/// has nothing to do keeps it all. Cheap where there is nothing to give.
#[allow(unsafe_code, reason = "a function of the allocator's")]
pub fn give_memory_back() {
    // SAFETY: may be called at any time by any thread; it changes nothing but what the allocator itself holds.
    unsafe { libmimalloc_sys::mi_collect(false) }
}
