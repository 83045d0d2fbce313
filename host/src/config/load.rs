// SPDX-License-Identifier: Apache-2.0
//! Policy files to [`Config`]: found, read, parsed and merged, or refused with every place that is wrong.
//!
//! Named things of all files are united, lists are joined in the order of the files' names, and nothing may be said twice.
//! What the names refer to is not looked at here; that is the snapshot's part.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use penstock_prices::table::Table;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::place::{Problem, Sources};
use super::{Config, suggest};

/// Largest policy file, in bytes. Not in [`super::Limits`], which is read from the files that this bounds.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Policy files in a directory.
pub const FILES_MAX: usize = 1_000;
/// Directories within directories.
pub const DEPTH_MAX: usize = 8;
/// The policy file that is a node's own where others are those of a cluster.
pub const NODE_FILE: &str = "node.toml";
/// What names of a cluster's policy files begin with, where they are shown.
pub const SHARED: &str = "cluster/";
/// Problems that are reported at a time.
const PROBLEMS_MAX: usize = 100;

/// The policies that are built in, as name and text (host/build.rs lists them).
const EMBEDDED: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/policies.rs"));

/// Where the built-in tables of prices are among [`EMBEDDED`].
const PRICES: &str = "prices/";

/// The built-in prices, which hold whatever the policies are.
static BUILT_IN_PRICES: LazyLock<Arc<Table>> = LazyLock::new(|| {
    let files = EMBEDDED.iter().filter(|(name, _)| name.starts_with(PRICES));
    let parsed = parse(Sources::new(files.map(|(name, text)| (format!("built-in/{name}"), (*text).to_owned()))));
    let mut table = Table::default();
    match parsed {
        Ok(policy) => {
            table.put(policy.config.prices.into_iter().map(|(name, price)| (name, Arc::new(price.into_inner()))));
        }
        Err(problems) => tracing::error!("the built-in prices cannot be read: {problems:?}"),
    }
    Arc::new(table)
});

/// The built-in prices; read at the first use.
pub fn built_in_prices() -> &'static Arc<Table> {
    &BUILT_IN_PRICES
}

/// A configuration with the text that it was read from.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// What the files say.
    pub config: Config,
    /// The files.
    pub sources: Sources,
}

/// The policy of a file or directory; without one, what is built in.
pub fn load(path: Option<&Path>) -> Result<Policy, Vec<Problem>> {
    parse(read(path)?)
}

