//! Memory asked for before it is needed. With thousands of sockets a completion's connection is in no near cache: to ask
//! for the next one's while this one is handled hides most of the wait.

/// The bytes that a cache fetches at once.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// Has the caches fetch this value, and goes on. On other machines than x86-64 it does nothing.
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = std::ptr::from_ref(value).cast::<i8>();
        for offset in (0..size_of::<T>()).step_by(LINE_BYTES) {
            // SAFETY: the address is inside `value`, and a prefetch changes nothing but the caches.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
