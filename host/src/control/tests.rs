// SPDX-License-Identifier: Apache-2.0
//! Promises of the writer, with text files in place of compiled plugins: `name version`, where the version `broken` is
//! refused by the gate, `trap` fails when a snapshot is configured, and `panic` panics then.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::library::store::digest_of;

struct TextForge;

/// What is in force: `name version` of each plugin, and the vendors.
type Told = Vec<String>;

impl Forge for TextForge {
    type Component = String;
    type Snapshot = Told;

    fn load(&self, bytes: &[u8]) -> Result<(Facts, Arc<String>), Refused> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (name, version) = text.split_once(' ').ok_or_else(|| Refused::new("not-a-component", "no blank", ""))?;
        let (name, version, digest) = (name.to_owned(), version.to_owned(), digest_of(bytes));
        let facts = Facts { name, kind: "adapter".to_owned(), version, api: "0.1.0".to_owned(), digest, seal: None };
        Ok((facts, Arc::new(text)))
    }

    fn build(&self, inputs: Inputs<'_, String, Told>) -> Result<Told, Vec<Problem>> {
        let mut problems = Vec::new();
        for vendor in inputs.policy.config.vendors.values() {
            let place = inputs.policy.sources.place_of(&vendor.adapter);
            match inputs.library.components.get(vendor.adapter.get_ref()).map(|text| text.split_once(' ').unwrap().1) {
                None => problems.push(Problem::new(place, "no such plugin", "")),
                Some("trap") => problems.push(Problem::new(place, "trapped in configure", "")),
                Some("panic") => panic!("a check that panics"),
                Some(_) => {}
            }
        }
        let vendors = inputs.policy.config.vendors.keys().map(|vendor| format!("[{vendor}]"));
        let told = inputs.library.components.values().map(|text| String::clone(text)).chain(vendors).collect();
        if problems.is_empty() { Ok(told) } else { Err(problems) }
    }
}

struct Gateway {
    directory: tempfile::TempDir,
    control: Control,
    snapshot: Arc<ArcSwap<Told>>,
}

impl Gateway {
    /// With a built-in `echo 1`, an `auth 1` in the drop-in directory, and a policy that uses both.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["built-in", "drop-in", "policies", "state"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        write(&directory.path().join("built-in/echo.wasm"), "echo 1");
        write(&directory.path().join("drop-in/auth.wasm"), "auth 1");
        write(&directory.path().join("policies/p.toml"), POLICY);
        Self::start_in(directory).unwrap()
    }

    fn start_in(directory: tempfile::TempDir) -> Result<Self, Vec<Problem>> {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (control, snapshot) = Control::start(TextForge, &places(directory.path()), metrics)?;
        Ok(Self { directory, control, snapshot })
    }

    fn restart(self) -> Self {
        Self::start_in(self.directory).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The files change, and the gateway looks at them.
    fn drop(&self, name: &str, content: &str) -> Result<Answer, Refused> {
        write(&self.path(name), content);
        self.ask(Change::Files)
    }

    fn ask(&self, change: Change) -> Result<Answer, Refused> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.control.ask(change))
    }

    fn upload(&self, content: &str) -> Result<Answer, Refused> {
        self.ask(Change::Upload { bytes: content.into(), activate: true })
    }

    fn in_force(&self) -> String {
        self.snapshot.load().join(" ")
    }

    fn refusal(&self, plugin: &str) -> Option<String> {
        let status = self.control.status();
        let plugin = status.plugins.iter().find(|status| status.facts.name == plugin)?;
        plugin.last_refusal.as_ref().map(ToString::to_string)
    }
}

const POLICY: &str = "[vendors.v]\nadapter = \"echo\"\n[vendors.w]\nadapter = \"auth\"\n";

fn places(root: &Path) -> Places {
    Places {
        policies: Some(root.join("policies")),
        shared: None,
        built_in: Some(root.join("built-in")),
        plugins: vec![root.join("drop-in")],
        state: Some(root.join("state")),
    }
}

