//! 3×3 convolutions of stride 1 by Winograd's minimal filtering: a quarter of the multiplications, or four ninths.
//!
//! The image is cut into tiles of `M`×`M` outputs. Tiles and filters are transformed ([`transforms`]), each of the (M+2)² places of a
//! transformed tile is a matrix product `[tiles, C]·[C, K]` of its own, and the products are transformed back.
//!
//! - Forward: tiles of the input by the filters. Data gradient: tiles of `dy` by the turned filters, C and K exchanged.
//! - Weight gradient: the same the other way round: `Gᵀ [Σ (A dy Aᵀ) (Bᵀ d B)] G` over the tiles, a product `[K, tiles]·[tiles, C]` a place.
//!
//! M = 4 needs 2.25 multiplications an output where the plain product needs 9, M = 2 needs 4, but tiles that reach over the edge are
//! computed whole, and transforms cost as well: [`Grid`] counts both and takes what is cheapest, the plain product included.
//!
//! The rounding error of M = 2 is an rms 1.4e-7 of the outputs (64 channels), of M = 4 twice that, of the plain product, which adds nine
//! times as many numbers in a row, 6e-7. The gradients take either M. The forward pass of training takes M = 2 only: the error of a
//! value decides on which side of a ReLU it falls and which of a pool's inputs wins, and a gradient that takes another way is off by
//! 1e-3. With M = 4 three steps of training leave the tolerances of the golden values, with M = 2 they keep to them. A network that only answers has no
//! gradients, and takes M = 4 ([`convolve_folded`]).

mod transforms;

use crate::device::cpu::matmul::Matrix;
use crate::device::cpu::memory::Cpu;
use crate::device::cpu::panels::{COLUMNS, Panels, packed_len};
use crate::device::cpu::pooled::Pooled;
use crate::device::cpu::reduce::{Partials, Tiles};
use crate::device::cpu::scratch::Scratch;
use crate::device::cpu::source::Source;
use crate::device::cpu::view::Number;
use crate::device::{ConvShape, DeviceError};
use rayon::prelude::*;
use std::ops::Range;
use transforms::{Rule, Strides, Transform, transform};

/// What a number of a transformed tile costs beside its multiplications, and one of a transformed filter: in multiplications, as measured.
const TILE_COST: usize = 80;
const FILTER_COST: usize = 20;

/// The same of a tile to which nothing is owed; and how many tiles' multiplications it takes a task to fetch filters that are too many for a
/// second-level cache: as measured with AVX-512.
const PLAIN_TILE_COST: usize = 35;
const STREAM_COST: usize = 26;
const CACHED_FILTERS: usize = 256 << 10;

/// Fewest channels and tiles with which M = 2 costs no more than the plain product.
const LEAST_CHANNELS: usize = 16;
const LEAST_TILES: usize = 32;

/// Tiles that a task transforms and multiplies, about.
const TASK_TILES: usize = 48;

/// The same for the weight gradient, and how many floats of transformed tiles it multiplies at a time: more would not stay in cache.
const GRADIENT_TILES: usize = 96;
const GRADIENT_FLOATS: usize = 4 << 20;

/// How an image is cut into tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// Outputs of a tile, each way.
    m: usize,
    images: usize,
    /// Extents and channels of what the filters see.
    h: usize,
    w: usize,
    c: usize,
    /// Zeros above it and to its left.
    pad: usize,
    /// Extents and channels of the result.
    p: usize,
    q: usize,
    k: usize,
}

impl Grid {
    /// For the forward pass: wherever it costs about as much as the plain product, since it is the more exact.
    pub(super) fn forward(shape: &ConvShape) -> Option<Self> {
        let grid = Grid::over_input(shape)?;
        (grid.c.min(grid.k) >= LEAST_CHANNELS && grid.tiles() >= LEAST_TILES).then_some(grid)
    }

