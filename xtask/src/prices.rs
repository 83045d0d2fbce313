// SPDX-License-Identifier: Apache-2.0
//! Makes the price files of `policies/prices` from the table that LiteLLM publishes (`model_prices_and_context_window.json`,
//! MIT). Same table, same files. What has no place in a price (fine-tuning, sessions of a code interpreter, provisioned
//! throughput) is left out; so is what is said twice, since a version costs what its model costs (see `penstock_prices`).

mod row;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use penstock_prices::money::Usd;
use penstock_prices::price::{Price, Rate, Rates, Unit};
use penstock_prices::table::{normal, without_version};

use row::Row;

/// What to import.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// LiteLLM's `model_prices_and_context_window.json`.
    pub(crate) file: PathBuf,
}

/// Where price files are, from the root of the repository.
pub(crate) const FOLDER: &str = "policies/prices";
const MARK: &str = "# Made by `cargo xtask prices`";

/// Providers in the table, with what the names of their models begin with.
type Providers = &'static [(&'static str, &'static [&'static str])];

/// Vendor files, and the providers in the table whose models they get, with what their names begin with there. Of two that
/// have the same model the first counts.
const VENDORS: &[(&str, Providers)] = &[
    ("anthropic", &[("anthropic", &[])]),
    ("azure-openai", &[("azure", &["azure/"]), ("azure_ai", &["azure_ai/"]), ("azure_text", &["azure/"])]),
    (
        "bedrock",
        &[("bedrock_converse", &["bedrock/"]), ("bedrock", &["bedrock/"]), ("bedrock_mantle", &["bedrock_mantle/"])],
    ),
    ("cerebras", &[("cerebras", &["cerebras/"])]),
    ("cohere", &[("cohere_chat", &["cohere/"]), ("cohere", &["cohere/"])]),
    ("dashscope", &[("dashscope", &["dashscope/"])]),
    ("deepseek", &[("deepseek", &["deepseek/"])]),
    (
        "fireworks",
        &[
            ("fireworks_ai", &["fireworks_ai/", "accounts/fireworks/models/"]),
            ("fireworks_ai-embedding-models", &["fireworks_ai/"]),
        ],
    ),
    ("gemini", &[("gemini", &["gemini/"])]),
    ("github-copilot", &[("github_copilot", &["github_copilot/"])]),
    ("groq", &[("groq", &["groq/"])]),
    ("hunyuan", &[("tencent", &["tencent/"])]),
    ("minimax", &[("minimax", &["minimax/"])]),
    ("mistral", &[("mistral", &["mistral/"]), ("codestral", &["codestral/"])]),
    ("moonshot", &[("moonshot", &["moonshot/"])]),
    ("openai", &[("openai", &["openai/"]), ("text-completion-openai", &[])]),
    ("perplexity", &[("perplexity", &["perplexity/"])]),
    ("together", &[("together_ai", &["together_ai/"])]),
    ("vercel-gateway", &[("vercel_ai_gateway", &["vercel_ai_gateway/"])]),
    ("vertex", &[("vertex_ai-language-models", &["vertex_ai/"]), ("vertex_ai", &["vertex_ai/"])]),
    ("volcengine", &[("volcengine", &["volcengine/"])]),
    ("voyage", &[("voyage", &["voyage/"])]),
    ("xai", &[("xai", &["xai/"])]),
    ("zhipu", &[("zai", &["zai/"]), ("bigmodel", &["bigmodel/"])]),
];

/// Providers whose names begin so are Vertex's, too: it sells the models of others (`vertex_ai-anthropic_models`).
const VERTEX: &str = "vertex_ai";

/// Imports a table.
///
/// # Errors
/// When it cannot be read, or a file cannot be written.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let text =
        fs::read_to_string(&arguments.file).with_context(|| format!("cannot read {}", arguments.file.display()))?;
    let rows = Row::read_all(&text).context("this is not LiteLLM's table of prices")?;
    let folder = root.join(FOLDER);
    fs::create_dir_all(&folder)?;
    let (mut models, mut bytes) = (0, 0);
    for (vendor, providers) in VENDORS {
        let prices = collect(vendor, providers, &rows);
        let file = render(vendor, &prices);
        models += prices.len();
        bytes += file.len();
        let path = folder.join(format!("{vendor}.toml"));
        fs::write(&path, file).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{models} prices, {bytes} bytes");
    Ok(())
}

