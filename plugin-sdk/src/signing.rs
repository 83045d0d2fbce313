// SPDX-License-Identifier: Apache-2.0
//! What the signatures of vendors are written with: digests as text, names and values as they are signed, and dates. The
//! signing itself is done with [`Secret`](crate::secrets::Secret).

use std::fmt::Write;

const DAY: u64 = 86_400;

/// Bytes in lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

/// Percent-encodes every byte that is not unreserved (RFC 3986, section 2.3), nor one of `keep`.
#[must_use]
pub fn percent_encoded(text: &str, keep: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The date of a time in seconds since 1970 in UTC, `2026-01-15`.
#[must_use]
pub fn utc_date(time: u64) -> String {
    // Days since 1 March of the year 0, in eras of 400 years (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let days = time / DAY + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The date and time of a time in seconds since 1970 in UTC, in the basic format of ISO 8601: `20260115T120000Z`.
#[must_use]
pub fn utc_timestamp(time: u64) -> String {
    let (hour, minute, second) = (time % DAY / 3600, time / 60 % 60, time % 60);
    format!("{}T{hour:02}{minute:02}{second:02}Z", utc_date(time).replace('-', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_counted_in_utc() {
        let cases = [
            (0, "1970-01-01", "19700101T000000Z"),
            (951_782_399, "2000-02-28", "20000228T235959Z"),
            (951_782_400, "2000-02-29", "20000229T000000Z"),
            (1_768_521_599, "2026-01-15", "20260115T235959Z"),
            (1_768_521_600, "2026-01-16", "20260116T000000Z"),
            (4_107_542_400, "2100-03-01", "21000301T000000Z"),
        ];
        for (time, date, timestamp) in cases {
            assert_eq!((utc_date(time).as_str(), utc_timestamp(time).as_str()), (date, timestamp));
        }
    }

    #[test]
    fn bytes_are_written_as_they_are_signed() {
        assert_eq!(hex(&[0, 0x0f, 0xff]), "000fff");
        assert_eq!(percent_encoded("a/b c~é", "/"), "a/b%20c~%C3%A9");
        assert_eq!(percent_encoded("a/b", ""), "a%2Fb");
    }
}
