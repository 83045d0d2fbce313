// SPDX-License-Identifier: Apache-2.0
//! Bodies that are looked into without being parsed whole. Promise: what is found is what a parser finds.

use penstock_dialects::codec::Codec;
use penstock_dialects::form::Form;
use penstock_dialects::openai_chat::OpenAiChat;
use penstock_dialects::splice::Members;
use serde::de::IgnoredAny;
use serde_json::Value;

/// A body that is indexed is JSON with each member once; after a splice it has the new value and all others.
pub(crate) fn members(body: &[u8]) {
    let Ok(members) = Members::index(body) else { return };
    assert!(serde_json::from_slice::<IgnoredAny>(body).is_ok(), "what is indexed is JSON");
    // Half a surrogate pair is JSON, and no text.
    let Ok(parsed) = serde_json::from_slice::<Value>(body) else { return };
    let object = parsed.as_object().expect("and an object");
    assert_eq!(members.iter().count(), object.len(), "no member stands there twice");
    for (name, raw) in members.iter() {
        assert_eq!(object.get(name), serde_json::from_str(raw).ok().as_ref(), "{name:?}");
    }
    let spliced = members.splice(&[("model", "\"spliced\"")]);
    let spliced: Value = serde_json::from_slice(&spliced).expect("still JSON");
    assert_eq!(spliced["model"], "spliced");
    assert!(object.iter().all(|(name, value)| name == "model" || spliced[name] == *value), "nothing else has changed");
}

/// The usage that is found in passing is that of an answer that is read whole, where that is an answer.
pub(crate) fn usage(body: &[u8]) {
    let found = OpenAiChat.whole_usage(body);
    if let Some(usage) = &found {
        assert!(serde_json::from_str::<Value>(&usage.stated).is_ok(), "what was stated is JSON: {}", usage.stated);
    }
}

/// A form that is indexed can be spliced, and is a form again.
pub(crate) fn form(body: &[u8]) {
    const TYPE: &str = "multipart/form-data; boundary=b";
    let Ok(form) = Form::index(TYPE, body) else { return };
    let _ = form.to_json();
    let spliced = form.splice(&[("model", "spliced")]);
    let again = Form::index(TYPE, &spliced).expect("still a form");
    let model = again.iter().find(|(field, _)| field.name == "model").map(|(_, content)| content);
    assert_eq!(model, Some(&b"spliced"[..]));
}
