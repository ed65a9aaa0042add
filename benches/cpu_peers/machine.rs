//! The machine in words, and what processes take of it.

use std::fs;

/// Those that matter to this work, as Linux calls them.
const INSTRUCTION_SETS: [&str; 10] =
    ["avx", "f16c", "fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd"];

/// A processor.
pub struct Machine {
    pub name: String,
    pub cores: usize,
    pub instruction_sets: Vec<&'static str>,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let of = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(name, _)| name.trim() == key).map_or("", |(_, value)| value.trim())
        };
        let name = match of("model name") {
            "" => std::env::consts::ARCH.to_owned(),
            // Virtual machines hide what else the name says.
            name => format!("{name} (family {}, model {})", of("cpu family"), of("model")),
        };
        let flags: Vec<&str> = of("flags").split_whitespace().chain(of("Features").split_whitespace()).collect();
        let instruction_sets = INSTRUCTION_SETS.into_iter().filter(|set| flags.contains(set)).collect();
        Machine { name, cores: std::thread::available_parallelism().map_or(1, Into::into), instruction_sets }
    }
}

/// A second has so many of the ticks in files of `/proc`, whatever the kernel's own clock does.
const TICKS: f64 = 100.0;

/// Seconds that a process has taken of the processor, where Linux tells.
pub fn taken(process: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which is in brackets, the fields from the third on. The 14th and 15th are user's and system's time.
    let (_, fields) = text.rsplit_once(')')?;
    sum(fields.split_whitespace().skip(11).take(2))
}

/// Seconds that everybody has taken of all cores, other virtual machines on the same ones included, where Linux tells.
pub fn taken_by_all() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    // user, nice, system, idle, iowait, irq, softirq, steal.
    let fields = text.lines().next()?.split_whitespace().skip(1).take(8).enumerate();
    sum(fields.filter(|(at, _)| ![3, 4].contains(at)).map(|(_, field)| field))
}

fn sum<'a>(ticks: impl Iterator<Item = &'a str>) -> Option<f64> {
    Some(ticks.map(|ticks| ticks.parse::<f64>().ok()).sum::<Option<f64>>()? / TICKS)
}
