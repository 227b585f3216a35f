//! The closed tables of dtypes and how wide an element of each is.

use crate::error::ObjectError;
use crate::tensor::Flavor;

/// Longest dtype that is looked at; numpy's longest (`<M8[1000000000ns]`) is far shorter.
const DTYPE_BYTES_MAX: usize = 64;

/// Bytes of one element.
///
/// # Errors
/// [`ObjectError::BadDtype`]: the dtype is in no table.
pub fn width(flavor: Flavor, dtype: &str) -> Result<u64, ObjectError> {
    let width = match flavor {
        Flavor::Torch => torch_width(dtype),
        Flavor::Numpy => numpy_width(dtype),
    };
    width.ok_or_else(|| ObjectError::BadDtype { dtype: dtype.chars().take(DTYPE_BYTES_MAX).collect() })
}

fn torch_width(dtype: &str) -> Option<u64> {
    match dtype {
        "bool" | "uint8" | "int8" | "float8_e4m3fn" | "float8_e5m2" | "float8_e4m3fnuz" | "float8_e5m2fnuz"
        | "float8_e8m0fnu" | "float4_e2m1fn_x2" | "int1" | "int2" | "int3" | "int4" | "int5" | "int6" | "int7"
        | "uint1" | "uint2" | "uint3" | "uint4" | "uint5" | "uint6" | "uint7" | "bits8" | "bits1x8" | "bits2x4"
        | "bits4x2" => Some(1),
        "uint16" | "int16" | "float16" | "bfloat16" | "bits16" => Some(2),
        "uint32" | "int32" | "float32" | "complex32" | "bcomplex32" => Some(4),
        "uint64" | "int64" | "float64" | "complex64" => Some(8),
        "complex128" => Some(16),
        _ => None,
    }
}

/// Reads numpy's `dtype.str`: byte order, kind, number, and a unit for times.
fn numpy_width(dtype: &str) -> Option<u64> {
    if dtype.len() > DTYPE_BYTES_MAX || !dtype.is_ascii() {
        return None;
    }
    let (order, rest) = dtype.split_at_checked(1)?;
    let (kind, rest) = rest.split_at_checked(1)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = rest.split_at_checked(digits)?;
    if number.len() > 1 && number.starts_with('0') {
        return None;
    }
    // numpy itself holds an item's size in 31 bits.
    let number = u64::from(number.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok())?);
    let is_time = matches!(kind, "m" | "M");
    if !(unit.is_empty() || is_time && is_time_unit(unit)) {
        return None;
    }
    let width = match (kind, number) {
        ("b", 1)
        | ("i" | "u", 1 | 2 | 4 | 8)
        | ("f", 2 | 4 | 8 | 12 | 16)
        | ("c", 8 | 16 | 24 | 32)
        | ("m" | "M", 8)
        | ("S" | "V", _) => number,
        ("U", _) => number * 4,
        _ => return None,
    };
    let has_no_byte_order = matches!(kind, "b" | "S" | "V") || matches!(kind, "i" | "u") && number == 1;
    let fits = if has_no_byte_order { order == "|" } else { matches!(order, "<" | ">") };
    fits.then_some(width)
}

/// Whether this is a time unit in brackets, such as `[ns]` or `[25s]`.
fn is_time_unit(unit: &str) -> bool {
    let inside = unit.strip_prefix('[').and_then(|unit| unit.strip_suffix(']'));
    inside.is_some_and(|inside| {
        let name = inside.trim_start_matches(|digit: char| digit.is_ascii_digit());
        matches!(name, "Y" | "M" | "W" | "D" | "h" | "m" | "s" | "ms" | "us" | "ns" | "ps" | "fs" | "as")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_width_of_every_numpy_kind() {
        for (dtype, expected) in [
            ("|b1", 1),
            ("|i1", 1),
            ("<f4", 4),
            (">i8", 8),
            ("<f16", 16),
            ("<c16", 16),
            ("<U3", 12),
            ("|S5", 5),
            ("|V8", 8),
            ("<M8[ns]", 8),
            ("<m8[25s]", 8),
            ("<m8", 8),
        ] {
            assert_eq!(width(Flavor::Numpy, dtype), Ok(expected), "{dtype}");
        }
    }

    #[test]
    fn refuses_numpy_dtypes_that_are_not_dtype_str() {
        for dtype in [
            "",
            "|",
            "|O",
            "|O8",
            "f4",
            "=f4",
            "|f4",
            "<b1",
            "<i1",
            "<f3",
            "<f04",
            "<f4[ns]",
            "<M8[parsec]",
            "<M8[ns",
            "<U2147483648",
            "<U99999999999999999999",
            "\u{e9}f4",
            "float32",
        ] {
            assert!(width(Flavor::Numpy, dtype).is_err(), "{dtype}");
        }
    }

    #[test]
    fn keeps_the_tables_of_torch_and_numpy_apart() {
        assert_eq!(width(Flavor::Torch, "bfloat16"), Ok(2));
        assert!(width(Flavor::Torch, "<f4").is_err());
        assert!(width(Flavor::Torch, "torch.float32").is_err());
    }
}
