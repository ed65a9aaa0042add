//! Where the time of a step goes: the launches that a device has timed, summed into tables and written launch by launch.

use crate::device::{Device, DeviceError, Measured, Rates, Work};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::io::Write;

/// Layers that the printed table has room for.
const TOP: usize = 20;

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Nothing was timed.
    #[error("no step was measured: the run ended while it warmed up")]
    Empty,
    /// The steps do not repeat one another.
    #[error("step {step} of those measured has other launches than the first, so they have no common profile")]
    Unequal {
        /// Which one, from 1.
        step: usize,
    },
    /// The device's.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The table could not be written.
    #[error(transparent)]
    Csv(#[from] csv::Error),
}

/// The launches of a step, each with the median of its times.
#[derive(Debug)]
pub struct Profile {
    step: String,
    device: String,
    /// Or why there are none.
    rates: Result<Rates, String>,
    steps: usize,
    launches: Vec<Measured>,
}

/// A launch as the CSV has it. What follows from a device's rates is empty where nobody knows them.
#[derive(Clone, Debug, Serialize)]
pub struct Row<'a> {
    /// What was measured, such as a training step at some batch.
    pub step: &'a str,
    /// On which device.
    pub device: &'a str,
    /// The launch's number in the step, from 1.
    pub launch: usize,
    /// The layer, by Keras's name; or `loss`, `gradients` (set to zero, and their norm), `averages` (kept, their norm, put back
    /// after a bad step), `adam`.
    pub layer: &'a str,
    /// `forward`, `backward` or `update`.
    pub pass: &'static str,
    /// The kernel.
    pub kernel: &'static str,
    /// Bytes that it must read.
    pub bytes_read: u64,
    /// Bytes that it must write.
    pub bytes_written: u64,
    /// Multiplications and additions of its formula.
    pub flops: u64,
    /// The median of its times.
    pub us: f64,
    /// Terabytes a second, read and written.
    pub tb_per_s: f64,
    /// FLOP a second, in units of 10¹².
    pub tflop_per_s: f64,
    /// The time that it must take by the device's rates.
    pub floor_us: Option<f64>,
    /// That time's share of the measured one.
    pub floor_percent: Option<f64>,
}

/// Launches summed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Total {
    /// What they have in common.
    pub name: String,
    /// How many.
    pub launches: usize,
    /// What they must do.
    pub work: Work,
    /// What they took.
    pub seconds: f64,
    /// What they must take.
    pub floor: Option<f64>,
}

impl Profile {
    /// Of measured steps that all do the same. `step` says what one is.
    ///
    /// # Errors
    /// [`ProfileError::Empty`] without a step, [`ProfileError::Unequal`] for steps that differ.
    pub fn new<D: Device>(device: &D, step: String, steps: &[Vec<Measured>]) -> Result<Self, ProfileError> {
        let first = steps.first().filter(|launches| !launches.is_empty()).ok_or(ProfileError::Empty)?;
        let alike = |a: &Measured, b: &Measured| (&a.scope, a.kernel, a.work) == (&b.scope, b.kernel, b.work);
        let differs = |launches: &Vec<Measured>| {
            launches.len() != first.len() || launches.iter().zip(first).any(|(a, b)| !alike(a, b))
        };
        if let Some(other) = steps.iter().position(differs) {
            return Err(ProfileError::Unequal { step: other + 1 });
        }
        let median = |launch: usize| {
            let mut seconds: Vec<f64> = steps.iter().map(|launches| launches[launch].seconds).collect();
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        };
        let launches = first.iter().enumerate();
        let launches =
            launches.map(|(number, launch)| Measured { seconds: median(number), ..launch.clone() }).collect();
        let rates = device.rates().map_err(|reason| reason.to_string());
        Ok(Profile { step, device: device.name(), rates, steps: steps.len(), launches })
    }

    /// The launches in their order.
    pub fn launches(&self) -> &[Measured] {
        &self.launches
    }