/// A file that was finished a while ago.
fn write(path: &Path, content: &str) {
    let temporary = path.with_extension("part");
    fs::write(&temporary, content).unwrap();
    let file = fs::File::options().write(true).open(&temporary).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(1)).unwrap();
    fs::rename(&temporary, path).unwrap();
}

#[test]
fn a_dropped_file_is_in_force_and_goes_with_its_file() {
    let gateway = Gateway::start();
    assert_eq!(gateway.in_force(), "auth 1 echo 1 [v] [w]");
    assert_eq!(gateway.drop("drop-in/new.wasm", "new 1").unwrap().result, "installed");
    assert_eq!(gateway.in_force(), "auth 1 echo 1 new 1 [v] [w]");
    gateway.drop("drop-in/e.wasm", "echo 2").unwrap();
    assert_eq!(gateway.in_force(), "auth 1 echo 2 new 1 [v] [w]");
    fs::remove_file(gateway.path("drop-in/new.wasm")).unwrap();
    fs::remove_file(gateway.path("drop-in/e.wasm")).unwrap();
    gateway.ask(Change::Files).unwrap();
    assert_eq!(gateway.in_force(), "auth 1 echo 1 [v] [w]");
    assert_eq!(gateway.ask(Change::Files).unwrap().result, "unchanged");
}

#[test]
fn only_what_the_policy_trusts_is_loaded_and_what_it_comes_to_trust_is_taken_at_once() {
    let gateway = Gateway::start();
    let trusting = |contents: &[&str]| {
        let digests: Vec<_> = contents.iter().map(|content| digest_of(content.as_bytes())).collect();
        format!("{POLICY}[trust]\nrequired = true\ndigests = {digests:?}\n")
    };
    gateway.drop("policies/p.toml", &trusting(&["auth 1", "echo 1"])).unwrap();
    gateway.drop("drop-in/auth.wasm", "auth 2").unwrap();
    assert_eq!(gateway.in_force(), "auth 1 echo 1 [v] [w]");
    assert!(gateway.refusal("auth").unwrap().contains("untrusted"), "{:?}", gateway.refusal("auth"));
    assert_eq!(gateway.upload("auth 3").unwrap_err().code, "untrusted");
    assert_eq!(gateway.ask(Change::Files).unwrap().result, "unchanged", "it is not tried again and again");
    gateway.drop("policies/p.toml", &trusting(&["auth 1", "auth 2", "echo 1"])).unwrap();
    assert_eq!(gateway.in_force(), "auth 2 echo 1 [v] [w]");
    assert_eq!(gateway.refusal("auth"), None);
}

#[test]
fn a_file_that_the_gate_or_a_snapshot_refuses_leaves_the_version_that_serves() {
    let gateway = Gateway::start();
    for (content, code) in [("garbage", "not-a-component"), ("auth trap", "bad-plugin"), ("auth panic", "bad-plugin")] {
        let _ = gateway.drop("drop-in/auth.wasm", content);
        assert_eq!(gateway.in_force(), "auth 1 echo 1 [v] [w]", "{content}");
        assert!(gateway.refusal("auth").unwrap().contains(code), "{content}: {:?}", gateway.refusal("auth"));
        assert_eq!(gateway.ask(Change::Files).unwrap().result, "unchanged", "it is not tried again and again");
        gateway.drop("policies/p.toml", &format!("{POLICY}# {content}\n")).ok();
        assert_eq!(gateway.control.status().policy_refused, None, "the broken file blocks no policy");
    }
    gateway.drop("drop-in/auth.wasm", "auth 2").unwrap();
    assert_eq!(gateway.in_force(), "auth 2 echo 1 [v] [w]");
    assert_eq!(gateway.refusal("auth"), None);
}

