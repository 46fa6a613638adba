//! Bounds what a parse may cost, in time and memory, without a clock.
//!
//! Tree-sitter is fast on code and can be a thousand times slower on what only looks like code: its error
//! recovery follows many readings of a text at once, and a scanner may read to the end of the text at each
//! token. A deadline would stop that, but then chunks would depend on the machine's load. So three things
//! are counted that are the same in every run:
//!
//! - **steps**, calls of the parser's progress callback, one for every 100 of its operations;
//! - **reads** of the text, which is handed out in parts of 4 KiB, so that a text read again and again costs;
//! - **memory** asked for: bytes of all allocations, plus 64 for each. As freed memory is not taken off,
//!   this also bounds the memory that a parse holds.
//!
//! The limits come from some 13,000 real files of up to 1 MiB in 26 languages (crates' sources, the libraries
//! of Python, Node, Ruby, Elixir and Zig, Dune, xmonad, Kotlin and Swift from npm packages; of Dart and Scala
//! there were none). In each language they took 2 to 11 steps a KiB on average, and 32 at most; a part was
//! read 1 to 4 times on average, and 23 times at most; a byte cost 15 to 80 bytes of memory on average, 153
//! at most in files above 16 KiB and 242 below, where the base allows far more. A text that only looks like
//! code is far beyond: a byte of random punctuation costs 700 to 3,000 bytes as C++, Swift or TypeScript, of
//! `<a><a>…` as Swift 10,000, and `<a><a>…` as Bash reads each part some 4,000 times. At the limits, 512 KiB
//! of it cost half a second to three seconds of processor time.
//!
//! Each document is parsed by a new parser, because one that has been used allocates less.

use std::{cell::Cell, ffi::c_void, ops::ControlFlow, sync::Once};

use tree_sitter::{Allocator, Language, ParseOptions, ParseState, Parser, Tree};

/// How much of the text the parser gets at once, in bytes.
const PART_BYTES: usize = 4 * 1024;
/// What any parse may cost, however small the text.
const BASE: Cost = Cost {
    steps: 512,
    reads: 256,
    memory: 1024 * 1024,
};
/// Steps for each KiB of text.
const STEPS_PER_KIB: usize = 64;
/// Reads for each part of the text.
const READS_PER_PART: usize = 64;
/// Bytes of memory for each byte of text.
const MEMORY_PER_BYTE: usize = 256;
/// What an allocation costs beside its size, in bytes.
const MEMORY_PER_ALLOCATION: usize = 64;

/// What a parse costs, or may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    steps: usize,
    reads: usize,
    memory: usize,
}

impl Cost {
    /// What the parse of a text of `length` bytes may cost.
    fn allowed(length: usize) -> Self {
        Self {
            steps: BASE.steps + STEPS_PER_KIB * length.div_ceil(1024),
            reads: BASE.reads + READS_PER_PART * length.div_ceil(PART_BYTES),
            memory: BASE.memory + MEMORY_PER_BYTE * length,
        }
    }
}

/// Parses `text`. None if that costs too much, or the grammar is of an ABI that the parser does not know.
pub(super) fn parse(grammar: &Language, text: &str) -> Option<Tree> {
    count_allocations();
    let mut parser = Parser::new();
    parser.set_language(grammar).ok()?;
    let allowed = Cost::allowed(text.len());
    let allocated_before = ALLOCATED.get();
    let mut steps = 0;
    let reads = Cell::new(0);
    let mut check = |_: &ParseState| {
        steps += 1;
        let memory = ALLOCATED.get().wrapping_sub(allocated_before);
        if steps > allowed.steps || reads.get() > allowed.reads || memory > allowed.memory {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let options = ParseOptions::new().progress_callback(&mut check);
    let bytes = text.as_bytes();
    let mut read = |offset: usize, _| {
        reads.set(reads.get() + 1);
        // The parser cannot be stopped from here; at a seeming end of the text it soon asks whether to go on.
        let length = if reads.get() > allowed.reads {
            0
        } else {
            PART_BYTES
        };
        bytes
            .get(offset..bytes.len().min(offset + length))
            .unwrap_or_default()
    };
    let tree = parser.parse_with_options(&mut read, None, Some(options));
    tree.filter(|_| reads.get() <= allowed.reads)
}

thread_local! {
    /// What this thread's parsers have ever asked for, in bytes; wraps around.
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

fn count_allocations() {
    static COUNTED: Once = Once::new();
    COUNTED.call_once(|| {
        let allocator = Allocator {
            malloc: allocate,
            calloc: allocate_zeroed,
            realloc: reallocate,
            free,
        };
        // SAFETY: these are the C library's functions, which tree-sitter uses unless told otherwise, so
        // memory that it has already allocated may be freed by them. They never return null.
        unsafe { tree_sitter::set_allocator(Some(allocator)) };
    });
}

fn charge(size: usize) {
    ALLOCATED.set(
        ALLOCATED
            .get()
            .wrapping_add(size)
            .wrapping_add(MEMORY_PER_ALLOCATION),
    );
}

/// Tree-sitter does not expect an allocation to fail.
fn allocated(memory: *mut c_void, size: usize) -> *mut c_void {
    if memory.is_null() && size > 0 {
        std::process::abort();
    }
    memory
}

mod c_library {
    use std::ffi::c_void;

    unsafe extern "C" {
        pub(super) fn malloc(size: usize) -> *mut c_void;
        pub(super) fn calloc(count: usize, size: usize) -> *mut c_void;
        pub(super) fn realloc(memory: *mut c_void, size: usize) -> *mut c_void;
        pub(super) fn free(memory: *mut c_void);
    }
}

unsafe extern "C" fn allocate(size: usize) -> *mut c_void {
    charge(size);
    // SAFETY: any size may be asked for.
    allocated(unsafe { c_library::malloc(size) }, size)
}

unsafe extern "C" fn allocate_zeroed(count: usize, size: usize) -> *mut c_void {
    let total = count.saturating_mul(size);
    charge(total);
    // SAFETY: any size may be asked for; an overflow of the product gives null.
    allocated(unsafe { c_library::calloc(count, size) }, total)
}

unsafe extern "C" fn reallocate(memory: *mut c_void, size: usize) -> *mut c_void {
    charge(size);
    // SAFETY: `memory` is null or from one of these functions, as the caller of `realloc` must ensure.
    allocated(unsafe { c_library::realloc(memory, size) }, size)
}

unsafe extern "C" fn free(memory: *mut c_void) {
    // SAFETY: `memory` is null or from one of these functions, as the caller of `free` must ensure.
    unsafe { c_library::free(memory) };
}