    /// For a network that only answers, which has its filters transformed: M = 4 if it costs less than the plain product. What an image
    /// costs decides, so that the answer does not depend on how many there are.
    pub(super) fn folded(shape: &ConvShape) -> Option<Self> {
        let grid = Grid { m: 4, ..Grid::over_input(shape)? };
        let image = Grid { images: 1, ..grid };
        let streamed = if grid.filters_len() > CACHED_FILTERS { STREAM_COST } else { 0 };
        let product = grid.c * grid.k * (TASK_TILES + streamed) / TASK_TILES;
        let cost = image.places() * image.tiles() * (product + PLAIN_TILE_COST * (grid.c + grid.k));
        (cost < image.plain_cost()).then_some(grid)
    }

    /// For the weight gradient.
    pub(super) fn backward_weights(shape: &ConvShape) -> Option<Self> {
        Grid::over_input(shape)?.cheapest(&[2, 4])
    }

    /// For the data gradient, a forward pass over `dy`.
    pub(super) fn backward_data(shape: &ConvShape) -> Option<Self> {
        let Grid { images, h, w, c, pad, p, q, k, .. } = Grid::over_input(shape)?;
        let grid = Grid { m: 2, images, h: p, w: q, c: k, pad: 2usize.checked_sub(pad)?, p: h, q: w, k: c };
        grid.cheapest(&[2, 4])
    }

    fn over_input(shape: &ConvShape) -> Option<Self> {
        let ConvShape { n, h, w, c, k, r, s, stride, pad, p, q } = *shape;
        ([r, s, stride] == [3, 3, 1]).then_some(Grid { m: 2, images: n, h, w, c, pad, p, q, k })
    }

    /// With the M that costs least; none if that is more than the plain product.
    fn cheapest(self, sizes: &[usize]) -> Option<Self> {
        let grids = sizes.iter().map(|&m| Grid { m, ..self });
        let best = grids.min_by_key(Grid::cost)?;
        (best.cost() < self.plain_cost()).then_some(best)
    }

    /// In multiplications.
    fn cost(&self) -> usize {
        let tiles = self.tiles() * (self.c * self.k + TILE_COST * (self.c + self.k));
        self.places() * (tiles + FILTER_COST * self.c * self.k)
    }

    /// The plain product, in multiplications.
    fn plain_cost(&self) -> usize {
        9 * self.images * self.p * self.q * self.c * self.k
    }

    /// Numbers of the transformed filters.
    pub(super) fn filters_len(&self) -> usize {
        self.places() * packed_len([self.c, self.k])
    }

    /// Places of a transformed tile.
    fn places(&self) -> usize {
        (self.m + 2) * (self.m + 2)
    }

    /// Rows of tiles in an image.
    fn rows(&self) -> usize {
        self.p.div_ceil(self.m)
    }

    /// Tiles in a row.
    fn columns(&self) -> usize {
        self.q.div_ceil(self.m)
    }

    fn tiles(&self) -> usize {
        self.images * self.rows() * self.columns()
    }

    /// The output pixels under a row of tiles, rows counted through all images.
    pub(super) fn pixels(&self, row: usize) -> Range<usize> {
        let (image, row) = (row / self.rows(), row % self.rows());
        let line = |row: usize| (image * self.p + (row * self.m).min(self.p)) * self.q;
        line(row)..line(row + 1)
    }

