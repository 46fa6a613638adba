//! Fills chunks: the one place where the rules of [`super`] are kept.
//!
//! A strategy hands in [`Cut`]s, places where a chunk may well begin, each with its depth in the
//! document's structure. Of the cuts that leave a chunk at least a quarter full, the shallowest wins, and of
//! equally shallow ones the latest. Without such a cut one is taken that leaves a sixteenth, so that a whole
//! function is kept together behind a short rest; then the last line that fits; and within a line that
//! is too long, the last blank or else a character boundary, in pieces of about equal length.
//!
//! Every byte is looked at a bounded number of times: windows are at most `max_bytes` long and each
//! chunk moves past the cuts it has considered.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr, memrchr2};

use super::Chunk;

/// A chunk with a cut is at least this part of the limit, if there is such a cut.
const PREFERRED_FILL: usize = 4;
/// Below this part of the limit a cut is not worth a chunk of its own.
const LEAST_FILL: usize = 16;

/// How much a chunk may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes, at least 4 so that any character fits.
    pub(super) max_bytes: usize,
    /// Lines, at least 1. None: as many as the bytes allow.
    max_lines: Option<usize>,
}

impl Limits {
    /// At most `max_bytes` bytes.
    pub(super) fn bytes(max_bytes: u32) -> Self {
        Self {
            max_bytes: size(max_bytes).max(char::MAX.len_utf8()),
            max_lines: None,
        }
    }

    /// At most `max_lines` lines and `max_bytes` bytes.
    pub(super) fn lines(max_lines: u32, max_bytes: u32) -> Self {
        Self {
            max_lines: Some(size(max_lines).max(1)),
            ..Self::bytes(max_bytes)
        }
    }
}

fn size(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A place where a chunk may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Byte of the text: the start of a line, or (of use only in a line that must be split) inside one.
    pub(super) offset: usize,
    /// How deep in the structure; smaller is better.
    pub(super) depth: u32,
}

/// Collects cuts in the order of the text and moves each to the start of its line, if only blanks precede it.
pub(super) struct CutCollector<'t> {
    bytes: &'t [u8],
    blanks: &'static [u8],
    considered: Option<usize>,
    cuts: Vec<Cut>,
}

impl<'t> CutCollector<'t> {
    /// `blanks` are the bytes that may precede a structure's start on its line.
    pub(super) fn new(text: &'t str, blanks: &'static [u8]) -> Self {
        Self {
            bytes: text.as_bytes(),
            blanks,
            considered: None,
            cuts: Vec::new(),
        }
    }

    /// The start of the line of `offset` if only blanks lie between.
    ///
    /// The scan ends at the structure considered last, so that all scans together are linear in the text:
    /// what begins behind another structure on its line does not begin the line.
    pub(super) fn line_start(&self, offset: usize) -> Option<usize> {
        let mut at = offset;
        while at > 0 && self.bytes[at - 1] != b'\n' {
            if self.considered.is_some_and(|considered| at <= considered)
                || !self.blanks.contains(&self.bytes[at - 1])
            {
                return None;
            }
            at -= 1;
        }
        Some(at)
    }

    /// Takes note of a structure that begins at `offset`; one that begins before an earlier one is ignored.
    pub(super) fn propose(&mut self, offset: usize, depth: u32) {
        let offset = offset.min(self.bytes.len());
        if self.considered.is_some_and(|considered| offset <= considered) {
            return;
        }
        let offset_of_cut = self.line_start(offset).unwrap_or(offset);
        self.considered = Some(offset);
        self.cuts.push(Cut {
            offset: offset_of_cut,
            depth,
        });
    }

    /// The cuts, by ascending offset.
    pub(super) fn into_cuts(self) -> Vec<Cut> {
        self.cuts
    }
}

/// Cuts `text` into chunks. `cuts` ascend by offset.
pub(super) fn pack(text: &str, limits: Limits, cuts: &[Cut]) -> Vec<Chunk> {
    let Some(mut packer) = Packer::new(text, limits, cuts) else {
        return Vec::new();
    };
    let mut positions = Positions {
        bytes: &text.as_bytes()[..packer.end],
        offset: 0,
        line: 1,
        line_start: 0,
    };
    let mut chunks = Vec::new();
    while let Some(range) = packer.next_range() {
        chunks.push(positions.chunk(range));
    }
    chunks
}

struct Packer<'t> {
    text: &'t str,
    bytes: &'t [u8],
    limits: Limits,
    /// Cuts that lie behind the last chunk's start.
    cuts: &'t [Cut],
    /// Where the next chunk may start.
    next: usize,
    /// End of the text that is kept: white space at the end for which the last line has no room is not.
    end: usize,
    /// The latest offset at which the last chunk may begin, so that it has a text besides white space.
    last_start: usize,
    /// End of the line found last, so that a long line is searched for its end only once.
    line_end: usize,
}

