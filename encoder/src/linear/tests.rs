use proptest::prelude::*;

use super::*;
use crate::kernels::tests::reference_gelu;

/// Values between -1 and 1 that look random.
fn floats(count: usize, seed: usize) -> Vec<f32> {
    (0..count)
        .map(|index| ((index * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0)
        .collect()
}

/// Asserts that a layer of these sizes gives what double precision gives, within `allowed` times what the
/// magnitudes of the products sum to.
fn assert_product(rows: usize, inputs: usize, outputs: [usize; 2], precision: Precision, allowed: f64) {
    let all = outputs[0] + outputs[1];
    let (values, weights, bias) = (floats(rows * inputs, 1), floats(all * inputs, 2), floats(all, 3));
    let (first, second) = weights.split_at(outputs[0] * inputs);
    let parts = [
        StoredRows::floats(first, outputs[0], inputs),
        StoredRows::floats(second, outputs[1], inputs),
    ];
    let layer = Linear::new(&parts, Some(bias.clone()), precision);
    for instructions in Instructions::available() {
        let mut out = vec![f32::NAN; rows * all];
        let mut scratch = LinearScratch::with_instructions(*instructions).unwrap();
        layer.apply_with_bias(&values, &mut out, &mut scratch);
        for (row, out) in out.chunks_exact(all).enumerate() {
            for (column, found) in out.iter().enumerate() {
                let (mut sum, mut magnitude) = (f64::from(bias[column]), 0.0);
                for index in 0..inputs {
                    let product =
                        f64::from(values[row * inputs + index]) * f64::from(weights[column * inputs + index]);
                    sum += product;
                    magnitude += product.abs();
                }
                let error = (f64::from(*found) - sum).abs();
                assert!(
                    error <= allowed * (magnitude + 1.0),
                    "({row}, {column}) is {found}, not {sum}, with {precision:?} on {instructions:?}"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn a_layer_of_any_shape_equals_the_sums_in_double_precision(
        rows in 0usize..70,
        inputs in 1usize..150,
        outputs in (1usize..70, 0usize..70),
    ) {
        let outputs = [outputs.0, outputs.1];
        assert_product(rows, inputs, outputs, Precision::Single, 1e-6);
        assert_product(rows, inputs, outputs, Precision::Bfloat16, 0.008);
        assert_product(rows, inputs, outputs, Precision::EightBit, 0.02);
    }
}

#[test]
fn a_layer_of_several_panels_equals_the_sums_in_double_precision() {
    let outputs = [SINGLE_PANEL + 100, SINGLE_PANEL - 50];
    let inputs = SINGLE_WHOLE / (outputs[0] + outputs[1]) + 1;
    assert_product(3, inputs, outputs, Precision::Single, 1e-6);
}

proptest! {
    #[test]
    fn attention_of_any_shape_equals_double_precision(
        length in 0usize..80,
        width in 1usize..80,
        key_heads in 1usize..3,
        group in 1usize..3,
        causal: bool,
    ) {
        let heads = key_heads * group;
        let shape = AttentionShape { heads, key_heads, width, causal };
        let (queries, keys, values) = (
            floats(length * heads * width, 4),
            floats(length * key_heads * width, 5),
            floats(length * key_heads * width, 6),
        );
        for instructions in Instructions::available() {
            let mut out = vec![f32::NAN; queries.len()];
            LinearScratch::with_instructions(*instructions).unwrap().attend(
                shape,
                HeadRows { values: &queries, stride: heads * width },
                HeadRows { values: &keys, stride: key_heads * width },
                HeadRows { values: &values, stride: key_heads * width },
                &mut out,
            );
            for token in 0..length {
                for head in 0..heads {
                    let query = &queries[(token * heads + head) * width..][..width];
                    let at = |other: usize| (other * key_heads + head / group) * width;
                    let seen = if causal { token + 1 } else { length };
                    let weights: Vec<f64> = (0..seen)
                        .map(|other| {
                            let products = query.iter().zip(&keys[at(other)..][..width]);
                            let score: f64 = products.map(|(query, key)| f64::from(*query) * f64::from(*key)).sum();
                            (score / (width as f64).sqrt()).exp()
                        })
                        .collect();
                    let sum: f64 = weights.iter().sum();
                    for column in 0..width {
                        let mean = (0..seen)
                            .map(|other| weights[other] / sum * f64::from(values[at(other) + column]))
                            .sum::<f64>();
                        let found = out[(token * heads + head) * width + column];
                        prop_assert!((f64::from(found) - mean).abs() < 0.02, "{} is not {}", found, mean);
                    }
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn two_layers_with_gelu_between_them_equal_double_precision(
        rows in 0usize..40,
        inputs in 1usize..40,
        wide in 1usize..70,
        outputs in 1usize..40,
    ) {
        let (values, first, second, bias) =
            (floats(rows * inputs, 1), floats(wide * inputs, 2), floats(outputs * wide, 3), floats(wide, 4));
        for (precision, allowed) in
            [(Precision::Single, 1e-6), (Precision::Bfloat16, 0.005), (Precision::EightBit, 0.01)]
        {
            let expansion = Linear::new(&[StoredRows::floats(&first, wide, inputs)], Some(bias.clone()), precision);
            let contraction = Linear::new(&[StoredRows::floats(&second, outputs, wide)], None, precision);
            for instructions in Instructions::available() {
                let mut out = vec![f32::NAN; rows * outputs];
                let mut scratch = LinearScratch::with_instructions(*instructions).unwrap();
                expansion.apply_gelu_and(&contraction, &values, &mut out, &mut scratch);
                for row in 0..rows {
                    // What is between the layers, with the sum of its products' magnitudes: the error of the first
                    // layer grows with those, and reaches the second through its weights.
                    let between: Vec<(f64, f64)> = (0..wide)
                        .map(|column| {
                            let row = &values[row * inputs..][..inputs];
                            let (mut sum, mut magnitude) = (f64::from(bias[column]), 0.0);
                            for (value, weight) in row.iter().zip(&first[column * inputs..]) {
                                let product = f64::from(*value) * f64::from(*weight);
                                sum += product;
                                magnitude += product.abs();
                            }
                            (reference_gelu(sum), magnitude)
                        })
                        .collect();
                    for output in 0..outputs {
                        let (mut sum, mut magnitude) = (0.0, 0.0);
                        for ((value, carried), weight) in between.iter().zip(&second[output * wide..]) {
                            let weight = f64::from(*weight);
                            sum += value * weight;
                            magnitude += (value.abs() + carried) * weight.abs();
                        }
                        let found = f64::from(out[row * outputs + output]);
                        let error = (found - sum).abs();
                        prop_assert!(
                            error <= allowed * (magnitude + 1.0),
                            "({}, {}) is {}, not {}, with {:?} on {:?}", row, output, found, sum, precision, instructions
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn weights_stored_in_either_format_at_any_alignment_make_the_same_layer() {
    let values = [0.5_f32, -1.25, 3.0, 0.0, -0.0625, 2.0];
    let mut single = vec![0];
    single.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let mut half = vec![0];
    half.extend(
        values
            .iter()
            .flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()),
    );
    for precision in [Precision::Single, Precision::Bfloat16, Precision::EightBit] {
        let outputs = [
            StoredRows::floats(&values, 2, 3),
            StoredRows::float32(&single[1..], 2, 3),
            StoredRows::bfloat16(&half[1..], 2, 3),
        ]
        .map(|stored| {
            let mut out = vec![0.0; 2];
            let layer = Linear::new(&[stored], None, precision);
            layer.apply_with_bias(&[1.0, 2.0, -1.0], &mut out, &mut LinearScratch::default());
            out
        });
        assert_eq!(outputs[0], outputs[1]);
        assert_eq!(outputs[0], outputs[2]);
    }
}

#[test]
fn rounding_to_bf16_takes_the_nearest_and_the_even_one_of_two_and_keeps_what_is_not_finite() {
    let cases = [
        (1.0, 0x3f80),
        (f32::from_bits(0x3f80_8000), 0x3f80),
        (f32::from_bits(0x3f80_8001), 0x3f81),
        (f32::from_bits(0x3f81_8000), 0x3f82),
        (f32::INFINITY, 0x7f80),
        (f32::MAX, 0x7f80),
        (f32::from_bits(0x7fff_ffff), 0x7fc0),
        (-0.0, 0x8000),
    ];
    for (value, wanted) in cases {
        assert_eq!(bfloat16::round(value), wanted, "{value}");
    }
}

#[test]
#[should_panic(expected = "not as many whole rows")]
fn inputs_that_are_no_whole_rows_are_refused() {
    let layer = Linear::new(&[StoredRows::floats(&[0.0; 6], 2, 3)], None, Precision::Single);
    layer.apply(&[0.0; 4], &mut [0.0; 2], &mut LinearScratch::default());
}

#[test]
#[should_panic(expected = "do not fit")]
fn stored_rows_of_another_size_than_their_values_are_refused() {
    let _ = StoredRows::float32(&[0; 20], 2, 3);
}
