// SPDX-License-Identifier: Apache-2.0
//! Recorded answers that state what they cost are the judges of the price tables: where a table knows the model, what we
//! compute from the buckets of the usage must be what the vendor charged, within two in a hundred.
//!
//! Prices change, and recordings do not: [`DIFFERENT`] has prices that held when something was recorded, or that a reseller
//! makes itself. A difference that one of them explains is noted; every other one fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use penstock_dialects::codec::Codec;
use penstock_dialects::conformance::stream_kind;
use penstock_dialects::framing::Frame;
use penstock_dialects::ir::Usage;
use penstock_prices::cost::{self, Made};
use penstock_prices::money::Usd;
use penstock_prices::price::{Price, Rate};
use penstock_prices::stated;
use penstock_prices::table::Table;

use super::case::Case;
use super::splits;
use crate::prices::FOLDER;

/// What the tables do not say, by the names of models, with the reason.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("xai/grok-code-fast-1", "input = 0.2\noutput = 1.5\ncache_read = 0.02", "its price until 2026"),
    ("xai/grok-imagine-image-pro", "image = 0.07", "its price until 2026"),
    (
        "openrouter/openai/gpt-5.6-sol",
        "input = 5\noutput = 30\ncache_read = 0.5\ncache_write = 6.25",
        "its price when it came out",
    ),
    (
        "openrouter/openai/gpt-4.1-mini",
        "input = 0.4\noutput = 1.6\ntools = { web_search = 0.01 }",
        "the reseller has its own price of a search",
    ),
];

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Answers that state a cost.
    pub(super) stated: usize,
    /// Those of a model that the tables know.
    pub(super) known: usize,
    /// Those whose cost is right.
    pub(super) right: usize,
    /// What differs for a reason.
    pub(super) noted: Vec<String>,
    /// What differs without one.
    pub(super) failed: Vec<String>,
    /// Models that no table knows, with how many answers.
    pub(super) unknown: BTreeMap<String, usize>,
}

/// The tables of `policies/prices`.
///
/// # Errors
/// When one of them cannot be read.
pub(super) fn table(root: &Path) -> anyhow::Result<Table> {
    #[derive(serde::Deserialize)]
    struct File {
        prices: BTreeMap<String, Price>,
    }
    let mut table = Table::default();
    let folder = root.join(FOLDER);
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: File = toml::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
        table.put(file.prices.iter().map(|(name, price)| (name.as_str(), Arc::new(price.clone()))));
    }
    Ok(table)
}

/// Compares every stated cost with the computed one.
pub(super) fn check(cases: &[Case], table: &Table) -> Tally {
    let mut tally = Tally::default();
    for case in cases.iter().filter(|case| (200..300).contains(&case.status)) {
        let Some(usage) = usage(case) else { continue };
        let Some(stated) = stated::cost(&usage.stated) else { continue };
        tally.stated += 1;
        judge(case, &usage, stated, table, &mut tally);
    }
    tally
}

/// Prints what came of it, and how many exchanges failed.
pub(super) fn print(tally: &Tally) -> usize {
    let Tally { stated, known, right, noted, failed, unknown } = tally;
    println!(
        "\nprices: {stated} answers state their cost; {known} of them are of a model with a price, {right} within 2 %"
    );
    noted.iter().for_each(|line| println!("noted {line}"));
    failed.iter().for_each(|line| println!("FAILED {line}"));
    unknown.iter().for_each(|(model, count)| println!("without a price {model}: {count}"));
    failed.len()
}

fn judge(case: &Case, usage: &Usage, stated: Usd, table: &Table, tally: &mut Tally) {
    let name = format!("{}/{}", case.vendor, case.model);
    let Some(price) = table.find(&case.vendor, &case.model) else {
        *tally.unknown.entry(name).or_default() += 1;
        return;
    };
    tally.known += 1;
    let computed = cost::by(price, usage, &Made::default());
    if is_near(computed, stated) {
        tally.right += 1;
        return;
    }
    let line = format!("{}: prices: {name}: {computed} computed, {stated} stated", case.name);
    match explained(&name, usage, stated).or_else(|| on_top(price, usage, stated)) {
        Some(why) => tally.noted.push(format!("{line}: {why}")),
        None => tally.failed.push(format!("{line}: {}", usage.stated)),
    }
}

/// Within two in a hundred.
fn is_near(computed: Usd, stated: Usd) -> bool {
    let (low, high) = if computed < stated { (computed, stated) } else { (stated, computed) };
    high.times(100) <= low.times(102)
}

/// Whether a different price makes what is stated, and why that is no surprise.
fn explained(name: &str, usage: &Usage, stated: Usd) -> Option<&'static str> {
    let (_, price, why) = DIFFERENT.iter().find(|(known, ..)| *known == name)?;
    let price: Price = toml::from_str(price).ok()?;
    is_near(cost::by(&price, usage, &Made::default()), stated).then_some(*why)
}

/// Vercel's gateway counts reasoning within the output, or nowhere, and charges it on top of that.
fn on_top(price: &Price, usage: &Usage, stated: Usd) -> Option<&'static str> {
    let own: serde_json::Value = serde_json::from_str(&usage.stated).ok()?;
    let reasoning = own["completion_tokens_details"]["reasoning_tokens"].as_u64()?;
    let mut usage = usage.clone();
    usage.more.push((Rate::Hidden.bucket().to_owned(), reasoning));
    let is_so = reasoning > 0 && is_near(cost::by(price, &usage, &Made::default()), stated);
    is_so.then_some("the vendor charges for reasoning on top of the output that it counts")
}

/// The usage of an answer, by the codec of its protocol; what has no protocol of its own has OpenAI's members.
fn usage(case: &Case) -> Option<Usage> {
    let protocol = case.protocol.as_deref().unwrap_or("openai-chat");
    let codec = penstock_dialects::by_name(protocol)?;
    if case.streamed { streamed(case, codec) } else { codec.whole_usage(&case.body) }
}

fn streamed(case: &Case, codec: &'static dyn Codec) -> Option<Usage> {
    let mut tap = codec.tap();
    for (name, data) in splits::frames_of(stream_kind(codec, &case.body), &[&case.body]).ok()? {
        tap.frame(&Frame { name: &name, data: &data });
    }
    tap.usage()
}