/// The line in which a chunk's text begins.
struct FirstLine {
    /// First character that is not white space.
    body: usize,
    /// Start of its line, or of what is left of it.
    start: usize,
    /// End of its line, without the line feed; the text's end for the last one.
    end: usize,
    /// Whether the line must be split.
    is_long: bool,
}

impl<'t> Packer<'t> {
    /// None for a text of white space alone.
    fn new(text: &'t str, limits: Limits, cuts: &'t [Cut]) -> Option<Self> {
        let bytes = text.as_bytes();
        let content_end = text.trim_end().len();
        let last_character = text[..content_end].char_indices().next_back()?.0;
        let last_line = memrchr(b'\n', &bytes[..content_end]).map_or(0, |line_feed| line_feed + 1);
        let is_long = content_end - last_line > limits.max_bytes;
        let last_start = if is_long { last_character } else { last_line };
        let mut end = content_end;
        let tail_ends = memchr_iter(b'\n', &bytes[content_end..]).map(|at| content_end + at + 1);
        for (blank_lines, tail_end) in tail_ends.chain([bytes.len()]).enumerate() {
            if tail_end == end {
                continue;
            }
            let has_lines = limits.max_lines.is_none_or(|max_lines| blank_lines < max_lines);
            if !has_lines || tail_end - last_start > limits.max_bytes {
                break;
            }
            end = tail_end;
        }
        Some(Self {
            text,
            bytes,
            limits,
            cuts,
            next: 0,
            end,
            last_start,
            line_end: 0,
        })
    }

    fn next_range(&mut self) -> Option<Range<usize>> {
        let remaining = self.text.get(self.next..self.end)?;
        let body = self.next + (remaining.len() - remaining.trim_start().len());
        if body >= self.end {
            return None;
        }
        let first = self.first_line(body);
        let start = self.start_of_chunk(&first);
        while self.cuts.first().is_some_and(|cut| cut.offset <= body) {
            self.cuts = &self.cuts[1..];
        }
        let end = if first.is_long {
            self.end_in_line(start, &first)
        } else {
            self.end_at_line(start)
        };
        let end = self.with_blank_lines(start, end);
        self.next = if end < self.end && self.bytes[end] == b'\n' {
            end + 1
        } else {
            end
        };
        Some(start..end)
    }

    fn first_line(&mut self, body: usize) -> FirstLine {
        let line_feed = memrchr(b'\n', &self.bytes[self.next..body]);
        let start = line_feed.map_or(self.next, |line_feed| self.next + line_feed + 1);
        let end = self.end_of_line(body);
        let is_split = start > 0 && self.bytes[start - 1] != b'\n';
        let is_long = is_split || end - start > self.limits.max_bytes;
        FirstLine {
            body,
            start,
            end,
            is_long,
        }
    }

    /// End of the line of `offset`; for the document's last text line, the end of what is kept.
    fn end_of_line(&mut self, offset: usize) -> usize {
        if self.line_end <= offset {
            let line_feed = memchr(b'\n', &self.bytes[offset..self.end]);
            self.line_end = line_feed.map_or(self.end, |line_feed| offset + line_feed);
            if self.line_end > self.last_start {
                self.line_end = self.end;
            }
        }
        self.line_end
    }

    /// Where the chunk starts: with the white space left over, if there is room for it.
    fn start_of_chunk(&self, first: &FirstLine) -> usize {
        let is_piece = first.is_long && first.body < self.last_start;
        let least_end = if is_piece {
            self.after_character(first.body)
        } else {
            first.end
        };
        let has_room = |start: usize| {
            least_end - start <= self.limits.max_bytes
                && self
                    .limits
                    .max_lines
                    .is_none_or(|max_lines| self.count_lines(start, least_end) <= max_lines)
        };
        if has_room(self.next) {
            self.next
        } else if has_room(first.start) {
            first.start
        } else {
            first.body
        }
    }

    /// End of a chunk of whole lines.
    fn end_at_line(&self, start: usize) -> usize {
        let latest = self.latest_line_end(start);
        if latest == self.end {
            return latest;
        }
        let cut = self.best_cut(start, latest + 1, |offset| self.bytes[offset - 1] == b'\n');
        cut.map_or(latest, |offset| offset - 1)
    }

    /// The last line end at which a chunk from `start` is within its limits.
    fn latest_line_end(&self, start: usize) -> usize {
        let limit = self.end.min(start.saturating_add(self.limits.max_bytes));
        let latest = match self.limits.max_lines {
            None if limit == self.end => return self.end,
            None => memrchr(b'\n', &self.bytes[start..=limit]).map_or(limit, |at| start + at),
            Some(max_lines) => {
                let window = &self.bytes[start..self.end.min(limit + 1)];
                let mut line_feeds = memchr_iter(b'\n', window).take(max_lines);
                let mut latest = None;
                let mut lines = 0;
                for at in line_feeds.by_ref() {
                    latest = Some(start + at);
                    lines += 1;
                }
                let is_all = limit == self.end
                    && (lines < max_lines || latest.is_some_and(|latest| latest + 1 == self.end));
                if is_all {
                    return self.end;
                }
                latest.unwrap_or(limit)
            }
        };
        latest.min(self.last_start.saturating_sub(1))
    }

