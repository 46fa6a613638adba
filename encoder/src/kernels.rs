//! The arithmetic between the matrix products: softmax, GELU, residual sums with layer normalisation.
//!
//! Each kernel is plain Rust that the compiler turns into vector instructions, compiled once for every
//! instruction set that pays and picked at run time. There are no per-element branches, and sums run over
//! [`LANES`] independent partial sums, for strict floating-point order would otherwise forbid vectors.
//! GELU is the exact one, as the reference has it, within single precision; what is rounded to bf16 right after has
//! cheaper kernels of its own, whose errors are small against the rounding.

/// Partial sums per reduction: one AVX-512 register, two of AVX2, four of NEON.
const LANES: usize = 16;

/// How `a * b + c` is computed. Without the instruction, a fused one is a slow library call.
pub(crate) trait MultiplyAdd {
    fn multiply_add(a: f32, b: f32, c: f32) -> f32;
}

/// With the instruction.
pub(crate) struct Fused;
impl MultiplyAdd for Fused {
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

#[cfg_attr(
    target_arch = "aarch64",
    allow(dead_code, reason = "that processor always has the instruction")
)]
/// Without.
pub(crate) struct Separate;
impl MultiplyAdd for Separate {
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// Defines a function that runs `$body` in the version compiled for this processor.
macro_rules! per_instruction_set {
    ($(#[$doc:meta])* fn $name:ident($($argument:ident: $kind:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        pub(crate) fn $name($($argument: $kind),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn avx512($($argument: $kind),*) {
                    $body::<$crate::kernels::Fused>($($argument),*);
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $kind),*) {
                    $body::<$crate::kernels::Fused>($($argument),*);
                }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor was just found to have AVX-512F.
                    return unsafe { avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor was just found to have AVX2 and FMA.
                    return unsafe { avx2($($argument),*) };
                }
            }
            #[cfg(target_arch = "aarch64")]
            $body::<$crate::kernels::Fused>($($argument),*);
            #[cfg(not(target_arch = "aarch64"))]
            $body::<$crate::kernels::Separate>($($argument),*);
        }
    };
}

pub(crate) use per_instruction_set;

/// e to the power of `x`, within 2e-7 relative, for `x` in -87..=88; beyond, the value at the bound.
///
/// `x` is split into `n * ln 2 + r` with |r| <= ln 2 / 2: e^r by its Taylor series (degree 7 leaves
/// 5e-9), 2^n by adding n to the exponent bits.
#[inline(always)]
fn exponential<A: MultiplyAdd>(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the representation.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, so that n times the first is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = (std::f64::consts::LN_2 - 355.0 / 512.0) as f32;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = A::multiply_add(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = A::multiply_add(n, -LN_2_LOW, A::multiply_add(n, -LN_2_HIGH, x));
    let series = A::multiply_add(r, 1.0 / 5040.0, 1.0 / 720.0);
    let series = A::multiply_add(r, series, 1.0 / 120.0);
    let series = A::multiply_add(r, series, 1.0 / 24.0);
    let series = A::multiply_add(r, series, 1.0 / 6.0);
    let series = A::multiply_add(r, series, 0.5);
    let series = A::multiply_add(r, series, 1.0);
    let series = A::multiply_add(r, series, 1.0);
    f32::from_bits(series.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// e to the power of `x` within 6e-5 relative, a thirtieth of what rounding to bf16 loses; otherwise as [`exponential`].
#[inline(always)]
pub(crate) fn exponential_to_bfloat16<A: MultiplyAdd>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = A::multiply_add(x, std::f32::consts::LOG2_E, ROUND);
    let r = A::multiply_add(shifted - ROUND, -std::f32::consts::LN_2, x);
    let series = A::multiply_add(r, 1.0 / 24.0, 1.0 / 6.0);
    let series = A::multiply_add(r, series, 0.5);
    let series = A::multiply_add(r, series, 1.0);
    let series = A::multiply_add(r, series, 1.0);
    f32::from_bits(series.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// The exact GELU, `x * (1 + erf(x / sqrt 2)) / 2`, within 2e-7 of it times max(|x|, 1).
///
/// erfc is formula 7.1.26 of Abramowitz and Stegun, "Handbook of Mathematical Functions" (|error| <= 1.5e-7).
#[inline(always)]
fn gelu<A: MultiplyAdd>(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / A::multiply_add(z, 0.327_591_1, 1.0);
    let series = A::multiply_add(t, 1.061_405_4, -1.453_152_1);
    let series = A::multiply_add(t, series, 1.421_413_8);
    let series = A::multiply_add(t, series, -0.284_496_72);
    let series = A::multiply_add(t, series, 0.254_829_6);
    let half_erfc = 0.5 * t * series * exponential::<A>(-z * z);
    let below = if x < 0.0 { half_erfc } else { 1.0 - half_erfc };
    x * below
}

/// [`gelu`] within 4e-5 times max(|x|, 1), a fiftieth of what rounding to bf16 loses.
///
/// The normal distribution is 1/2 plus x times a polynomial of x^2, fitted to least |error times x| on -4..=4, where it
/// is 3e-5 off its bounds; beyond, it stays what it is there.
#[inline(always)]
pub(crate) fn gelu_to_bfloat16<A: MultiplyAdd>(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 8] = [
        -6.065_829e-9,
        2.440_526_4e-7,
        -5.860_093_6e-6,
        9.493_557_4e-5,
        -1.112_830_9e-3,
        9.815_725e-3,
        -6.632_352e-2,
        3.988_809_6e-1,
    ];
    let inner = if x < -4.0 { -4.0 } else { x };
    let inner = if inner > 4.0 { 4.0 } else { inner };
    let square = inner * inner;
    let mut series = 6.738_879e-11;
    for coefficient in COEFFICIENTS {
        series = A::multiply_add(series, square, coefficient);
    }
    x * A::multiply_add(inner, series, 0.5)
}

per_instruction_set! {
    /// Adds `bias` to each row of `rows` and applies GELU. A row has the length of `bias`.
    fn bias_gelu(rows: &mut [f32], bias: &[f32]) = bias_gelu_body
}

#[inline(always)]
fn bias_gelu_body<A: MultiplyAdd>(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value = gelu::<A>(*value + bias);
        }
    }
}

per_instruction_set! {
    /// Makes each row of `length` floats positive with sum 1: e^x over the sum of the row's e^x.
    fn softmax(rows: &mut [f32], length: usize) = softmax_body
}

#[inline(always)]
fn softmax_body<A: MultiplyAdd>(rows: &mut [f32], length: usize) {
    for row in rows.chunks_exact_mut(length) {
        let maximum = maximum(row);
        let (chunks, rest) = row.as_chunks_mut::<LANES>();
        let mut sums = [0.0_f32; LANES];
        for chunk in chunks {
            for (value, sum) in chunk.iter_mut().zip(&mut sums) {
                *value = exponential::<A>(*value - maximum);
                *sum += *value;
            }
        }
        let mut total = total(&sums);
        for value in rest {
            *value = exponential::<A>(*value - maximum);
            total += *value;
        }
        let factor = 1.0 / total;
        for value in row {
            *value *= factor;
        }
    }
}

#[inline(always)]
pub(crate) fn maximum(row: &[f32]) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(
        f32::NEG_INFINITY,
        |most, value| if *value > most { *value } else { most },
    )
}