#[test]
fn a_broken_plugin_does_not_hold_up_a_good_one_that_comes_with_it() {
    let gateway = Gateway::start();
    write(&gateway.path("drop-in/auth.wasm"), "auth trap");
    write(&gateway.path("drop-in/new.wasm"), "new 1");
    let refused = gateway.drop("policies/p.toml", &format!("{POLICY}[vendors.x]\nadapter = \"new\"\n")).unwrap_err();
    assert!(refused.to_string().contains("trapped"), "{refused}");
    assert_eq!(gateway.in_force(), "auth 1 echo 1 new 1 [v] [w] [x]");
}

#[test]
fn a_plugin_that_is_in_use_cannot_be_taken_away() {
    let gateway = Gateway::start();
    fs::remove_file(gateway.path("drop-in/auth.wasm")).unwrap();
    assert_eq!(gateway.ask(Change::Files).unwrap_err().code, "bad-plugin");
    assert_eq!(gateway.in_force(), "auth 1 echo 1 [v] [w]");
    gateway.upload("new 1").unwrap();
    gateway.drop("policies/p.toml", &format!("{POLICY}[vendors.x]\nadapter = \"new\"\n")).ok();
    assert_eq!(gateway.ask(Change::Remove { name: "new".into() }).unwrap_err().code, "in-use");
    assert_eq!(gateway.in_force(), "auth 1 echo 1 new 1 [v] [w] [x]");
}

#[test]
fn a_bad_policy_leaves_the_one_that_is_in_force_and_says_where_it_is_bad() {
    let gateway = Gateway::start();
    for (policy, place) in [
        ("[vendors.v]\nadapter = \"ecko\"\n", "p.toml:2:11"),
        ("[vendors\n", "p.toml:1:9"),
        ("[vendor.v]\n", "p.toml:1:2"),
    ] {
        let _ = gateway.drop("policies/p.toml", policy);
        assert_eq!(gateway.in_force(), "auth 1 echo 1 [v] [w]");
        let refused = gateway.control.status().policy_refused.clone().unwrap();
        assert!(refused.problems[0].place.ends_with(place), "{refused:?}");
        assert_eq!(gateway.ask(Change::Reload).unwrap_err().code, "bad-policy");
    }
    gateway.drop("policies/p.toml", "[vendors.only]\nadapter = \"echo\"\n").unwrap();
    assert_eq!(gateway.in_force(), "auth 1 echo 1 [only]");
    assert_eq!(gateway.control.status().policy_refused, None);
}

#[test]
fn a_policy_that_comes_before_its_plugin_is_in_force_with_it() {
    let gateway = Gateway::start();
    let refused = gateway.drop("policies/p.toml", &format!("{POLICY}[vendors.x]\nadapter = \"new\"\n")).unwrap_err();
    assert_eq!(refused.code, "bad-policy");
    gateway.drop("drop-in/other.wasm", "other 1").unwrap_err();
    assert_eq!(gateway.in_force(), "auth 1 echo 1 other 1 [v] [w]", "another plugin is not held up");
    gateway.drop("drop-in/new.wasm", "new 1").unwrap();
    assert_eq!(gateway.in_force(), "auth 1 echo 1 new 1 other 1 [v] [w] [x]");
    assert_eq!(gateway.control.status().policy_refused, None);
    gateway.drop("policies/p.toml", &format!("{POLICY}[vendors.y]\nadapter = \"sent\"\n")).unwrap_err();
    gateway.upload("sent 1").unwrap();
    let _ = gateway.ask(Change::Files);
    assert_eq!(gateway.in_force(), "auth 1 echo 1 new 1 other 1 sent 1 [v] [w] [y]", "an upload is as good as a file");
}

#[test]
fn an_upload_serves_until_its_name_gets_another_file() {
    let gateway = Gateway::start();
    gateway.upload("auth 2").unwrap();
    assert_eq!(gateway.in_force(), "auth 2 echo 1 [v] [w]");
    gateway.ask(Change::Reload).unwrap();
    let gateway = gateway.restart();
    assert_eq!(gateway.in_force(), "auth 2 echo 1 [v] [w]", "also over a restart");
    gateway.drop("drop-in/auth.wasm", "auth 3").unwrap();
    assert_eq!(gateway.in_force(), "auth 3 echo 1 [v] [w]");
}

