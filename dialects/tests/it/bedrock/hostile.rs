// SPDX-License-Identifier: Apache-2.0
//! JSON with one value replaced by another one, everywhere: nothing may panic, and a request that is admitted can be written.

use serde_json::Value;

use penstock_dialects::codec::Codec;
use penstock_dialects::collect;
use penstock_dialects::framing::Frame;
use penstock_dialects::openai_chat::OpenAiChat;

use super::requests::every_member;
use super::streams::every_block;
use super::{CODEC, as_stream, envelope, folded};
use crate::anthropic::hostile::replaced;
use crate::recordings::exchanges;

#[test]
fn no_answer_makes_the_codec_panic() {
    for exchange in exchanges("bedrock-converse").iter().filter(|exchange| !exchange.streamed()) {
        let whole: Value = serde_json::from_slice(&exchange.answer).expect("JSON");
        for answer in replaced(&whole) {
            let bytes = answer.to_string();
            let _ = (CODEC.whole_usage(bytes.as_bytes()), CODEC.decode_fault(500, &|_| None, bytes.as_bytes()));
            if let Ok(events) = CODEC.decode_response(bytes.as_bytes()) {
                let response = folded(&events);
                CODEC.encode_response(&response, &envelope());
                as_stream(&CODEC, &collect::events(&response));
            }
        }
    }
}

#[test]
fn no_stream_makes_the_codec_panic() {
    let frames = every_block();
    for (place, (name, json)) in frames.iter().enumerate() {
        for other in replaced(json) {
            let (mut decoder, mut tap, mut events) = (CODEC.stream_decoder(), CODEC.tap(), Vec::new());
            for (at, (name, json)) in frames.iter().enumerate() {
                let data = if at == place { other.to_string() } else { json.to_string() };
                let frame = Frame { name, data: data.as_bytes() };
                decoder.frame(&frame, &mut events);
                tap.frame(&frame);
            }
            decoder.end(&mut events);
            let whole = CODEC.encode_response(&folded(&events), &envelope());
            CODEC.decode_response(&whole).unwrap_or_else(|fault| panic!("{name} {other}: {}", fault.message));
            as_stream(&CODEC, &events);
        }
    }
}

#[test]
fn no_request_makes_the_codec_panic_and_what_is_admitted_can_be_written() {
    let mut admitted = 0;
    for body in replaced(&every_member()) {
        if let Ok(mut request) = CODEC.decode_request(body.to_string().as_bytes()) {
            admitted += 1;
            for model in ["anthropic.claude-sonnet-4-5-v1:0", "amazon.nova-2-lite-v1:0", "meta.llama3", ""] {
                request.model = model.into();
                let (written, _) = CODEC.encode_request(&request);
                let again = CODEC.decode_request(&written);
                assert!(again.is_ok(), "{:?}: {body}", again.map_err(|fault| fault.message));
            }
            OpenAiChat.encode_request(&request);
        }
    }
    assert!(admitted > 0);
}
