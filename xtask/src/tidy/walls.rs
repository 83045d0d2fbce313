// SPDX-License-Identifier: Apache-2.0
//! Rules about who may name what: the WebAssembly engine, sockets, vendors.

use super::tokens::{self, Token};
use super::{File, Finding};

/// Words that name a vendor or its models. Words that mean something else as well are left out.
const VENDORS: &[&str] = &[
    "aleph-alpha",
    "alibaba",
    "aliyun",
    "anthropic",
    "azure",
    "baichuan",
    "bedrock",
    "cerebras",
    "chatgpt",
    "claude",
    "cohere",
    "dashscope",
    "deepinfra",
    "deepseek",
    "doubao",
    "fireworks-ai",
    "gemini",
    "github-copilot",
    "gpt",
    "grok",
    "groq",
    "huggingface",
    "hunyuan",
    "kimi",
    "litellm",
    "llamacpp",
    "minimax",
    "mistral",
    "moonshot",
    "ollama",
    "openai",
    "openrouter",
    "perplexity",
    "qianfan",
    "qwen",
    "siliconflow",
    "stepfun",
    "tencent",
    "tongyi",
    "vertex-ai",
    "vertexai",
    "vllm",
    "volcengine",
    "wanx",
    "wenxin",
    "xai",
    "zhipu",
];

/// Modules of the host that open sockets.
const EDGES: &[&str] = &[
    "host/src/listener",
    "host/src/upstream",
    "host/src/tunnel",
    "host/src/wire",
    "host/src/admin",
    "host/src/cli",
    "host/src/main",
];

/// Only `host/src/plugin/` knows which engine runs the plugins.
pub(super) fn only_the_plugin_folder_names_the_engine(files: &[File]) -> Vec<Finding> {
    let host = files.iter().filter(|file| file.within("host/src") && !file.within("host/src/plugin"));
    named(host, |tokens| tokens[0].text.starts_with("wasmtime"), "the engine is named only in host/src/plugin")
}

/// Only the edges of the host talk to the network.
pub(super) fn only_edges_open_sockets(files: &[File]) -> Vec<Finding> {
    const SOCKETS: &[&str] =
        &["TcpListener", "TcpSocket", "TcpStream", "UdpSocket", "UnixListener", "UnixStream", "lookup_host"];
    let host =
        files.iter().filter(|file| file.within("host/src") && !EDGES.iter().any(|edge| file.path.starts_with(edge)));
    let opens = |tokens: &[Token]| {
        let word = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
        SOCKETS.contains(&word(0)) || (word(0) == "tokio" && word(1) == "::" && word(2) == "net")
    };
    named(host, opens, "sockets are opened only by listener, upstream, tunnel and admin")
}

/// A vendor that the host knows would have to be rebuilt with it.
pub(super) fn the_host_names_no_vendor(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.within("host/src")) {
        for (number, line) in file.text.lines().enumerate() {
            let line = line.to_lowercase();
            if let Some(vendor) = VENDORS.iter().find(|vendor| names(&line, vendor)) {
                let text = format!("names the vendor `{vendor}`; that belongs into an adapter or a policy file");
                findings.push(Finding::at(file, number + 1, text));
            }
        }
    }
    findings
}

fn named<'a>(files: impl Iterator<Item = &'a File>, is_bad: impl Fn(&[Token]) -> bool, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.filter(|file| file.is("rs")) {
        let tokens = tokens::product(file);
        let bad = (0..tokens.len()).filter(|at| is_bad(&tokens[*at..]));
        findings.extend(bad.map(|at| Finding::at(file, tokens[at].line, text)));
    }
    findings
}

/// Whether a line has the word, standing alone or as a part of a longer name (`openai_chat`), but not inside another
/// word. Long names are looked for anywhere.
fn names(line: &str, vendor: &str) -> bool {
    const UNMISTAKABLE: usize = 6;
    line.match_indices(vendor).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + vendor.len()..].chars().next();
        vendor.len() >= UNMISTAKABLE && vendor != "cohere"
            || !before.is_some_and(char::is_alphabetic) && !after.is_some_and(char::is_alphabetic)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::file;
    use super::*;

    #[test]
    fn the_engine_outside_its_folder_is_found() {
        let text = "fn f() { let e = wasmtime::Engine::default(); }";
        assert_eq!(only_the_plugin_folder_names_the_engine(&[file("host/src/gateway.rs", text)]).len(), 1);
        assert_eq!(only_the_plugin_folder_names_the_engine(&[file("host/src/plugin/engine.rs", text)]), []);
        assert_eq!(
            only_the_plugin_folder_names_the_engine(&[file("host/src/plugin_like.rs", "use wasmtime_wasi::X;")]).len(),
            1
        );
        let comment = "// wasmtime is fine in a comment";
        assert_eq!(only_the_plugin_folder_names_the_engine(&[file("host/src/gateway.rs", comment)]), []);
    }

    #[test]
    fn a_socket_away_from_the_edges_is_found() {
        for bad in ["use tokio::net::TcpStream;", "use tokio::net;", "use std::net::{IpAddr, UdpSocket};"] {
            assert!(!only_edges_open_sockets(&[file("host/src/gateway.rs", bad)]).is_empty(), "{bad}");
            assert_eq!(only_edges_open_sockets(&[file("host/src/upstream/client.rs", bad)]), [], "{bad}");
        }
        assert_eq!(only_edges_open_sockets(&[file("host/src/config.rs", "use std::net::SocketAddr;")]), []);
    }

    #[test]
    fn a_vendor_in_the_host_is_found_even_in_a_comment_or_a_name() {
        for bad in [
            "// as OpenAI does",
            "let openai_chat = 1;",
            "\"gpt-4\"",
            "\"api.x.ai via xai\"",
            "DeepSeekAdapter",
            "cohere",
        ] {
            assert_eq!(the_host_names_no_vendor(&[file("host/src/a.rs", bad)]).len(), 1, "{bad}");
        }
        for fine in ["a coherent answer", "together", "axai", "groqqed"] {
            assert_eq!(the_host_names_no_vendor(&[file("host/src/a.rs", fine)]), [], "{fine}");
        }
        assert_eq!(the_host_names_no_vendor(&[file("host/tests/it/a.rs", "openai")]), []);
    }
}