/// Sums the lanes pairwise, in the same order on every processor.
#[inline(always)]
pub(crate) fn total(lanes: &[f32; LANES]) -> f32 {
    let mut lanes = *lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for index in 0..width {
            lanes[index] += lanes[index + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Scale, shift and epsilon of one layer normalisation, all as long as a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Normalisation<'a> {
    /// Factor for each column.
    pub(crate) scale: &'a [f32],
    /// Summand for each column.
    pub(crate) shift: &'a [f32],
    /// Added to the variance.
    pub(crate) epsilon: f32,
}

per_instruction_set! {
    /// Row by row: adds `summand` and `bias` to `rows`, then gives the row mean 0 and variance 1, scaled and shifted.
    fn add_and_normalise(
        rows: &mut [f32],
        summand: &[f32],
        bias: &[f32],
        normalisation: Normalisation<'_>,
    ) = add_and_normalise_body
}

#[inline(always)]
fn add_and_normalise_body<A: MultiplyAdd>(
    rows: &mut [f32],
    summand: &[f32],
    bias: &[f32],
    normalisation: Normalisation<'_>,
) {
    let length = bias.len();
    let Normalisation {
        scale,
        shift,
        epsilon,
    } = normalisation;
    for (row, summand) in rows.chunks_exact_mut(length).zip(summand.chunks_exact(length)) {
        for ((value, summand), bias) in row.iter_mut().zip(summand).zip(bias) {
            *value += summand + bias;
        }
        let mean = sum_of::<A>(row, 0.0, |value, _, sum| sum + value) / length as f32;
        let squares = sum_of::<A>(row, mean, |value, mean, sum| {
            let distance = value - mean;
            A::multiply_add(distance, distance, sum)
        });
        let factor = 1.0 / (squares / length as f32 + epsilon).sqrt();
        for ((value, scale), shift) in row.iter_mut().zip(scale).zip(shift) {
            *value = A::multiply_add((*value - mean) * factor, *scale, *shift);
        }
    }
}

/// Folds a row in [`LANES`] partial sums; `add` gets a value, `with` and the partial sum.
#[inline(always)]
fn sum_of<A: MultiplyAdd>(row: &[f32], with: f32, add: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = add(*value, with, *lane);
        }
    }
    rest.iter()
        .fold(total(&lanes), |sum, value| add(*value, with, sum))
}

per_instruction_set! {
    /// Writes the mean of all rows into `mean`, whose length is a row's. No rows leave it zero.
    fn mean_of_rows(rows: &[f32], mean: &mut [f32]) = mean_of_rows_body
}

#[inline(always)]
fn mean_of_rows_body<A: MultiplyAdd>(rows: &[f32], mean: &mut [f32]) {
    mean.fill(0.0);
    let count = rows.len() / mean.len();
    for row in rows.chunks_exact(mean.len()) {
        for (sum, value) in mean.iter_mut().zip(row) {
            *sum += value;
        }
    }
    let factor = 1.0 / count.max(1) as f32;
    for value in mean {
        *value *= factor;
    }
}

per_instruction_set! {
    /// Scales `vector` to length 1; a vector of zeros stays as it is.
    fn scale_to_unit_length(vector: &mut [f32]) = scale_to_unit_length_body
}

#[inline(always)]
fn scale_to_unit_length_body<A: MultiplyAdd>(vector: &mut [f32]) {
    // The reference divides by at least this much.
    const SMALLEST: f32 = 1e-12;
    let length = sum_of::<A>(vector, 0.0, |value, _, sum| A::multiply_add(value, value, sum)).sqrt();
    let factor = 1.0 / if length < SMALLEST { SMALLEST } else { length };
    for value in vector {
        *value *= factor;
    }
}

pub(crate) mod decoder;

#[cfg(test)]
pub(crate) mod tests;
