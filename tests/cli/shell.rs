//! What a shell and `man` need.

use crate::{onesheet, run};
use std::fs;
use std::process::Command;
use tempfile::TempDir;

pub const TOOLS: [&str; 13] = [
    "prepare",
    "inspect",
    "train",
    "study",
    "evaluate",
    "report",
    "infer",
    "export",
    "serve",
    "plan",
    "doctor",
    "completions",
    "man",
];

#[test]
fn every_shell_has_a_script_that_knows_every_tool() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script, stderr) = run(onesheet().args(["completions", shell]));
        assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
        // Three of them know values as well; fish has flags without their dashes.
        let values: &[&str] = if ["bash", "zsh", "fish"].contains(&shell) { &["resnet50-v1.5"] } else { &[] };
        for word in TOOLS.iter().chain(&["log-format", "find-lr"]).chain(values) {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains("\\u00"), "{shell}: nothing is written out that a shell reads");
    }
    assert_eq!(run(onesheet().args(["completions", "tcsh"])).0, 2);
}

/// The shell itself completes by it.
#[test]
fn bash_completes_tools_flags_and_values() {
    if Command::new("bash").arg("--version").output().is_err() {
        println!("NOT TESTED, since there is no bash here: completions");
        return;
    }
    let (_, script, _) = run(onesheet().args(["completions", "bash"]));
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("script"), script).unwrap();
    for (words, expected) in [
        ("onesheet tra", "train"),
        ("onesheet train --find", "--find-lr"),
        ("onesheet train --network resnet50-", "resnet50-v1.5"),
        ("onesheet doctor --device s", "sim"),
    ] {
        let typed: Vec<&str> = words.split(' ').collect();
        let (place, last, before) = (typed.len() - 1, typed[typed.len() - 1], typed[typed.len() - 2]);
        let ask = format!(
            "source ./script; COMP_WORDS=({words}); COMP_CWORD={place}; _onesheet onesheet '{last}' '{before}'; echo \"${{COMPREPLY[*]}}\""
        );
        let told = Command::new("bash").current_dir(&folder).args(["--norc", "-c", &ask]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), expected, "{words}: {told:?}");
    }
}

#[test]
fn every_tool_has_a_manual_page_with_its_flags_and_examples() {
    let folder = TempDir::new().unwrap();
    let pages = folder.path().join("new/man1");
    // Twice: pages that are there are replaced.
    for _ in 0..2 {
        let (code, told, stderr) = run(onesheet().arg("man").arg(&pages));
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert!(told.starts_with(&format!("{} pages in ", TOOLS.len() + 1)) && told.contains("man -l "), "{told}");
    }
    let read = |name: &str| fs::read_to_string(pages.join(name)).unwrap().replace("\\-", "-");
    let main = read("onesheet.1");
    for tool in TOOLS {
        assert!(main.contains(&format!("onesheet-{tool}(1)")), "{tool}: {main}");
        let page = read(&format!("onesheet-{tool}.1"));
        let (_, help, _) = run(onesheet().args([tool, "--help"]));
        for flag in help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 3) {
            let is_of_a_name = |letter: char| letter == '-' || letter.is_ascii_alphanumeric();
            let flag = &flag[..flag.find(|letter| !is_of_a_name(letter)).unwrap_or(flag.len())];
            assert!(page.contains(flag), "{tool}: {flag}");
        }
        let (_, examples) = page.split_once(".SH EXAMPLES").unwrap_or_else(|| panic!("{tool}: {page}"));
        assert!(examples.matches(&format!("onesheet {tool}")).count() >= 2, "{tool}: {examples}");
        assert_eq!(page.matches("Examples:").count(), 0, "{tool}: once");
    }
    assert!(main.contains("Exit codes: 0 done"), "{main}");
    fs::write(folder.path().join("file"), "").unwrap();
    let (code, _, stderr) = run(onesheet().arg("man").arg(folder.path().join("file/pages")));
    assert!(code == 1 && stderr.contains("cannot make"), "{stderr}");
}
