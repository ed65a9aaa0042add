//! Tensor maps for a caller: 128 opaque bytes, checked as NVIDIA's driver checks them.

use super::{Answer, Code, api, ready, report};
use crate::tensor_map::{Element, Swizzle, TensorMap, Wrong};
use std::ffi::{c_int, c_void};

/// `CUtensorMap`.
type Place = *mut [u64; 16];

/// The parameters that both kinds of map have.
struct Tensor<'a> {
    element: Element,
    address: u64,
    extents: &'a [u64],
    strides: &'a [u64],
    steps: &'a [u32],
    swizzle: Swizzle,
    nan: bool,
}

/// Says what is wrong.
fn refuse(call: &str, what: &str, code: Code) -> Code {
    report::say(&format!("{call}: {what}"));
    code
}

/// So many values from the caller.
///
/// # Safety
/// The pointer is null or has them.
unsafe fn values<'a, T>(from: *const T, count: u32) -> Answer<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if from.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(from, count as usize) })
}

/// Reads the parameters that both kinds have.
///
/// # Safety
/// As NVIDIA documents them.
unsafe fn tensor<'a>(
    call: &str,
    element: u32,
    rank: u32,
    address: u64,
    extents: *const u64,
    strides: *const u64,
    steps: *const u32,
    interleave: u32,
    swizzle: u32,
    promotion: u32,
    fill: u32,
) -> Answer<Tensor<'a>> {
    let capability = ready()?.device.gpu.capability;
    if capability.0 < 9 {
        let what = format!("tensor maps need sm_90, the device is sm_{}{}", capability.0, capability.1);
        return Err(refuse(call, &what, Code::NOT_SUPPORTED));
    }
    let wrong = |what: String| Err(refuse(call, &what, Code::INVALID_VALUE));
    let missing = |what: &str| Err(refuse(call, &format!("{what} is not supported"), Code::NOT_SUPPORTED));
    let element = match element {
        13..=15 => return missing("a packed type of 4 or 6 bits"),
        number => match Element::ALL.get(number as usize) {
            Some(&element) => element,
            None => return wrong(format!("tensorDataType is {number}; 0 to 15 are possible")),
        },
    };
    match interleave {
        0 => {}
        1 | 2 => return missing("an interleaved layout"),
        number => return wrong(format!("interleave is {number}; 0 to 2 are possible")),
    }
    let swizzle = match swizzle {
        4..=6 => return missing("a swizzle with atoms of more than 16 bytes"),
        number => match Swizzle::ALL.get(number as usize) {
            Some(&swizzle) => swizzle,
            None => return wrong(format!("swizzle is {number}; 0 to 6 are possible")),
        },
    };
    if promotion > 3 {
        return wrong(format!("l2Promotion is {promotion}; 0 to 3 are possible"));
    }
    if fill > 1 {
        return wrong(format!("oobFill is {fill}; 0 and 1 are possible"));
    }
    if !(1..=5).contains(&rank) {
        return wrong(format!("tensorRank is {rank}; 1 to 5 are possible"));
    }
    // SAFETY: the caller's promise.
    unsafe {
        Ok(Tensor {
            element,
            address,
            extents: values(extents, rank)?,
            strides: values(strides, rank - 1)?,
            steps: values(steps, rank)?,
            swizzle,
            nan: fill == 1,
        })
    }
}

/// Writes a map, or says which rule a parameter breaks.
///
/// # Safety
/// The place is null or valid.
unsafe fn finish(call: &str, place: Place, map: Result<TensorMap, Wrong>) -> Answer {
    let map = map.map_err(|wrong| refuse(call, &wrong.to_string(), Code::INVALID_VALUE))?;
    if place.is_null() || !(place as usize).is_multiple_of(64) {
        return Err(refuse(call, "tensorMap must be aligned to 64 bytes", Code::INVALID_VALUE));
    }
    // SAFETY: the caller's promise.
    unsafe { place.write(map.encode()) };
    Ok(())
}

api! {
    fn cuTensorMapEncodeTiled(
        place: Place,
        element: u32,
        rank: u32,
        address: *mut c_void,
        extents: *const u64,
        strides: *const u64,
        box_: *const u32,
        steps: *const u32,
        interleave: u32,
        swizzle: u32,
        promotion: u32,
        fill: u32,
    ) {
        let call = "cuTensorMapEncodeTiled";
        let address = address as u64;
        // SAFETY: the caller's promise.
        unsafe {
            let t = tensor(
                call, element, rank, address, extents, strides, steps, interleave, swizzle, promotion, fill,
            )?;
            let box_ = values(box_, rank)?;
            let map = TensorMap::tiled(t.element, t.address, t.extents, t.strides, box_, t.steps, t.swizzle, t.nan);
            finish(call, place, map)
        }
    }

    fn cuTensorMapEncodeIm2col(
        place: Place,
        element: u32,
        rank: u32,
        address: *mut c_void,
        extents: *const u64,
        strides: *const u64,
        lower: *const c_int,
        upper: *const c_int,
        channels: u32,
        pixels: u32,
        steps: *const u32,
        interleave: u32,
        swizzle: u32,
        promotion: u32,
        fill: u32,
    ) {
        let call = "cuTensorMapEncodeIm2col";
        let address = address as u64;
        // SAFETY: the caller's promise.
        unsafe {
            let t = tensor(
                call, element, rank, address, extents, strides, steps, interleave, swizzle, promotion, fill,
            )?;
            let spatial = rank.saturating_sub(2);
            let (lower, upper) = (values(lower, spatial)?, values(upper, spatial)?);
            let map = TensorMap::im2col(
                t.element, t.address, t.extents, t.strides, lower, upper, channels, pixels, t.steps, t.swizzle, t.nan,
            );
            finish(call, place, map)
        }
    }

    fn cuTensorMapReplaceAddress(place: Place, address: *mut c_void) {
        let call = "cuTensorMapReplaceAddress";
        drop(ready()?);
        if place.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller's promise.
        unsafe {
            let map = TensorMap::decode(&place.read());
            let map = map.map_err(|broken| refuse(call, &broken.to_string(), Code::INVALID_VALUE))?;
            finish(call, place, map.at(address as u64))
        }
    }
}
