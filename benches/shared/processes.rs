//! What a process costs: processor time and memory, as the kernel counts them.

use std::{fs, time::Duration};

/// Processor time so far of all threads of the process, also of those that have ended. Exact, while
/// `/proc/PID/stat` counts in hundredths of a second.
pub fn processor_time(process_id: u32) -> Duration {
    let process_id = libc::pid_t::try_from(process_id).unwrap();
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both pointers are to values of ours.
    unsafe {
        assert_eq!(libc::clock_getcpuclockid(process_id, &raw mut clock), 0);
        assert_eq!(libc::clock_gettime(clock, &raw mut time), 0);
    }
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// Memory of the process that is resident, in bytes.
pub fn resident_bytes(process_id: u32) -> u64 {
    find_resident_bytes(process_id).unwrap()
}

/// As [`resident_bytes`], of a process that may be gone.
pub fn find_resident_bytes(process_id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process_id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kibibytes * 1024)
}
