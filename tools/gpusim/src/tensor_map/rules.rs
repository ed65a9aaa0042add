//! What a tensor map's parameters may be, as `cuda.h` says.

use super::{Element, RANK, Shape, Swizzle, TensorMap};

/// A parameter that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter} is {found}; {rule}")]
pub struct Wrong {
    /// The parameter, by its name in `cuda.h`.
    pub parameter: &'static str,
    /// What it is.
    pub found: String,
    /// What it may be.
    pub rule: &'static str,
}

type Checked<T> = Result<T, Wrong>;

/// Fails with the rule unless it is kept.
fn rule(kept: bool, parameter: &'static str, found: impl std::fmt::Debug, rule: &'static str) -> Checked<()> {
    if kept { Ok(()) } else { Err(Wrong { parameter, found: format!("{found:?}"), rule }) }
}

/// A tensor's address, if it is aligned.
pub(super) fn aligned(address: u64) -> Checked<u64> {
    rule(address.is_multiple_of(16), "globalAddress", format_args!("{address:#x}"), "it must be a multiple of 16")?;
    Ok(address)
}

/// `values` with `rest` in the dimensions that a tensor hasn't.
fn padded<T: Copy>(values: &[T], rest: T) -> [T; RANK] {
    std::array::from_fn(|i| values.get(i).copied().unwrap_or(rest))
}

impl TensorMap {
    /// A map with everything but its shape.
    pub(super) fn of(
        element: Element,
        address: u64,
        extents: &[u64],
        strides: &[u64],
        steps: &[u32],
        swizzle: Swizzle,
        nan: bool,
    ) -> Checked<Self> {
        let rank = extents.len();
        rule((1..=RANK).contains(&rank), "tensorRank", rank, "1 to 5 are possible")?;
        let most = |extent: &u64| (1..=1 << 32).contains(extent);
        rule(extents.iter().all(most), "globalDim", extents, "each must be 1 to 2^32")?;
        let fits = |stride: &u64| stride.is_multiple_of(16) && *stride < 1 << 40;
        rule(strides.len() == rank - 1, "globalStrides", strides, "there must be one less than dimensions")?;
        rule(strides.iter().all(fits), "globalStrides", strides, "each must be a multiple of 16 below 2^40")?;
        rule(steps.len() == rank, "elementStrides", steps, "there must be as many as dimensions")?;
        let steps_fit = steps.iter().all(|step| (1..=8).contains(step));
        rule(steps_fit, "elementStrides", steps, "each must be 1 to 8")?;
        rule(!nan || element.is_float(), "oobFill", element, "only floating-point types can be filled with NaN")?;
        let mut all = [u64::from(element.bytes()); RANK];
        all[1..rank].copy_from_slice(strides);
        Ok(Self {
            element,
            rank,
            address: aligned(address)?,
            extents: padded(extents, 1),
            strides: all,
            shape: Shape::Tiled([1; RANK]),
            // There are no steps along the innermost dimension.
            steps: std::array::from_fn(|i| if i == 0 { 1 } else { padded(steps, 1)[i] }),
            swizzle,
            nan,
        })
    }
}

/// A row of the box must be whole pieces, and fit the swizzle.
fn row(map: &TensorMap, elements: u32, parameter: &'static str) -> Checked<()> {
    let bytes = elements * map.element.bytes();
    rule(bytes.is_multiple_of(16), parameter, elements, "the bytes of its elements must be a multiple of 16")?;
    let fits = map.swizzle == Swizzle::None || bytes <= map.swizzle.span();
    rule(fits, parameter, elements, "the bytes of its elements must be at most those of the swizzle")
}

/// A box's extents.
pub(super) fn boxed(map: &TensorMap, box_: &[u32]) -> Checked<[u32; RANK]> {
    rule(box_.len() == map.rank, "boxDim", box_, "there must be as many as dimensions")?;
    rule(box_.iter().all(|extent| (1..=256).contains(extent)), "boxDim", box_, "each must be 1 to 256")?;
    row(map, box_[0], "boxDim[0]")?;
    Ok(padded(box_, 1))
}