    /// The rows of tiles that a task takes, some `tiles` of them.
    fn tasks(&self, tiles: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, step) = (self.images * self.rows(), (tiles / self.columns()).max(1));
        (0..rows).step_by(step).map(move |from| from..(from + step).min(rows))
    }

    /// Transforms the tiles of these rows, read from `source`, to `out [places, tiles, channels]`, or the same with `[tiles, channels]`
    /// packed.
    fn transform_rows<E: Number>(&self, from: &Image<E>, rows: Range<usize>, out: &mut [f32], packed: bool) {
        let Image { rule, source, h, w, c, pad } = *from;
        let ([side, places], columns) = (rule.extents(self.m), self.columns());
        let tiles = rows.len() * columns;
        // The lines under a row of tiles, with zeros around them.
        let width = columns * self.m + side - self.m;
        let mut band = Scratch::new(side * width * c);
        let (to, step) = match packed {
            true => {
                let place = packed_len([tiles, c]);
                (Strides { down: places * place, right: place, panel: tiles * COLUMNS }, COLUMNS)
            }
            false => (Strides::of_rows(places * tiles * c, tiles * c), c),
        };
        let how = Transform {
            rule,
            m: self.m,
            channels: c,
            from: Strides::of_rows(width * c, c),
            to,
            wanted: [places; 2],
            accumulate: false,
        };
        for (at, row) in rows.enumerate() {
            let (n, top) = (row / self.rows(), row % self.rows() * self.m);
            for (line, band) in band.chunks_exact_mut(width * c).enumerate() {
                match (top + line).checked_sub(pad).filter(|&line| line < h) {
                    Some(line) => {
                        let inside = w.min(width - pad);
                        let (before, rest) = band.split_at_mut(pad * c);
                        let (pixels, after) = rest.split_at_mut(inside * c);
                        let first = (n * h + line) * w;
                        before.fill(0.0);
                        source.write(pixels, c, first..first + inside);
                        after.fill(0.0);
                    }
                    None => band.fill(0.0),
                }
            }
            for column in 0..columns {
                transform(how, &band[column * self.m * c..], &mut out[(at * columns + column) * step..]);
            }
        }
    }
}

/// What tiles are cut from, and the rule that transforms them.
struct Image<'a, E> {
    rule: Rule,
    source: &'a Source<'a, E>,
    h: usize,
    w: usize,
    c: usize,
    /// Zeros above and to the left.
    pad: usize,
}

/// Filters, transformed: of each panel of K the places, of each place `[C, 16]`. A panel of them is `[3·3·C, 16]` as `panel` writes it;
/// for the data gradient they are turned by half a circle, C and K as its grid has them.
pub(super) fn transform_filters(out: &mut [f32], grid: &Grid, panel: impl Fn(usize, &mut [f32]) + Sync) {
    let Grid { m, c, .. } = *grid;
    assert_eq!(out.len(), grid.filters_len(), "filters of another grid");
    let how = Transform {
        rule: Rule::Filter,
        m,
        channels: COLUMNS,
        from: Strides::of_rows(3 * c * COLUMNS, c * COLUMNS),
        to: Strides::of_rows((m + 2) * c * COLUMNS, c * COLUMNS),
        wanted: [m + 2; 2],
        accumulate: false,
    };
    out.par_chunks_exact_mut(grid.places() * c * COLUMNS).enumerate().for_each(|(at, to)| {
        let mut from = Scratch::new(9 * c * COLUMNS);
        panel(at, &mut from);
        for channel in 0..c {
            transform(how, &from[channel * COLUMNS..], &mut to[channel * COLUMNS..]);
        }
    });
}

/// Filters `[3·3·C, K]` transformed, in memory of the device's.
pub(super) fn transformed(device: &Cpu, grid: &Grid, w: Matrix) -> Result<Pooled<f32>, DeviceError> {
    let mut filters = device.room(grid.filters_len())?;
    transform_filters(&mut filters, grid, |panel, out| w.columns(panel * COLUMNS..(panel + 1) * COLUMNS, out));
    Ok(filters)
}

