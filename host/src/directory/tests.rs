// SPDX-License-Identifier: Apache-2.0
//! Promises of the directory.

use serde_json::{Value, json};

use super::document::Kind;
use super::rules::Asked;
use super::*;

use crate::clock;

fn admin() -> Actor {
    Actor { name: "test".to_owned(), role: Role::Admin }
}

async fn make(directory: &Directory, kind: Kind, id: &str, settings: Value) -> Changed {
    let change = Change::Create { kind, id: Some(id.to_owned()), settings, secret: None };
    directory.change(admin(), change).await.unwrap_or_else(|refused| panic!("{id}: {refused}"))
}

async fn patch(directory: &Directory, kind: Kind, id: &str, patch: Value) -> Result<Changed, Refused> {
    let Value::Object(patch) = patch else { panic!("an object") };
    directory.change(admin(), Change::Patch { kind, id: id.to_owned(), patch, secret: None, expected: None }).await
}

async fn refused(directory: &Directory, change: Change) -> &'static str {
    directory.change(admin(), change).await.err().expect("a refusal").code
}

#[tokio::test]
async fn a_key_is_found_by_its_secret_until_it_is_disabled_expired_or_deleted() {
    let directory = Directory::in_memory().unwrap();
    make(&directory, Kind::Team, "red", json!({"metadata": {"cost-centre": "7", "a": "team"}})).await;
    let settings = json!({"name": "alice", "team": "red", "metadata": {"a": "key"}, "models": ["big-*"]});
    let secret = make(&directory, Kind::VirtualKey, "k", settings).await.minted.unwrap();
    let find = || directory.find(secret.expose()).map(|(key, _)| key);
    let key = find().unwrap();
    assert_eq!((key.refusal(clock::unix_s()), &*key.subject, key.team.as_deref()), (None, "k", Some("red")));
    let attributes: Vec<_> = key.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(attributes, [("a", "key"), ("cost-centre", "7")]);
    assert!(key.may_use("big-5") && !key.may_use("small") && !key.may_use("") && key.may_ask_for("chat"));
    for wrong in [&b""[..], b"pvk_", &secret.expose()[1..], &[secret.expose(), b"x"].concat()] {
        assert!(directory.find(wrong).is_none());
        assert!(directory.actor(secret.expose()).is_none(), "a virtual key is no admin token");
    }
    for (kind, id, change, why) in [
        (Kind::VirtualKey, "k", json!({"enabled": false}), Some("disabled")),
        (Kind::VirtualKey, "k", json!({"enabled": null, "expires_unix_s": 1}), Some("expired")),
        (Kind::VirtualKey, "k", json!({"expires_unix_s": null}), None),
        (Kind::Team, "red", json!({"enabled": false}), Some("team-disabled")),
        (Kind::Team, "red", json!({"enabled": true, "models": ["big-4"]}), None),
    ] {
        patch(&directory, kind, id, change).await.unwrap();
        assert_eq!(find().unwrap().refusal(clock::unix_s()), why);
    }
    assert!(find().unwrap().may_use("big-4") && !find().unwrap().may_use("big-5"), "a team's list holds as well");
    let delete = |kind, id: &str| Change::Delete { kind, id: id.to_owned(), expected: None };
    assert_eq!(refused(&directory, delete(Kind::Team, "red")).await, "dangling");
    directory.change(admin(), delete(Kind::VirtualKey, "k")).await.unwrap();
    assert!(find().is_none());
    directory.change(admin(), delete(Kind::Team, "red")).await.unwrap();
}

#[tokio::test]
async fn after_a_rotation_the_old_secret_is_accepted_for_the_overlap_only() {
    let directory = Directory::in_memory().unwrap();
    let first = make(&directory, Kind::VirtualKey, "k", json!({"name": "a"})).await.minted.unwrap();
    let rotate = async |overlap_s| {
        let change =
            Change::Rotate { kind: Kind::VirtualKey, id: "k".to_owned(), secret: None, overlap_s, expected: None };
        directory.change(admin(), change).await.unwrap().minted.unwrap()
    };
    let second = rotate(3600).await;
    assert!(directory.find(first.expose()).is_some() && directory.find(second.expose()).is_some());
    assert!(directory.view().find(first.expose(), clock::unix_s() + 3601).is_none(), "its time is over");
    let third = rotate(0).await;
    assert!(directory.find(first.expose()).is_none() && directory.find(second.expose()).is_none());
    assert_eq!(directory.find(third.expose()).unwrap().1, None);
}

#[tokio::test]
async fn a_change_upon_another_version_is_refused_and_versions_are_never_used_twice() {
    let directory = Directory::in_memory().unwrap();
    let change = |version| Change::Put {
        kind: Kind::Feature,
        id: "f".to_owned(),
        settings: json!({"operation": "chat"}),
        expected: version,
    };
    assert_eq!(refused(&directory, change(Some(7))).await, "version");
    let made = directory.change(admin(), change(Some(0))).await.unwrap();
    assert!(made.is_new);
    let version = made.document.version;
    assert_eq!(refused(&directory, change(Some(version + 1))).await, "version");
    let next = directory.change(admin(), change(Some(version))).await.unwrap();
    assert!(next.document.version > version && !next.is_new);
    let delete = Change::Delete { kind: Kind::Feature, id: "f".to_owned(), expected: None };
    directory.change(admin(), delete).await.unwrap();
    assert!(directory.change(admin(), change(None)).await.unwrap().document.version > next.document.version);
}

