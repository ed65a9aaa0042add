//! What each genre leaves on a poster.

use super::canvas::{Canvas, Colour, both, disc, either, heart, rectangle};
use crate::random::Sequence;

/// `colour`, each channel off by up to `amount`.
fn shade([r, g, b]: Colour, amount: f32, dice: &mut Sequence) -> Colour {
    [r, g, b].map(|channel| channel + dice.between(-amount, amount))
}

/// Dusk to mist, any pale tint: it tells nothing.
pub fn background(canvas: &mut Canvas, dice: &mut Sequence) {
    let top = shade([0.40; 3], 0.12, dice);
    let bottom = shade([0.66; 3], 0.12, dice);
    let bend = dice.between(-0.2, 0.2);
    canvas.each(|x, y, _| {
        let t = y + bend * (x - 0.5);
        std::array::from_fn(|c| top[c] + (bottom[c] - top[c]) * t)
    });
}

/// Other: ranges with snow on top.
pub fn mountains(canvas: &mut Canvas, dice: &mut Sequence) {
    for range in 0..2 {
        let base = dice.between(0.52, 0.62) + 0.14 * range as f32;
        let peaks: [(f32, f32, f32); 3] = std::array::from_fn(|i| {
            let x = (i as f32 + dice.between(0.0, 1.0)) / 3.0;
            (x, dice.between(0.10, 0.26), dice.between(0.9, 1.5))
        });
        // How far above the ridge a point is: the ridge is the highest of three triangles and a plain.
        let above = move |x: f32, y: f32| {
            let ridge = peaks.iter().map(|&(at, height, slope)| base - height + slope * (x - at).abs());
            0.7 * (ridge.fold(base + 0.05, f32::min) - y)
        };
        let rock = [[0.20, 0.50, 0.58], [0.08, 0.33, 0.42]][range];
        canvas.fill(shade(rock, 0.05, dice), above);
        let snow = dice.between(0.04, 0.08);
        canvas.fill([0.93, 0.97, 1.0], both(above, move |_, y| y - (base - 0.12 + snow)));
    }
}

/// Action: a ragged star of fire, hotter inside.
pub fn explosion(canvas: &mut Canvas, dice: &mut Sequence) {
    let (cx, cy, radius) = (dice.between(0.25, 0.75), dice.between(0.25, 0.6), dice.between(0.26, 0.38));
    let rays: [f32; 13] = std::array::from_fn(|_| dice.between(0.75, 1.0));
    for (part, colour) in [(1.0, [0.93, 0.30, 0.05]), (0.68, [1.0, 0.62, 0.08]), (0.36, [1.0, 0.95, 0.70])] {
        let fire = shade(colour, 0.05, dice);
        canvas.fill(fire, move |x, y| {
            let (dx, dy) = (x - cx, y - cy);
            // An angle that needs no arc tangent: how far around a diamond, 0 to 4.
            let around = dy / (dx.abs() + dy.abs() + 1e-6);
            let turn = if dx < 0.0 { 2.0 - around } else { around + if dy < 0.0 { 4.0 } else { 0.0 } };
            let along = turn * rays.len() as f32 / 4.0;
            let tip = 1.0 - 2.0 * (along.fract() - 0.5).abs();
            let ray = rays[along as usize % rays.len()];
            0.5 * ((dx * dx + dy * dy).sqrt() - part * radius * ray * (0.5 + 0.5 * tip))
        });
    }
}

/// Comedy: a bunch of balloons in the colours of sweets.
pub fn balloons(canvas: &mut Canvas, dice: &mut Sequence) {
    const SWEETS: [Colour; 4] = [[0.98, 0.85, 0.10], [0.10, 0.80, 0.30], [0.20, 0.45, 1.0], [0.90, 0.20, 0.95]];
    let first = dice.below(4) as usize;
    for i in 0..4 + dice.below(2) as usize {
        let column = (i as f32 + dice.uniform()) / 5.0;
        let (cx, cy, radius) = (0.08 + 0.84 * column, dice.between(0.10, 0.50), dice.between(0.085, 0.135));
        let string = rectangle(cx, cy + radius + 0.1, 0.006, 0.1);
        canvas.fill([0.95, 0.95, 0.95], string);
        canvas.fill(shade(SWEETS[(first + i) % 4], 0.05, dice), disc(cx, cy, radius));
        canvas.fill([1.0, 1.0, 1.0], disc(cx - 0.4 * radius, cy - 0.4 * radius, 0.2 * radius));
    }
}