/// The shape of a map for a filter.
pub(super) fn im2col(map: &TensorMap, lower: &[i32], upper: &[i32], channels: u32, pixels: u32) -> Checked<Shape> {
    rule(map.rank >= 3, "tensorRank", map.rank, "im2col needs 3 to 5")?;
    let spatial = map.rank - 2;
    let limit = [1 << 15, 1 << 7, 1 << 4][spatial - 1];
    let corners = [("pixelBoxLowerCorner", lower), ("pixelBoxUpperCorner", upper)];
    for (name, corner) in corners {
        rule(corner.len() == spatial, name, corner, "there must be one for each of W, H and D")?;
        let fits = corner.iter().all(|offset| (-limit..limit).contains(offset));
        rule(fits, name, corner, "with 3, 4 or 5 dimensions, 16, 8 or 5 signed bits are possible")?;
    }
    for i in 0..spatial {
        let length = map.extents[i + 1] as i64 + i64::from(upper[i]) - i64::from(lower[i]);
        rule(length > 0, "pixelBoxUpperCorner", upper, "the box between the corners must not be empty")?;
    }
    rule((1..=256).contains(&channels), "channelsPerPixel", channels, "1 to 256 are possible")?;
    rule((1..=1024).contains(&pixels), "pixelsPerColumn", pixels, "1 to 1024 are possible")?;
    row(map, channels, "channelsPerPixel")?;
    let three = |corner: &[i32]| std::array::from_fn(|i| corner.get(i).copied().unwrap_or(0));
    Ok(Shape::Im2col { lower: three(lower), upper: three(upper), channels, pixels })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parameter that is found wrong in a map of singles, 64 by 32, boxes of 32 by 8.
    fn wrong(change: impl Fn(&mut (u64, Vec<u64>, Vec<u64>, Vec<u32>, Vec<u32>, Swizzle))) -> &'static str {
        let mut p = (4096, vec![64, 32], vec![256], vec![32, 8], vec![1, 1], Swizzle::Within128);
        change(&mut p);
        let (address, extents, strides, box_, steps, swizzle) = p;
        let map = TensorMap::tiled(Element::F32, address, &extents, &strides, &box_, &steps, swizzle, false);
        map.map_or_else(|wrong| wrong.parameter, |_| "nothing")
    }

    #[test]
    fn every_rule_of_a_box_is_kept() {
        assert_eq!(wrong(|_| {}), "nothing");
        assert_eq!(wrong(|p| p.0 = 4104), "globalAddress");
        assert_eq!(wrong(|p| p.1[1] = 0), "globalDim");
        assert_eq!(wrong(|p| p.1 = vec![1; 6]), "tensorRank");
        assert_eq!(wrong(|p| p.2[0] = 264), "globalStrides");
        assert_eq!(wrong(|p| p.2[0] = 1 << 40), "globalStrides");
        assert_eq!(wrong(|p| p.2 = vec![]), "globalStrides");
        assert_eq!(wrong(|p| p.3[1] = 257), "boxDim");
        assert_eq!(wrong(|p| p.3[0] = 6), "boxDim[0]");
        assert_eq!(wrong(|p| p.3[0] = 64), "boxDim[0]");
        assert_eq!(wrong(|p| p.4[1] = 9), "elementStrides");
        let ints = TensorMap::tiled(Element::U32, 0, &[4], &[], &[4], &[1], Swizzle::None, true);
        assert_eq!(ints.unwrap_err().parameter, "oobFill");
    }

    #[test]
    fn every_rule_of_a_filter_is_kept() {
        let wrong = |extents: &[u64], lower: &[i32], upper: &[i32], channels, pixels| {
            let strides: Vec<u64> = extents[1..].iter().map(|_| 1024).collect();
            let (steps, swizzle) = (vec![1; extents.len()], Swizzle::None);
            let map = TensorMap::im2col(
                Element::F16,
                0,
                extents,
                &strides,
                lower,
                upper,
                channels,
                pixels,
                &steps,
                swizzle,
                false,
            );
            map.map_or_else(|wrong| wrong.parameter, |_| "nothing")
        };
        let nhwc = [64, 14, 14, 2];
        assert_eq!(wrong(&nhwc, &[-1, -1], &[-1, -1], 64, 128), "nothing");
        assert_eq!(wrong(&nhwc[..2], &[], &[], 64, 128), "tensorRank");
        assert_eq!(wrong(&nhwc, &[-129, -1], &[-1, -1], 64, 128), "pixelBoxLowerCorner");
        assert_eq!(wrong(&nhwc, &[-1, -1], &[-1, 128], 64, 128), "pixelBoxUpperCorner");
        assert_eq!(wrong(&nhwc, &[-1, 1], &[-1, -13], 64, 128), "pixelBoxUpperCorner");
        assert_eq!(wrong(&nhwc, &[-1, -1], &[-1, -1], 4, 128), "channelsPerPixel");
        assert_eq!(wrong(&nhwc, &[-1, -1], &[-1, -1], 64, 1025), "pixelsPerColumn");
    }
}