/// The files of a policy as they are, unparsed.
///
/// A directory is read with the directories in it, in the order of the names. Read is what ends in `.toml`, except hidden
/// files; a directory called `examples` is left out, unless it is itself the one asked for.
pub fn read(path: Option<&Path>) -> Result<Sources, Vec<Problem>> {
    let Some(path) = path else { return Ok(embedded()) };
    let mut paths = Vec::new();
    let whole =
        |error: std::io::Error| vec![Problem::new(shown(path), error.to_string(), "give --policies a directory")];
    if std::fs::metadata(path).map_err(whole)?.is_dir() {
        find(path, 0, &mut paths).map_err(|problem| vec![problem])?;
        if paths.is_empty() {
            return Err(vec![Problem::new(
                shown(path),
                "there is no .toml file",
                "put policy files there, or leave out --policies",
            )]);
        }
    } else {
        paths.push(path.to_owned());
    }
    let mut problems = Vec::new();
    let mut files = Vec::with_capacity(paths.len());
    for path in &paths {
        match text_of(path) {
            Ok(text) => files.push((shown(path), text)),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(Sources::new(files)) } else { Err(problems) }
}

/// Whether no policy file there was written within this time. One from the future has been settled by a clock that went back.
#[must_use]
pub fn is_settled(path: &Path, since: Duration) -> bool {
    let mut paths = Vec::new();
    if !path.is_dir() || find(path, 0, &mut paths).is_err() {
        paths.push(path.to_owned());
    }
    let age = |path: &PathBuf| SystemTime::now().duration_since(std::fs::metadata(path).ok()?.modified().ok()?).ok();
    paths.iter().filter_map(age).all(|age| age >= since)
}

/// Policy files by their names below the policy directory.
pub type Files = BTreeMap<String, String>;

/// The files of a node of a cluster: its own one ([`NODE_FILE`]) of the directory, and those of the cluster, as the file
/// `copy` has them. As long as the cluster has none, those of the directory.
///
/// # Errors
/// As [`read`], also about the copy.
pub fn read_shared(directory: &Path, copy: &Path) -> Result<Sources, Vec<Problem>> {
    let problem = |message: String| {
        let help = "remove it with the directory that it is in, and the node takes everything from the cluster anew";
        vec![Problem::new(shown(copy), message, help)]
    };
    let shared: Files = match std::fs::read(copy) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| problem(error.to_string()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Files::new(),
        Err(error) => return Err(problem(error.to_string())),
    };
    if shared.is_empty() {
        return read(Some(directory));
    }
    let own = text_of(&directory.join(NODE_FILE)).map_err(|problem| vec![problem])?;
    let own = (shown(&directory.join(NODE_FILE)), own);
    let shared = shared.into_iter().map(|(name, text)| (format!("{SHARED}{name}"), text));
    Ok(Sources::new(std::iter::once(own).chain(shared)))
}

/// The files of a policy directory by their names in it.
///
/// # Errors
/// As [`read`].
pub fn files(directory: &Path) -> Result<Files, Vec<Problem>> {
    let begin = directory.join("").display().to_string();
    let sources = match read(Some(directory)) {
        Ok(sources) => sources,
        // Nothing is there but what other nodes give.
        Err(_) if std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none()) => {
            return Ok(Files::new());
        }
        Err(problems) => return Err(problems),
    };
    let named = |(name, text): (&str, &str)| (name.strip_prefix(&begin).unwrap_or(name).to_owned(), text.to_owned());
    Ok(sources.files().map(named).collect())
}

/// The policies that are built in, without the prices.
pub fn embedded() -> Sources {
    let files = EMBEDDED.iter().filter(|(name, _)| !name.starts_with(PRICES));
    Sources::new(files.map(|(name, text)| (format!("built-in/{name}"), (*text).to_owned())))
}

/// Whether a name is that of a policy file: changes of others need not be looked at.
pub fn is_policy_name(name: &str) -> bool {
    name.ends_with(".toml") && !name.starts_with('.')
}

/// The configuration that these files make together.
pub fn parse(sources: Sources) -> Result<Policy, Vec<Problem>> {
    let mut merge = Merge { sources: &sources, sections: BTreeMap::new(), named: HashMap::new(), problems: Vec::new() };
    for (_, text, base) in sources.based() {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            merge.report(error, base);
        }
        if !errors.is_empty() {
            continue; // what follows a syntax error is guesswork
        }
        for (key, value) in table.into_inner() {
            let key = Spanned::new(shift(key.span(), base), key.into_inner().into_owned());
            merge.add(&key, shifted(value, base));
        }
    }
    let (config, mut problems) = merge.finish();
    problems.sort_by_key(|(at, _)| *at);
    let mut problems: Vec<Problem> = problems.into_iter().map(|(_, problem)| problem).collect();
    if problems.is_empty() {
        return Ok(Policy { config, sources });
    }
    problems.truncate(PROBLEMS_MAX);
    Err(problems)
}

/// What a section is, and so how it is merged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Keys with one value each.
    Scalars,
    /// Things by name.
    Named,
    /// A list.
    List,
}

const SECTIONS: [(&str, Kind); 18] = [
    ("admin", Kind::Scalars),
    ("auth", Kind::Scalars),
    ("cluster", Kind::Scalars),
    ("jobs", Kind::Scalars),
    ("limits", Kind::Scalars),
    ("listeners", Kind::List),
    ("models", Kind::Named),
    ("plugins", Kind::Named),
    ("prices", Kind::Named),
    ("routes", Kind::List),
    ("sandbox", Kind::Scalars),
    ("secrets", Kind::Named),
    ("services", Kind::Named),
    ("state", Kind::Scalars),
    ("timeouts", Kind::Scalars),
    ("traces", Kind::Scalars),
    ("trust", Kind::Scalars),
    ("vendors", Kind::Named),
];

