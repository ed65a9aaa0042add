//! How many registers a thread has: what `ptxas` gave it, where its table is at hand, or else what PTX declares.

use crate::program::Kernel;
use serde::Serialize;
use std::collections::HashMap;

/// Who says how many registers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The assembler, which gave them out.
    Ptxas,
    /// The declarations in PTX: an upper bound, since nothing is given out.
    Declarations,
}

/// Registers of 32 bits a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Registers {
    /// How many.
    pub each: u32,
    /// Who says so.
    pub source: Source,
}

impl Registers {
    /// Those that the kernel's PTX declares, bounded as a compiler would be.
    #[must_use]
    pub fn declared(kernel: &Kernel) -> Self {
        let bound = (65_536 / kernel.max_threads.max(1) / 8 * 8).clamp(16, 255);
        Self { each: kernel.declared_registers.clamp(16, bound), source: Source::Declarations }
    }
}

/// What `ptxas` used for a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Registers a thread.
    pub registers: u32,
    /// Bytes of a thread's stack, spilled registers among them.
    pub stack_bytes: u32,
}

/// A line of a table that can't be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Malformed {
    /// From 1; behind the last where something is missing.
    pub line: usize,
    /// Why.
    pub what: String,
}

/// What `ptxas -v` printed, for one target or several: kernel and target to what was used.
#[derive(Clone, Debug, Default)]
pub struct Resources(HashMap<(String, String), Used>);

/// The text between `before` and `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

impl Resources {
    /// Reads the output of `ptxas -v`.
    ///
    /// # Errors
    /// A kernel of which it doesn't say what was used, a number that is none, or no kernel at all.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut kernels = HashMap::new();
        // The kernel that is compiled, where that was said, and its stack.
        let mut open: Option<(usize, String, String)> = None;
        let (mut properties, mut stack_bytes) = (String::new(), 0);
        let unfinished = |(line, name, _): (usize, String, String)| {
            Err(Malformed { line, what: format!("nothing says how many registers `{name}` uses") })
        };
        for (line, text) in (1..).zip(text.lines()) {
            let number = |digits: Option<&str>| {
                let value = digits.and_then(|digits| digits.trim().parse().ok());
                value.ok_or_else(|| Malformed { line, what: format!("no number in `{}`", text.trim()) })
            };
            if let Some((_, rest)) = text.split_once("Compiling entry function '") {
                if let Some(open) = open.take() {
                    return unfinished(open);
                }
                let names = rest.split_once('\'').and_then(|(name, rest)| Some((name, between(rest, "for '", "'")?)));
                let Some((name, target)) = names else {
                    return Err(Malformed { line, what: format!("no kernel and target in `{}`", text.trim()) });
                };
                (open, stack_bytes) = (Some((line, name.to_owned(), target.to_owned())), 0);
            } else if let Some((_, name)) = text.split_once("Function properties for ") {
                name.trim().clone_into(&mut properties);
            } else if let Some((bytes, _)) = text.split_once(" bytes stack frame") {
                // The functions that a kernel calls have properties, too.
                if open.as_ref().is_some_and(|(_, name, _)| *name == properties) {
                    stack_bytes = number(Some(bytes))?;
                }
            } else if text.contains(": Used ") && text.contains(" registers") {
                let registers = number(between(text, ": Used ", " registers"))?;
                if let Some((_, name, target)) = open.take() {
                    kernels.insert((name, target), Used { registers, stack_bytes });
                }
            }
        }
        if let Some(open) = open {
            return unfinished(open);
        }
        if kernels.is_empty() {
            let what =
                "no kernel is in it; the output of `ptxas -v` has lines `Compiling entry function 'k' for 'sm_80'`";
            return Err(Malformed { line: text.lines().count() + 1, what: what.into() });
        }
        Ok(Self(kernels))
    }

    /// Is nothing known of any kernel?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a kernel uses on a GPU of this capability.
    #[must_use]
    pub fn of(&self, kernel: &str, (major, minor): (u32, u32)) -> Option<Used> {
        let target = format!("sm_{major}{minor}");
        // Architecture-specific code has a letter behind.
        ["", "a", "f"].iter().find_map(|letter| self.0.get(&(kernel.to_owned(), format!("{target}{letter}")))).copied()
    }

    /// Registers and bytes of stack of a kernel on a GPU of this capability: as the table says, or else as PTX declares.
    #[must_use]
    pub fn used(&self, kernel: &Kernel, capability: (u32, u32)) -> (Registers, u32) {
        match self.of(&kernel.name, capability) {
            Some(used) => (Registers { each: used.registers, source: Source::Ptxas }, used.stack_bytes),
            None => (Registers::declared(kernel), kernel.local_bytes as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'gemm' for 'sm_90a'
ptxas info    : Function properties for helper
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Function properties for gemm
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 42 registers, used 2 barriers, 46080 bytes smem, 400 bytes cmem[0]
ptxas info    : Compile time = 20.821 ms
ptxas info    : Compiling entry function 'gemm' for 'sm_80'
ptxas info    : Function properties for gemm
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, 380 bytes cmem[0]
";

    #[test]
    fn a_table_is_read_for_each_target() {
        let table = Resources::parse(TABLE).unwrap();
        assert_eq!(table.of("gemm", (9, 0)), Some(Used { registers: 42, stack_bytes: 8 }));
        assert_eq!(table.of("gemm", (8, 0)), Some(Used { registers: 64, stack_bytes: 0 }));
        assert_eq!(table.of("gemm", (8, 9)), None);
        assert_eq!(table.of("helper", (9, 0)), None);
    }

    #[test]
    fn what_cannot_be_right_is_an_error_with_its_line() {
        let line = |text: &str| Resources::parse(text).unwrap_err().line;
        assert_eq!(line(""), 1);
        assert_eq!(line("hello\n"), 2);
        let cut: String =
            TABLE.lines().take(8).filter(|line| !line.contains("Used")).map(|l| format!("{l}\n")).collect();
        assert_eq!(line(&cut), 2);
        assert_eq!(line(&TABLE.replace("Used 64", "Used many")), 12);
        assert_eq!(line(&TABLE.replace("Used 42 registers", "Spent 42 registers")), 2);
        assert_eq!(line(&TABLE.replace("for 'sm_80'", "")), 9);
    }
}
