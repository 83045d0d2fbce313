// SPDX-License-Identifier: Apache-2.0
//! `penstock plugin test`.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use penstock_vectors::Case;

use super::{read, unwritable};
use crate::plugin::{Runtime, self_test};

/// Runs the cases that a component carries, and those of a folder.
pub(super) fn run(
    runtime: &Arc<Runtime>,
    file: &Path,
    folder: Option<&Path>,
    out: &mut impl Write,
) -> Result<(), String> {
    let bytes = read(file)?;
    let component = runtime.load(&bytes).map_err(|refusal| format!("refused: {refusal}"))?;
    let mut cases = component.vectors().map(Case::read_embedded).transpose()?.unwrap_or_default();
    // A case that travels in the component lies in the folder, too.
    let more = folder.map(Case::read_folder).transpose()?.unwrap_or_default();
    cases.retain(|case| more.iter().all(|other| other.name != case.name));
    cases.extend(more);
    if cases.is_empty() {
        return Err("there is no case: give a folder with --cases, or mark cases with \"self_test\": true".to_owned());
    }
    let all = Instant::now();
    let mut failed = 0_usize;
    for case in &cases {
        let begin = Instant::now();
        let result = self_test::run_case(&component, case);
        let mark = if result.is_ok() { "ok    " } else { "FAILED" };
        writeln!(out, "{mark}  {:>9.2} ms  {}", begin.elapsed().as_secs_f64() * 1e3, case.name).map_err(unwritable)?;
        if let Err(differences) = result {
            failed += 1;
            for difference in differences {
                writeln!(out, "            {difference}").map_err(unwritable)?;
            }
        }
    }
    let passed = cases.len() - failed;
    let time = all.elapsed().as_secs_f64() * 1e3;
    writeln!(out, "\n{passed} passed, {failed} failed in {time:.0} ms").map_err(unwritable)?;
    if failed == 0 { Ok(()) } else { Err(format!("{failed} of {} cases failed", cases.len())) }
}