/// `out [N·P·Q, K] = conv(source, filters)`, or `+=`. While a row of tiles is hot, `finish(first pixel, its outputs, partial)` does what
/// is fused behind the product.
pub(super) fn convolve<E: Number>(
    out: &mut [E],
    accumulate: bool,
    source: &Source<E>,
    grid: &Grid,
    filters: &[f32],
    finish: impl Fn(usize, &mut [f32], &mut [f64]) + Sync,
) -> Partials {
    let Grid { m, h, w, c, k, pad, .. } = *grid;
    let (side, columns) = (m + 2, grid.columns());
    let mut partials = Partials::new((0..grid.images * grid.rows()).map(|row| grid.pixels(row)).collect(), k);
    let (mut tasks, mut rest, mut sums) = (Vec::new(), out, partials.tiles());
    for rows in grid.tasks(TASK_TILES) {
        let pixels = grid.pixels(rows.start).start..grid.pixels(rows.end - 1).end;
        let (out, behind) = rest.split_at_mut(pixels.len() * k);
        rest = behind;
        let sums: Vec<&mut [f64]> = sums.by_ref().take(rows.len()).collect();
        tasks.push((rows, out, sums));
    }
    let image = Image { rule: Rule::Input, source, h, w, c, pad };
    assert_eq!(filters.len(), grid.filters_len(), "filters of another grid");
    tasks.into_par_iter().for_each(|(rows, out, sums)| {
        let tiles = rows.len() * columns;
        let (mut inputs, mut products) = (Scratch::new(side * side * tiles * c), Scratch::new(side * side * tiles * k));
        grid.transform_rows(&image, rows.clone(), &mut inputs, false);
        let places = inputs.chunks_exact(tiles * c).zip(products.chunks_exact_mut(tiles * k));
        for (place, (input, product)) in places.enumerate() {
            let input = Matrix::new(input, tiles, c, c);
            let filters = Panels::spaced(&filters[place * c * COLUMNS..], [c, k], grid.places() * c * COLUMNS);
            filters.multiply(product, false, input, 0..c);
        }
        E::write(out, accumulate, |out| {
            let mut rest = out;
            for ((at, row), sums) in rows.enumerate().zip(sums) {
                let pixels = grid.pixels(row);
                let (out, behind) = std::mem::take(&mut rest).split_at_mut(pixels.len() * k);
                rest = behind;
                for column in 0..columns {
                    let how = Transform {
                        rule: Rule::Output,
                        m,
                        channels: k,
                        from: Strides::of_rows(side * tiles * k, tiles * k),
                        to: Strides::of_rows(grid.q * k, k),
                        wanted: [pixels.len() / grid.q, m.min(grid.q - column * m)],
                        accumulate,
                    };
                    transform(how, &products[(at * columns + column) * k..], &mut out[column * m * k..]);
                }
                finish(pixels.start, out, sums);
            }
        });
    });
    partials
}

/// The same for a network that only answers: `store(pixels, columns, sums)` gets what belongs there. A task takes some rows of tiles and, where
/// those are too few for all threads, some of the output channels.
pub(super) fn convolve_folded(
    x: &[f32],
    grid: &Grid,
    filters: &[f32],
    store: impl Fn(Range<usize>, Range<usize>, &[f32]) + Sync,
) {
    let Grid { m, h, w, c, k, pad, q, .. } = *grid;
    let (side, columns, threads) = (m + 2, grid.columns(), rayon::current_num_threads());
    assert_eq!(filters.len(), grid.filters_len(), "filters of another grid");
    let rows = grid.images * grid.rows();
    let wanted = grid.tiles().div_ceil(TASK_TILES);
    let groups = if wanted < threads { threads.div_ceil(wanted) } else { 1 };
    let rows = Tiles::even(rows, rows.div_ceil(if groups > 1 { wanted } else { wanted.next_multiple_of(threads) }));
    let panels = Tiles::even(k.div_ceil(COLUMNS), k.div_ceil(COLUMNS).div_ceil(groups));
    let source = Source::<f32>::Plain(x);
    let image = Image { rule: Rule::Input, source: &source, h, w, c, pad };
    (0..rows.count() * panels.count()).into_par_iter().for_each(|task| {
        let (rows, panels) = (rows.range(task / panels.count()), panels.range(task % panels.count()));
        let outputs = panels.start * COLUMNS..(panels.end * COLUMNS).min(k);
        let (tiles, width) = (rows.len() * columns, outputs.len());
        let (mut inputs, mut products) =
            (Scratch::new(side * side * tiles * c), Scratch::new(side * side * tiles * width));
        grid.transform_rows(&image, rows.clone(), &mut inputs, false);
        let places = inputs.chunks_exact(tiles * c).zip(products.chunks_exact_mut(tiles * width));
        for (place, (input, product)) in places.enumerate() {
            let filters = &filters[(panels.start * grid.places() + place) * c * COLUMNS..];
            let filters = Panels::spaced(filters, [c, width], grid.places() * c * COLUMNS);
            filters.multiply(product, false, Matrix::new(input, tiles, c, c), 0..c);
        }
        let mut sums = Scratch::new(m * q * width);
        for (at, row) in rows.enumerate() {
            let pixels = grid.pixels(row);
            for column in 0..columns {
                let how = Transform {
                    rule: Rule::Output,
                    m,
                    channels: width,
                    from: Strides::of_rows(side * tiles * width, tiles * width),
                    to: Strides::of_rows(q * width, width),
                    wanted: [pixels.len() / q, m.min(q - column * m)],
                    accumulate: false,
                };
                transform(how, &products[(at * columns + column) * width..], &mut sums[column * m * width..]);
            }
            store(pixels, outputs.clone(), &sums);
        }
    });
}

