//! The walk of a copy through a tensor: row by row of its box, each with the part that is inside.

use super::{RANK, Shape, TensorMap};

/// A row of the box: the elements along the innermost dimension, which lie side by side in device memory too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Address of the first byte that is inside of the tensor.
    pub address: u64,
    /// Bytes of the row before it, which are outside.
    pub skip: u32,
    /// Bytes inside.
    pub bytes: u32,
}

/// The part of `count` elements from `first` on that is among `extent`: how many come before, and how many are inside.
fn inside(first: i64, count: u32, extent: u64) -> (u32, u32) {
    let start = first.max(0);
    let end = (first + i64::from(count)).min(extent as i64);
    if start < end { ((start - first) as u32, (end - start) as u32) } else { (count, 0) }
}

impl TensorMap {
    /// The row whose first element is at these coordinates.
    fn row(&self, at: [i64; RANK], count: u32) -> Row {
        let outside = (1..self.rank).any(|i| !(0..self.extents[i] as i64).contains(&at[i]));
        let (skip, have) = if outside { (count, 0) } else { inside(at[0], count, self.extents[0]) };
        let bytes = self.element.bytes();
        if have == 0 {
            return Row { address: self.address, skip: count * bytes, bytes: 0 };
        }
        let first = (at[0] + i64::from(skip)) as u64 * u64::from(bytes);
        let address = (1..self.rank).fold(self.address + first, |sum, i| sum + at[i] as u64 * self.strides[i]);
        Row { address, skip: skip * bytes, bytes: have * bytes }
    }

    /// The rows of the box at these coordinates, in their order in shared memory. For a filter the coordinates are
    /// those of the walk's first pixel, and `offsets` the filter's position along W, H and D.
    pub fn rows(&self, at: [i32; RANK], offsets: [u16; 3]) -> impl Iterator<Item = Row> + '_ {
        let at = at.map(i64::from);
        let (mut next, mut done) = (at, 0);
        std::iter::from_fn(move || match self.shape {
            Shape::Tiled(extents) => {
                let row = (done < self.bytes() / self.row_bytes()).then(|| self.row(next, extents[0]));
                done += 1;
                for i in 1..self.rank {
                    next[i] += i64::from(self.steps[i]);
                    if next[i] < at[i] + i64::from(extents[i]) {
                        break;
                    }
                    next[i] = at[i];
                }
                row
            }
            Shape::Im2col { lower, upper, channels, pixels } => {
                let spatial = self.rank - 2;
                let mut pixel = next;
                for i in 0..spatial {
                    pixel[i + 1] += i64::from(offsets[i]);
                }
                let row = (done < pixels).then(|| self.row(pixel, channels));
                done += 1;
                for i in 0..spatial {
                    next[i + 1] += i64::from(self.steps[i + 1]);
                    if next[i + 1] < self.extents[i + 1] as i64 + i64::from(upper[i]) {
                        return row;
                    }
                    next[i + 1] = i64::from(lower[i]);
                }
                next[spatial + 1] += i64::from(self.steps[spatial + 1]);
                row
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Element, Swizzle};
    use super::*;

    #[test]
    fn a_box_over_an_edge_is_cut() {
        let map = TensorMap::tiled(Element::F32, 1024, &[10, 3], &[48], &[4, 2], &[1, 1], Swizzle::None, false);
        let map = map.unwrap();
        assert_eq!(map.bytes(), 32);
        let rows = |x, y| map.rows([x, y, 0, 0, 0], [0; 3]).collect::<Vec<Row>>();
        assert_eq!(
            rows(-1, 2),
            [Row { address: 1024 + 96, skip: 4, bytes: 12 }, Row { address: 1024, skip: 16, bytes: 0 }]
        );
        assert_eq!(rows(8, 0)[1], Row { address: 1024 + 48 + 32, skip: 0, bytes: 8 });
        assert!(rows(i32::MAX, i32::MIN).iter().all(|row| row.bytes == 0));
    }

    #[test]
    fn steps_make_a_box_smaller() {
        let map = TensorMap::tiled(Element::U8, 0, &[16, 64], &[16], &[16, 7], &[8, 3], Swizzle::None, false);
        let map = map.unwrap();
        let rows: Vec<u64> = map.rows([0, 1, 0, 0, 0], [0; 3]).map(|row| row.address / 16).collect();
        assert_eq!(rows, [1, 4, 7]);
        assert_eq!(map.bytes(), 48);
    }

    #[test]
    fn a_filter_walks_its_pixels() {
        // 3×3 pixels of 16 channels, padded by one, a filter of 3×3 with a stride of 2: outputs 2×2 for each image.
        let map = TensorMap::im2col(
            Element::U8,
            0,
            &[16, 3, 3, 2],
            &[16, 48, 144],
            &[-1, -1],
            &[-1, -1],
            16,
            8,
            &[1, 2, 2, 1],
            Swizzle::None,
            false,
        );
        let map = map.unwrap();
        let rows: Vec<Row> = map.rows([0, -1, -1, 0, 0], [1, 2, 0]).collect();
        // The filter's middle column and last row: x = 0 and 2, y = 1 and 3, and no image has a fourth row.
        let expected = [Some(3), Some(5), None, None, Some(12), Some(14), None, None];
        let found: Vec<Option<u64>> = rows.iter().map(|row| (row.bytes > 0).then_some(row.address / 16)).collect();
        assert_eq!(found, expected);
    }
}
