// SPDX-License-Identifier: Apache-2.0
//! Endpoints of a service in Kubernetes: its `EndpointSlices` are listed, and then watched from there on
//! (kubernetes.io/docs/reference/using-api/api-concepts). When the server has forgotten where we were (410), they are listed anew.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Response, StatusCode, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Seeker, segment, whole};
use crate::config::Kubernetes;
use crate::upstream::Answer;
use crate::upstream::fleet::Found;

/// How long one watch lasts, if a connection may be silent that long; the next one goes on where it ended.
const WATCH: Duration = Duration::from_secs(290);
/// Largest event.
const EVENT_BYTES_MAX: usize = 4 << 20;

#[derive(Deserialize)]
struct List {
    metadata: Meta,
    items: Vec<Slice>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    resource_version: String,
}

#[derive(Deserialize)]
struct Slice {
    metadata: Meta,
    #[serde(default)]
    endpoints: Option<Vec<Place>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
struct Place {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Default, Deserialize)]
struct Conditions {
    /// Not known means ready.
    #[serde(default)]
    ready: Option<bool>,
    #[serde(default)]
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct Port {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    port: Option<u16>,
}

#[derive(Deserialize)]
struct Event<'e> {
    #[serde(rename = "type")]
    kind: &'e str,
    #[serde(borrow)]
    object: &'e RawValue,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: Meta,
}

#[derive(Deserialize)]
struct Trouble {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    reason: String,
}

/// The slices as they are, and the version that they are of.
#[derive(Default)]
struct Slices {
    by_name: BTreeMap<String, Slice>,
    version: String,
}

/// How a watch ended.
enum End {
    /// In its time: it goes on from the version that is known.
    Over,
    /// The version is too old: everything is listed anew.
    Forgotten,
}

/// Watches for as long as somebody wants to know.
pub(super) async fn follow(seeker: &mut Seeker, kubernetes: &Kubernetes) {
    loop {
        if let Err(why) = session(seeker, kubernetes).await {
            seeker.failed(&why).await;
        }
    }
}

/// Lists, and watches until the list is needed again.
async fn session(seeker: &mut Seeker, kubernetes: &Kubernetes) -> Result<(), String> {
    let answer = seeker.ask(&path(kubernetes, &[]), (header::AUTHORIZATION, "Bearer "), None).await?;
    let list: List =
        serde_json::from_slice(&whole(answer).await?).map_err(|error| format!("no list of slices came: {error}"))?;
    let mut slices = Slices { by_name: BTreeMap::new(), version: list.metadata.resource_version };
    slices.by_name.extend(list.items.into_iter().map(|slice| (slice.metadata.name.clone(), slice)));
    let found = slices.found(seeker, kubernetes);
    seeker.put(found);
    loop {
        let lasts = WATCH.min(seeker.means.client.idle() / 2).as_secs().max(1).to_string();
        let query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", slices.version.as_str()),
            ("timeoutSeconds", &lasts),
        ];
        let path = path(kubernetes, &query);
        let credential = (header::AUTHORIZATION, "Bearer ");
        let answer = seeker.ask(&path, credential, Some(StatusCode::GONE)).await?;
        let is_gone = answer.status() == StatusCode::GONE;
        let end = if is_gone { End::Forgotten } else { watch(seeker, kubernetes, answer, &mut slices).await? };
        seeker.breathe().await;
        if matches!(end, End::Forgotten) {
            return Ok(());
        }
    }
}

fn path(kubernetes: &Kubernetes, more: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("labelSelector", &format!("kubernetes.io/service-name={}", kubernetes.service));
    query.extend_pairs(more);
    let namespace = segment(&kubernetes.namespace);
    format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?{}", query.finish())
}

async fn watch(
    seeker: &mut Seeker,
    kubernetes: &Kubernetes,
    answer: Response<Answer>,
    slices: &mut Slices,
) -> Result<End, String> {
    let (mut body, mut unread) = (answer.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the watch broke off: {error}"))?;
        let Ok(piece) = frame.into_data() else { continue };
        unread.extend_from_slice(&piece);
        let mut begin = 0;
        let mut has_changed = false;
        while let Some(length) = unread[begin..].iter().position(|byte| *byte == b'\n') {
            let line = &unread[begin..begin + length];
            begin += length + 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            match slices.take(line)? {
                Some(changed) => has_changed |= changed,
                None => return Ok(End::Forgotten),
            }
        }
        unread.drain(..begin);
        if unread.len() > EVENT_BYTES_MAX {
            return Err("an event is too large".to_owned());
        }
        if has_changed {
            let found = slices.found(seeker, kubernetes);
            seeker.put(found);
        }
    }
    Ok(End::Over)
}