    /// End of a chunk that is a piece of a line too long for one chunk.
    fn end_in_line(&self, start: usize, first: &FirstLine) -> usize {
        let max_bytes = self.limits.max_bytes;
        let length = first.end - start;
        let least = self.after_character(first.body);
        if length <= max_bytes {
            return first.end;
        }
        // A last piece of a few bytes says nothing, so the piece before it leaves it a quarter.
        let least_rest = max_bytes / PREFERRED_FILL;
        let furthest = (start + max_bytes)
            .min(first.end - least_rest)
            .min(self.latest_start(first));
        let is_boundary = |offset: usize| self.text.is_char_boundary(offset);
        if let Some(offset) = self.best_cut(start, furthest, is_boundary) {
            return offset;
        }
        let pieces = length.div_ceil(max_bytes);
        let target = furthest.min(start + length.div_ceil(pieces));
        let preferred = start + max_bytes / PREFERRED_FILL;
        let after_blank = match self.bytes.get(preferred..target) {
            Some(window) => memrchr2(b' ', b'\t', window).map(|at| preferred + at + 1),
            None => None,
        };
        let end = after_blank.unwrap_or_else(|| self.text.floor_char_boundary(target));
        end.max(least)
    }

    /// The latest offset in a long line at which its next piece may begin.
    fn latest_start(&self, first: &FirstLine) -> usize {
        if first.end == self.end {
            self.last_start
        } else {
            first.end
        }
    }

    /// Of the cuts after `start` up to `furthest` that `allows` takes, the shallowest and then the latest.
    fn best_cut(&self, start: usize, furthest: usize, allows: impl Fn(usize) -> bool) -> Option<usize> {
        let preferred = start + self.limits.max_bytes / PREFERRED_FILL;
        let least = start + self.limits.max_bytes / LEAST_FILL;
        let mut best: Option<Cut> = None;
        for cut in self.cuts.iter().take_while(|cut| cut.offset <= furthest) {
            if cut.offset <= least || !allows(cut.offset) {
                continue;
            }
            let replaces =
                |best: Cut| cut.depth <= best.depth || (best.offset <= preferred && cut.offset > preferred);
            if best.is_none_or(replaces) {
                best = Some(*cut);
            }
        }
        best.map(|cut| cut.offset)
    }

    /// Moves the end of a chunk past the blank lines that follow it, as far as they fit.
    fn with_blank_lines(&self, start: usize, end: usize) -> usize {
        let mut end = end;
        let mut lines = None;
        while end < self.end && self.bytes[end] == b'\n' {
            let limit = self.end.min(start.saturating_add(self.limits.max_bytes));
            let Some(window) = self.bytes.get(end + 1..self.end.min(limit + 1)) else {
                break;
            };
            let Some(line_feed) = memchr(b'\n', window) else {
                break;
            };
            let next_end = end + 1 + line_feed;
            if !self.text[end + 1..next_end].trim_start().is_empty() {
                break;
            }
            let count = lines.get_or_insert_with(|| self.count_lines(start, end));
            *count += 1;
            if self.limits.max_lines.is_some_and(|max_lines| *count > max_lines) {
                break;
            }
            end = next_end;
        }
        end
    }

    /// Lines of a chunk; the line feed that ends the text does not begin another.
    fn count_lines(&self, start: usize, end: usize) -> usize {
        let ends_text = end == self.end && end > start && self.bytes[end - 1] == b'\n';
        memchr_iter(b'\n', &self.bytes[start..end]).count() + usize::from(!ends_text)
    }

    fn after_character(&self, offset: usize) -> usize {
        self.text[offset..]
            .chars()
            .next()
            .map_or(offset, |character| offset + character.len_utf8())
    }
}

/// Turns ranges in ascending order into chunks with lines and columns, reading the text once.
struct Positions<'t> {
    /// The text that is kept.
    bytes: &'t [u8],
    offset: usize,
    line: usize,
    line_start: usize,
}

impl Positions<'_> {
    fn chunk(&mut self, range: Range<usize>) -> Chunk {
        self.advance(range.start);
        let (start_line, start_col) = (count(self.line), count(range.start - self.line_start));
        let ends_text = range.end == self.bytes.len() && self.bytes.last() == Some(&b'\n');
        self.advance(range.end - usize::from(ends_text));
        let (end_line, end_col) = (count(self.line), count(range.end - self.line_start));
        Chunk {
            range,
            start_line,
            end_line,
            start_col,
            end_col,
        }
    }

    fn advance(&mut self, offset: usize) {
        let passed = &self.bytes[self.offset..offset];
        self.line += memchr_iter(b'\n', passed).count();
        if let Some(line_feed) = memrchr(b'\n', passed) {
            self.line_start = self.offset + line_feed + 1;
        }
        self.offset = offset;
    }
}

fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
