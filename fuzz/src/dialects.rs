// SPDX-License-Identifier: Apache-2.0
//! Every dialect, both ways. The first byte names the dialect, by its place in the list of all. Promises: what is written is
//! JSON; a request that is read can be written and read again; a stream that is read can be told to the callers of all others.

use penstock_dialects::codec::{Codec, Envelope, Head, Operation};
use penstock_dialects::collect::{Collector, events};
use penstock_dialects::conformance::stream_kind;
use penstock_dialects::framing::{Frame, Parser};
use penstock_dialects::ir::{Event, Response};
use penstock_dialects::task::Task;
use penstock_dialects::{ALL, settle};
use serde_json::Value;

/// Of a stream.
const FRAME_BYTES_MAX: usize = 1 << 16;
/// What a task may be for, by the second byte.
const TASKS: [Operation; 5] =
    [Operation::Embeddings, Operation::Rerank, Operation::Images, Operation::ImageEdits, Operation::Videos];

/// A caller's request is written to vendors of every dialect, and read again where it is the caller's own.
pub(crate) fn request(bytes: &[u8]) {
    let Some((codec, body)) = chosen(bytes) else { return };
    let Ok(request) = codec.decode_request(body) else { return };
    for other in ALL {
        let (written, _) = other.encode_request(&request);
        assert!(serde_json::from_slice::<Value>(&written).is_ok(), "{} writes JSON", other.name());
        // Nobody serves a model without a name, so that such a request is never written.
        if other.name() == codec.name() && !request.model.is_empty() {
            let again = codec.decode_request(&written);
            assert!(again.is_ok(), "{} reads what it writes: {:?}", codec.name(), again.err());
        }
    }
}

/// A whole answer is told to callers of every dialect.
pub(crate) fn answer(bytes: &[u8]) {
    let Some((codec, body)) = chosen(bytes) else { return };
    let _ = codec.whole_usage(body);
    if let Ok(events) = codec.decode_response(body) {
        tell(&collected(&events));
    }
}

/// A stream is told to callers of every dialect, as it comes and as a whole; watching it breaks nothing.
pub(crate) fn stream(bytes: &[u8]) {
    let Some((codec, body)) = chosen(bytes) else { return };
    let (mut decoder, mut tap, mut found) = (codec.stream_decoder(), codec.tap(), Vec::new());
    let mut parser = Parser::new(stream_kind(codec, body), FRAME_BYTES_MAX);
    let mut take = |frame: Frame<'_>| {
        tap.frame(&frame);
        decoder.frame(&frame, &mut found);
    };
    let _ = parser.feed(body, &mut take).and_then(|()| parser.end(&mut take));
    decoder.end(&mut found);
    let _ = (tap.usage(), tap.complete(), tap.fault());
    for other in ALL {
        let (mut encoder, mut out) = (other.stream_encoder(&Envelope::default()), Vec::new());
        let fault = found.iter().find_map(|event| if let Event::Fault(fault) = event { Some(fault) } else { None });
        let told = found.iter().take_while(|event| !matches!(event, Event::Fault(_)));
        told.for_each(|event| encoder.event(event, &mut out));
        match fault {
            Some(fault) => encoder.fault(fault, &mut out),
            None => encoder.end(&mut out),
        }
    }
    tell(&collected(&found));
}

/// An error is told to callers of every dialect. The status is made of the length.
pub(crate) fn fault(bytes: &[u8]) {
    let Some((codec, body)) = chosen(bytes) else { return };
    let status = 400 + u16::try_from(body.len() % 150).unwrap_or_default();
    let fault = codec.decode_fault(status, &|name| (name == "retry-after").then_some("7"), body);
    for other in ALL {
        let written = other.encode_fault(&fault, "req_1");
        assert!(serde_json::from_slice::<Value>(&written).is_ok(), "{} writes JSON", other.name());
        let _ = other.fault_headers(&fault);
    }
}

/// A request that is no conversation, likewise.
pub(crate) fn task(bytes: &[u8]) {
    let Some((codec, operation, body)) = chosen_task(bytes) else { return };
    let Ok(task) = codec.decode_task(operation, body) else { return };
    let again = Task::from_json(operation, &task.to_json());
    assert!(again.is_ok(), "the canonical form is read as it is written: {:?}", again.err());
    for other in ALL {
        if let Ok((written, _)) = other.encode_task(operation, &task) {
            assert!(!written.is_empty(), "{}", other.name());
        }
    }
    settle::settle(&task, &mut Response::default());
}

/// Its answer.
pub(crate) fn result(bytes: &[u8]) {
    let Some((codec, operation, body)) = chosen_task(bytes) else { return };
    let Ok(found) = codec.decode_result(operation, body) else { return };
    let response = collected(&found);
    for other in ALL {
        let _ = other.encode_result(operation, &response, &Envelope::default());
    }
}

/// The first line of a request, recognised by every dialect.
pub(crate) fn path(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    let Some((method, target)) = line.split_once(' ') else { return };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let head = Head { method, path, query, header: &|_| None };
    let _ = penstock_dialects::recognise(&head, &[]);
    for codec in ALL {
        let _ = codec.recognise(&head);
    }
}

fn chosen(bytes: &[u8]) -> Option<(&'static dyn Codec, &[u8])> {
    let (first, body) = bytes.split_first()?;
    Some((*ALL.get(usize::from(first.wrapping_sub(b'0')) % ALL.len())?, body))
}

fn chosen_task(bytes: &[u8]) -> Option<(&'static dyn Codec, Operation, &[u8])> {
    let (codec, rest) = chosen(bytes)?;
    let (second, body) = rest.split_first()?;
    Some((codec, *TASKS.get(usize::from(second.wrapping_sub(b'0')) % TASKS.len())?, body))
}

fn collected(events: &[Event]) -> Response {
    let mut collector = Collector::new();
    events.iter().for_each(|event| collector.event(event));
    collector.finish()
}

/// Whole, and as a stream that is made of it.
fn tell(response: &Response) {
    for codec in ALL {
        let written = codec.encode_response(response, &Envelope::default());
        assert!(serde_json::from_slice::<Value>(&written).is_ok(), "{} writes JSON", codec.name());
        let (mut encoder, mut out) = (codec.stream_encoder(&Envelope::default()), Vec::new());
        events(response).iter().for_each(|event| encoder.event(event, &mut out));
        encoder.end(&mut out);
    }
}