#[test]
fn versions_roll_back_one_by_one_and_the_watcher_does_not_undo_it() {
    let gateway = Gateway::start();
    gateway.drop("drop-in/auth.wasm", "auth 2").unwrap();
    gateway.upload("auth 3").unwrap();
    let back = || gateway.ask(Change::RollBack { name: "auth".into() });
    for version in ["2", "1"] {
        back().unwrap();
        gateway.ask(Change::Files).unwrap();
        assert_eq!(gateway.in_force(), format!("auth {version} echo 1 [v] [w]"));
    }
    assert_eq!(back().unwrap_err().code, "no-such-version");
    gateway.ask(Change::Activate { name: "auth".into(), digest: digest_of(b"auth 3") }).unwrap();
    assert_eq!(gateway.in_force(), "auth 3 echo 1 [v] [w]");
    let gateway = gateway.restart();
    assert_eq!(gateway.in_force(), "auth 3 echo 1 [v] [w]");
    gateway.ask(Change::RollBack { name: "auth".into() }).unwrap();
    assert_eq!(
        gateway.in_force(),
        "auth 1 echo 1 [v] [w]",
        "after a restart the version comes from the state directory"
    );
}

#[test]
fn a_version_can_be_stored_checked_and_activated_later() {
    let gateway = Gateway::start();
    let stored = gateway.ask(Change::Upload { bytes: b"auth 2".to_vec(), activate: false }).unwrap();
    assert_eq!((stored.result, gateway.in_force().as_str()), ("stored", "auth 1 echo 1 [v] [w]"));
    let activate = |digest: &str| gateway.ask(Change::Activate { name: "auth".into(), digest: digest.into() });
    activate(&stored.plugin.unwrap().digest).unwrap();
    assert_eq!(gateway.in_force(), "auth 2 echo 1 [v] [w]");
    for digest in ["", "../../x", &digest_of(b"never"), &digest_of(b"echo 1")] {
        assert_eq!(activate(digest).unwrap_err().code, "no-such-version", "{digest}");
    }
    for content in ["auth trap", "garbage", "../evil 1", "UPPER 1"] {
        assert!(gateway.upload(content).is_err(), "{content}");
        assert_eq!(gateway.in_force(), "auth 2 echo 1 [v] [w]");
    }
    gateway.ask(Change::Remove { name: "auth".into() }).unwrap();
    assert_eq!(gateway.in_force(), "auth 1 echo 1 [v] [w]", "the file serves again");
    assert_eq!(gateway.ask(Change::Remove { name: "auth".into() }).unwrap_err().code, "not-uploaded");
}

