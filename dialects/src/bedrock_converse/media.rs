// SPDX-License-Identifier: Apache-2.0
//! Formats of media: a word here, a media type elsewhere.

/// Word, media type; the first of several is what a word is read as.
const FORMATS: &[(&str, &str, &str)] = &[
    ("image", "png", "image/png"),
    ("image", "jpeg", "image/jpeg"),
    ("image", "jpeg", "image/jpg"),
    ("image", "gif", "image/gif"),
    ("image", "webp", "image/webp"),
    ("document", "pdf", "application/pdf"),
    ("document", "csv", "text/csv"),
    ("document", "doc", "application/msword"),
    ("document", "docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("document", "xls", "application/vnd.ms-excel"),
    ("document", "xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("document", "html", "text/html"),
    ("document", "txt", "text/plain"),
    ("document", "md", "text/markdown"),
    ("video", "mp4", "video/mp4"),
    ("video", "mkv", "video/x-matroska"),
    ("video", "mov", "video/quicktime"),
    ("video", "webm", "video/webm"),
    ("video", "flv", "video/x-flv"),
    ("video", "mpeg", "video/mpeg"),
    ("video", "mpg", "video/mpg"),
    ("video", "wmv", "video/x-ms-wmv"),
    ("video", "three_gp", "video/3gpp"),
    ("audio", "mp3", "audio/mp3"),
    ("audio", "mp3", "audio/mpeg"),
    ("audio", "wav", "audio/wav"),
    ("audio", "wav", "audio/x-wav"),
    ("audio", "flac", "audio/flac"),
    ("audio", "aac", "audio/aac"),
    ("audio", "ogg", "audio/ogg"),
    ("audio", "opus", "audio/opus"),
    ("audio", "m4a", "audio/m4a"),
    ("audio", "mp4", "audio/mp4"),
    ("audio", "webm", "audio/webm"),
    ("audio", "pcm", "audio/pcm"),
    ("audio", "mka", "audio/x-matroska"),
];

/// Kinds of media that are blocks of their own.
pub(super) const KINDS: &[&str] = &["image", "document", "video", "audio"];

/// The word for a media type; none if this dialect has no such format.
pub(super) fn format(kind: &str, media_type: &str) -> Option<&'static str> {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let is = |(of, _, known): &&(&str, &str, &str)| *of == kind && known.eq_ignore_ascii_case(essence);
    FORMATS.iter().find(is).map(|(_, word, _)| *word)
}

/// The word that the end of an address tells.
pub(super) fn format_of_name(kind: &str, name: &str) -> Option<&'static str> {
    let ending = name.rsplit_once('.')?.1.to_ascii_lowercase();
    let ending = match ending.as_str() {
        "jpg" => "jpeg",
        "3gp" => "three_gp",
        "htm" => "html",
        other => other,
    };
    FORMATS.iter().find(|(of, word, _)| *of == kind && *word == ending).map(|(_, word, _)| *word)
}

/// The media type of a word; a word that is not known becomes one of its kind.
pub(super) fn media_type(kind: &str, word: &str) -> String {
    let known = FORMATS.iter().find(|(of, known, _)| *of == kind && *known == word);
    known.map_or_else(|| format!("{kind}/{word}"), |(_, _, media_type)| (*media_type).to_owned())
}

/// A document's name as the API admits it: letters, digits, hyphens, brackets, and single white space between them.
pub(super) fn document_name(title: &str) -> String {
    let admitted = |character: char| match character {
        '-' | '(' | ')' | '[' | ']' => character,
        _ if character.is_alphanumeric() => character,
        _ => ' ',
    };
    let spaced: String = title.chars().map(admitted).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_and_written_the_same() {
        for (kind, word, media) in FORMATS {
            assert_eq!(format(kind, media), Some(*word));
            assert_eq!(format(kind, &media_type(kind, word)), Some(*word));
            assert!(KINDS.contains(kind));
        }
        assert_eq!(format("image", "IMAGE/PNG; q=1"), Some("png"));
        assert_eq!(format("image", "image/bmp"), None);
        assert_eq!(format_of_name("image", "s3://b/k.JPG"), Some("jpeg"));
        assert_eq!(media_type("video", "avi"), "video/avi");
    }

    #[test]
    fn a_title_becomes_an_admissible_name() {
        assert_eq!(document_name("Q3  report_final (2).pdf"), "Q3 report final (2) pdf");
        assert_eq!(document_name("../"), "");
    }
}
