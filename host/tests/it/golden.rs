// SPDX-License-Identifier: Apache-2.0
//! Every golden case of every plugin, with the component in the real runtime: what passes natively passes here, too.

use std::path::{Path, PathBuf};

use penstock::config::Sandbox;
use penstock::plugin::{Compiler, Runtime, RuntimeOptions, self_test};
use penstock_vectors::Case;

use crate::support::rig;

/// The folders `plugins/<kind>/<name>` that have cases.
fn plugins() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let folders = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let plugins = folders(&root).filter(|kind| kind.is_dir()).flat_map(|kind| folders(&kind).collect::<Vec<_>>());
    plugins.filter(|plugin| plugin.join("cases").is_dir()).collect()
}

#[test]
fn every_golden_case_passes_with_the_component() {
    let options = RuntimeOptions {
        sandbox: Sandbox::default(),
        cache_dir: None,
        compiler: Compiler::InProcess,
        self_test: Some(self_test::run_embedded),
    };
    let runtime = Runtime::new(options).unwrap();
    let mut failures = Vec::new();
    let mut passed = 0;
    for plugin in plugins() {
        let name = plugin.file_name().unwrap().to_string_lossy().into_owned();
        // Loading runs the cases that travel in the component.
        let component = runtime.load(&rig::component(&name)).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert!(component.vectors().is_some_and(|cases| cases.len() > 2), "{name} carries no self-test");
        for case in Case::read_folder(&plugin.join("cases")).unwrap() {
            match self_test::run_case(&component, &case) {
                Ok(_) => passed += 1,
                Err(differences) => failures.push(format!("{name}/{}: {}", case.name, differences.join("; "))),
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(passed > 80, "only {passed} cases were found");
}

#[test]
fn a_wrong_expectation_does_not_pass() {
    let component = rig::runtime().load(&rig::component("echo")).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/adapters/echo/cases");
    let mut case = Case::read(&folder.join("chat.json")).unwrap();
    case.expect["events"][1] = serde_json::json!({ "text": "I " });
    let differences = self_test::run_case(&component, &case).unwrap_err();
    assert_eq!(differences, [r#"events[1].text: expected "I ", got "You ""#]);
}