/// `dw [K, 3, 3, C] += Σ dy ⊗ x`.
pub(super) fn backward_weights<E: Number>(
    device: &Cpu,
    dw: &mut [f32],
    dy: &Source<E>,
    x: &Source<E>,
    grid: &Grid,
) -> Result<(), DeviceError> {
    let Grid { m, h, w, c, k, p, q, pad, .. } = *grid;
    let (side, columns) = (m + 2, grid.columns());
    let inputs = Image { rule: Rule::Input, source: x, h, w, c, pad };
    let outputs = Image { rule: Rule::OutputGradient, source: dy, h: p, w: q, c: k, pad: 0 };
    let mut sums = device.room(grid.places() * k * c)?;
    let tasks: Vec<Range<usize>> = grid.tasks(GRADIENT_TILES).collect();
    let most = tasks[0].len() * columns * grid.places() * (c.next_multiple_of(COLUMNS) + k);
    let mut transformed = device.room(most * tasks.len().min((GRADIENT_FLOATS / most).max(1)))?;
    for (round, tasks) in tasks.chunks(transformed.len() / most).enumerate() {
        // The tiles of some tasks, then a place of all of them a thread.
        transformed.par_chunks_exact_mut(most).zip(tasks).for_each(|(out, rows)| {
            let tiles = rows.len() * columns;
            let (x, dy) = out.split_at_mut(grid.places() * packed_len([tiles, c]));
            grid.transform_rows(&inputs, rows.clone(), x, true);
            grid.transform_rows(&outputs, rows.clone(), dy, false);
        });
        let transformed = &transformed[..];
        sums.par_chunks_exact_mut(k * c).enumerate().for_each(|(place, sum)| {
            for (at, (tiles, rows)) in transformed.chunks_exact(most).zip(tasks).enumerate() {
                let count = rows.len() * columns;
                let panels = packed_len([count, c]);
                let (x, dy) = tiles.split_at(grid.places() * panels);
                let x = Panels::new(&x[place * panels..][..panels], [count, c]);
                let dy = Matrix::new(&dy[place * count * k..], count, k, k);
                x.multiply(sum, round + at > 0, dy.transposed(), 0..count);
            }
        });
    }
    let how = Transform {
        rule: Rule::FilterGradient,
        m,
        channels: c,
        from: Strides::of_rows(side * k * c, k * c),
        to: Strides::of_rows(3 * c, c),
        wanted: [3; 2],
        accumulate: true,
    };
    let sums = &sums[..];
    dw.par_chunks_exact_mut(9 * c).enumerate().for_each(|(filter, dw)| transform(how, &sums[filter * c..], dw));
    Ok(())
}
