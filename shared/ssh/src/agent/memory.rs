//! Keeps keys out of swap, core dumps and other processes' sight, as far as the system lets us.

use std::sync::Arc;

/// Makes this process one that leaves no core dump and that no other of the same user can look into.
/// A system that does not know how is no reason to stop.
pub fn hide_process() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// Locks the memory behind `value` so that it is never swapped out; `false` where that is not allowed.
/// The lock stays when the value goes: its pages may hold another key, and the program's end frees them.
pub(crate) fn lock<T>(value: &Arc<T>) -> bool {
    let at = Arc::as_ptr(value).cast_mut().cast();
    #[expect(
        unsafe_code,
        reason = "the range is a live allocation, and locking changes nothing in it"
    )]
    let locked = unsafe { rustix::mm::mlock(at, size_of::<T>()) };
    if let Err(error) = locked {
        tracing::debug!(%error, "key memory cannot be locked");
    }
    locked.is_ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn status(name: &str) -> String {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches(':').trim().to_owned()
    }

    #[test]
    fn a_hidden_process_leaves_no_core_dump() {
        use rustix::process::{DumpableBehavior, dumpable_behavior};
        hide_process();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }

    #[test]
    fn locked_memory_shows_in_the_process() {
        let key = Arc::new([7_u8; 64]);
        if !lock(&key) {
            eprintln!("SKIPPED: this system does not let us lock memory");
            return;
        }
        let locked = status("VmLck");
        assert!(!locked.is_empty() && locked != "0 kB", "{locked:?}");
    }
}