/// The prices of a vendor, by model.
fn collect(vendor: &str, providers: Providers, rows: &BTreeMap<String, Row>) -> BTreeMap<String, Price> {
    let mut prices = BTreeMap::<String, Price>::new();
    let mut seen = BTreeSet::new();
    let others = rows.values().map(|row| row.provider.as_str()).collect::<BTreeSet<_>>();
    let others = others.into_iter().filter(|name| vendor == "vertex" && name.starts_with(VERTEX));
    let providers = providers.iter().copied().chain(others.map(|name| (name, &["vertex_ai/"][..])));
    let mut variants = Vec::new();
    for (provider, prefixes) in providers {
        for (name, row) in rows.iter().filter(|(_, row)| row.provider == provider) {
            let Some(name) = Name::read(name, prefixes) else { continue };
            let Some(price) = row.price() else { continue };
            match name.variant {
                Some((quality, width, height)) => variants.push((name.model, quality, (width, height), row)),
                None if seen.insert(normal(&name.model)) => drop(prices.insert(name.model, price)),
                None => {}
            }
        }
    }
    for (model, quality, size, row) in variants {
        let of = prices.entry(model).or_default();
        let Some(usd) = row.picture(size) else { continue };
        let key = format!("{quality}{}x{}", size.0, size.1);
        if !of.images.iter().any(|(known, _)| *known == key) {
            of.images.push((key, usd));
        }
    }
    prices.values_mut().for_each(|price| price.images.sort());
    without_repetitions(prices)
}

/// A name in the table.
struct Name {
    model: String,
    /// Quality with a slash behind it, or nothing; width; height.
    variant: Option<(String, u64, u64)>,
}

impl Name {
    /// None for what is no model that a caller can name: a class of sizes, a price in one region only.
    fn read(name: &str, prefixes: &[&str]) -> Option<Self> {
        if ["together-ai-", "fireworks-ai-", "text-completion-"].iter().any(|class| name.starts_with(class)) {
            return None;
        }
        let mut parts: Vec<&str> = name.split('/').collect();
        let size = parts.iter().position(|part| size(part).is_some());
        if let Some(at) = size {
            let (width, height) = size_of(&parts, at)?;
            let quality = parts[..at].iter().find(|part| !prefixes.contains(&format!("{part}/").as_str()));
            let quality = quality.map(|part| format!("{part}/")).unwrap_or_default();
            let model = parts.pop()?.to_owned();
            let steps = parts.iter().any(|part| part.ends_with("-steps") && *part != "50-steps");
            return (!steps).then_some(Self { model, variant: Some((quality, width, height)) });
        }
        let mut model = name;
        for prefix in prefixes {
            model = model.strip_prefix(prefix).unwrap_or(model);
        }
        // The rest of a Bedrock name is a region or a commitment.
        let is_regional = prefixes.contains(&"bedrock/") && model.contains('/');
        let tuned = if model.starts_with("ft:") { format!("{model}:*") } else { model.to_owned() };
        (!is_regional && !model.contains('*')).then_some(Self { model: tuned, variant: None })
    }
}

/// "1024-x-1024".
fn size(part: &str) -> Option<(u64, u64)> {
    let (width, height) = part.split_once("-x-")?;
    Some((width.parse().ok()?, height.parse().ok()?))
}

fn size_of(parts: &[&str], at: usize) -> Option<(u64, u64)> {
    parts.get(at).and_then(|part| size(part))
}