    /// The launches in their order, as the CSV has them.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.launches.iter().enumerate().map(|(number, Measured { scope, kernel, work, seconds })| {
            let floor = self.rates.as_ref().ok().map(|rates| rates.floor(work));
            Row {
                step: &self.step,
                device: &self.device,
                launch: number + 1,
                layer: &scope.layer,
                pass: scope.pass.name(),
                kernel,
                bytes_read: work.reads,
                bytes_written: work.writes,
                flops: work.flops,
                us: figure(1e6 * seconds),
                tb_per_s: figure(work.bytes() as f64 / seconds / 1e12),
                tflop_per_s: figure(work.flops as f64 / seconds / 1e12),
                floor_us: floor.map(|floor| figure(1e6 * floor)),
                floor_percent: floor.map(|floor| figure(100.0 * floor / seconds)),
            }
        })
    }

    /// Writes the launches as CSV, a row each, with its names in front if `headed`.
    ///
    /// # Errors
    /// [`ProfileError::Csv`].
    pub fn write(&self, to: impl Write, headed: bool) -> Result<(), ProfileError> {
        let mut table = csv::WriterBuilder::new().has_headers(headed).from_writer(to);
        self.rows().try_for_each(|row| table.serialize(row))?;
        Ok(table.flush().map_err(csv::Error::from)?)
    }

    /// All launches together.
    pub fn total(&self) -> Total {
        let mut total = Total { name: "all".into(), ..Total::default() };
        self.launches.iter().for_each(|launch| self.add(&mut total, launch));
        total
    }

    /// Sums of the launches that `name` calls the same, the longest first.
    pub fn by(&self, name: impl Fn(&Measured) -> String) -> Vec<Total> {
        let mut totals: HashMap<String, Total> = HashMap::new();
        for launch in &self.launches {
            let name = name(launch);
            self.add(totals.entry(name.clone()).or_insert_with(|| Total { name, ..Total::default() }), launch);
        }
        let mut totals: Vec<Total> = totals.into_values().collect();
        totals.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.name.cmp(&b.name)));
        totals
    }

    fn add(&self, total: &mut Total, launch: &Measured) {
        let Work { reads, writes, flops } = launch.work;
        total.launches += 1;
        total.work.reads += reads;
        total.work.writes += writes;
        total.work.flops += flops;
        total.seconds += launch.seconds;
        total.floor = self.rates.as_ref().ok().map(|rates| total.floor.unwrap_or_default() + rates.floor(&launch.work));
    }

    /// A table of sums, of which `most` are shown.
    fn table(&self, f: &mut fmt::Formatter<'_>, name: &str, totals: &[Total], most: usize) -> fmt::Result {
        let all = self.total();
        let width = totals.iter().map(|total| total.name.chars().count()).max().unwrap_or_default().max(16);
        writeln!(
            f,
            "\n{name:width$}  {:>8}  {:>10}  {:>7}  {:>8}  {:>8}  {:>7}",
            "launches", "ms", "share", "TB/s", "TFLOP/s", "floor"
        )?;
        for total in totals.iter().take(most).chain([&all]) {
            let floor = total.floor.map_or("-".into(), |floor| format!("{:.1} %", 100.0 * floor / total.seconds));
            writeln!(
                f,
                "{:width$}  {:>8}  {:>10.3}  {:>5.1} %  {:>8}  {:>8}  {floor:>7}",
                total.name,
                total.launches,
                1e3 * total.seconds,
                100.0 * total.seconds / all.seconds,
                three_digits(total.work.bytes() as f64 / total.seconds / 1e12),
                three_digits(total.work.flops as f64 / total.seconds / 1e12),
            )?;
        }
        match totals.len().saturating_sub(most) {
            0 => Ok(()),
            left => writeln!(f, "and {left} more that take less; the CSV has all"),
        }
    }
}

/// The tables by kernel, by layer and pass, and by pass.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Profile { step, device, steps, launches, .. } = self;
        let times = if *steps == 1 { "once".into() } else { format!("{steps} times; the median counts") };
        writeln!(f, "{step} on {device}")?;
        writeln!(f, "{} launches, each measured {times}", launches.len())?;
        match &self.rates {
            Ok(Rates { bytes, flops, source }) => {
                let [bytes, flops] = [bytes, flops].map(|rate| three_digits(rate / 1e12));
                writeln!(
                    f,
                    "floor: the share of the time that its bytes at {bytes} TB/s or its FLOPs at {flops} TFLOP/s"
                )?;
                writeln!(f, "need, the slower of the two ({source});")?;
                writeln!(
                    f,
                    "above 100 % where operands are found in a cache, or a form is found that multiplies less (Winograd)"
                )?;
            }
            Err(reason) => writeln!(f, "no floors: {reason}")?,
        }
        self.table(f, "kernel", &self.by(|launch| launch.kernel.into()), usize::MAX)?;
        let layer = |launch: &Measured| format!("{} {}", launch.scope.layer, launch.scope.pass.name());
        self.table(f, "layer and pass", &self.by(layer), TOP)?;
        self.table(f, "pass", &self.by(|launch| launch.scope.pass.name().into()), usize::MAX)
    }
}