type Key = Spanned<String>;
type Value<'i> = Spanned<DeValue<'i>>;

/// The sections of all files so far: the things in them with their keys; list items have none.
struct Merge<'s> {
    sources: &'s Sources,
    sections: BTreeMap<&'static str, Vec<(Option<Key>, Value<'s>)>>,
    /// Where names were given, by section and name.
    named: HashMap<(&'static str, String), std::ops::Range<usize>>,
    /// With the offset of the place, for their order.
    problems: Vec<(usize, Problem)>,
}

impl<'s> Merge<'s> {
    fn add(&mut self, key: &Key, value: Value<'s>) {
        let Some((section, kind)) = SECTIONS.into_iter().find(|(name, _)| name == key.get_ref()) else {
            let message = format!("unknown section `{}`", key.get_ref());
            let help = suggest::help(key.get_ref(), SECTIONS.map(|(name, _)| name));
            return self.problem(key, message, help);
        };
        let (found, items) = match (kind, value.into_inner()) {
            (Kind::List, DeValue::Array(items)) => {
                self.sections.entry(section).or_default().extend(items.into_iter().map(|item| (None, item)));
                return;
            }
            (Kind::Scalars | Kind::Named, DeValue::Table(items)) => (true, items),
            _ => (false, DeTable::new()),
        };
        if !found {
            let wanted = if kind == Kind::List { format!("[[{section}]]") } else { format!("[{section}]") };
            return self.problem(
                key,
                format!("`{section}` must be {wanted}"),
                format!("write {wanted} on a line of its own"),
            );
        }
        for (name, item) in items {
            let name = Spanned::new(name.span(), name.into_inner().into_owned());
            self.add_named(section, name, item);
        }
    }

    fn add_named(&mut self, section: &'static str, name: Key, item: Value<'s>) {
        let place = (section, name.get_ref().clone());
        if let Some(first) = self.named.insert(place.clone(), name.span()) {
            let message = format!("`{section}.{}` is written twice", name.get_ref());
            let help = format!("the first one is at {}; remove one of them", self.sources.place(first.clone()));
            self.named.insert(place, first);
            return self.problem(&name, message, help);
        }
        self.sections.entry(section).or_default().push((Some(name), item));
    }

    fn finish(mut self) -> (Config, Vec<(usize, Problem)>) {
        let config = Config {
            admin: self.scalars("admin"),
            auth: self.scalars("auth"),
            listeners: self.list("listeners"),
            jobs: self.scalars("jobs"),
            limits: self.scalars("limits"),
            timeouts: self.scalars("timeouts"),
            state: self.scalars("state"),
            traces: self.scalars("traces"),
            cluster: self.scalars("cluster"),
            sandbox: self.scalars("sandbox"),
            trust: self.scalars("trust"),
            secrets: self.named("secrets"),
            plugins: self.named("plugins"),
            vendors: self.named("vendors"),
            models: self.named("models"),
            prices: self.named("prices"),
            services: self.named("services"),
            routes: self.list("routes"),
        };
        (config, self.problems)
    }

    fn scalars<T: DeserializeOwned + Default>(&mut self, section: &'static str) -> T {
        let Some(items) = self.sections.remove(section) else { return T::default() };
        let mut table = DeTable::new();
        for (key, item) in items {
            let Some(key) = key else { continue };
            table.insert(Spanned::new(key.span(), key.into_inner().into()), item);
        }
        self.read(Spanned::new(0..0, DeValue::Table(table))).unwrap_or_default()
    }

    fn list<T: DeserializeOwned>(&mut self, section: &'static str) -> Vec<T> {
        let items = self.sections.remove(section).unwrap_or_default();
        items.into_iter().filter_map(|(_, item)| self.read(item)).collect()
    }

    fn named<T: DeserializeOwned>(&mut self, section: &'static str) -> BTreeMap<String, T> {
        let items = self.sections.remove(section).unwrap_or_default();
        let mut named = BTreeMap::new();
        for (key, item) in items {
            let Some(key) = key else { continue };
            if let Some(why) = bad_name(section, key.get_ref()) {
                self.problem(&key, format!("`{}` cannot be a name in [{section}]", key.get_ref()), why);
            } else if let Some(thing) = self.read(item) {
                named.insert(key.into_inner(), thing);
            }
        }
        named
    }