/// Leaves out versions that cost what their model costs.
fn without_repetitions(prices: BTreeMap<String, Price>) -> BTreeMap<String, Price> {
    let by_normal: BTreeMap<String, &Price> = prices.iter().map(|(name, price)| (normal(name), price)).collect();
    let repeated = |name: &str, price: &Price| {
        let name = normal(name);
        let mut shorter = std::iter::successors(without_version(&name), |name| without_version(name));
        shorter.find_map(|name| by_normal.get(name)).is_some_and(|base| **base == *price)
    };
    let kept: BTreeSet<String> =
        prices.iter().filter(|(name, price)| !repeated(name, price)).map(|(name, _)| name.clone()).collect();
    prices.into_iter().filter(|(name, _)| kept.contains(name)).collect()
}

/// The file of a vendor.
fn render(vendor: &str, prices: &BTreeMap<String, Price>) -> String {
    let mut file = format!(
        "# SPDX-License-Identifier: Apache-2.0\n\
         {MARK} from the price table of LiteLLM (https://github.com/BerriAI/litellm), Copyright (c) 2023\n\
         # Berri AI, MIT licence; see NOTICE. US dollars: rates of tokens for a million, all others for one. docs/prices.md\n\
         # says what the keys mean. Do not edit: what your policies say under [prices] goes before what stands here.\n\
         [prices]\n"
    );
    for (model, price) in prices {
        let _ = writeln!(file, "\"{vendor}/{model}\" = {}", written(price));
    }
    file
}

fn written(price: &Price) -> String {
    let mut parts = vec![rates(&price.rates)];
    for (key, of) in [("images", &price.images), ("video_seconds", &price.video_seconds), ("tools", &price.tools)] {
        parts.push(names(key, of));
    }
    parts.extend(price.tiers.iter().map(|(name, tier)| format!("{name} = {{ {} }}", rates(tier))));
    parts.retain(|part| !part.is_empty());
    format!("{{ {} }}", parts.join(", "))
}

fn rates(of: &Rates) -> String {
    let plain = |of: &[(Rate, Usd)]| of.iter().map(|(rate, usd)| format!("{} = {usd}", rate.key())).collect::<Vec<_>>();
    let mut parts = plain(&of.of);
    let above = of.above.iter().map(|(tokens, of)| format!("{{ tokens = {tokens}, {} }}", plain(of).join(", ")));
    let above = above.collect::<Vec<_>>().join(", ");
    if !above.is_empty() {
        parts.push(format!("above = [{above}]"));
    }
    parts.join(", ")
}

fn names(key: &str, of: &[(String, Usd)]) -> String {
    if of.is_empty() {
        return String::new();
    }
    let inner: Vec<String> = of.iter().map(|(name, usd)| format!("{} = {usd}", quoted(name))).collect();
    format!("{key} = {{ {} }}", inner.join(", "))
}

/// A key as TOML wants it.
fn quoted(name: &str) -> String {
    let is_bare = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_bare { name.to_owned() } else { format!("\"{name}\"") }
}

