#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

/// erf by the series `2 / sqrt(pi) * e^(-x^2) * sum 2^n x^(2n+1) / (2n+1)!!`, whose terms are all positive.
fn erf(x: f64) -> f64 {
    let z = x.abs();
    let mut term = z;
    let mut sum = z;
    for n in 1..400 {
        term *= 2.0 * z * z / f64::from(2 * n + 1);
        sum += term;
    }
    x.signum() * std::f64::consts::FRAC_2_SQRT_PI * (-z * z).exp() * sum
}

/// The exact GELU in double precision.
pub(crate) fn reference_gelu(x: f64) -> f64 {
    x * 0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

#[test]
fn gelu_equals_the_exact_one_in_double_precision() {
    let mut values: Vec<f32> = (-12_000..=12_000).map(|step| step as f32 / 1000.0).collect();
    let inputs = values.clone();
    let bias = vec![0.0; values.len()];
    bias_gelu(&mut values, &bias);
    for (x, found) in inputs.iter().zip(&values) {
        let expected = reference_gelu(f64::from(*x));
        let allowed = 2e-7 * f64::from(x.abs().max(1.0));
        assert!(
            (f64::from(*found) - expected).abs() <= allowed,
            "gelu({x}) is {expected}, not {found}"
        );
    }
}

#[test]
fn the_kernels_for_bf16_lose_far_less_than_rounding_to_it() {
    for step in -12_000..=12_000 {
        let x = step as f32 / 1000.0;
        let expected = reference_gelu(f64::from(x));
        let allowed = 4e-5 * f64::from(x.abs().max(1.0));
        for found in [gelu_to_bfloat16::<Fused>(x), gelu_to_bfloat16::<Separate>(x)] {
            let error = (f64::from(found) - expected).abs();
            assert!(error <= allowed, "gelu({x}) is {expected}, not {found}");
        }
        let expected = f64::from(x).exp();
        for found in [
            exponential_to_bfloat16::<Fused>(x),
            exponential_to_bfloat16::<Separate>(x),
        ] {
            let error = (f64::from(found) - expected).abs() / expected;
            assert!(error < 6e-5, "e^{x} is {expected}, not {found}");
        }
    }
}

#[test]
fn gelu_adds_the_bias_of_its_column_to_every_row() {
    let mut rows = vec![0.5, 1.0, -0.5, 2.0];
    bias_gelu(&mut rows, &[0.25, -1.0]);
    for (found, x) in rows.iter().zip([0.75, 0.0, -0.25, 1.0]) {
        assert!((f64::from(*found) - reference_gelu(x)).abs() < 2e-7, "{found}");
    }
}

#[test]
fn the_versions_with_and_without_fused_arithmetic_agree() {
    for step in -870..=880 {
        let x = step as f32 / 10.0;
        let expected = f64::from(x).exp();
        for found in [exponential::<Fused>(x), exponential::<Separate>(x)] {
            let error = (f64::from(found) - expected).abs() / expected;
            assert!(error < 3e-7, "e^{x} is {expected}, not {found}: {error:e}");
        }
        let y = x / 10.0;
        assert!(
            (gelu::<Fused>(y) - gelu::<Separate>(y)).abs() <= 4e-7 * y.abs().max(1.0),
            "gelu({y})"
        );
    }
}

#[test]
fn the_exponential_of_a_value_out_of_range_is_the_one_at_the_bound() {
    assert_eq!(exponential::<Fused>(-1e30), exponential::<Fused>(-87.0));
    assert_eq!(
        exponential::<Fused>(f32::NEG_INFINITY),
        exponential::<Fused>(-87.0)
    );
    assert_eq!(exponential::<Fused>(1e30), exponential::<Fused>(88.0));
}

#[test]
fn softmax_of_scores_far_apart_gives_all_weight_to_the_highest() {
    let mut row = vec![-1e9; 40];
    row[37] = 1e9;
    softmax(&mut row, 40);
    assert_eq!(row[37], 1.0);
    assert!(
        row.iter()
            .enumerate()
            .all(|(index, value)| index == 37 || *value < 1e-30),
        "{row:?}"
    );
}

#[test]
fn the_mean_of_rows_is_taken_column_by_column() {
    let mut mean = [7.0; 3];
    mean_of_rows(&[1.0, 2.0, 3.0, 3.0, 2.0, -3.0], &mut mean);
    assert_eq!(mean, [2.0, 2.0, 0.0]);
    mean_of_rows(&[], &mut mean);
    assert_eq!(mean, [0.0; 3]);
}

#[test]
fn a_vector_is_scaled_to_length_one_and_zeros_stay_zeros() {
    let mut vector = [3.0, 0.0, -4.0];
    scale_to_unit_length(&mut vector);
    for (found, expected) in vector.iter().zip([0.6, 0.0, -0.8_f32]) {
        assert!((found - expected).abs() < 1e-7, "{vector:?}");
    }
    let mut zeros = [0.0; 5];
    scale_to_unit_length(&mut zeros);
    assert_eq!(zeros, [0.0; 5]);
}

proptest! {
    #[test]
    fn softmax_equals_double_precision_for_rows_of_any_length(
        row in proptest::collection::vec(-30.0_f32..30.0, 1..70),
        copies in 1usize..4,
    ) {
        let mut rows = row.repeat(copies);
        softmax(&mut rows, row.len());
        let exponentials: Vec<f64> = row.iter().map(|value| f64::from(*value).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        for (index, found) in rows.iter().enumerate() {
            let expected = exponentials[index % row.len()] / sum;
            prop_assert!((f64::from(*found) - expected).abs() < 1e-6, "{} is not {}", found, expected);
        }
    }

    #[test]
    fn layer_normalisation_equals_double_precision_for_rows_of_any_length(
        row in proptest::collection::vec(-5.0_f32..5.0, 2..70),
        copies in 1usize..4,
    ) {
        let length = row.len();
        let summand: Vec<f32> = row.iter().rev().map(|value| value * 0.5 + 1.0).collect();
        let bias: Vec<f32> = (0..length).map(|index| index as f32 * 0.01).collect();
        let scale: Vec<f32> = (0..length).map(|index| 1.0 + index as f32 * 0.02).collect();
        let shift: Vec<f32> = (0..length).map(|index| index as f32 * -0.03).collect();
        let epsilon = 1e-5;
        let mut rows = row.repeat(copies);
        let normalisation = Normalisation { scale: &scale, shift: &shift, epsilon };
        add_and_normalise(&mut rows, &summand.repeat(copies), &bias, normalisation);

        let sums: Vec<f64> = (0..length)
            .map(|index| f64::from(row[index]) + f64::from(summand[index]) + f64::from(bias[index]))
            .collect();
        let mean = sums.iter().sum::<f64>() / length as f64;
        let variance = sums.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / length as f64;
        for (index, found) in rows.iter().enumerate() {
            let column = index % length;
            let unit = (sums[column] - mean) / (variance + f64::from(epsilon)).sqrt();
            let expected = unit * f64::from(scale[column]) + f64::from(shift[column]);
            prop_assert!((f64::from(*found) - expected).abs() < 2e-4, "{} is not {}", found, expected);
        }
    }
}
