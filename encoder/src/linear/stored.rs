//! Weights as a file has them.

/// A weight matrix as it is stored: a row for each output, of a value for each input, without gaps.
#[derive(Debug, Clone, Copy)]
pub struct StoredRows<'a> {
    values: Values<'a>,
    outputs: usize,
    inputs: usize,
}

#[derive(Debug, Clone, Copy)]
enum Values<'a> {
    Floats(&'a [f32]),
    Float32(&'a [[u8; 4]]),
    Bfloat16(&'a [[u8; 2]]),
}

impl<'a> StoredRows<'a> {
    /// Values in memory.
    ///
    /// # Panics
    /// If there are not `outputs * inputs` of them.
    pub fn floats(values: &'a [f32], outputs: usize, inputs: usize) -> Self {
        Self::new(Values::Floats(values), values.len(), outputs, inputs)
    }

    /// Little-endian 32-bit floats, `F32` in a safetensors file, at any alignment.
    ///
    /// # Panics
    /// If there are not four bytes for each of `outputs * inputs` values.
    pub fn float32(bytes: &'a [u8], outputs: usize, inputs: usize) -> Self {
        let (values, rest) = bytes.as_chunks();
        assert!(rest.is_empty(), "{} bytes are not whole floats", bytes.len());
        Self::new(Values::Float32(values), values.len(), outputs, inputs)
    }

    /// Little-endian bf16, `BF16` in a safetensors file, at any alignment.
    ///
    /// # Panics
    /// If there are not two bytes for each of `outputs * inputs` values.
    pub fn bfloat16(bytes: &'a [u8], outputs: usize, inputs: usize) -> Self {
        let (values, rest) = bytes.as_chunks();
        assert!(rest.is_empty(), "{} bytes are not whole numbers", bytes.len());
        Self::new(Values::Bfloat16(values), values.len(), outputs, inputs)
    }

    fn new(values: Values<'a>, count: usize, outputs: usize, inputs: usize) -> Self {
        assert_eq!(
            Some(count),
            outputs.checked_mul(inputs),
            "{outputs} rows of {inputs} values do not fit"
        );
        Self {
            values,
            outputs,
            inputs,
        }
    }

    /// Rows.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Values of a row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Decodes the row of `output` into `row`, whose length is `inputs`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn read(&self, output: usize, row: &mut [f32]) {
        let range = output * self.inputs..(output + 1) * self.inputs;
        match self.values {
            Values::Floats(values) => row.copy_from_slice(&values[range]),
            Values::Float32(values) => {
                for (float, bytes) in row.iter_mut().zip(&values[range]) {
                    *float = f32::from_le_bytes(*bytes);
                }
            }
            Values::Bfloat16(values) => {
                for (float, bytes) in row.iter_mut().zip(&values[range]) {
                    *float = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
                }
            }
        }
    }
}
