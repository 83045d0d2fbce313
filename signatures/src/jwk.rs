// SPDX-License-Identifier: Apache-2.0
//! A public key as JSON (RFC 7517, RFC 7518 section 6, RFC 8037), read strictly.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::Unusable;

/// The members that matter here; a member that stands twice is an error, others are ignored (RFC 7517 section 4).
#[derive(Deserialize)]
pub(crate) struct Jwk<'j> {
    #[serde(borrow)]
    kty: Cow<'j, str>,
    #[serde(borrow)]
    crv: Option<Cow<'j, str>>,
    #[serde(borrow)]
    alg: Option<Cow<'j, str>>,
    #[serde(borrow, rename = "use")]
    purpose: Option<Cow<'j, str>>,
    #[serde(borrow)]
    key_ops: Option<Vec<Cow<'j, str>>>,
    #[serde(borrow)]
    n: Option<Cow<'j, str>>,
    #[serde(borrow)]
    e: Option<Cow<'j, str>>,
    #[serde(borrow)]
    x: Option<Cow<'j, str>>,
    #[serde(borrow)]
    y: Option<Cow<'j, str>>,
}

impl Jwk<'_> {
    /// Looks whether the key may check signatures of this algorithm.
    pub(crate) fn check_use(&self, algorithm: &str) -> Result<(), Unusable> {
        if self.alg.as_deref().is_some_and(|alg| alg != algorithm) {
            return Err(Unusable::OtherUse("it says that it is for another algorithm"));
        }
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Err(Unusable::OtherUse("it says that it is not for signatures"));
        }
        if self.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return Err(Unusable::OtherUse("it says that it is not for checking signatures"));
        }
        Ok(())
    }

    /// Modulus and exponent.
    pub(crate) fn rsa(&self) -> Result<(Vec<u8>, Vec<u8>), Unusable> {
        self.check_kind("RSA", None)?;
        Ok((number(self.n.as_deref(), "n")?, number(self.e.as_deref(), "e")?))
    }

    /// A point on a curve, uncompressed (SEC 1 section 2.3.3).
    pub(crate) fn point(&self, curve: &str, bytes: usize) -> Result<Vec<u8>, Unusable> {
        self.check_kind("EC", Some(curve))?;
        let (x, y) = (decoded(self.x.as_deref(), "x")?, decoded(self.y.as_deref(), "y")?);
        if x.len() != bytes || y.len() != bytes {
            return Err(Unusable::Malformed("a coordinate is as long as the field (RFC 7518 section 6.2.1.2)"));
        }
        Ok([&[4], x.as_slice(), y.as_slice()].concat())
    }

    /// A key of Ed25519.
    pub(crate) fn edwards(&self) -> Result<Vec<u8>, Unusable> {
        self.check_kind("OKP", Some("Ed25519"))?;
        decoded(self.x.as_deref(), "x")
    }

    fn check_kind(&self, kty: &str, crv: Option<&str>) -> Result<(), Unusable> {
        if self.kty != kty {
            return Err(Unusable::OtherUse("it is of another type"));
        }
        if crv.is_some_and(|crv| self.crv.as_deref() != Some(crv)) {
            return Err(Unusable::OtherUse("it is on another curve"));
        }
        Ok(())
    }
}

fn decoded(text: Option<&str>, what: &'static str) -> Result<Vec<u8>, Unusable> {
    let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    bytes.filter(|bytes| !bytes.is_empty()).ok_or(Unusable::Malformed(what))
}

/// A number without leading zeros; some issuers write one although RFC 7518 section 2 says not to.
fn number(text: Option<&str>, what: &'static str) -> Result<Vec<u8>, Unusable> {
    let bytes = decoded(text, what)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}
