// SPDX-License-Identifier: Apache-2.0
//! Splicing, against a test suite for JSON parsers that no one here wrote.

use penstock_dialects::splice::Members;

use crate::recordings::shared;

#[test]
fn exactly_what_is_json_is_indexed() {
    let Some(folder) = shared("../vectors/json/test_parsing") else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let body = std::fs::read(&path).unwrap();
        let member = [b"{\"a\":".as_slice(), &body, b"}"].concat();
        let (whole, member) = (Members::index(&body), Members::index(&member));
        let is_object = body.trim_ascii_start().starts_with(b"{");
        let duplicate = name.contains("duplicated_key");
        match &name[..2] {
            "y_" => {
                assert!(member.is_ok(), "{name} as a member");
                assert_eq!(whole.is_ok(), is_object && !duplicate, "{name}");
            }
            "n_" => {
                assert!(whole.is_err(), "{name}");
                assert!(member.is_err(), "{name} as a member");
            }
            _ => {}
        }
        seen += 1;
    }
    assert!(seen > 300, "the suite has {seen} cases");
}

#[test]
fn a_splice_of_a_recorded_request_changes_the_model_only() {
    for exchange in crate::recordings::exchanges("openai-chat") {
        let body = &exchange.request["body"];
        if !body.is_object() {
            continue;
        }
        let text = body.to_string();
        let members = Members::index(text.as_bytes()).unwrap();
        let spliced = members.splice(&[("model", "\"another\""), ("added", "[1]"), ("messages", "")]);
        let mut expected = body.clone();
        expected["model"] = "another".into();
        expected["added"] = serde_json::json!([1]);
        expected.as_object_mut().unwrap().shift_remove("messages");
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&spliced).unwrap(), expected);
        assert_eq!(members.splice(&[]), text.as_bytes());
    }
}
