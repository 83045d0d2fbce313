// SPDX-License-Identifier: Apache-2.0
//! Promises of reading policy files.

use std::fs;
use std::sync::Arc;

use penstock_prices::table::Table;

use super::Place;
use super::load::{self, Policy};
use super::place::{Problem, Sources};

fn parse(files: &[(&str, &str)]) -> Result<Policy, Vec<Problem>> {
    load::parse(Sources::new(files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))))
}

#[test]
fn the_built_in_policies_are_good_short_and_on_loopback() {
    let policy = load::load(None).unwrap();
    assert!(policy.config.vendors.len() >= 9);
    let is_loopback = |place: &Place| matches!(place, Place::Network(address) if address.ip().is_loopback());
    assert!(policy.config.listeners.iter().all(|listener| is_loopback(&listener.address)));
    assert!(policy.config.admin.address.ip().is_loopback());
    for (name, text) in policy.sources.files().filter(|(name, _)| name.contains("/vendors/")) {
        assert!(text.lines().count() < 30, "{name}");
    }
    let keyless = policy.config.vendors.values().filter(|vendor| vendor.key.is_none());
    assert!(keyless.clone().count() >= 3);
    assert!(policy.config.vendors.values().all(|vendor| vendor.key.is_none() || vendor.optional));
}

#[test]
fn the_built_in_policies_are_all_of_the_policies_directory() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let on_disk = load::read(Some(&directory)).unwrap();
    let text = |sources: &Sources| {
        let policies = sources.files().filter(|(name, _)| !name.contains("policies/prices/"));
        policies.map(|(_, text)| text.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(text(&on_disk), text(&load::embedded()));
    let mut prices = Table::default();
    let written = load::load(Some(&directory)).unwrap().config.prices;
    prices.put(written.into_iter().map(|(name, price)| (name, Arc::new(price.into_inner()))));
    assert_eq!(prices.len(), load::built_in_prices().len());
    assert!(prices.len() > 1_000, "{}", prices.len());
}

#[test]
fn a_price_is_read_from_a_policy_and_what_is_wrong_with_it_has_its_place() {
    let policy = parse(&[("p.toml", "[prices.\"v/m\"]\ninput = 1.5\nbatch = { input = 0.75 }\n")]).unwrap();
    assert_eq!(policy.config.prices["v/m"].get_ref().rates.of[0].1.to_string(), "1.5");
    for (text, place, message) in [
        ("[prices]\n\"v/m\" = { input = 1, ouput = 2 }\n", "p.toml:2:22", "unknown key `ouput`"),
        ("[prices.\"v/m\"]\ninput = -1\n", "p.toml:2:9", "not below zero"),
        ("[prices.\"v/m\"]\nflex = { images = {} }\n", "p.toml:2:10", "unknown key `images`"),
    ] {
        let problems = parse(&[("p.toml", text)]).unwrap_err();
        assert_eq!(problems[0].place, place, "{problems:?}");
        assert!(problems[0].message.contains(message), "{problems:?}");
    }
}

#[test]
fn every_example_is_a_whole_policy() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/examples");
    for example in fs::read_dir(examples).unwrap() {
        let path = example.unwrap().path();
        assert!(!load::load(Some(&path)).unwrap().config.routes.is_empty(), "{}", path.display());
    }
}

#[test]
fn files_are_united_and_spans_tell_them_apart() {
    let a = "[vendors.a]\nadapter = \"x\"\n[limits]\nattempts_max = 2\n[[routes]]\nname = \"r\"\npath = \"/a\"\n";
    let b = "[vendors.b]\n\nadapter = \"y\"\n[limits]\nstreams_max = 3\n[[routes]]\nname = \"s\"\npath = \"/b\"\n";
    let policy = parse(&[("a.toml", a), ("b.toml", b)]).unwrap();
    let config = &policy.config;
    assert_eq!((config.limits.attempts_max, config.limits.streams_max), (2, 3));
    assert_eq!(policy.sources.place_of(&config.vendors["a"].adapter), "a.toml:2:11");
    assert_eq!(policy.sources.place_of(&config.vendors["b"].adapter), "b.toml:3:11");
    assert_eq!(policy.sources.place_of(&config.routes[1].path), "b.toml:8:8");
}

