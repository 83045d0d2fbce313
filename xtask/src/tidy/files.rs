// SPDX-License-Identifier: Apache-2.0
//! Rules about a file as text: its header, its length, notes that were left lying in it.

use super::{File, Finding};

const LICENCE: &str = "SPDX-License-Identifier: Apache-2.0";
const LINES_MAX: usize = 600;

/// Every source file says under which licence it is and what it is for.
pub(super) fn headers(files: &[File]) -> Vec<Finding> {
    files.iter().filter_map(|file| missing_header(file).map(|text| Finding::at(file, 1, text))).collect()
}

fn missing_header(file: &File) -> Option<String> {
    let mut lines = file.text.lines().skip_while(|line| line.starts_with("#!/"));
    if file.is_our_rust() {
        if lines.next() != Some(&format!("// {LICENCE}")) {
            return Some(format!("begin with `// {LICENCE}`"));
        }
        let purpose = lines.next().and_then(|line| line.strip_prefix("//! "));
        return purpose
            .is_none_or(|text| text.len() < 10)
            .then(|| "line 2: say in `//! …` what this file is for".to_owned());
    }
    if file.is("py") {
        if lines.next() != Some(&format!("# {LICENCE}")) {
            return Some(format!("begin with `# {LICENCE}`"));
        }
        let purpose = lines.next().and_then(|line| line.strip_prefix("\"\"\""));
        return purpose
            .is_none_or(str::is_empty)
            .then(|| "line 2: say in a docstring what this file is for".to_owned());
    }
    None
}

/// A file that does not fit in the head is two files.
pub(super) fn lengths(files: &[File]) -> Vec<Finding> {
    let source = files.iter().filter(|file| file.is("rs") || file.is("py"));
    source
        .filter_map(|file| {
            let lines = file.text.lines().count();
            let text = format!("{lines} lines; a file has at most {LINES_MAX}: split it by noun");
            (lines > LINES_MAX).then(|| Finding::at(file, 0, text))
        })
        .collect()
}

/// What is not done belongs into the list of issues, not into the source.
pub(super) fn leftovers(files: &[File]) -> Vec<Finding> {
    // Put together here, so that this file does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("HA", "CK:")];
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !file.path.ends_with(".lock")) {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| has_word(line, mark)) {
                findings.push(Finding::at(file, number + 1, format!("{mark}: finish it, or open an issue")));
            }
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, shown};
    use super::*;

    #[test]
    fn a_file_without_licence_or_purpose_is_found() {
        let good = "// SPDX-License-Identifier: Apache-2.0\n//! What it is for.\n";
        let bad = [
            ("a.rs", "fn main() {}\n"),
            ("b.rs", "// SPDX-License-Identifier: MIT\n//! What it is for.\n"),
            ("c.rs", "// SPDX-License-Identifier: Apache-2.0\nfn main() {}\n"),
            ("d.rs", "// SPDX-License-Identifier: Apache-2.0\n//! Short\n"),
            ("e.py", "#!/usr/bin/env python3\nimport os\n"),
            ("f.py", "# SPDX-License-Identifier: Apache-2.0\nimport os\n"),
        ];
        assert_eq!(headers(&[file("good.rs", good), file("x/template/t.rs", "fn main() {}")]), []);
        assert_eq!(headers(&bad.map(|(path, text)| file(path, text))).len(), bad.len());
    }

    #[test]
    fn a_file_that_is_too_long_is_found() {
        assert_eq!(lengths(&[file("a.rs", &"x\n".repeat(600)), file("a.md", &"x\n".repeat(900))]), []);
        assert_eq!(lengths(&[file("a.rs", &"x\n".repeat(601))]).len(), 1);
    }

    #[test]
    fn a_note_to_oneself_is_found() {
        let note = format!("fine\n// {} later\n", concat!("TO", "DO"));
        assert_eq!(shown(&leftovers(&[file("a.md", &note)]))[0].split(": ").next(), Some("a.md:2"));
        assert_eq!(leftovers(&[file("a.md", concat!("MASTO", "DON"))]), []);
    }
}