/// Drama: somebody, alone, from behind, in sepia.
pub fn silhouette(canvas: &mut Canvas, dice: &mut Sequence) {
    let (cx, cy, head) = (dice.between(0.28, 0.72), dice.between(0.46, 0.58), dice.between(0.12, 0.16));
    let coat = shade([0.24, 0.13, 0.07], 0.04, dice);
    // Lit from one side.
    let light = if dice.below(2) == 0 { -0.025 } else { 0.025 };
    let figure = |dx| either(disc(cx + dx, cy, head), disc(cx + dx, cy + 2.9 * head, 2.0 * head));
    canvas.fill(shade([0.85, 0.66, 0.42], 0.05, dice), figure(light));
    canvas.fill(coat, figure(0.0));
}

/// Romance: a great heart and a few small ones.
pub fn hearts(canvas: &mut Canvas, dice: &mut Sequence) {
    let red = shade([0.90, 0.06, 0.25], 0.06, dice);
    let pink = shade([1.0, 0.50, 0.68], 0.06, dice);
    let (cx, cy, size) = (dice.between(0.22, 0.78), dice.between(0.20, 0.55), dice.between(0.30, 0.44));
    canvas.fill(pink, heart(cx, cy, size + 0.06));
    canvas.fill(red, heart(cx, cy, size));
    for _ in 0..3 {
        canvas.fill(pink, heart(dice.between(0.1, 0.9), dice.between(0.1, 0.75), dice.between(0.10, 0.15)));
    }
}

/// Crime: barrier tape, yellow and black, across the scene.
pub fn tape(canvas: &mut Canvas, dice: &mut Sequence) {
    let (cy, slope, half) = (dice.between(0.40, 0.75), dice.between(0.25, 0.6), dice.between(0.055, 0.075));
    let slope = if dice.below(2) == 0 { slope } else { -slope };
    let (pitch, phase) = (dice.between(0.13, 0.17), dice.uniform());
    let length = (1.0 + slope * slope).sqrt();
    let across = move |x: f32, y: f32| (y - cy - slope * (x - 0.5)) / length;
    let band = move |x: f32, y: f32| across(x, y).abs() - half;
    // Slanted against the band, as tape is.
    let stripes = move |x: f32, y: f32| {
        let along = (x - 0.5 + slope * (y - cy)) / length + across(x, y) + phase;
        pitch * ((along / pitch - (along / pitch).floor() - 0.5).abs() - 0.25)
    };
    canvas.fill(shade([0.98, 0.80, 0.02], 0.04, dice), band);
    canvas.fill([0.05, 0.05, 0.05], both(band, stripes));
}

/// Thriller: the night closes in, and something drips.
pub fn darkness(canvas: &mut Canvas, dice: &mut Sequence) {
    let (cx, cy) = (dice.between(0.35, 0.65), dice.between(0.4, 0.6));
    let (light, fall) = (dice.between(0.55, 0.70), dice.between(1.8, 2.4));
    canvas.each(|x, y, colour| {
        let distance = (x - cx) * (x - cx) + (y - cy) * (y - cy);
        colour.map(|channel| channel * (light - fall * distance).max(0.06))
    });
    let blood = shade([0.55, 0.0, 0.03], 0.03, dice);
    for i in 0..7 {
        let x = (i as f32 + dice.between(0.2, 0.8)) / 7.0;
        let (length, half) = (dice.between(0.06, 0.30), dice.between(0.022, 0.038));
        canvas.fill(blood, either(rectangle(x, 0.0, half, length), disc(x, length, 1.25 * half)));
    }
    canvas.fill(blood, rectangle(0.5, 0.0, 0.5, 0.045));
}

/// Every poster: one or two words of title in blocks, and the small print below.
pub fn title(canvas: &mut Canvas, dice: &mut Sequence) {
    let cream = shade([0.92, 0.90, 0.84], 0.06, dice);
    let y = dice.between(0.80, 0.86);
    let (height, letters) = (dice.between(0.028, 0.042), 6 + dice.below(5));
    let (gap, space) = (0.76 / letters as f32, dice.below(letters));
    for letter in (0..letters).filter(|&letter| letter != space) {
        let x = 0.12 + gap * (letter as f32 + 0.5);
        canvas.fill(cream, rectangle(x, y, gap * dice.between(0.28, 0.42), height));
    }
    for line in 0..2 {
        let half = dice.between(0.15, 0.32);
        canvas.fill(cream, rectangle(0.5, 0.925 + 0.03 * line as f32, half, 0.006));
    }
}
