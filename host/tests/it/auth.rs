// SPDX-License-Identifier: Apache-2.0
//! Tokens and certificates on the way of a request: keys that change under load, sources that are away, and nobody let in
//! by mistake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Request};
use penstock::listener::Peer;
use penstock::plugin::types::Call;
use penstock::stages::Reception;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::support::caller;
use crate::support::fake::{self, Do, Fake};
use crate::support::rig::{Rig, build, library};

/// No test waits longer than this for what must happen.
const SOON: Duration = Duration::from_secs(15);

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The key of a number.
fn pair(number: usize) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[u8::try_from(number).unwrap(); 32]).unwrap()
}

fn jwk(number: usize) -> Value {
    let x = text(pair(number).public_key());
    json!({"kty": "OKP", "crv": "Ed25519", "kid": format!("k{number}"), "x": x})
}

/// A token of a caller, signed with the key of a number, unlike any other.
fn token(number: usize, subject: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let header = json!({"alg": "EdDSA", "kid": format!("k{number}")}).to_string();
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let claims =
        json!({"iss": "https://idp.example", "aud": "gateway", "sub": subject, "exp": now_s() + 600, "jti": id});
    let message = format!("{}.{}", text(header), text(claims.to_string()));
    let seal = pair(number).sign(message.as_bytes());
    format!("{message}.{}", text(seal))
}

