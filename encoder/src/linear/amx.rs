//! Intel's Advanced Matrix Extensions, whose tiles Rust has no stable intrinsics for.
//!
//! A tile is eight to a thread, 16 rows of 64 bytes. `tdpbf16ps` adds the product of two of them to a
//! third: 16 x 16 sums over 32 bf16. A thread loads a configuration before it uses tiles and
//! releases them after, so that a switch of threads need not save them. See "Intel 64 and IA-32 Architectures
//! Software Developer's Manual", volume 1, chapter 18, and `Documentation/arch/x86/xstate.rst` of Linux.

use std::{
    arch::{asm, x86_64::__cpuid_count},
    marker::PhantomData,
};

use super::panels::{Block, LANES as TILE, Line};

/// Whether the processor has AMX for bf16, and Linux lets this process use it.
pub(crate) fn request() -> bool {
    const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    if __cpuid_count(0, 0).eax < 7 || __cpuid_count(7, 0).edx & BF16_AND_TILE != BF16_AND_TILE {
        return false;
    }
    permitted()
}

#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: this call of arch_prctl takes two numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Proof that this thread's tiles are configured, all eight of 16 rows of 64 bytes; dropping it releases them.
#[derive(Debug)]
pub(crate) struct Tiles {
    /// The configuration is the thread's, so the proof must not leave it.
    _thread: PhantomData<*mut ()>,
}

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// Configures this thread's tiles.
    ///
    /// # Safety
    /// [`request`] must have returned true.
    pub(crate) unsafe fn configure() -> Self {
        let mut configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        configuration.row_bytes[..8].fill(64);
        configuration.rows[..8].fill(TILE as u8);
        // SAFETY: the processor has the instruction, as the caller vouches, and the operand is a valid
        // configuration of 64 bytes. No code of the compiler's uses tiles, so none are lost.
        unsafe {
            asm!(
                "ldtilecfg [{}]", in(reg) &raw const configuration,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly, preserves_flags),
            );
        }
        Self { _thread: PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the processor has the instruction, for the tiles were configured.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem, preserves_flags),
            );
        }
    }
}

/// The product of bf16, summed in single precision.
///
/// `left` has one or two bands and `right` two panels, all of the same number of lines, which is a multiple
/// of 16. With one band, the lower half of `out` is left alone.
///
/// # Panics
/// If `left` and `right` are not of such lengths.
#[inline(always)]
pub(crate) fn multiply_bfloat16(_tiles: &Tiles, left: &[Line], right: &[Line], out: &mut Block) {
    let depth = right.len() / 2;
    let steps = depth / TILE;
    let tall = left.len() > depth;
    assert!(
        steps > 0 && right.len() == 2 * steps * TILE && (left.len() == depth || left.len() == 2 * depth),
        "bands and panels do not fit"
    );
    let (left, right) = (left.as_ptr(), right.as_ptr());
    let (second_left, second_right) = (left.wrapping_add(depth), right.wrapping_add(depth));
    if tall {
        // SAFETY: the tiles are configured. Each turn reads the 16 lines of a tile at each pointer and moves
        // it by their 1,024 bytes, `steps` times, which stays in the slices as asserted. What is stored, two
        // by two tiles in rows of 128 bytes, is the size of a block.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{left} + {line}]",
                "tileloadd tmm6, [{right} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{second_right} + {line}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{second_left} + {line}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {left}, 1024",
                "add {second_left}, 1024",
                "add {right}, 1024",
                "add {second_right}, 1024",
                "dec {steps}",
                "jnz 2b",
                "add {line}, {line}",
                "tilestored [{out} + {line}], tmm0",
                "tilestored [{out} + {line} + 64], tmm1",
                "tilestored [{out} + {line} + 2048], tmm2",
                "tilestored [{out} + {line} + 2112], tmm3",
                left = inout(reg) left => _,
                second_left = inout(reg) second_left => _,
                right = inout(reg) right => _,
                second_right = inout(reg) second_right => _,
                steps = inout(reg) steps => _,
                line = inout(reg) size_of::<Line>() => _,
                out = in(reg) &raw mut *out,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    } else {
        // SAFETY: as above, for one tile of rows.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "2:",
                "tileloadd tmm4, [{left} + {line}]",
                "tileloadd tmm6, [{right} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{second_right} + {line}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {left}, 1024",
                "add {right}, 1024",
                "add {second_right}, 1024",
                "dec {steps}",
                "jnz 2b",
                "add {line}, {line}",
                "tilestored [{out} + {line}], tmm0",
                "tilestored [{out} + {line} + 64], tmm1",
                left = inout(reg) left => _,
                right = inout(reg) right => _,
                second_right = inout(reg) second_right => _,
                steps = inout(reg) steps => _,
                line = inout(reg) size_of::<Line>() => _,
                out = in(reg) &raw mut *out,
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}