#[tokio::test]
async fn rules_of_a_call_are_those_of_its_key_and_team_or_the_default_plan() {
    let directory = Directory::in_memory().unwrap();
    let plan = json!({"name": "plan", "counted": "requests", "limit": 60, "burst": 10, "default": true});
    make(&directory, Kind::Limit, "plan", plan).await;
    let tokens = json!({"counted": "tokens", "limit": 1000, "window_s": 3600, "algorithm": "fixed-window", "models": ["big-*"], "per": ["model"]});
    make(&directory, Kind::Limit, "tokens", tokens).await;
    make(&directory, Kind::Limit, "at-once", json!({"counted": "concurrency", "limit": 2})).await;
    make(&directory, Kind::Budget, "purse", json!({"usd": 1.5})).await;
    make(&directory, Kind::Team, "red", json!({"limits": ["tokens"], "budgets": ["purse"]})).await;
    make(&directory, Kind::VirtualKey, "plain", json!({"name": "plain"})).await;
    make(&directory, Kind::VirtualKey, "own", json!({"name": "own", "team": "red", "limits": ["at-once"]})).await;
    let of = |key: &str, model: &str| {
        let (key, asked) = (directory.key(key).unwrap(), Asked { model, route: "ai" });
        let shown = |rule: &Arc<rules::Rule>| {
            format!("{} {} {} {}/{}", rule.counter(asked), rule.algorithm, rule.counted, rule.limit, rule.window_ms)
        };
        key.rules_of(asked).map(shown).collect::<Vec<_>>()
    };
    assert_eq!(of("plain", "x"), ["key:plain/plan token-bucket requests 60/60000"]);
    assert_eq!(
        of("own", "big-5"),
        [
            "key:own/at-once concurrency requests 2/0",
            "team:red/tokens/big-5 fixed-window tokens 1000/3600000",
            "team:red/purse total cost 1500000000/0",
        ]
    );
    assert_eq!(of("own", "x").len(), 2, "a limit for some models does not hold for others");
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_without_a_readable_secret_in_any_file() {
    let state = tempfile::tempdir().unwrap();
    let directory = Directory::open(state.path(), None).unwrap();
    let minted = make(&directory, Kind::VirtualKey, "k", json!({"name": "a"})).await.minted.unwrap();
    let token = make(&directory, Kind::AdminToken, "t", json!({"name": "bob", "role": "viewer"})).await.minted.unwrap();
    let planted = b"sk-planted-vendor-key";
    let change = Change::Create {
        kind: Kind::VendorKey,
        id: Some("v".to_owned()),
        settings: json!({"vendor": "acme", "key_name": "main", "tier": "backup"}),
        secret: Some(Secret::new(planted.to_vec())),
    };
    directory.change(admin(), change).await.unwrap();
    let who = usage::Who { key: "k", ..usage::Who::default() };
    directory.usage().count(who, usage::Used { input_tokens: 5, ..usage::Used::default() }, clock::unix_s());
    directory.flush().await;
    assert!(Directory::open(state.path(), None).err().unwrap().contains("another gateway"));
    drop(directory);

    let directory = Directory::open(state.path(), None).unwrap();
    assert!(directory.find(minted.expose()).is_some());
    assert_eq!(directory.actor(token.expose()).unwrap().role, Role::Viewer);
    let pool = directory.view().pool("acme").unwrap().clone();
    assert_eq!((pool[0].secret.expose(), pool[0].tier), (&planted[..], settings::Tier::Backup));
    assert_eq!(directory.used(0, u64::MAX - 1).await.unwrap()[0].input_tokens, 5);
    let lines = directory.audit(Query { limit: 10, ..Query::default() }).await.unwrap();
    let told: Vec<_> = lines.iter().map(|line| (line.number, &*line.action, &*line.id, &*line.actor)).collect();
    assert_eq!(told, [(3, "create", "v", "test"), (2, "create", "t", "test"), (1, "create", "k", "test")]);
    let of_key = Query { limit: 10, kind: Some("virtual-key".to_owned()), ..Query::default() };
    assert_eq!(directory.audit(of_key).await.unwrap().len(), 1);
    drop(directory);

    for entry in std::fs::read_dir(state.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        for secret in [minted.expose(), token.expose(), planted] {
            assert!(memchr::memmem::find(&bytes, secret).is_none(), "{}", path.display());
        }
    }
    std::fs::write(state.path().join(seal::FILE), "0".repeat(64)).unwrap();
    let problem = Directory::open(state.path(), None).err().unwrap();
    assert!(problem.contains("cannot be opened with this master key"), "{problem}");
}
