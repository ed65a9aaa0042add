//! What the operating system says of the machine. Where it is not Linux, it is asked for nothing.

use std::fs;
use std::path::Path;

/// Bytes of memory that a program may still take: what the kernel reckons with, or what the control group has left if that is less.
pub fn free_memory() -> Option<u64> {
    let system = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kibibytes(&text, "MemAvailable:"))?;
    Some(group_memory(Path::new("/sys/fs/cgroup")).map_or(system, |group| group.min(system)))
}

/// Bytes that the control group in `folder` has left, if it has a limit. What it holds of files that nobody used lately is given back when a
/// program wants memory, and so counts as left.
fn group_memory(folder: &Path) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let of_files = |line: &str| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok();
    let idle = statistics.lines().find_map(of_files).unwrap_or(0);
    Some(number("memory.max")?.saturating_sub(number("memory.current")?.saturating_sub(idle)))
}

/// The processor by its maker's name.
pub fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    field(&text, "model name").unwrap_or(std::env::consts::ARCH).to_owned()
}

/// Those of its instruction sets that the kernels know, by the system's names.
pub fn instruction_sets() -> Vec<&'static str> {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has: Vec<&str> = field(&text, "flags").or(field(&text, "Features")).unwrap_or_default().split(' ').collect();
    INSTRUCTION_SETS.into_iter().filter(|set| has.contains(set)).collect()
}

const INSTRUCTION_SETS: [&str; 7] = ["asimd", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16"];

/// What stands behind `name` in the first line of `/proc/cpuinfo` that begins with it.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let of = |line: &'a str| line.split_once(':').filter(|(found, _)| found.trim_end() == name);
    text.lines().find_map(of).map(|(_, value)| value.trim())
}

/// The bytes in the line of `/proc/meminfo` that begins with `name`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named() {
        let text =
            "processor\t: 0\nmodel name\t: A Processor @ 2 GHz\nflags\t\t: fpu avx2 fma\nmodel name\t: Another\n";
        assert_eq!(field(text, "model name"), Some("A Processor @ 2 GHz"));
        assert_eq!(field(text, "flags"), Some("fpu avx2 fma"));
        assert_eq!(field(text, "model"), None);
    }

    #[test]
    fn free_memory_is_what_the_kernel_reckons_with() {
        let text =
            "MemTotal:       32869592 kB\nMemFree:         1234 kB\nMemAvailable:   25000001 kB\nBuffers: 7 kB\n";
        assert_eq!(kibibytes(text, "MemAvailable:"), Some(25_000_001 << 10));
        assert_eq!(kibibytes("MemTotal: 3 kB\n", "MemAvailable:"), None);
        if cfg!(target_os = "linux") {
            let (free, total) = (free_memory().unwrap(), fs::read_to_string("/proc/meminfo").unwrap());
            assert!(0 < free && free <= kibibytes(&total, "MemTotal:").unwrap(), "{free}");
        }
    }

    #[test]
    fn a_control_groups_files_are_given_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(group_memory(folder.path()), None);
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        put("memory.max", "max\n");
        put("memory.current", "3000\n");
        put("memory.stat", "anon 700\nactive_file 200\ninactive_file 1800\n");
        assert_eq!(group_memory(folder.path()), None, "without a limit the system's memory is all that counts");
        put("memory.max", "4000\n");
        assert_eq!(group_memory(folder.path()), Some(2800));
        fs::remove_file(folder.path().join("memory.stat")).unwrap();
        assert_eq!(group_memory(folder.path()), Some(1000));
    }
}
