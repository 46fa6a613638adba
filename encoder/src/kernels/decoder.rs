//! The arithmetic between the matrix products of decoders: normalisation by the root mean square, rotary
//! positions, the gated unit. And what a masked language model's head needs beside BERT's kernels.

use super::{MultiplyAdd, exponential, sum_of};

/// What `row` is multiplied with so that the mean of its squares becomes 1.
#[inline(always)]
fn root_mean_square_factor<A: MultiplyAdd>(row: &[f32], epsilon: f32) -> f32 {
    let squares = sum_of::<A>(row, 0.0, |value, _, sum| A::multiply_add(value, value, sum));
    1.0 / (squares / row.len() as f32 + epsilon).sqrt()
}

per_instruction_set! {
    /// Writes each row of `rows`, divided by the root of its mean square and multiplied by `scale`, into `out`.
    /// A row has the length of `scale`; `epsilon` is added to the mean square.
    fn normalise_root_mean_square(rows: &[f32], out: &mut [f32], scale: &[f32], epsilon: f32) =
        normalise_root_mean_square_body
}

#[inline(always)]
fn normalise_root_mean_square_body<A: MultiplyAdd>(
    rows: &[f32],
    out: &mut [f32],
    scale: &[f32],
    epsilon: f32,
) {
    let length = scale.len();
    for (row, out) in rows.chunks_exact(length).zip(out.chunks_exact_mut(length)) {
        let factor = root_mean_square_factor::<A>(row, epsilon);
        for ((out, value), scale) in out.iter_mut().zip(row).zip(scale) {
            *out = value * factor * scale;
        }
    }
}

/// How the heads of a row are normalised and turned by its position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadRotation<'a> {
    /// Heads at the beginning of each row.
    pub(crate) heads: usize,
    /// Floats from one row to the next.
    pub(crate) stride: usize,
    /// Factor for each float of a head.
    pub(crate) scale: &'a [f32],
    /// Added to the mean square.
    pub(crate) epsilon: f32,
    /// For each row as many floats as a head has: cosines, then sines, of its angles.
    pub(crate) angles: &'a [f32],
}

