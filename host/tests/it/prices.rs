// SPDX-License-Identifier: Apache-2.0
//! What a call has cost: in the header of an answer, in the metrics, in the access log. And what vendors can do.

use serde_json::{Value, json};

use crate::support::fake::{self, Fake, chunk, last_chunk, stream_head};
use crate::support::program::Program;
use crate::support::rig::Rig;

const USAGE: &str = r#"{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"prompt_tokens_details":{"cached_tokens":400},"completion_tokens_details":{"reasoning_tokens":50}}"#;

fn policy(url: &str) -> String {
    format!(
        "[vendors.v]\nadapter = \"openai-compatible\"\nbase_url = \"{url}\"\nmodels = [\"m\", \"n\"]\nwithout = [\"image-input\"]\n\
         config = {{ paths = {{ embeddings = \"\", rerank = \"/rerank\" }} }}\n\
         [prices.\"v/m\"]\ninput = 1.25\noutput = 10\ncache_read = 0.125\n[prices.\"v/alias\"]\nlike = \"v/m\"\n\
         [[routes]]\nname = \"ai\"\npath = \"/v1\"\n"
    )
}

fn whole(usage: &str) -> String {
    format!(
        r#"{{"id":"x","model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"é"}},"finish_reason":"stop"}}],"usage":{usage}}}"#
    )
}