    fn read<T: DeserializeOwned>(&mut self, value: Value<'s>) -> Option<T> {
        let whole = value.span();
        T::deserialize(ValueDeserializer::from(value))
            .map_err(|error| self.report_at(&error, error.span().unwrap_or(whole)))
            .ok()
    }

    fn report(&mut self, error: &toml::de::Error, base: usize) {
        self.report_at(error, shift(error.span().unwrap_or(0..0), base));
    }

    fn report_at(&mut self, error: &toml::de::Error, span: std::ops::Range<usize>) {
        let (message, help) = reworded(error.message());
        self.problems.push((span.start, Problem { place: self.sources.place(span), message, help }));
    }

    fn problem(&mut self, key: &Key, message: String, help: String) {
        self.problems.push((key.span().start, Problem { place: self.sources.place_of(key), message, help }));
    }
}

/// Why this cannot be a name. Models' names are the vendors' own and may hold nearly anything.
fn bad_name(section: &str, name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 200 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Some("a name has 1 to 200 bytes, no blanks and no control characters".to_owned())
    } else if !matches!(section, "models" | "prices") && !name.chars().all(plain) {
        Some("use ASCII letters, digits, `-`, `_` and `.`".to_owned())
    } else {
        None
    }
}

/// Serde's words in ours, with a suggestion for a name that is not known.
fn reworded(message: &str) -> (String, String) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let first = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    if message.starts_with("unknown field") {
        (format!("unknown key `{first}`"), suggest::help(first, known))
    } else if message.starts_with("unknown variant") {
        (format!("unknown value `{first}`"), suggest::help(first, known))
    } else if message.starts_with("missing field") {
        (format!("the key `{first}` is missing"), format!("add a line `{first} = …`"))
    } else {
        (message.trim_end().replace('\n', ", "), String::new())
    }
}

fn shift(span: std::ops::Range<usize>, base: usize) -> std::ops::Range<usize> {
    span.start + base..span.end + base
}

/// The same value with all its spans moved; its depth is bounded by the parser.
fn shifted(value: Value<'_>, base: usize) -> Value<'_> {
    let span = shift(value.span(), base);
    let moved = match value.into_inner() {
        DeValue::Array(items) => DeValue::Array(items.into_iter().map(|item| shifted(item, base)).collect()),
        DeValue::Table(table) => DeValue::Table(
            table
                .into_iter()
                .map(|(key, item)| (Spanned::new(shift(key.span(), base), key.into_inner()), shifted(item, base)))
                .collect(),
        ),
        scalar => scalar,
    };
    Spanned::new(span, moved)
}

fn find(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Problem> {
    let problem = |path: &Path, error: std::io::Error| Problem::new(shown(path), error.to_string(), "");
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| problem(directory, error))? {
        entries.push(entry.map_err(|error| problem(directory, error))?.path());
    }
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let is_dir = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.is_dir(),
            Err(_) if !is_policy_name(&name) => continue, // a dangling link of no interest
            Err(error) => return Err(problem(&path, error)),
        };
        if is_dir && name != "examples" {
            if depth == DEPTH_MAX {
                return Err(Problem::new(
                    shown(&path),
                    format!("more than {DEPTH_MAX} directories deep"),
                    "move the files up",
                ));
            }
            find(&path, depth + 1, found)?;
        } else if !is_dir && is_policy_name(&name) {
            if found.len() == FILES_MAX {
                return Err(Problem::new(
                    shown(directory),
                    format!("more than {FILES_MAX} policy files"),
                    "join some of them",
                ));
            }
            found.push(path);
        }
    }
    Ok(())
}

fn text_of(path: &Path) -> Result<String, Problem> {
    let problem = |message: String, help: &str| Problem::new(shown(path), message, help);
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| problem(error.to_string(), ""))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(problem(format!("larger than {FILE_BYTES_MAX} bytes"), "split the file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let place = format!("not UTF-8 from byte {} on", error.utf8_error().valid_up_to());
        problem(place, "save the file as UTF-8")
    })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
