// SPDX-License-Identifier: Apache-2.0
//! Every reader of foreign bytes as a function of bytes that must neither panic nor break its promise.
//!
//! A [`Target`] has seeds, from which both the fuzzer (`cargo xtask fuzz`) and the tests begin. What a target promises stands
//! in its documentation and is asserted in it.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a broken promise is told by a panic")]

mod dialects;
mod framing;
#[cfg(feature = "host")]
mod host;
mod json;
mod values;

/// A reader of foreign bytes.
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Inputs to begin with.
    pub seeds: &'static [&'static [u8]],
    /// Reads bytes; panics if a promise is broken.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($(#[$condition:meta])* $module:ident::$name:ident: [$($seed:expr),* $(,)?];)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(
            $(#[$condition])*
            Target { name: stringify!($name), seeds: &[$($seed),*], run: $module::$name },
        )*];
    };
}

targets! {
    framing::sse: [b"\x07event: a\ndata: 1\ndata:2\n\n:c\r\nid: 3\rdata: x\r\r\ndata: [DONE]\n\n", b"\x03data: \xc3\xa4\n\n"];
    framing::json_lines: [b"\x05{\"a\":1}\r\n\n[2]\n\"\\n\"", b"\x01{}\n{"];
    framing::json_array: [b"\x02[{\"a\":[1,\"]\"]},\n{},3]", b"\x04 [ ] "];
    framing::event_stream: [include_bytes!("../seeds/event_stream")];
    dialects::request: [
        br#"1{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"t"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]},{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"r"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"temperature":0.5,"stream":true}"#,
        br#"4{"model":"m","max_tokens":9,"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[{"type":"text","text":"t"}]},{"role":"assistant","content":[{"type":"thinking","thinking":"h","signature":"g"},{"type":"tool_use","id":"c","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"c","content":"r"}]}],"thinking":{"type":"enabled","budget_tokens":1024}}"#,
        br#"5{"contents":[{"role":"user","parts":[{"text":"t"},{"inlineData":{"mimeType":"image/png","data":"AA=="}}]},{"role":"model","parts":[{"functionCall":{"name":"f","args":{}}}]}],"generationConfig":{"maxOutputTokens":9,"thinkingConfig":{"thinkingBudget":1}}}"#,
        br#"3{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"t"}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"r"}],"reasoning":{"effort":"low"}}"#,
    ];
    dialects::answer: [
        br#"1{"id":"i","object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":"t","reasoning_content":"h","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]}}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
        br#"4{"id":"i","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"t"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":2}}"#,
        br#"5{"candidates":[{"content":{"parts":[{"text":"t"}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2}}"#,
    ];
    dialects::stream: [
        b"1data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"t\"}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
        b"4event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"i\",\"usage\":{\"input_tokens\":1}}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"t\"}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        b"5data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"t\"}]}}]}\n\n",
    ];
    dialects::fault: [
        br#"1{"error":{"message":"m","type":"t","code":"context_length_exceeded"}}"#,
        br#"4{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
        br#"5[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"3s"}]}}]"#,
    ];
    dialects::task: [
        br#"10{"model":"m","input":["a","b"],"encoding_format":"base64"}"#,
        br#"12{"model":"m","prompt":"p","n":2,"size":"1024x1024"}"#,
        br#"01{"model":"m","query":"q","documents":["a",{"text":"b"}]}"#,
    ];
    dialects::result: [
        br#"10{"object":"list","data":[{"embedding":[0.5,-1e3],"index":0}],"model":"m","usage":{"prompt_tokens":3}}"#,
        br#"12{"created":1,"data":[{"url":"https://x"},{"b64_json":"AA=="}]}"#,
    ];
    dialects::path: [b"POST /v1/chat/completions", b"POST /v1beta/models/m%2Fn:streamGenerateContent?alt=sse", b"GET /models/m"];
    json::members: [br#"{"model":"m","a":{"model":[1,"}"]},"stream":true,"s":"\u00e4\""}"#, b" { } "];
    json::usage: [
        br#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2.0,"prompt_tokens_details":{"cached_tokens":1}},"service_tier":"flex"}"#,
        br#"{ "usage" : { "input_tokens" : 3 , "server_tool_use" : { "web_search_requests" : 1 } } }"#,
    ];
    json::form: [b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\nContent-Type: audio/wav\r\n\r\n\x00\x01\r\n--b--\r\n"];
    values::money: [b"0.000000123", b"12", b"1e-6"];
    values::signature: [br#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#, br#"{"kty":"RSA","n":"AQAB","e":"AQAB","use":"sig"}"#];
    #[cfg(feature = "host")]
    host::head: [b"POST /v1/a?b=c HTTP/1.1\nhost: a.example\ncontent-type: x\n", b"GET http://a/%2e%2e/b HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n"];
    #[cfg(feature = "host")]
    host::proxy_header: [b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\nGET", b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\x02\x01\xc0\0\x02\x02\x12\x67\x01\xbb\x04\0\0GET", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"];
    #[cfg(feature = "host")]
    host::policy: [b"[vendors.v]\nplugin = \"p\"\nurl = \"https://v.example\"\n[plugins.p]\nplugin = \"echo\"\n[[routes]]\nname = \"r\"\npath = \"/\"\n", b"[limits]\nbody_bytes_max = 1\n"];
}

#[cfg(test)]
mod tests {
    use super::TARGETS;

    /// Inputs that are made of each seed; the fuzzer makes as many in the time that one of these takes to be read.
    const ROUNDS: u32 = 1_500;
    /// What parsers look for.
    const WORDS: &[&[u8]] = &[
        b"\"",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"true",
        b"-0",
        b"1e999",
        b"0.1",
        b"\r\n",
        b"\n\n",
        b"data: ",
        b"event: ",
        b"\x00",
        b"\xff",
        b"\xc3",
        b"%2f",
        b"..",
        b";",
        b"18446744073709551616",
        b"\"\"",
        b" ",
    ];

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
        }
    }

    fn shaken(seed: &[u8], random: &mut Random) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() + 1);
            let end = (at + random.below(12)).min(bytes.len());
            match random.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let word = WORDS[random.below(WORDS.len())];
                    drop(bytes.splice(at..at, word.iter().copied()));
                }
                3 => {
                    let word = WORDS[random.below(WORDS.len())];
                    drop(bytes.splice(at..end, word.iter().copied()));
                }
                4 => {
                    let copy = bytes[at..end].to_vec();
                    drop(bytes.splice(at..at, copy));
                }
                _ => bytes.truncate(at),
            }
        }
        bytes
    }

    #[test]
    fn no_target_breaks_on_its_seeds_or_on_what_is_near_them() {
        for target in TARGETS {
            (target.run)(b"");
            for (index, seed) in target.seeds.iter().enumerate() {
                (target.run)(seed);
                let mut random = Random(index as u64);
                for round in 0..ROUNDS {
                    let bytes = shaken(seed, &mut random);
                    let run = || (target.run)(&bytes);
                    if std::panic::catch_unwind(run).is_err() {
                        panic!("{}: round {round}: {}", target.name, bytes.escape_ascii());
                    }
                }
            }
        }
    }

    #[test]
    fn each_target_has_a_name_of_its_own_and_seeds() {
        for (index, target) in TARGETS.iter().enumerate() {
            assert!(!target.seeds.is_empty(), "{}", target.name);
            assert!(TARGETS[..index].iter().all(|other| other.name != target.name), "{}", target.name);
        }
    }
}