/// A rate in a table: three significant digits, but none behind the sixth after the point.
fn three_digits(x: f64) -> String {
    let before = if x > 0.0 { x.log10().floor() as i32 + 1 } else { 3 };
    format!("{x:.*}", (3 - before).clamp(0, 6) as usize)
}

/// To six significant digits.
fn figure(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let unit = 10f64.powi(5 - x.abs().log10().floor() as i32);
    (x * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::reference::Reference;
    use crate::device::{Pass, Scope};

    fn launch(layer: &str, kernel: &'static str, bytes: u64, seconds: f64) -> Measured {
        let scope = Scope { layer: layer.into(), pass: Pass::Forward };
        Measured { scope, kernel, work: Work { reads: bytes, writes: bytes, flops: 3 * bytes }, seconds }
    }

    fn profile(steps: &[Vec<Measured>]) -> Result<Profile, ProfileError> {
        let rates = Rates { bytes: 1e3, flops: 1e6, source: "made up".into() };
        Profile::new(&Reference::EXACT, "a step".into(), steps).map(|profile| Profile { rates: Ok(rates), ..profile })
    }

    #[test]
    fn the_median_of_each_launch_counts() {
        let steps = [0.25, 9.0, 0.5].map(|seconds| vec![launch("a", "x", 50, seconds), launch("b", "x", 100, 1.0)]);
        let profile = profile(&steps).unwrap();
        assert_eq!(profile.launches().iter().map(|launch| launch.seconds).collect::<Vec<_>>(), [0.5, 1.0]);
        let total = profile.total();
        assert_eq!((total.launches, total.work.bytes(), total.work.flops, total.seconds), (2, 300, 450, 1.5));
        assert_eq!(total.floor, Some(0.1 + 0.2));
        assert_eq!(
            profile.by(|launch| launch.scope.layer.to_string()).iter().map(|total| &*total.name).collect::<Vec<_>>(),
            ["b", "a"]
        );
        let row = profile.rows().next().unwrap();
        assert_eq!((row.launch, row.us, row.floor_us, row.floor_percent), (1, 5e5, Some(1e5), Some(20.0)));
        assert_eq!(row.tb_per_s, 200e-12);
        // Each of its numbers in its place, where no two are alike.
        let work = Work { reads: 30, writes: 50, flops: 200 };
        let profile = self::profile(&[vec![Measured { work, ..launch("a", "x", 0, 0.5) }]]).unwrap();
        let row = profile.rows().next().unwrap();
        assert_eq!((row.bytes_read, row.bytes_written, row.flops), (30, 50, 200));
        assert_eq!((row.tb_per_s, row.tflop_per_s), (160e-12, 400e-12));
    }

    #[test]
    fn steps_that_differ_have_no_profile() {
        let step = vec![launch("a", "x", 50, 1.0), launch("b", "x", 100, 1.0)];
        for other in [vec![launch("a", "x", 50, 1.0)], vec![launch("a", "x", 50, 1.0), launch("b", "x", 99, 1.0)]] {
            let error = profile(&[step.clone(), other]).unwrap_err();
            assert!(matches!(error, ProfileError::Unequal { step: 2 }), "{error}");
        }
        assert!(matches!(profile(&[]), Err(ProfileError::Empty)));
    }

    #[test]
    fn tables_name_everything_and_say_where_there_are_no_floors() {
        let mut profile = profile(&[vec![launch("conv1_conv", "x", 50, 1.0), launch("loss", "y", 10, 1.0)]]).unwrap();
        let text = profile.to_string();
        for part in ["a step on reference", "conv1_conv forward", "loss forward", "made up", "10.0 %", " 50.0 %", "all"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        profile.rates = Err("nobody knows".into());
        let text = profile.to_string();
        assert!(text.contains("no floors: nobody knows") && !text.contains("10.0 %"), "{text}");
        let mut csv = Vec::new();
        profile.write(&mut csv, true).unwrap();
        profile.write(&mut csv, false).unwrap();
        let lines: Vec<_> = std::str::from_utf8(&csv).unwrap().lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[0].starts_with("step,device,launch,layer,pass,kernel,") && lines[1].ends_with(",,"), "{lines:?}");
    }

    #[test]
    fn figures_keep_six_digits_and_tables_three() {
        assert_eq!(
            [1234.5, 98.76, 1.0, 0.04567, 1.234e-6, 0.0].map(three_digits),
            ["1234", "98.8", "1.00", "0.0457", "0.000001", "0"]
        );
        assert_eq!([1234567.0, 1.0 / 3.0, 1.234567e-9, 0.0].map(figure), [1234570.0, 0.333333, 1.23457e-9, 0.0]);
    }
}