/// A rate as it is written: of tokens for a million.
fn scaled(rate: Rate, usd: Usd) -> Usd {
    match rate.unit() {
        Unit::MillionTokens => usd.times(1_000_000),
        Unit::One => usd,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imported(vendor: &str, table: &str) -> Vec<String> {
        let rows = Row::read_all(table).unwrap();
        let providers = VENDORS.iter().find(|(name, _)| *name == vendor).unwrap().1;
        let file = render(vendor, &collect(vendor, providers, &rows));
        let parsed: toml::Table = toml::from_str(&file).unwrap();
        for (name, price) in parsed["prices"].as_table().unwrap() {
            assert!(price.clone().try_into::<Price>().is_ok(), "{name}");
        }
        file.lines().skip_while(|line| *line != "[prices]").skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn tokens_tiers_and_tools_become_rates() {
        let lines = imported(
            "openai",
            r#"{"gpt-9": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1.25e-06,
                "output_cost_per_token": 1e-05, "output_cost_per_reasoning_token": 1e-05, "cache_read_input_token_cost": 1.25e-07,
                "input_cost_per_token_above_272k_tokens": 2.5e-06, "input_cost_per_token_batches": 6.25e-07,
                "input_cost_per_token_above_272k_tokens_batches": 1.25e-06, "output_cost_per_token_flex": 5e-06,
                "search_context_cost_per_query": {"search_context_size_low": 0.01, "search_context_size_medium": 0.01,
                "search_context_size_high": 0.01}},
                "gpt-9-2026-01-02": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 9e-06},
                "gpt-8": {"litellm_provider": "openai", "input_cost_per_token": 3e-06, "output_cost_per_token": 0.0},
                "gpt-8-0613": {"litellm_provider": "openai", "input_cost_per_token": 3e-06},
                "ft:gpt-8": {"litellm_provider": "openai", "input_cost_per_token": 4e-06},
                "free": {"litellm_provider": "openai", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
                "container": {"litellm_provider": "openai", "code_interpreter_cost_per_session": 0.03},
                "else": {"litellm_provider": "unheard-of", "input_cost_per_token": 1}}"#,
        );
        assert_eq!(
            lines,
            [
                "\"openai/ft:gpt-8:*\" = { input = 4 }",
                "\"openai/gpt-8\" = { input = 3 }",
                "\"openai/gpt-9\" = { input = 1.25, output = 10, cache_read = 0.125, above = [{ tokens = 272000, input = 2.5 }], \
             tools = { web_search = 0.01 }, batch = { input = 0.625, above = [{ tokens = 272000, input = 1.25 }] }, \
             flex = { output = 5 } }",
                "\"openai/gpt-9-2026-01-02\" = { input = 9 }",
            ]
        );
    }

    #[test]
    fn pictures_films_and_ranges_become_rates() {
        let lines = imported(
            "azure-openai",
            r#"{"azure/hd/1024-x-1024/dall-e-9": {"litellm_provider": "azure", "mode": "image_generation",
                "input_cost_per_pixel": 7.629e-08, "output_cost_per_token": 0.0},
                "azure/1024-x-1792/dall-e-9": {"litellm_provider": "azure", "mode": "image_generation",
                "output_cost_per_image": 0.08},
                "azure/eu/gpt-9": {"litellm_provider": "azure", "input_cost_per_token": 1e-06}}"#,
        );
        assert_eq!(
            lines,
            [
                "\"azure-openai/dall-e-9\" = { images = { 1024x1792 = 0.08, \"hd/1024x1024\" = 0.08 } }",
                "\"azure-openai/eu/gpt-9\" = { input = 1 }",
            ]
        );
        let lines = imported(
            "dashscope",
            r#"{"dashscope/qwen9": {"litellm_provider": "dashscope", "mode": "chat", "tiered_pricing": [
                {"range": [0, 32000.0], "input_cost_per_token": 1.2e-06, "output_cost_per_token": 6e-06},
                {"range": [32000.0, 128000.0], "input_cost_per_token": 2.4e-06, "output_cost_per_token": 1.2e-05}]},
                "dashscope/wan": {"litellm_provider": "dashscope", "mode": "video_generation", "output_cost_per_second": 0.1,
                "output_cost_per_second_720p": 0.1, "output_cost_per_second_1080p": 0.2}}"#,
        );
        assert_eq!(
            lines,
            [
                "\"dashscope/qwen9\" = { input = 1.2, output = 6, above = [{ tokens = 32000, input = 2.4, output = 12 }] }",
                "\"dashscope/wan\" = { video_second = 0.1, video_seconds = { 1080p = 0.2, 720p = 0.1 } }",
            ]
        );
    }

    #[test]
    fn of_a_regional_price_and_a_plain_one_the_plain_one_is_taken() {
        let lines = imported(
            "bedrock",
            r#"{"bedrock/us-gov-west-1/m.n-v1:0": {"litellm_provider": "bedrock", "input_cost_per_token": 9e-06},
                "m.n-v1:0": {"litellm_provider": "bedrock", "input_cost_per_token": 1e-06},
                "us.m.n-v1:0": {"litellm_provider": "bedrock_converse", "input_cost_per_token": 2e-06}}"#,
        );
        assert_eq!(lines, ["\"bedrock/m.n-v1:0\" = { input = 1 }", "\"bedrock/us.m.n-v1:0\" = { input = 2 }"]);
    }
}
