//! One file per case: `valid` files are read into what a snapshot shows, `invalid` ones are refused with the
//! text their first line expects.
#![allow(clippy::unwrap_used)]

use shared_config::TeleportConfig;
use std::path::PathBuf;

fn cases(folder: &str) -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut cases: Vec<(String, String)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                std::fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

#[test]
fn valid() {
    for (name, text) in cases("valid") {
        let config =
            TeleportConfig::parse(&text, &name).unwrap_or_else(|error| panic!("{name}: {error}"));
        insta::assert_debug_snapshot!(name, config);
    }
}

#[test]
fn invalid() {
    let mut wrong = Vec::new();
    for (name, text) in cases("invalid") {
        let expected =
            text.lines().next().and_then(|line| line.strip_prefix("# expect: ")).unwrap();
        match TeleportConfig::parse(&text, "teleport.yaml") {
            Ok(_) => wrong.push(format!("{name}: accepted")),
            Err(error) => {
                let shown = error.to_string();
                let start = "failed parsing the config file: teleport.yaml:";
                if !shown.starts_with(start) || !shown.contains(expected) || shown.contains('\n') {
                    wrong.push(format!("{name}\n  expected {expected}\n  found    {shown}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