/// Each: the files, then what the problems must contain, in order.
#[test]
fn a_mistake_is_shown_with_its_place_and_its_cure() {
    type Mistake<'m> = (&'m [(&'m str, &'m str)], &'m [&'m str]);
    #[rustfmt::skip]
    let cases: &[Mistake<'_>] = &[
        (&[("a.toml", "x = \n")], &["a.toml:1:5: "]),
        (&[("a.toml", "ok"), ("b.toml", "[[")], &["a.toml:1:3: ", "b.toml:1:3: "]),
        (&[("a.toml", "[vendor.x]\n")], &["a.toml:1:2: unknown section `vendor`: did you mean `vendors`?"]),
        (&[("a.toml", "[vendors.x]\nadaptor = \"e\"\n")], &["a.toml:2:1: unknown key `adaptor`: did you mean `adapter`?"]),
        (&[("a.toml", "[vendors.x]\nmodels = []\n")], &["a.toml:1:1: the key `adapter` is missing: add a line `adapter = …`"]),
        (&[("a.toml", "[limits]\nstreams_max = \"many\"\n")], &["a.toml:2:15: invalid type: string \"many\", expected u32"]),
        (&[("a.toml", "[limits]\nstreams_max = -1\n")], &["a.toml:2:15: "]),
        (&[("a.toml", "[vendors.x]\nadapter = \"e\"\nisolation = \"reqest\"\n")], &["a.toml:3:13: unknown value `reqest`: did you mean `request`?"]),
        (&[("a.toml", "[vendors.x]\nadapter=\"e\"\n"), ("b.toml", "\n[vendors.x]\nadapter=\"f\"\n")],
            &["b.toml:2:10: `vendors.x` is written twice: the first one is at a.toml:1:10; remove one of them"]),
        (&[("a.toml", "[limits]\nstreams_max=1\n"), ("b.toml", "[limits]\nstreams_max=1\n")],
            &["b.toml:2:1: `limits.streams_max` is written twice: the first one is at a.toml:2:1"]),
        (&[("a.toml", "routes = 1\n")], &["a.toml:1:1: `routes` must be [[routes]]"]),
        (&[("a.toml", "[[limits]]\n")], &["a.toml:1:3: `limits` must be [limits]"]),
        (&[("a.toml", "[vendors.\"a/b\"]\nadapter=\"e\"\n")], &["a.toml:1:10: `a/b` cannot be a name in [vendors]"]),
        (&[("a.toml", "[[listeners]]\naddress = \"localhost\"\n")], &["a.toml:2:11: write an IP address and a port"]),
        (&[("a.toml", "[vendors.x]\nq=1\n[vendors.y]\nr=1\n")], &["a.toml:2:1: ", "a.toml:4:1: "]),
    ];
    for (files, wanted) in cases {
        let problems = parse(files).unwrap_err();
        let shown: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(shown.len(), wanted.len(), "{shown:#?}");
        for (shown, wanted) in shown.iter().zip(*wanted) {
            assert!(shown.starts_with(wanted), "{shown}\nis not\n{wanted}");
        }
    }
}

#[test]
fn a_directory_is_read_in_order_without_hidden_backup_and_example_files() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir_all(root.join("vendors")).unwrap();
    fs::create_dir_all(root.join("examples")).unwrap();
    fs::create_dir_all(root.join(".git")).unwrap();
    for name in [
        "z.toml",
        "a.toml",
        "vendors/m.toml",
        "a.toml~",
        ".hidden.toml",
        ".git/x.toml",
        "notes.md",
        "a.toml.bak",
        "examples/e.toml",
    ] {
        fs::write(root.join(name), "").unwrap();
    }
    let sources = load::read(Some(root)).unwrap();
    let names: Vec<_> = sources.files().map(|(name, _)| name.strip_prefix(root.to_str().unwrap()).unwrap()).collect();
    assert_eq!(names, ["/a.toml", "/vendors/m.toml", "/z.toml"]);
    assert_eq!(load::read(Some(&root.join("examples"))).unwrap().files().count(), 1);
}

#[test]
fn what_cannot_be_read_is_a_problem_that_names_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let check = |path: &std::path::Path, message: &str| {
        let problems = load::read(Some(path)).unwrap_err();
        assert!(problems[0].place.starts_with(root.to_str().unwrap()), "{problems:?}");
        assert!(problems[0].message.contains(message), "{problems:?}");
    };
    check(&root.join("nowhere"), "No such file");
    check(root, "no .toml file");
    fs::write(root.join("bad.toml"), b"x = \"\xff\"").unwrap();
    check(root, "not UTF-8 from byte 5 on");
    fs::write(root.join("bad.toml"), vec![b'#'; usize::try_from(load::FILE_BYTES_MAX).unwrap() + 1]).unwrap();
    check(root, "larger than");
}

#[test]
fn no_input_makes_it_panic() {
    let seeds: Vec<Vec<u8>> = load::embedded().files().map(|(_, text)| text.as_bytes().to_vec()).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).unwrap()
    };
    let pieces: [&[u8]; 10] = [b"[", b"]]", b"\"", b"=", b"{", b"\n[[routes]]\n", b"\xc3", b"\xff", b"\r", b"'''"];
    for _ in 0..4000 {
        let mut bytes = seeds[next(seeds.len())].clone();
        for _ in 0..=next(4) {
            let at = next(bytes.len() + 1);
            match next(3) {
                0 => bytes.truncate(at),
                1 => drop(bytes.splice(at..at, pieces[next(pieces.len())].iter().copied())),
                _ => drop(bytes.splice(at..(at + next(9)).min(bytes.len()), [u8::try_from(next(256)).unwrap()])),
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Err(problems) = load::parse(Sources::new([("a".to_owned(), "# a\n".to_owned()), ("b".to_owned(), text)]))
        {
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|problem| problem.place.starts_with("b:")), "{problems:?}");
        }
    }
    for deep in [
        "[".repeat(100_000),
        "a = ".to_owned() + &"[".repeat(100_000),
        "a.".repeat(100_000),
        "a = {a = ".repeat(100_000),
    ] {
        let _ = parse(&[("deep", &deep)]);
    }
}