fn asked(model: &str, stream: bool) -> Value {
    json!({"model": format!("v/{model}"), "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "hi"}]})
}

#[tokio::test]
async fn a_whole_answer_says_what_it_cost_in_every_dialect() {
    let fake = Fake::start(|_| fake::json("200 OK", &whole(USAGE))).await;
    let rig = Rig::start(&policy(&fake.url())).await;
    for path in ["/v1/chat/completions", "/v1/messages"] {
        let reply = rig.post(path, &asked("m", false)).await;
        assert_eq!(reply.header("penstock-cost"), "0.0028", "{path}: {}", reply.text());
    }
    let dated = rig.post("/v1/chat/completions", &asked("m-2026-01-31", false)).await;
    assert_eq!(dated.header("penstock-cost"), "0.0028", "a version costs what its model costs");
    let alias = rig.post("/v1/chat/completions", &asked("alias", false)).await;
    assert_eq!(alias.header("penstock-cost"), "0.0028");
    let metrics = rig.gateway.metrics.exposition().unwrap();
    for line in [
        "penstock_cost_usd_total{model=\"m\",route=\"ai\",vendor=\"v\"} 0.0056",
        "penstock_tokens_total{kind=\"cache_read\",model=\"m\",route=\"ai\",vendor=\"v\"} 800",
        "penstock_tokens_total{kind=\"reasoning\",model=\"m\",route=\"ai\",vendor=\"v\"} 100",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn what_the_vendor_states_is_what_it_cost_and_a_model_without_a_price_is_counted() {
    let stating = whole(r#"{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"cost":0.5}"#);
    let fake = Fake::start(move |_| fake::json("200 OK", &stating)).await;
    let rig = Rig::start(&policy(&fake.url())).await;
    for model in ["m", "n"] {
        let reply = rig.post("/v1/chat/completions", &asked(model, false)).await;
        assert_eq!(reply.header("penstock-cost"), "0.5", "{model}");
    }
    let fake = Fake::start(|_| fake::json("200 OK", &whole(USAGE))).await;
    let rig = Rig::start(&policy(&fake.url())).await;
    let reply = rig.post("/v1/chat/completions", &asked("n", false)).await;
    assert!(!reply.headers.contains_key("penstock-cost"));
    let metrics = rig.gateway.metrics.exposition().unwrap();
    assert!(metrics.contains("penstock_unpriced_total{model=\"n\",vendor=\"v\"} 1"), "{metrics}");
    assert!(!metrics.contains("penstock_cost_usd_total{"), "{metrics}");
}

#[tokio::test]
async fn a_stream_is_counted_when_it_has_ended() {
    let stream = format!(
        "data: {{\"id\":\"c\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"a\"}},\"finish_reason\":\"stop\"}}]}}\n\n\
         data: {{\"id\":\"c\",\"choices\":[],\"usage\":{USAGE}}}\n\ndata: [DONE]\n\n"
    );
    let script = vec![stream_head(), chunk(stream.as_bytes()), last_chunk()];
    let fake = Fake::start(move |_| script.clone()).await;
    let rig = Rig::start(&policy(&fake.url())).await;
    for (path, cost) in [("/v1/chat/completions", "0.0028"), ("/v1/messages", "0.0056")] {
        let reply = rig.post(path, &asked("m", true)).await;
        assert!(reply.status.is_success() && !reply.headers.contains_key("penstock-cost"), "{path}");
        let metrics = rig.gateway.metrics.exposition().unwrap();
        let line = format!("penstock_cost_usd_total{{model=\"m\",route=\"ai\",vendor=\"v\"}} {cost}");
        assert!(metrics.contains(&line), "{path}: {line}\n{metrics}");
    }
}

#[tokio::test]
async fn speech_costs_by_its_characters_once_there_is_sound() {
    let spoken = || fake::whole("200 OK", "audio/mpeg", &[1, 2, 3]);
    for (script, cost) in [(spoken(), Some("0.005")), (fake::json("400 Bad Request", "{}"), None)] {
        let fake = Fake::start(move |_| script.clone()).await;
        let policy = policy(&fake.url()).replace("rerank = ", "speech = \"/speech\", rerank = ");
        let rig = Rig::start(&format!("[prices.\"v/tts\"]\ncharacter = 0.001\n{policy}")).await;
        let said = rig.post("/v1/audio/speech", &json!({"model": "v/tts", "input": "grüße", "voice": "v"})).await;
        assert_eq!(said.status.is_success(), cost.is_some(), "{}", said.text());
        let metrics = rig.gateway.metrics.exposition().unwrap();
        let found = metrics
            .lines()
            .find_map(|line| line.strip_prefix("penstock_cost_usd_total{model=\"tts\",route=\"ai\",vendor=\"v\"} "));
        assert_eq!(found, cost, "{metrics}");
    }
}

#[tokio::test]
async fn the_access_log_and_a_changed_price_are_in_force_at_once() {
    let begin = "[admin]\naddress = \"127.0.0.1:0\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\n\
                 [vendors.echo]\nadapter = \"echo\"\nmodels = [\"echo\"]\n[[routes]]\nname = \"ai\"\npath = \"/v1\"\n";
    let program = Program::start(begin);
    assert_eq!(program.chat("echo").await.header("penstock-cost"), "0");
    let line = program.line(|line| line["target"] == "access");
    assert_eq!((&line["cost_usd"], &line["cost_stated"]), (&json!(0.0), &json!(false)), "{line}");
    let priced = format!("{begin}[prices.\"echo/echo\"]\nrequest = 0.25\n");
    std::fs::write(program.root.path().join("policies/main.toml"), priced).unwrap();
    program.logged("installed");
    assert_eq!(program.chat("echo").await.header("penstock-cost"), "0.25");
    let line = program.line(|line| line["target"] == "access");
    assert_eq!(line["cost_usd"], json!(0.25), "{line}");
}

#[tokio::test]
async fn callers_can_ask_what_the_vendors_in_force_can_do() {
    let rig = Rig::start(&policy("http://127.0.0.1:9")).await;
    let request = http::Request::get("/v1/capabilities").body("".into()).unwrap();
    let told = rig.ask(request).await.json();
    assert_eq!(told["object"], "capabilities");
    let vendor = &told["vendors"][0];
    assert_eq!((&vendor["name"], &vendor["adapter"]), (&json!("v"), &json!("openai-compatible")));
    assert_eq!(vendor["models"], json!(["m", "n"]));
    let has = |list: &str, name: &str| vendor[list].as_array().unwrap().contains(&json!(name));
    assert!(has("dialects", "openai-chat") && !has("dialects", "openai-responses"), "{vendor}");
    assert!(has("operations", "chat") && has("operations", "rerank"), "{vendor}");
    assert!(!has("operations", "embeddings") && !has("operations", "speech"), "{vendor}");
    assert!(
        has("features", "tools")
            && has("features", "streaming")
            && has("features", "json")
            && !has("features", "image-input"),
        "{vendor}"
    );
}
