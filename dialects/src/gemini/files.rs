// SPDX-License-Identifier: Apache-2.0
//! Media by type and by address.

/// Media types by what addresses end with, of the kinds that the API reads.
/// Source: <https://ai.google.dev/gemini-api/docs/file-input-methods>.
const BY_ENDING: &[(&str, &str)] = &[
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("webp", "image/webp"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("gif", "image/gif"),
    ("mp3", "audio/mp3"),
    ("wav", "audio/wav"),
    ("flac", "audio/flac"),
    ("ogg", "audio/ogg"),
    ("m4a", "audio/mp4"),
    ("mp4", "video/mp4"),
    ("mov", "video/quicktime"),
    ("webm", "video/webm"),
    ("mpeg", "video/mpeg"),
    ("txt", "text/plain"),
    ("md", "text/markdown"),
    ("html", "text/html"),
    ("csv", "text/csv"),
    ("json", "application/json"),
];

/// The canonical kind of a media type.
pub(super) fn kind(media_type: &str) -> &'static str {
    match media_type.split('/').next().unwrap_or_default() {
        "image" => "image",
        "audio" => "audio",
        "video" => "video",
        _ => "document",
    }
}

/// The media type that an address tells by its ending.
pub(super) fn media_type(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let (_, ending) = path.rsplit('/').next()?.rsplit_once('.')?;
    let (_, media_type) = BY_ENDING.iter().find(|(known, _)| known.eq_ignore_ascii_case(ending))?;
    Some(media_type)
}

/// Whether only the vendor can read what is there: its file store, or a bucket.
pub(super) fn is_stored(uri: &str) -> bool {
    uri.starts_with("gs://")
        || (uri.starts_with("https://generativelanguage.googleapis.com/") && uri.contains("/files/"))
}

/// The address of a file by its id; none for an id that cannot be of this vendor.
pub(super) fn uri(id: &str) -> Option<String> {
    match id {
        _ if id.contains("://") => Some(id.to_owned()),
        _ if id.starts_with("files/") => Some(format!("https://generativelanguage.googleapis.com/v1beta/{id}")),
        _ => None,
    }
}

/// Media type and base64 text of `data:image/png;base64,…`.
pub(super) fn data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = head.strip_suffix(";base64")?;
    Some((media_type.split(';').next().unwrap_or(media_type), data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_tell_what_they_hold() {
        let cases = [
            ("https://a.example/x.PDF?y=1.png", Some("application/pdf"), false),
            ("gs://bucket/film.mp4", Some("video/mp4"), true),
            ("https://generativelanguage.googleapis.com/v1beta/files/abc", None, true),
            ("https://www.youtube.com/watch?v=1", None, false),
        ];
        for (url, expected, stored) in cases {
            assert_eq!((media_type(url), is_stored(url)), (expected, stored), "{url}");
        }
        assert_eq!(data_url("data:image/png;base64,AAAA"), Some(("image/png", "AAAA")));
        assert_eq!((uri("file-abc"), uri("files/a").is_some()), (None, true));
    }
}
