//! Which of the processor's instructions the products in bf16 use.

use std::sync::OnceLock;

/// Instructions that a product can be computed with, from the fastest to the slowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Instructions {
    /// Intel's AMX: tiles of 16 rows of 64 bytes. Needs Linux, for the kernel must be asked for them.
    Amx,
    /// AVX-512 with its dot products of bf16 (`avx512bf16`).
    Avx512,
    /// Plain Rust, for whatever the compiler makes of it.
    Portable,
}

impl Instructions {
    /// All that this processor has and the operating system permits.
    pub fn available() -> &'static [Self] {
        static AVAILABLE: OnceLock<Vec<Instructions>> = OnceLock::new();
        AVAILABLE.get_or_init(|| {
            let all = [Self::Amx, Self::Avx512, Self::Portable];
            all.into_iter().filter(|found| found.detect()).collect()
        })
    }

    /// The fastest that is available.
    pub fn fastest() -> Self {
        Self::available().first().copied().unwrap_or(Self::Portable)
    }

    /// Whether a product in bf16 takes half as long as in single precision, or less.
    pub fn halve_the_time(self) -> bool {
        match self {
            Self::Amx => true,
            // Intel's take as long as single precision.
            Self::Avx512 => is_from_amd(),
            Self::Portable => false,
        }
    }

    fn detect(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => has_avx512() && super::amx::request(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => has_avx512(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Amx | Self::Avx512 => false,
            Self::Portable => true,
        }
    }
}

/// Processors with AMX have these as well, and what surrounds its products uses them.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16")
}

/// Whether AMD made the processor.
#[cfg(target_arch = "x86_64")]
fn is_from_amd() -> bool {
    let maker = std::arch::x86_64::__cpuid(0);
    let maker = [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes);
    maker.as_flattened() == b"AuthenticAMD"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_from_amd() -> bool {
    false
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_maker_of_the_processor_is_the_one_that_the_system_names() {
        let named = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let maker = named.lines().find(|line| line.starts_with("vendor_id")).unwrap();
        assert_eq!(is_from_amd(), maker.ends_with(": AuthenticAMD"));
    }
}
