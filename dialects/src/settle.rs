// SPDX-License-Identifier: Apache-2.0
//! Makes the answer to a task what its request asked for, where the vendor could not be asked for it: the encoding of
//! vectors, the documents of a ranking, how many of it. For the host, between collecting the events and writing them for
//! the caller, since neither an adapter nor the writer of an answer knows both sides.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::ir::{Fault, FaultClass, Response};
use crate::task::{EMBEDDING, Embed, IMAGE, IMAGE_FAULT, RANKING, Rerank, Task};
use crate::vectors::{BASE64, FLOAT, Vector};

/// Makes the answer what the task asked for, as far as that can be made from it.
pub fn settle(task: &Task, response: &mut Response) {
    match task {
        Task::Embed(task) => embeddings(task, response),
        Task::Rerank(task) => rankings(task, response),
        Task::Image(_) => pictures(response),
        Task::Video(_) => {}
    }
}

/// Vectors in the order of the inputs, each in the encodings that were asked for. What cannot be made stays away, and a
/// vector of which nothing can be made stays as it is.
fn embeddings(task: &Embed, response: &mut Response) {
    let wanted: Vec<&str> = match task.encodings.as_slice() {
        [] => vec![FLOAT],
        encodings => encodings.iter().map(String::as_str).collect(),
    };
    let mut by_index: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for json in take(response, EMBEDDING) {
        let Some(index) = Vector::read(&json).map(|vector| vector.index) else { continue };
        by_index.entry(index).or_default().push(json);
    }
    for jsons in by_index.into_values() {
        let vectors: Vec<(Vector<'_>, &String)> =
            jsons.iter().filter_map(|json| Some((Vector::read(json)?, json))).collect();
        let made: Vec<String> = wanted.iter().filter_map(|encoding| in_encoding(&vectors, encoding)).collect();
        let settled = if made.is_empty() { jsons } else { made };
        response.other.extend(settled.into_iter().map(|json| (EMBEDDING.to_owned(), json)));
    }
}

/// The event of a vector in this encoding.
fn in_encoding(vectors: &[(Vector<'_>, &String)], encoding: &str) -> Option<String> {
    if let Some((_, json)) = vectors.iter().find(|(vector, _)| vector.encoding == encoding) {
        return Some((*json).clone());
    }
    match encoding {
        FLOAT => vectors.iter().find_map(|(vector, _)| vector.as_floats()),
        BASE64 => vectors.iter().find_map(|(vector, _)| vector.as_base64()),
        _ => None,
    }
}

/// One ranked document. The score stays as the vendor wrote it.
#[derive(Deserialize, Serialize)]
struct Ranked<'j> {
    index: u64,
    #[serde(borrow)]
    score: &'j RawValue,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    document: Option<Cow<'j, RawValue>>,
}

/// The best first, no more than asked for, with the documents if they were asked for.
fn rankings(task: &Rerank, response: &mut Response) {
    let given = take(response, RANKING);
    let mut ranked: Vec<Ranked<'_>> = given.iter().filter_map(|json| serde_json::from_str(json).ok()).collect();
    let score = |ranked: &Ranked<'_>| ranked.score.get().parse().unwrap_or(f64::NEG_INFINITY);
    ranked.sort_by(|one, other| score(other).total_cmp(&score(one)));
    if let Some(top) = task.top_n.and_then(|top| usize::try_from(top).ok()) {
        ranked.truncate(top);
    }
    for mut ranking in ranked {
        match task.return_documents {
            Some(true) if ranking.document.is_none() => {
                let place = usize::try_from(ranking.index).ok();
                let document = place.and_then(|place| task.documents.get(place)).map(|given| match given {
                    Value::String(text) => json!({ "text": text }),
                    given => given.clone(),
                });
                ranking.document = document.and_then(|given| to_raw_value(&given).ok()).map(Cow::Owned);
            }
            Some(false) => ranking.document = None,
            _ => {}
        }
        response.other.extend(serde_json::to_string(&ranking).ok().map(|json| (RANKING.to_owned(), json)));
    }
}

/// An answer without any picture has failed for the reason of the first one.
fn pictures(response: &mut Response) {
    let has = |name: &str| response.other.iter().any(|(other, _)| other == name);
    if response.fault.is_none() && !has(IMAGE) && has(IMAGE_FAULT) {
        response.fault = picture_fault(response);
        response.finish = None;
    }
}

/// The reason why the first picture could not be made.
pub(crate) fn picture_fault(response: &Response) -> Option<Fault> {
    let (_, json) = response.other.iter().find(|(name, _)| name == IMAGE_FAULT)?;
    let stated: Value = serde_json::from_str(json).unwrap_or_default();
    let code = stated["code"].as_str().unwrap_or_default();
    let lower = code.to_ascii_lowercase();
    let refused = ["inspection", "content", "moderation", "safety", "policy"].iter().any(|word| lower.contains(word));
    let class = if refused { FaultClass::ContentFilter } else { FaultClass::VendorBug };
    let message = stated["message"].as_str().filter(|text| !text.is_empty()).unwrap_or("no picture could be made");
    Some(Fault { code: Some(code.to_owned()).filter(|code| !code.is_empty()), ..Fault::new(class, message) })
}

/// Takes the events of one name out of a response.
fn take(response: &mut Response, name: &str) -> Vec<String> {
    let (taken, kept) = std::mem::take(&mut response.other).into_iter().partition(|(other, _)| other == name);
    response.other = kept;
    let taken: Vec<(String, String)> = taken;
    taken.into_iter().map(|(_, json)| json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(name: &str, jsons: &[&str]) -> Response {
        let other = jsons.iter().map(|json| (name.to_owned(), (*json).to_owned())).collect();
        Response { other, ..Response::default() }
    }

    fn settled(task: &Task, mut response: Response) -> Vec<String> {
        settle(task, &mut response);
        response.other.into_iter().map(|(_, json)| json).collect()
    }

    #[test]
    fn vectors_come_in_order_and_in_the_encoding_that_was_asked_for() {
        let given = [r#"{"index":1,"values":[1.0]}"#, r#"{"index":0,"encoding":"base64","data":"AACAPw=="}"#];
        let embed = |encodings: &[&str]| {
            Task::Embed(Embed { encodings: encodings.iter().map(|e| (*e).into()).collect(), ..Embed::default() })
        };
        assert_eq!(
            settled(&embed(&[]), response(EMBEDDING, &given)),
            [r#"{"index":0,"values":[1.0]}"#, r#"{"index":1,"values":[1.0]}"#]
        );
        assert_eq!(
            settled(&embed(&["base64"]), response(EMBEDDING, &given)),
            [
                r#"{"index":0,"encoding":"base64","data":"AACAPw=="}"#,
                r#"{"index":1,"encoding":"base64","data":"AACAPw=="}"#
            ]
        );
        assert_eq!(settled(&embed(&["int8"]), response(EMBEDDING, &given[..1])), [given[0]], "nothing can be made");
    }

    #[test]
    fn a_ranking_is_cut_and_gets_its_documents() {
        let given = [
            r#"{"index":0,"score":-0.10}"#,
            r#"{"index":1,"score":0.9}"#,
            r#"{"index":2,"score":0.021986675780920666}"#,
        ];
        let task = |return_documents| {
            let documents = vec![json!("a"), json!({ "text": "b", "n": 1 }), json!("c")];
            Task::Rerank(Rerank { documents, top_n: Some(2), return_documents, ..Rerank::default() })
        };
        assert_eq!(
            settled(&task(Some(true)), response(RANKING, &given)),
            [
                r#"{"index":1,"score":0.9,"document":{"text":"b","n":1}}"#,
                r#"{"index":2,"score":0.021986675780920666,"document":{"text":"c"}}"#
            ]
        );
        let with = [r#"{"index":1,"score":0.9,"document":{"text":"b"}}"#];
        assert_eq!(settled(&task(Some(false)), response(RANKING, &with)), [r#"{"index":1,"score":0.9}"#]);
        assert_eq!(settled(&task(None), response(RANKING, &with)), with);
    }

    #[test]
    fn only_an_answer_without_any_picture_has_failed() {
        let fault = r#"{"code":"DataInspectionFailed","message":"refused"}"#;
        let mut failed = response(IMAGE_FAULT, &[fault]);
        settle(&Task::Image(Default::default()), &mut failed);
        let fault = failed.fault.unwrap();
        assert_eq!((fault.class, fault.message.as_str()), (FaultClass::ContentFilter, "refused"));
        let mut partly = response(IMAGE_FAULT, &[r#"{"code":"x"}"#]);
        partly.other.push((IMAGE.to_owned(), r#"{"url":"u"}"#.to_owned()));
        settle(&Task::Image(Default::default()), &mut partly);
        assert_eq!(partly.fault, None);
    }
}
