//! Kinds `NumPy` lacks, as bit patterns of kinds it has.

use crate::ir::{DType, HostTensor};

/// The kind `dtype` travels as; itself where `NumPy` has it.
pub fn portable(dtype: DType) -> DType {
    match dtype {
        DType::BF16 => DType::U16,
        DType::F8E4M3
        | DType::F8E4M3Fnuz
        | DType::F8E5M2
        | DType::F8E5M2Fnuz
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I4
        | DType::I2
        | DType::U4
        | DType::U2 => DType::U8,
        DType::F64
        | DType::F32
        | DType::F16
        | DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8
        | DType::Bool => dtype,
    }
}

/// Bits of an element that count.
fn width(dtype: DType) -> u32 {
    match dtype {
        DType::I4 | DType::U4 | DType::F4E2M1 => 4,
        DType::I2 | DType::U2 => 2,
        _ => 8,
    }
}

/// The tensor as the kind it travels as. Narrow kinds fill the low bits of their byte.
pub fn into_portable(tensor: &HostTensor) -> HostTensor {
    let to = portable(tensor.dtype());
    if to == tensor.dtype() {
        return tensor.clone();
    }
    let mut bits =
        HostTensor::from_bytes(to, tensor.dims(), tensor.bytes()).expect("a kind travels at its own size");
    if width(tensor.dtype()) < 8 {
        let mask = (1u8 << width(tensor.dtype())) - 1;
        bits.bytes_mut().iter_mut().for_each(|byte| *byte &= mask);
    }
    bits
}

/// A tensor that was read, as the kind its port declares.
///
/// # Errors
/// If it is neither of that kind nor of the kind that one travels as.
pub fn into_kind(tensor: HostTensor, wanted: Option<DType>) -> Result<HostTensor, String> {
    let found = tensor.dtype();
    match wanted {
        None => Ok(tensor),
        Some(wanted) if wanted == found => Ok(tensor),
        Some(wanted) if portable(wanted) == found => Ok(from_portable(&tensor, wanted)),
        Some(wanted) if portable(wanted) != wanted => Err(format!(
            "is {found}, expected {wanted} or its bits as {}",
            portable(wanted)
        )),
        Some(wanted) => Err(format!("is {found}, expected {wanted}")),
    }
}

#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "bits are moved, not numbers"
)]
fn from_portable(bits: &HostTensor, to: DType) -> HostTensor {
    let mut tensor =
        HostTensor::from_bytes(to, bits.dims(), bits.bytes()).expect("a kind travels at its own size");
    let unused = 8 - width(to);
    if unused > 0 {
        for byte in tensor.bytes_mut() {
            let high = *byte << unused;
            // Signed integers are held with their sign in all higher bits.
            *byte = if to.is_signed_int() {
                (high as i8 >> unused) as u8
            } else {
                high >> unused
            };
        }
    }
    tensor
}
