// SPDX-License-Identifier: Apache-2.0
//! Small things that decide about much: amounts and signatures.

use penstock_prices::money::Usd;

/// An amount that is read is written so that it is read as the same.
pub(crate) fn money(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = Usd::parse_rounded(text);
    if let Ok(amount) = Usd::parse(text) {
        assert_eq!(Usd::parse(&amount.to_string()).ok(), Some(amount), "{text:?}");
        let _ = (amount.nano(), amount.to_f64(), amount.per_million(), amount.times(u64::MAX));
    }
}

/// No bytes are a key under which a signature of nothing is valid.
pub(crate) fn signature(bytes: &[u8]) {
    const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS512", "ES256", "ES384", "EdDSA", "HS256"];
    let jwk = String::from_utf8_lossy(bytes);
    for algorithm in ALGORITHMS {
        for signature in [&[][..], &[0; 64], &[0; 96], bytes] {
            let valid = penstock_signatures::verify(algorithm, &jwk, b"message", signature);
            assert_ne!(valid, Ok(true), "{algorithm}");
        }
    }
    let _ = penstock_signatures::verify_hmac("HS256", bytes, b"message", bytes);
}
