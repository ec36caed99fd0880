// SPDX-License-Identifier: Apache-2.0
//! Carries out the cases of sdk/conformance with this SDK: `conformance FOLDER [WORD...]`, where words pick cases by name.
//!
//! The environment says the rest, as FOLDER/README.md has it.

#[path = "conformance/bed.rs"]
mod bed;
#[path = "conformance/case.rs"]
mod case;
#[path = "conformance/inside.rs"]
mod inside;
#[path = "conformance/matcher.rs"]
mod matcher;
#[path = "conformance/old.rs"]
mod old;
#[path = "conformance/operations.rs"]
mod operations;
#[path = "conformance/results.rs"]
mod results;

use std::path::Path;
use std::process::ExitCode;

use serde_json::{json, Value};

use bed::{Bed, Scripted};
use case::{Case, Variables};

fn variable(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.into())
}

fn files(folder: &Path) -> Vec<(String, Value)> {
    let entries = std::fs::read_dir(folder.join("cases")).expect("the folder of the suite has cases");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    paths.sort();
    let read = |path: &Path| -> (String, Value) {
        let text = std::fs::read_to_string(path).expect("a file of cases can be read");
        let document: Value = serde_json::from_str(&text).expect("a file of cases is JSON");
        assert_eq!(document["format"], 1, "{} is of another format", path.display());
        (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), document)
    };
    paths.iter().filter(|path| path.extension().map_or(false, |kind| kind == "json")).map(|path| read(path)).collect()
}

/// Why it failed.
async fn with_faults(case: &Value, folder: &Path, directory: &str) -> Result<(), String> {
    let scripted = Scripted::start(folder, &case["answers"]);
    let bed = Bed::of(&scripted.url, "key", directory);
    let result = Case::of(&bed).run(&case["steps"], Variables::new()).await;
    bed.release().await;
    let saw = scripted.end().await;
    result?;
    for name in ["seen", "connections", "open"] {
        if let Some(expected) = case.get(name) {
            matcher::check(&saw[name], expected, name)?;
        }
    }
    Ok(())
}

async fn with_server(case: &Value, bed: &Bed, shared: &Variables) -> Result<(), String> {
    let result = Case::of(bed).run(&case["steps"], shared.clone()).await;
    let removed = bed.remove_all().await;
    bed.release().await;
    result.and(removed)
}

async fn run(folder: &Path, words: &[String]) -> bool {
    let bed = Bed::of(
        &variable("MSB_CONFORMANCE_URL", ""),
        &variable("MSB_CONFORMANCE_KEY", ""),
        &variable("MSB_CONFORMANCE_DIR", "/tmp"),
    );
    let unmet = variable("MSB_CONFORMANCE_SKIP", "");
    let unmet: Vec<&str> = unmet.split(',').filter(|need| !need.is_empty()).collect();
    let mut all_well = true;
    for (file, document) in files(folder) {
        let mut shared: Option<Variables> = None;
        for case in document["cases"].as_array().into_iter().flatten() {
            let name = case["name"].as_str().unwrap_or_default();
            if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
                continue;
            }
            let needs = case["needs"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let missing: Vec<&str> = needs.filter(|need| unmet.contains(need)).collect();
            let (outcome, why) = if !missing.is_empty() {
                ("skipped", format!("needs {}", missing.join(", ")))
            } else {
                let result = if case.get("answers").is_some() {
                    with_faults(case, folder, &bed.directory).await
                } else {
                    if shared.is_none() {
                        shared = Some(bed.shared(&document["shared"]).await);
                    }
                    with_server(case, &bed, shared.as_ref().expect("it was made")).await
                };
                match result {
                    Ok(()) => ("passed", String::new()),
                    Err(why) => ("failed", why),
                }
            };
            all_well &= outcome != "failed";
            println!("{}", json!({"file": file, "case": name, "outcome": outcome, "why": why}));
        }
        if let Some(shared) = shared {
            bed.remove_shared(shared).await;
        }
    }
    all_well
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("conformance FOLDER [WORD...]");
    let words: Vec<String> = arguments.collect();
    if run(Path::new(&folder), &words).await {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
