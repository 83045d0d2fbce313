// SPDX-License-Identifier: Apache-2.0
//! Promises of the configuration derive: what is read, what is refused and where, and the schema that operators see.

use std::collections::BTreeMap;

use penstock_sdk::config::{Reader, Value};
use penstock_sdk::manifest::Manifest;
use penstock_sdk::prelude::Config;
use serde_json::json;

/// Options of every shape.
#[derive(Debug, PartialEq, Config)]
struct Options {
    /// Says "who",
    /// on two lines.
    name: String,
    #[config(default = 3, min = 1, max = 9)]
    count: u32,
    ratio: Option<f64>,
    #[config(default)]
    mode: Mode,
    #[config(default)]
    inner: Vec<Inner>,
    #[config(default)]
    bounds: BTreeMap<String, [f64; 2]>,
    #[config(default, rename = "type")]
    kind: String,
    #[config(default)]
    any: Value,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Config)]
enum Mode {
    #[default]
    AsIs,
    Other,
}

#[derive(Debug, PartialEq, Config)]
struct Inner {
    on: bool,
}

#[test]
fn what_is_left_out_has_its_default() {
    let options: Options = Reader::read(&json!({"name": "a"})).unwrap();
    assert_eq!((options.count, options.ratio, options.mode), (3, None, Mode::AsIs));
    assert!(options.inner.is_empty() && options.bounds.is_empty() && options.kind.is_empty() && options.any.is_null());
}

#[test]
fn what_is_given_is_read() {
    let written = json!({
        "name": "a", "count": 9, "ratio": 1, "mode": "other", "inner": [{"on": true}],
        "bounds": {"t": [0, 1.5]}, "type": "k", "any": {"x": [1]},
    });
    let options: Options = Reader::read(&written).unwrap();
    assert_eq!((options.count, options.ratio, options.mode), (9, Some(1.0), Mode::Other));
    assert_eq!(options.inner, [Inner { on: true }]);
    assert_eq!((options.bounds["t"], options.kind.as_str()), ([0.0, 1.5], "k"));
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let written = json!({
        "count": 0, "ratio": "x", "mode": "no", "inner": [{"on": 1}, {}, {"on": true, "off": 1}],
        "bounds": {"t": [1]}, "nmae": 1,
    });
    let issues = Reader::read::<Options>(&written).unwrap_err();
    let paths: Vec<_> = issues.iter().map(|issue| issue.path.as_str()).collect();
    assert_eq!(
        paths,
        ["nmae", "name", "count", "ratio", "mode", "inner[0].on", "inner[1].on", "inner[2].off", "bounds.t"]
    );
    assert_eq!(issues[1].message, "missing");
    assert_eq!(issues[2].message, "expected 1 to 9, found 0");
}

#[test]
fn the_schema_is_json_that_says_the_same() {
    const MANIFEST: Manifest = Manifest {
        kind: "auth",
        name: "n",
        version: "1",
        description: "with \"quotes\" and \\",
        licence: "Apache-2.0",
        dialects: &["a", "b"],
        operations: &[],
        features: &["tools"],
        secrets: &["key"],
        schema: Options::SCHEMA,
    };
    const LENGTH: usize = MANIFEST.render::<0>().length;
    const TEXT: [u8; LENGTH] = MANIFEST.render::<LENGTH>().bytes;
    let manifest: Value = serde_json::from_slice(&TEXT).unwrap();
    assert_eq!(manifest["description"], "with \"quotes\" and \\");
    assert_eq!(manifest["dialects"], json!(["a", "b"]));
    assert_eq!(manifest["features"], json!(["tools"]));
    let schema = &manifest["schema"];
    assert_eq!(schema["required"], json!(["name"]));
    assert_eq!(schema["additionalProperties"], false);
    let expected = json!({
        "name": {"type": "string", "description": "Says \"who\", on two lines."},
        "count": {"type": "integer", "default": 3, "minimum": 1, "maximum": 9},
        "ratio": {"type": "number"},
        "mode": {"type": "string", "enum": ["as_is", "other"]},
        "inner": {"type": "array", "items": {
            "type": "object", "additionalProperties": false,
            "properties": {"on": {"type": "boolean"}}, "required": ["on"],
        }},
        "bounds": {"type": "object", "additionalProperties": {
            "type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2,
        }},
        "type": {"type": "string"},
        "any": {"title": "anything"},
    });
    assert_eq!(schema["properties"], expected);
}