per_instruction_set! {
    /// Normalises the heads of each row by their root mean square, then turns the pair of float i of the first
    /// half and of the second half of each head by the row's angle i.
    fn normalise_and_rotate_heads(rows: &mut [f32], rotation: HeadRotation<'_>) =
        normalise_and_rotate_heads_body
}

#[inline(always)]
fn normalise_and_rotate_heads_body<A: MultiplyAdd>(rows: &mut [f32], rotation: HeadRotation<'_>) {
    let HeadRotation {
        heads,
        stride,
        scale,
        epsilon,
        angles,
    } = rotation;
    let width = scale.len();
    let (first_scale, second_scale) = scale.split_at(width / 2);
    for (row, angles) in rows.chunks_exact_mut(stride).zip(angles.chunks_exact(width)) {
        let (cosines, sines) = angles.split_at(width / 2);
        for head in row[..heads * width].chunks_exact_mut(width) {
            let factor = root_mean_square_factor::<A>(head, epsilon);
            let (first, second) = head.split_at_mut(width / 2);
            for index in 0..width / 2 {
                let x = first[index] * factor * first_scale[index];
                let y = second[index] * factor * second_scale[index];
                first[index] = A::multiply_add(x, cosines[index], -(y * sines[index]));
                second[index] = A::multiply_add(y, cosines[index], x * sines[index]);
            }
        }
    }
}

per_instruction_set! {
    /// The gated unit: a row of `rows` has a gate and then a value for each float of a row of `out`, which
    /// becomes value times gate times the logistic function of the gate. `length` is that of a row of `out`.
    fn gate(rows: &[f32], out: &mut [f32], length: usize) = gate_body
}

#[inline(always)]
fn gate_body<A: MultiplyAdd>(rows: &[f32], out: &mut [f32], length: usize) {
    for (row, out) in rows.chunks_exact(2 * length).zip(out.chunks_exact_mut(length)) {
        let (gates, values) = row.split_at(length);
        for ((out, gate), value) in out.iter_mut().zip(gates).zip(values) {
            *out = gate / (1.0 + exponential::<A>(-gate)) * value;
        }
    }
}

per_instruction_set! {
    /// Adds each float of `summand` to the one of `rows` at its place.
    fn add(rows: &mut [f32], summand: &[f32]) = add_body
}

#[inline(always)]
fn add_body<A: MultiplyAdd>(rows: &mut [f32], summand: &[f32]) {
    for (value, summand) in rows.iter_mut().zip(summand) {
        *value += summand;
    }
}

per_instruction_set! {
    /// Makes the rows of scores of queries that follow each other the weights of a causal softmax: row i sees
    /// `seen + i` floats, the others become zero. A row has `length` floats.
    fn causal_softmax(rows: &mut [f32], length: usize, seen: usize) = causal_softmax_body
}

#[inline(always)]
fn causal_softmax_body<A: MultiplyAdd>(rows: &mut [f32], length: usize, seen: usize) {
    for (index, row) in rows.chunks_exact_mut(length).enumerate() {
        let (visible, hidden) = row.split_at_mut(length.min(seen + index));
        super::softmax_body::<A>(visible, visible.len().max(1));
        hidden.fill(0.0);
    }
}

per_instruction_set! {
    /// Raises each float of `largest` to the largest in its column of `rows`. A NaN counts as the largest.
    fn raise_to_columns(largest: &mut [f32], rows: &[f32]) = raise_to_columns_body
}

#[inline(always)]
fn raise_to_columns_body<A: MultiplyAdd>(largest: &mut [f32], rows: &[f32]) {
    for row in rows.chunks_exact(largest.len()) {
        for (largest, value) in largest.iter_mut().zip(row) {
            let raised = *value > *largest || value.is_nan();
            *largest = if raised { *value } else { *largest };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;

    fn assert_close(found: &[f32], expected: &[f64], allowed: f64) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (f64::from(*found) - expected).abs() <= allowed * expected.abs().max(1.0),
                "{found} is not {expected}"
            );
        }
    }

    proptest! {
        #[test]
        fn rows_of_any_length_are_normalised_as_in_double_precision(
            row in proptest::collection::vec(-5.0_f32..5.0, 1..70),
            copies in 1usize..4,
        ) {
            let scale: Vec<f32> = (0..row.len()).map(|index| 1.0 + index as f32 * 0.02).collect();
            let mut out = vec![f32::NAN; row.len() * copies];
            normalise_root_mean_square(&row.repeat(copies), &mut out, &scale, 1e-6);
            let squares: f64 = row.iter().map(|value| f64::from(*value).powi(2)).sum();
            let root = (squares / row.len() as f64 + 1e-6).sqrt();
            let expected: Vec<f64> = row.iter().zip(&scale)
                .map(|(value, scale)| f64::from(*value) / root * f64::from(*scale))
                .collect();
            assert_close(&out, &expected.repeat(copies), 1e-6);
        }

        #[test]
        fn the_gate_equals_double_precision(row in proptest::collection::vec(-100.0_f32..100.0, 1..70)) {
            let values: Vec<f32> = row.iter().map(|gate| 3.0 - gate * 0.1).collect();
            let mut out = vec![f32::NAN; row.len()];
            gate(&[row.clone(), values.clone()].concat(), &mut out, row.len());
            let expected: Vec<f64> = row.iter().zip(&values)
                .map(|(gate, value)| f64::from(*gate) / (1.0 + (-f64::from(*gate)).exp()) * f64::from(*value))
                .collect();
            assert_close(&out, &expected, 2e-6);
        }

        #[test]
        fn no_query_sees_a_later_key(length in 1usize..60, rows in 1usize..9) {
            let seen = length.saturating_sub(rows) + 1;
            let scores: Vec<f32> = (0..rows * length).map(|index| (index % 17) as f32 * 0.3).collect();
            let mut found = scores.clone();
            causal_softmax(&mut found, length, seen);
            for (index, (found, scores)) in
                found.chunks_exact(length).zip(scores.chunks_exact(length)).enumerate()
            {
                let visible = length.min(seen + index);
                let sum: f64 = scores[..visible].iter().map(|score| f64::from(*score).exp()).sum();
                let expected: Vec<f64> = (0..length)
                    .map(|key| if key < visible { f64::from(scores[key]).exp() / sum } else { 0.0 })
                    .collect();
                assert_close(found, &expected, 1e-6);
            }
        }
    }

    #[test]
    fn heads_are_normalised_and_turned_and_what_follows_them_is_left_alone() {
        // Two heads of two floats in rows of five; the second row is turned by a quarter.
        let mut rows = [3.0, 4.0, 1.0, 1.0, 9.0, 3.0, 4.0, -1.0, 1.0, 9.0];
        let rotation = HeadRotation {
            heads: 2,
            stride: 5,
            scale: &[1.0, 2.0],
            epsilon: 0.0,
            angles: &[1.0, 0.0, 0.0, 1.0],
        };
        normalise_and_rotate_heads(&mut rows, rotation);
        let root = 12.5_f64.sqrt();
        let expected = [
            3.0 / root,
            8.0 / root,
            1.0,
            2.0,
            9.0,
            -8.0 / root,
            3.0 / root,
            -2.0,
            -1.0,
            9.0,
        ];
        assert_close(&rows, &expected, 1e-6);
    }

    #[test]
    fn the_largest_of_each_column_is_kept() {
        let mut largest = [0.0, f32::NEG_INFINITY, 5.0];
        raise_to_columns(&mut largest, &[1.0, -3.0, 2.0, -1.0, -2.0, 7.0]);
        assert_eq!(largest, [1.0, -2.0, 7.0]);
        raise_to_columns(&mut largest, &[0.0, f32::NAN, 0.0, 0.0, 3.0, 0.0]);
        assert!(largest[1].is_nan() && largest[2] == 7.0, "{largest:?}");
        let mut sum = [1.0, 2.0];
        add(&mut sum, &[0.5, -2.0]);
        assert_eq!(sum, [1.5, 0.0]);
    }
}
