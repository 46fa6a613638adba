//! Matrix products over borrowed, strided slices: a bounds-checked door to the `gemm-f32` crate.
//!
//! That crate picks AVX-512, AVX2 or NEON at run time, so one binary is fast on every machine. Products
//! run on the calling thread alone: the embedder owns its threads and gives each a batch of its own.
//!
//! Invariant: a view exists only if all its elements lie inside the slice it borrows.

use gemm_common::Parallelism;

/// A matrix of `rows` x `columns` floats; element (i, j) lies at `i * row_stride + j * column_stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// The rows of a row-major matrix whose rows start `row_stride` floats apart.
    ///
    /// # Panics
    /// If a row is longer than the stride or the slice too short.
    pub(crate) fn rows(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert_inside(values.len(), rows, columns, row_stride);
        Self {
            values,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// A row-major matrix without gaps.
    ///
    /// # Panics
    /// If the slice is too short.
    pub(crate) fn dense(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::rows(values, rows, columns, columns)
    }

    /// The same elements with rows and columns exchanged; nothing moves.
    pub(crate) fn transposed(self) -> Self {
        Self {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// Where a product goes: `rows` x `columns`, row-major, rows `row_stride` floats apart.
#[derive(Debug)]
pub(crate) struct MatrixMut<'a> {
    values: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// See [`Matrix::rows`].
    pub(crate) fn rows(values: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert_inside(values.len(), rows, columns, row_stride);
        Self {
            values,
            rows,
            columns,
            row_stride,
        }
    }

    /// See [`Matrix::dense`].
    pub(crate) fn dense(values: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::rows(values, rows, columns, columns)
    }
}

fn assert_inside(length: usize, rows: usize, columns: usize, row_stride: usize) {
    let end = match rows {
        0 => Some(0),
        rows => row_stride
            .checked_mul(rows - 1)
            .and_then(|start| start.checked_add(columns)),
    };
    assert!(
        columns <= row_stride,
        "rows of {columns} floats overlap at a stride of {row_stride}"
    );
    assert!(
        end.is_some_and(|end| end <= length),
        "{rows} x {columns} floats do not lie in {length}"
    );
}

/// What a product does with the values that lie in its output already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// They are overwritten.
    Replace,
    /// The product is added to them.
    Add,
}

/// `out = scale * left * right`, or `out += scale * left * right`.
///
/// # Panics
/// If the shapes do not fit each other.
pub(crate) fn multiply(out: MatrixMut<'_>, output: Output, scale: f32, left: Matrix<'_>, right: Matrix<'_>) {
    let shapes = (out.rows, out.columns, left.columns);
    assert_eq!(
        shapes,
        (left.rows, right.columns, right.rows),
        "the shapes of a product do not fit"
    );
    // The kernels want an output whose columns are contiguous, so they are given the transposed product:
    // out' = right' * left'.
    let gemm = gemm_f32::gemm::f32::get_gemm_fn();
    // SAFETY: the views prove that each address reached through rows, columns and strides lies inside its
    // slice; the shapes agree, as asserted above; `out` is borrowed mutably, so it overlaps neither input.
    // Slice lengths fit into isize, therefore strides, which the views bound by them, do as well: a
    // stride beyond the slice is possible only with at most one row, and is then never multiplied.
    unsafe {
        gemm(
            out.columns,
            out.rows,
            left.columns,
            out.values.as_mut_ptr(),
            out.row_stride as isize,
            1,
            output == Output::Add,
            right.values.as_ptr(),
            right.row_stride as isize,
            right.column_stride as isize,
            left.values.as_ptr(),
            left.row_stride as isize,
            left.column_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn floats(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|index| ((index * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0)
            .collect()
    }

    proptest! {
        #[test]
        fn a_product_of_any_shape_equals_the_sums_in_double_precision(
            rows in 1usize..70,
            inner in 1usize..70,
            columns in 1usize..70,
            gap in 0usize..3,
            transposed: bool,
            add: bool,
        ) {
            let left = floats(rows * (inner + gap), 1);
            let (right_rows, right_columns) = if transposed { (columns, inner) } else { (inner, columns) };
            let right = floats(right_rows * (right_columns + gap), 2);
            let before = floats(rows * (columns + gap), 3);
            let mut out = before.clone();
            let left_view = Matrix::rows(&left, rows, inner, inner + gap);
            let stored = Matrix::rows(&right, right_rows, right_columns, right_columns + gap);
            let right_view = if transposed { stored.transposed() } else { stored };
            let output = if add { Output::Add } else { Output::Replace };
            multiply(MatrixMut::rows(&mut out, rows, columns, columns + gap), output, 0.5, left_view, right_view);
            for i in 0..rows {
                for j in 0..columns + gap {
                    let at = i * (columns + gap) + j;
                    if j >= columns {
                        prop_assert_eq!(out[at], before[at], "the gap between rows was written");
                        continue;
                    }
                    let sum: f64 = (0..inner)
                        .map(|k| {
                            let other = if transposed { j * (inner + gap) + k } else { k * (columns + gap) + j };
                            f64::from(left[i * (inner + gap) + k]) * f64::from(right[other])
                        })
                        .sum();
                    let expected = 0.5 * sum + if add { f64::from(before[at]) } else { 0.0 };
                    prop_assert!((f64::from(out[at]) - expected).abs() < 1e-5, "{} is not {}", out[at], expected);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "do not lie in")]
    fn a_view_beyond_its_slice_is_refused() {
        let _ = Matrix::dense(&[0.0; 11], 3, 4);
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn a_product_of_unfit_shapes_is_refused() {
        let (left, right, mut out) = ([0.0; 6], [0.0; 6], [0.0; 4]);
        let out = MatrixMut::dense(&mut out, 2, 2);
        multiply(
            out,
            Output::Replace,
            1.0,
            Matrix::dense(&left, 2, 3),
            Matrix::dense(&right, 2, 3),
        );
    }
}
