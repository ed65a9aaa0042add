//! What every tool says on stderr, and how numbers look.

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use onesheet::files::quoted;
use serde_json::{Value, json};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How narration and errors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines to read
    Text,
    /// One JSON object a line, with a `schema` number, a `kind` and a `text`
    Json,
}

/// The version of the lines that `--log-format json` writes.
const SCHEMA: u32 = 1;

/// What `--log-format` says.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Has all that is said from here on be of this format; the first call counts.
pub fn write_as(format: LogFormat) {
    FORMAT.get_or_init(|| format);
}

fn is_json() -> bool {
    FORMAT.get() == Some(&LogFormat::Json)
}

/// Narration, which goes to stderr and can be switched off; results go to stdout.
#[derive(Clone, Copy)]
pub struct Console {
    /// Says nothing but errors.
    pub quiet: bool,
}

impl Console {
    /// Prints a line of narration.
    pub fn say(self, line: impl Display) {
        self.say_of("note", json!({}), line);
    }

    /// Prints a line of narration that programs know by its `kind`, with the numbers in it as an object's `fields`.
    pub fn say_of(self, kind: &str, fields: Value, line: impl Display) {
        if !self.quiet {
            tell(kind, fields, line);
        }
    }

    /// Whether somebody watches, so that lines may be drawn over.
    pub fn is_live(self) -> bool {
        !self.quiet && !is_json() && stderr().is_terminal()
    }

    /// A bar over `length` of something, hidden unless somebody watches.
    pub fn bar(self, length: u64, template: &str) -> ProgressBar {
        if !self.is_live() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template).expect("the template is right");
        let bar = ProgressBar::new(length).with_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        bar.enable_steady_tick(Duration::from_millis(500));
        bar
    }
}

/// Prints a line to stderr, narration or an error. Where nobody can read it, nothing else is lost with it.
pub fn tell(kind: &str, fields: Value, line: impl Display) {
    let line = if is_json() { object(kind, fields, &line.to_string()) } else { line.to_string() };
    let _ = writeln!(stderr().lock(), "{}", harmless(&line));
}

/// A line as an object. Lines that are empty around it are for people.
fn object(kind: &str, mut fields: Value, line: &str) -> String {
    fields["schema"] = SCHEMA.into();
    fields["kind"] = kind.into();
    fields["text"] = line.trim_matches('\n').into();
    fields.to_string()
}

/// Results could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Who read them has read enough.
    #[error("standard output is closed")]
    Closed,
    /// The system refuses.
    #[error("cannot write to standard output: {0}")]
    Failed(io::Error),
}

/// Prints results to stdout, all of them before it returns.
///
/// # Errors
/// [`OutputError`]. A tool whose work is in its files goes on without; for one that only answers it is the end.
pub fn print(text: impl Display) -> Result<(), OutputError> {
    print_bytes(harmless(&text.to_string()).as_bytes())
}

/// Prints what this program made itself, and what is no text to read, to stdout.
///
/// # Errors
/// As for [`print`].
pub fn print_bytes(bytes: &[u8]) -> Result<(), OutputError> {
    let mut stdout = stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => OutputError::Closed,
        _ => OutputError::Failed(error),
    })
}

/// `text` with control characters written out, so that no name or cell from outside moves the cursor or changes colours.
/// The form is JSON's, which therefore stays what it was.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => shown.push('\n'),
            // The marks that turn the direction of what follows count as well.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => shown += &format!("\\u{:04x}", u32::from(letter)),
            _ if letter.is_control() => shown += &format!("\\u{:04x}", u32::from(letter)),
            _ => shown.push(letter),
        }
    }
    shown
}

/// Puts `path` into a JSON object under `key`; where it is no UTF-8, its bytes as well, under `{key}_bytes`.
pub fn put_path(object: &mut serde_json::Value, key: &str, path: &Path) {
    object[key] = path.to_string_lossy().into();
    if path.to_str().is_none() {
        object[format!("{key}_bytes")] = path.as_os_str().as_encoded_bytes().into();
    }
}

/// When the program started.
static STARTED: OnceLock<Instant> = OnceLock::new();

/// Remembers the start of the program; the first thing that it does.
pub fn start_clock() {
    STARTED.get_or_init(Instant::now);
}

/// Time since the start of the program, which [`start_clock`] remembers.
pub fn since_start() -> Duration {
    STARTED.get().map_or(Duration::ZERO, Instant::elapsed)
}

/// This program as it was called, so that the commands it suggests can be typed as they stand: `onesheet` where it is on the
/// path, `target/release/onesheet` behind `cargo run`.
pub fn program() -> String {
    std::env::args_os().next().map_or("onesheet".into(), |name| quoted(Path::new(&name)))
}

/// 83 seconds as `1:23`, 3723 as `1:02:03`.
pub fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let shown = [0.4, 59.6, 83.0, 3599.4, 3600.0, 3723.0, 359_999.0].map(clock);
        assert_eq!(shown, ["0:00", "1:00", "1:23", "59:59", "1:00:00", "1:02:03", "99:59:59"]);
    }

    #[test]
    fn nothing_from_outside_reaches_the_terminal() {
        assert_eq!(harmless("a\x1b[31mb\u{9b}c\td\ne\u{202e}é▇"), "a\\u001b[31mb\\u009bc\\u0009d\ne\\u202eé▇");
        let json = serde_json::json!({ "name": "a\u{9b}\x1b\u{7f}" });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&harmless(&json.to_string())).unwrap(), json);
    }

    #[test]
    fn a_line_is_an_object_for_programs() {
        let told = object("step", json!({ "row": { "step": 7 } }), "\nstep 7\nof 9\n");
        assert_eq!(told, r#"{"kind":"step","row":{"step":7},"schema":1,"text":"step 7\nof 9"}"#);
    }

    #[test]
    fn quiet_draws_no_bar() {
        let console = Console { quiet: true };
        assert!(!console.is_live());
        assert!(console.bar(3, "{pos}/{len}").is_hidden());
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_no_utf_8_comes_with_its_bytes() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let mut object = serde_json::json!({ "kind": "file" });
        put_path(&mut object, "out", Path::new("a b"));
        put_path(&mut object, "list", Path::new(OsStr::from_bytes(b"caf\xe9")));
        let expected = serde_json::json!({
            "kind": "file", "out": "a b", "list": "caf\u{fffd}", "list_bytes": [99, 97, 102, 233],
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn the_clock_goes_on_from_the_start_of_the_program() {
        start_clock();
        let before = since_start();
        start_clock();
        assert!(since_start() >= before && before > Duration::ZERO);
    }

    #[test]
    fn the_program_is_what_was_typed() {
        let typed = std::env::args_os().next().unwrap();
        assert_eq!(program(), quoted(Path::new(&typed)));
    }
}
