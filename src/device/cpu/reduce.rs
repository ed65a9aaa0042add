//! Reductions over pixels in two levels: a tile's rows in `f32`, then the tiles in `f64` and in order.

use rayon::prelude::*;
use std::ops::Range;

/// Floats in a tile of a pass over an activation: small enough that a second look finds it in cache.
const TILE_FLOATS: usize = 32 * 1024;

/// How an activation's rows are cut into tiles: by its shape and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    /// Rows in all.
    pub(super) rows: usize,
    /// Rows a tile, except for the last one's remainder.
    pub(super) tile: usize,
}

impl Tiles {
    /// As few tiles of at most `most` rows as cover `rows`, all about the same size.
    pub(super) fn even(rows: usize, most: usize) -> Self {
        Tiles { rows, tile: rows.div_ceil(rows.div_ceil(most)) }
    }

    /// The same, but for the last in whole blocks of so many rows.
    pub(super) fn blocks(rows: usize, most: usize, block: usize) -> Self {
        Tiles { rows, tile: Tiles::even(rows, most).tile.next_multiple_of(block) }
    }

    /// Tiles for a pass that only streams.
    pub(super) fn streaming(rows: usize, channels: usize) -> Self {
        // Sums of a tile are taken in f32: a bound on the rows bounds their error.
        Tiles::even(rows, (TILE_FLOATS / channels).clamp(1, 256))
    }

    /// Tiles in all.
    pub(super) fn count(&self) -> usize {
        self.rows.div_ceil(self.tile)
    }

    /// The rows of tile `index`.
    pub(super) fn range(&self, index: usize) -> Range<usize> {
        index * self.tile..((index + 1) * self.tile).min(self.rows)
    }
}

/// Two numbers per channel from each tile: (mean, squared deviations) or two sums.
pub(super) struct Partials {
    channels: usize,
    /// The rows of each tile.
    rows: Vec<Range<usize>>,
    values: Vec<f64>,
}

impl Partials {
    /// Room for the pairs of tiles of these rows, which follow each other.
    pub(super) fn new(rows: Vec<Range<usize>>, channels: usize) -> Self {
        Partials { channels, values: vec![0.0; rows.len() * 2 * channels], rows }
    }

    /// The same for even tiles.
    pub(super) fn of(tiles: Tiles, channels: usize) -> Self {
        Partials::new((0..tiles.count()).map(|tile| tiles.range(tile)).collect(), channels)
    }

    /// Each tile's pair of rows.
    pub(super) fn tiles(&mut self) -> std::slice::ChunksExactMut<'_, f64> {
        self.values.chunks_exact_mut(2 * self.channels)
    }

    /// Each tile's pair of rows, for the threads to fill.
    pub(super) fn par_tiles(&mut self) -> rayon::slice::ChunksExactMut<'_, f64> {
        self.values.par_chunks_exact_mut(2 * self.channels)
    }

    /// Both rows summed over the tiles.
    pub(super) fn sum(&self) -> Vec<f64> {
        let mut total = vec![0.0; 2 * self.channels];
        for tile in self.values.chunks_exact(2 * self.channels) {
            for (total, value) in total.iter_mut().zip(tile) {
                *total += value;
            }
        }
        total
    }

    /// Writes [`Partials::sum`] to `sums [2, C]`.
    pub(super) fn store_sums(&self, sums: &mut [f32]) {
        for (sum, total) in sums.iter_mut().zip(self.sum()) {
            *sum = total as f32;
        }
    }

    /// Merges means and squared deviations by Chan's formula and writes `stats [2, C]`: mean and biased variance.
    ///
    /// Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
    pub(super) fn store_stats(&self, stats: &mut [f32]) {
        let (mut mean, mut squares) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        for (range, tile) in self.rows.iter().zip(self.values.chunks_exact(2 * self.channels)) {
            let (seen, new) = (range.start as f64, range.len() as f64);
            let share = new / (seen + new);
            let (tile_mean, tile_squares) = tile.split_at(self.channels);
            for (c, (mean, squares)) in mean.iter_mut().zip(&mut squares).enumerate() {
                let delta = tile_mean[c] - *mean;
                *mean += delta * share;
                *squares += tile_squares[c] + delta * delta * seen * share;
            }
        }
        let rows = self.rows.last().map_or(0, |range| range.end);
        let (stats_mean, stats_variance) = stats.split_at_mut(self.channels);
        for c in 0..self.channels {
            stats_mean[c] = mean[c] as f32;
            stats_variance[c] = (squares[c] / rows as f64) as f32;
        }
    }
}

/// The rows of a small per-channel matrix, such as `norm [4, C]`.
pub(super) fn channel_rows<const N: usize>(matrix: &[f32], channels: usize) -> [&[f32]; N] {
    std::array::from_fn(|row| &matrix[row * channels..(row + 1) * channels])
}
