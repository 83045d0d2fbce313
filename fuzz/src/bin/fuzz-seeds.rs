// SPDX-License-Identifier: Apache-2.0
//! Writes the seeds of every target into a folder of its name below the folder that is named, and prints the names.

#![allow(clippy::print_stdout, reason = "what it says is read by `cargo xtask fuzz`")]

use std::path::PathBuf;

use penstock_fuzz::TARGETS;

fn main() -> std::io::Result<()> {
    let corpus = PathBuf::from(std::env::args_os().nth(1).unwrap_or_default());
    for target in TARGETS {
        let folder = corpus.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (index, seed) in target.seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{index}")), seed)?;
        }
        println!("{}", target.name);
    }
    Ok(())
}