fn chat(token: &str) -> Request<Bytes> {
    let body = json!({"model": "echo", "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let request = Request::post("/v1/chat/completions").header("authorization", format!("Bearer {token}"));
    request.body(body.into()).unwrap()
}

fn policy(plugin: &str) -> String {
    format!(
        "[plugins.callers]\n{plugin}\n[vendors.echo]\nadapter = \"echo\"\nmodels = [\"echo\"]\n\
         [[routes]]\nname = \"ai\"\npath = \"/v1\"\nauth = \"callers\"\n"
    )
}

fn jwt(url: &str, further: &str) -> String {
    policy(&format!(
        "plugin = \"jwt\"\nendpoints = {{ keys = \"{url}/keys\" }}\n\
         config = {{ issuers = [{{ issuer = \"https://idp.example\", audiences = [\"gateway\"]{further} }}] }}"
    ))
}

/// What a caller reads: status and code of the failure.
async fn outcome(address: SocketAddr, token: &str) -> (u16, String) {
    let reply = caller::ask(address, chat(token)).await;
    assert!(!reply.text().contains(token), "a credential is never repeated");
    (reply.status.as_u16(), reply.header("penstock-failure").to_owned())
}

/// An issuer whose keys are those of two numbers: the one in use and the one before it.
async fn issuer(current: &Arc<AtomicUsize>) -> Fake {
    let current = Arc::clone(current);
    Fake::start(move |asked| {
        assert_eq!(asked.line, "GET /keys");
        let number = current.load(Ordering::SeqCst);
        let keys: Vec<_> = [number, number - 1].into_iter().filter(|number| *number > 0).map(jwk).collect();
        fake::json("200 OK", &json!({ "keys": keys }).to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_changes_its_keys_under_load_and_no_request_fails() {
    const CHANGES: usize = 6;
    let current = Arc::new(AtomicUsize::new(1));
    let idp = issuer(&current).await;
    let rig = Rig::start(&jwt(&idp.url(), "")).await;
    let (address, over, asked) = (rig.address, Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (current, over, asked) = (Arc::clone(&current), Arc::clone(&over), Arc::clone(&asked));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    // Used the moment that it is published.
                    let number = current.load(Ordering::SeqCst);
                    let read = outcome(address, &token(number, "ann")).await;
                    assert_eq!(read.0, 200, "key {number}: {read:?}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for number in 2..2 + CHANGES {
        tokio::time::sleep(Duration::from_millis(300)).await;
        current.store(number, Ordering::SeqCst);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        tokio::time::timeout(SOON, caller).await.unwrap().unwrap();
    }
    let fetched = idp.asked().len();
    assert!((CHANGES + 1..=2 * CHANGES + 2).contains(&fetched), "{fetched} questions for {CHANGES} changes");
    assert!(asked.load(Ordering::Relaxed) > 50);
    assert_eq!(outcome(address, &token(1, "ann")).await.0, 401, "a key that is gone is not believed any more");
}

#[tokio::test]
async fn whoever_makes_up_names_of_keys_is_refused_and_asks_little_of_the_issuer() {
    let idp = issuer(&Arc::new(AtomicUsize::new(1))).await;
    let rig = Rig::start(&jwt(&idp.url(), "")).await;
    assert_eq!(outcome(rig.address, &token(1, "ann")).await.0, 200);
    let begun = Instant::now();
    for number in 2..80 {
        assert_eq!(outcome(rig.address, &token(number, "eve")).await, (401, "unauthenticated".to_owned()));
    }
    let most = 12 + begun.elapsed().as_secs();
    assert!((idp.asked().len() as u64) <= most, "{} questions", idp.asked().len());
    assert_eq!(outcome(rig.address, &token(1, "ann")).await.0, 200);
}

#[tokio::test]
async fn an_issuer_that_is_away_lets_nobody_in_who_is_not_known_and_takes_nobody_for_a_liar() {
    let away = Arc::new(AtomicBool::new(true));
    let is_away = Arc::clone(&away);
    let idp = Fake::start(move |_| {
        if is_away.load(Ordering::SeqCst) {
            return fake::json("503 Service Unavailable", "{}");
        }
        fake::json("200 OK", &json!({"keys": [jwk(1)]}).to_string())
    })
    .await;
    let rig = Rig::start(&jwt(&idp.url(), ", keys_age_s_max = 1, keys_stale_s = 3600")).await;
    assert_eq!(outcome(rig.address, &token(1, "ann")).await, (503, "auth-away".to_owned()));
    assert_eq!(outcome(rig.address, &token(1, "ann")).await, (503, "auth-away".to_owned()));
    assert_eq!(idp.asked().len(), 1, "who was away a moment ago is left alone");
    assert_eq!(outcome(rig.address, "no.token.").await.0, 401, "what no key can help is refused");
    away.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(outcome(rig.address, &token(1, "ann")).await.0, 200);
    away.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    for _ in 0..5 {
        assert_eq!(outcome(rig.address, &token(1, "ann")).await.0, 200, "its keys serve while it is away");
    }
    assert_eq!(outcome(rig.address, &token(2, "eve")).await, (503, "auth-away".to_owned()));
    let metrics = rig.gateway.metrics.exposition().unwrap();
    assert!(metrics.contains(r#"penstock_auth_questions_total{outcome="failed",plugin="callers"}"#), "{metrics}");
}

#[tokio::test]
async fn an_issuer_that_answers_nonsense_or_nothing_breaks_nothing() {
    let large = format!("{{\"keys\":[],\"x\":\"{}\"}}", "a".repeat(300 << 10));
    let answers: [Vec<Do>; 5] = [
        vec![Do::Close],
        fake::json("200 OK", "<html>"),
        fake::json("200 OK", &large),
        fake::json("404 Not Found", "{}"),
        fake::whole("302 Found\r\nlocation: http://169.254.169.254/", "text/plain", b""),
    ];
    for answer in answers {
        let shown = format!("{answer:?}").chars().take(100).collect::<String>();
        let idp = Fake::start(move |_| answer.clone()).await;
        let rig = Rig::start(&jwt(&idp.url(), "")).await;
        assert_eq!(outcome(rig.address, &token(1, "ann")).await, (503, "auth-away".to_owned()), "{shown}");
    }
    let rig = Rig::start(&jwt("http://127.0.0.1:9", "")).await;
    assert_eq!(outcome(rig.address, &token(1, "ann")).await.0, 503, "nobody listens there");
    let rig = Rig::start(&jwt("http://127.0.0.1:9", ", endpoint = \"other\"")).await;
    assert_eq!(outcome(rig.address, &token(1, "ann")).await.0, 503, "the policy has no such endpoint");
}

#[tokio::test]
async fn two_tokens_that_differ_in_their_last_byte_are_two() {
    let idp = issuer(&Arc::new(AtomicUsize::new(1))).await;
    let rig = Rig::start(&jwt(&idp.url(), "")).await;
    let (ann, bob) = (token(1, "ann"), token(1, "bob"));
    for _ in 0..3 {
        assert_eq!(outcome(rig.address, &ann).await.0, 200);
        assert_eq!(outcome(rig.address, &bob).await.0, 200);
    }
    let (message, seal) = ann.rsplit_once('.').unwrap();
    let mut other = URL_SAFE_NO_PAD.decode(seal).unwrap();
    *other.last_mut().unwrap() ^= 1; // a signature may end with any byte, so that none can be put in its place
    let forged = format!("{message}.{}", text(other));
    assert_eq!(outcome(rig.address, &forged).await.0, 401);
    let swapped = format!("{message}.{}", bob.rsplit_once('.').unwrap().1);
    assert_eq!(outcome(rig.address, &swapped).await.0, 401);
    assert_eq!(outcome(rig.address, &ann).await.0, 200);
}

#[tokio::test]
async fn a_change_of_the_policy_keeps_the_keys_and_forgets_whom_it_let_in() {
    let idp = issuer(&Arc::new(AtomicUsize::new(1))).await;
    let rig = Rig::start(&jwt(&idp.url(), "")).await;
    let ann = token(1, "ann");
    assert_eq!(outcome(rig.address, &ann).await.0, 200);
    let before = rig.gateway.snapshot.load_full();
    let stricter = jwt(&idp.url(), ", types = [\"at+jwt\"]");
    let state = Arc::new(penstock::state::Memory::new(1000));
    let (directory, metrics) = (&rig.gateway.directory, &rig.gateway.metrics);
    let swap = |policy: &str, before| {
        let after = build(policy, library(), &state, directory, metrics, Some(before));
        rig.gateway.snapshot.store(Arc::new(after.unwrap_or_else(|problems| panic!("{problems:?}"))));
    };
    swap(&stricter, &*before);
    assert_eq!(outcome(rig.address, &ann).await.0, 401, "what it was let in by is not there any more");
    swap(
        &jwt(&idp.url(), ", leeway_s_of_nobody = 1").replace(", leeway_s_of_nobody = 1", ", keys_stale_s = 5"),
        &*before,
    );
    assert_eq!(outcome(rig.address, &ann).await.0, 200);
    assert_eq!(idp.asked().len(), 1, "what the issuer has said holds on");
}

fn introspection(url: &str, secret: &std::path::Path) -> String {
    format!("[secrets]\nidp = \"file:{}\"\n", secret.display())
        + &policy(&format!(
            "plugin = \"oidc-introspection\"\nsecrets = [\"idp\"]\nendpoints = {{ introspection = \"{url}/introspect\" }}\n\
             config = {{ client_id = \"gateway\", secret = \"idp\", cache_ms = 60000 }}"
        ))
}

#[tokio::test]
async fn an_opaque_token_is_asked_about_once_and_a_secret_goes_only_there() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("idp");
    std::fs::write(&secret, "idp-secret+4711\n").unwrap();
    let idp = Fake::start(|asked| {
        let body = String::from_utf8(asked.body.clone()).unwrap();
        let active = body.starts_with("token=good");
        fake::json("200 OK", &json!({"active": active, "sub": "ann"}).to_string())
    })
    .await;
    let rig = Rig::start(&introspection(&idp.url(), &secret)).await;
    for _ in 0..3 {
        assert_eq!(outcome(rig.address, "good-1").await.0, 200);
        assert_eq!(outcome(rig.address, "bad-1").await, (401, "unauthenticated".to_owned()));
    }
    assert_eq!(outcome(rig.address, "good-2").await.0, 200);
    let asked = idp.asked();
    assert_eq!(asked.len(), 3, "each token once");
    let body = String::from_utf8(asked[0].body.clone()).unwrap();
    assert_eq!(body, "token=good-1&token_type_hint=access_token&client_id=gateway&client_secret=idp-secret%2B4711");
    assert_eq!(asked[0].line, "POST /introspect");
    assert_eq!(asked[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert!(!rig.gateway.metrics.exposition().unwrap().contains("4711"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_callers_with_one_new_token_are_one_question() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("idp");
    std::fs::write(&secret, "s").unwrap();
    let idp = Fake::start(|_| fake::json("200 OK", r#"{"active":true,"sub":"ann"}"#)).await;
    let rig = Rig::start(&introspection(&idp.url(), &secret)).await;
    let address = rig.address;
    let all: Vec<_> = (0..100).map(|_| tokio::spawn(outcome(address, "good"))).collect();
    for one in all {
        assert_eq!(tokio::time::timeout(SOON, one).await.unwrap().unwrap().0, 200);
    }
    assert_eq!(idp.asked().len(), 1);
}

#[tokio::test]
async fn only_auth_plugins_have_endpoints() {
    let wrong = policy("plugin = \"api-key\"").replace(
        "[vendors.echo]",
        "[plugins.fair]\nplugin = \"token-bucket\"\nendpoints = { keys = \"http://127.0.0.1:9\" }\n[vendors.echo]",
    );
    let metrics = penstock::metrics::Metrics::new().unwrap();
    let directory = penstock::directory::Directory::in_memory().unwrap();
    let state = Arc::new(penstock::state::Memory::new(1000));
    let problems = build(&wrong, library(), &state, &directory, &metrics, None).err().unwrap();
    assert!(problems.iter().any(|problem| problem.to_string().contains("asks nobody")), "{problems:?}");
}

/// What it costs to let somebody in, in microseconds: one who is known, or whom the plugin is asked about.
async fn cost_us(policy: &str, credential: &str, rounds: u32) -> f64 {
    let rig = Rig::start(policy).await;
    let snapshot = rig.gateway.snapshot.load_full();
    let route = snapshot.routes.find("localhost", "/v1/chat/completions").unwrap();
    let gateway = &rig.gateway;
    let reception = Reception { client: &gateway.client, metrics: &gateway.metrics, directory: &gateway.directory };
    let (call, peer) = (Call { deadline_ms: 15_000, ..Call::default() }, Peer::detached(rig.address));
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {credential}").parse().unwrap());
    let mut principal = reception.authenticate(route, &call, &headers, &peer).await.unwrap();
    let begun = Instant::now();
    for _ in 0..rounds {
        principal = reception.authenticate(route, &call, &headers, &peer).await.unwrap();
    }
    assert_eq!(principal.subject, "ann");
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
}

#[tokio::test]
async fn somebody_who_is_known_costs_a_digest_and_enters_no_guest() {
    let idp = issuer(&Arc::new(AtomicUsize::new(1))).await;
    let never = "[auth]\ngrant_ms_max = 0\n";
    let key = policy(
        "plugin = \"api-key\"\nconfig = { keys = [{ subject = \"ann\", \
         sha256 = \"72ee9d4355ccb9d3a4c9dbf37382e38e75c1b1a225b5bd1f729ee91bbda30c20\" }] }",
    );
    let (jwt, ann) = (jwt(&idp.url(), ""), token(1, "ann"));
    for (what, policy, credential) in [("api-key", &key, "alice-key"), ("jwt", &jwt, ann.as_str())] {
        let known = cost_us(policy, credential, 50_000).await;
        let asked = cost_us(&format!("{never}{policy}"), credential, 500).await;
        eprintln!("{what}: {known:.2} us for somebody who is known, {asked:.2} us with the plugin");
        // Far above what it takes on a machine with nothing else to do.
        assert!(known < 20.0 && known < asked, "{what}: {known} {asked}");
    }
}