#[test]
fn a_generation_rolls_back_plugins_and_policy_without_their_files() {
    let gateway = Gateway::start();
    gateway.upload("new 1").unwrap();
    write(&gateway.path("drop-in/auth.wasm"), "auth 2");
    gateway.drop("policies/p.toml", "[vendors.only]\nadapter = \"echo\"\n").unwrap();
    assert_eq!(gateway.in_force(), "auth 2 echo 1 new 1 [only]");
    fs::remove_file(gateway.path("drop-in/auth.wasm")).unwrap();
    let answer = gateway.ask(Change::RollBackGeneration { number: 1 }).unwrap();
    assert_eq!((answer.generation, gateway.in_force().as_str()), (4, "auth 1 echo 1 [v] [w]"));
    gateway.ask(Change::Files).unwrap();
    assert_eq!(gateway.in_force(), "auth 1 echo 1 [v] [w]", "files that have not changed are not applied again");
    gateway.drop("policies/p.toml", "[vendors.newer]\nadapter = \"echo\"\n").unwrap();
    assert!(gateway.in_force().ends_with("[newer]"));
    assert_eq!(gateway.ask(Change::RollBackGeneration { number: 99 }).unwrap_err().code, "no-such-generation");
    let numbers: Vec<u64> = gateway.control.status().generations.iter().map(|generation| generation.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}

#[test]
fn a_policy_file_that_may_still_be_written_waits_until_it_is_at_rest() {
    let gateway = Gateway::start();
    let path = gateway.path("policies/p.toml");
    let text = "[vendors.newer]\nadapter = \"echo\"\n";
    fs::write(&path, "").unwrap(); // whoever writes in place begins like this
    assert_eq!(gateway.ask(Change::Files).unwrap().result, "unchanged");
    fs::write(&path, text).unwrap();
    assert_eq!(gateway.ask(Change::Files).unwrap().result, "unchanged");
    let begun = Instant::now();
    while !gateway.in_force().ends_with("[newer]") {
        assert!(
            !gateway.in_force().ends_with("1 ") && begun.elapsed() < Duration::from_secs(15),
            "{}",
            gateway.in_force()
        );
        std::thread::sleep(Duration::from_millis(10)); // it is looked at again without being told
    }
    fs::write(&path, text.replace("newer", "last")).unwrap();
    gateway.ask(Change::Reload).unwrap();
    assert!(gateway.in_force().ends_with("[last]"), "who says so has written it");
}

#[test]
fn no_more_generations_are_kept_than_the_policy_says() {
    let gateway = Gateway::start();
    gateway.drop("policies/limit.toml", "[limits]\ngenerations_max = 3\n").unwrap();
    for version in 0..5 {
        gateway.upload(&format!("new {version}")).unwrap();
    }
    let numbers: Vec<u64> = gateway.control.status().generations.iter().map(|generation| generation.number).collect();
    assert_eq!(numbers, [5, 6, 7]);
}

#[test]
fn validating_changes_nothing() {
    let gateway = Gateway::start();
    let validate = |text: &str| gateway.ask(Change::Validate { files: vec![("new.toml".into(), text.into())] });
    assert_eq!(validate("[vendors.x]\nadapter = \"echo\"\n").unwrap().result, "valid");
    let refused = validate("\n[vendors.x]\nadapter = \"nope\"\n").unwrap_err();
    assert_eq!(refused.problems[0].place, "new.toml:3:11");
    assert_eq!((gateway.in_force().as_str(), gateway.control.status().generation), ("auth 1 echo 1 [v] [w]", 1));
}

#[test]
fn a_start_with_a_broken_file_serves_the_version_that_was_last_in_force() {
    for broken in ["garbage", "auth trap"] {
        let gateway = Gateway::start();
        let directory = gateway.directory;
        drop((gateway.control, gateway.snapshot));
        write(&directory.path().join("drop-in/auth.wasm"), broken);
        let gateway = Gateway::start_in(directory).unwrap();
        assert_eq!(gateway.in_force(), "auth 1 echo 1 [v] [w]", "{broken}");
        assert_eq!(gateway.ask(Change::Files).unwrap().result, "unchanged", "{broken}");
        gateway.drop("drop-in/auth.wasm", "auth 2").unwrap();
        assert_eq!(gateway.in_force(), "auth 2 echo 1 [v] [w]", "{broken}");
    }
}

#[test]
fn a_first_start_that_cannot_serve_says_all_that_is_wrong() {
    let gateway = Gateway::start();
    let directory = gateway.directory;
    drop((gateway.control, gateway.snapshot));
    fs::remove_dir_all(directory.path().join("state")).unwrap();
    write(&directory.path().join("drop-in/auth.wasm"), "garbage");
    let problems = Gateway::start_in(directory).err().unwrap();
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(text[0].contains("p.toml:4:11: no such plugin"), "{text:?}");
    assert!(text[1].contains("auth.wasm: no blank"), "{text:?}");
}

#[test]
fn what_takes_effect_only_at_the_next_start_is_said() {
    let gateway = Gateway::start();
    write(&gateway.path("policies/x.toml"), "[[listeners]]\naddress = \"127.0.0.1:1\"\n");
    let answer = gateway.ask(Change::Reload).unwrap();
    assert_eq!(answer.notes, ["[listeners] has changed; this takes effect at the next start"]);
}