impl Slices {
    /// Takes an event in; says whether slices have changed, and nothing if the server has forgotten where we were.
    fn take(&mut self, line: &[u8]) -> Result<Option<bool>, String> {
        let wrong = |error: serde_json::Error| format!("an event cannot be read: {error}");
        let event: Event<'_> = serde_json::from_slice(line).map_err(wrong)?;
        match event.kind {
            "ADDED" | "MODIFIED" | "DELETED" => {
                let slice: Slice = serde_json::from_str(event.object.get()).map_err(wrong)?;
                self.version.clone_from(&slice.metadata.resource_version);
                if event.kind == "DELETED" {
                    self.by_name.remove(&slice.metadata.name);
                } else {
                    self.by_name.insert(slice.metadata.name.clone(), slice);
                }
                Ok(Some(true))
            }
            "BOOKMARK" => {
                let bookmark: Bookmark = serde_json::from_str(event.object.get()).map_err(wrong)?;
                self.version = bookmark.metadata.resource_version;
                Ok(Some(false))
            }
            "ERROR" => {
                let trouble: Trouble = serde_json::from_str(event.object.get()).map_err(wrong)?;
                let is_gone = trouble.code == StatusCode::GONE.as_u16();
                if is_gone { Ok(None) } else { Err(format!("the watch failed: {} {}", trouble.code, trouble.reason)) }
            }
            _ => Ok(Some(false)),
        }
    }

    /// The endpoints that are ready. One that is terminating is not: what is under way there may end, and nothing new goes there.
    fn found(&self, seeker: &Seeker, kubernetes: &Kubernetes) -> Vec<Found> {
        let mut found = Vec::new();
        for slice in self.by_name.values() {
            let Some(port) = slice.port(kubernetes.port.as_deref()) else { continue };
            for place in slice.endpoints.iter().flatten() {
                let is_ready = place.conditions.ready.unwrap_or(true) && place.conditions.terminating != Some(true);
                // All addresses of an endpoint are the same one; the first is the one to use.
                if let (true, Some(address)) = (is_ready, place.addresses.first()) {
                    found.push(seeker.found(address, port, 1));
                }
            }
        }
        found.sort_by(|a, b| (&a.url, a.at).cmp(&(&b.url, b.at)));
        found.dedup();
        found
    }
}

impl Slice {
    fn port(&self, wanted: Option<&str>) -> Option<u16> {
        let mut ports = self.ports.iter().flatten();
        match wanted {
            None => ports.next()?.port,
            Some(wanted) => {
                let is_it = |port: &&Port| {
                    port.name.as_deref() == Some(wanted) || port.port.is_some_and(|port| port.to_string() == wanted)
                };
                ports.find(is_it)?.port
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_change_what_is_known_and_410_begins_anew() {
        let mut slices = Slices::default();
        let event = |kind: &str, version: u32| {
            format!(
                "{{\"type\":\"{kind}\",\"object\":{{\"metadata\":{{\"name\":\"a\",\"resourceVersion\":\"{version}\"}},\
                     \"ports\":[{{\"name\":\"http\",\"port\":80}}],\"endpoints\":[{{\"addresses\":[\"10.0.0.1\"]}}]}}}}"
            )
        };
        assert_eq!(slices.take(event("ADDED", 5).as_bytes()), Ok(Some(true)));
        assert_eq!((slices.by_name.len(), slices.version.as_str()), (1, "5"));
        assert_eq!(slices.take(event("BOOKMARK", 9).as_bytes()), Ok(Some(false)));
        assert_eq!(slices.take(event("DELETED", 11).as_bytes()), Ok(Some(true)));
        assert_eq!((slices.by_name.len(), slices.version.as_str()), (0, "11"));
        let gone = br#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
        assert_eq!(slices.take(gone), Ok(None));
        assert!(slices.take(br#"{"type":"ERROR","object":{"code":500,"reason":"x"}}"#).is_err());
        assert!(slices.take(b"garbage").is_err() && slices.take(br#"{"type":"ADDED","object":7}"#).is_err());
    }

    #[test]
    fn a_port_is_found_by_name_or_number() {
        let slice: Slice = serde_json::from_str(
            r#"{"metadata":{"name":"a"},"ports":[{"name":"grpc","port":50051},{"name":"http","port":8080}]}"#,
        )
        .unwrap();
        let cases = [(None, Some(50051)), (Some("http"), Some(8080)), (Some("8080"), Some(8080)), (Some("x"), None)];
        for (wanted, port) in cases {
            assert_eq!(slice.port(wanted), port, "{wanted:?}");
        }
    }
}
