//! Children of the test process that must not outlive it.

use std::{os::unix::process::CommandExt, process::Command};

/// Has the kernel send `signal` to the child when the thread that starts it ends, which it does at the
/// latest with this process, even by SIGKILL. So that thread has to live as long as the child is wanted.
pub fn die_with_parent(command: &mut Command, signal: libc::c_int) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only prctl and getppid are called, and both are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // The parent may have ended before the call above.
            if u32::try_from(libc::getppid()) == Ok(parent) {
                Ok(())
            } else {
                Err(std::io::Error::from_raw_os_error(libc::ESRCH))
            }
        });
    }
}
