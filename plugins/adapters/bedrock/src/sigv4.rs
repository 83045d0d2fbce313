// SPDX-License-Identifier: Apache-2.0
//! Signature Version 4 (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>). The
//! secrets stay with the host: the key is derived there, step by step, and a session token, which is part of what is signed,
//! is hashed there.

use std::fmt::Write;

use penstock_sdk::prelude::{Fault, FaultClass, Secret, Unsigned};
use penstock_sdk::signing::{hex, percent_encoded, utc_timestamp};
use sha2::{Digest, Sha256};

/// Carries the session token.
pub(crate) const SESSION_HEADER: &str = "x-amz-security-token";
const DATE_HEADER: &str = "x-amz-date";
const SERVICE: &str = "bedrock";

/// What requests are signed with.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) access_key_id: String,
    /// "" for that of the host's name.
    pub(crate) region: String,
    pub(crate) secret: Secret,
    pub(crate) session: Option<Secret>,
}

impl Keys {
    /// The headers that sign a request.
    ///
    /// # Errors
    /// If the region is told neither by the operator nor by the host's name.
    pub(crate) fn sign(&self, request: &Unsigned) -> Result<Vec<(String, String)>, Fault> {
        let region = match self.region.as_str() {
            "" => region_of(&request.host).ok_or_else(|| {
                let message = "the adapter bedrock needs `region`: the name of the endpoint does not tell it";
                Fault::new(FaultClass::Unsupported, message)
            })?,
            region => region,
        };
        let date = utc_timestamp(request.time);
        let day = &date[..8];
        let (names, headers, rest) = self.headers(request, &date);
        // What is encoded already is encoded once more: so the service wants it signed.
        let path = if request.path.is_empty() { "/".to_owned() } else { percent_encoded(&request.path, "/") };
        let head = format!("{}\n{path}\n{}\n{headers}", request.method, query(&request.query));
        let tail = format!("{rest}\n{names}\n{}", request.body_sha256);
        let digest = match &self.session {
            Some(session) => session.digest(head.as_bytes(), tail.as_bytes()),
            None => Sha256::new().chain_update(head).chain_update(tail).finalize().to_vec(),
        };
        let scope = format!("{day}/{region}/{SERVICE}/aws4_request");
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&digest));
        let steps = [region, SERVICE, "aws4_request"];
        let first = self.secret.derive("AWS4", day.as_bytes());
        let key = steps.iter().fold(first, |key, step| key.derive("", step.as_bytes()));
        let signature = hex(&key.hmac_sha256(to_sign.as_bytes()));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.access_key_id
        );
        Ok(vec![(DATE_HEADER.to_owned(), date), ("authorization".to_owned(), authorization)])
    }

    /// Names of the headers that are signed, and their lines: up to where the session token stands, and from there on.
    fn headers(&self, request: &Unsigned, date: &str) -> (String, String, String) {
        let stated = request.headers.iter().filter(|(name, _)| {
            *name == "content-type" || (name.starts_with("x-amz") && *name != DATE_HEADER && *name != SESSION_HEADER)
        });
        let mut headers: Vec<(&str, &str)> = stated.collect();
        headers.extend([("host", request.host.as_str()), (DATE_HEADER, date)]);
        headers.extend(self.session.as_ref().map(|_| (SESSION_HEADER, "")));
        headers.sort_unstable();
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let (mut before, mut behind) = (String::new(), None::<String>);
        for (name, value) in &headers {
            let lines = behind.as_mut().unwrap_or(&mut before);
            if *name == SESSION_HEADER {
                lines.push_str("x-amz-security-token:");
                behind = Some("\n".to_owned());
            } else {
                let value: Vec<&str> = value.split_whitespace().collect();
                let _ = writeln!(lines, "{name}:{}", value.join(" "));
            }
        }
        (names.join(";"), before, behind.unwrap_or_default())
    }
}

/// `us-east-1` of `bedrock-runtime.us-east-1.amazonaws.com`, also behind a name of one's own private endpoint.
fn region_of(host: &str) -> Option<&str> {
    let mut labels = host.split('.').skip_while(|label| !label.starts_with("bedrock"));
    labels.next()?;
    labels.next().filter(|region| region.contains('-'))
}

/// The query with its parameters in order.
fn query(query: &str) -> String {
    let mut pairs: Vec<(&str, &str)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use penstock_sdk::testkit::grant;
    use serde_json::Value;

    use super::*;

    /// Seconds since 1970 of the moment at which every recorded signature was made.
    const SIGNED_AT: u64 = 1_768_478_400;

    fn recorded() -> Vec<Value> {
        let file = crate::tests::recorded("signatures/aws-sigv4-bedrock.json");
        file.map_or_else(Vec::new, |file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap())
    }

    fn keys(vector: &Value, region: &str) -> Keys {
        let text = |name: &str| vector[name].as_str();
        let session = text("session_token").map(|token| ("session_token", token));
        grant([("secret_access_key", text("secret_key").unwrap())].into_iter().chain(session));
        Keys {
            access_key_id: text("access_key").unwrap().to_owned(),
            region: region.to_owned(),
            secret: Secret::open("secret_access_key").unwrap(),
            session: Secret::open("session_token"),
        }
    }

    fn unsigned(vector: &Value) -> Unsigned {
        let url = vector["url"].as_str().unwrap().strip_prefix("https://").unwrap();
        let (host, rest) = url.split_once('/').unwrap();
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let headers = vector["headers_in"].as_object().unwrap().iter();
        // What the host adds of its own is not signed.
        let headers: Vec<(String, String)> = headers
            .map(|(name, value)| (name.to_lowercase(), value.as_str().unwrap().to_owned()))
            .chain([("user-agent".to_owned(), "penstock".to_owned())])
            .collect();
        Unsigned {
            method: vector["method"].as_str().unwrap().to_owned(),
            host: host.to_owned(),
            path: format!("/{path}"),
            query: query.to_owned(),
            headers: headers.into(),
            body_sha256: hex(&Sha256::digest(vector["body"].as_str().unwrap_or_default())),
            time: SIGNED_AT,
        }
    }

    #[test]
    fn recorded_signatures_are_made_again() {
        let vectors = recorded();
        for vector in &vectors {
            let name = vector["name"].as_str().unwrap();
            let stated = vector["region"].as_str().unwrap();
            for region in [stated, ""] {
                let signed = keys(vector, region).sign(&unsigned(vector)).unwrap();
                assert_eq!(signed[0].1, vector["headers_out"]["X-Amz-Date"], "{name}");
                assert_eq!(signed[1].1, vector["headers_out"]["Authorization"], "{name}");
                assert!(!format!("{signed:?}").contains(vector["secret_key"].as_str().unwrap()));
            }
        }
        assert!(vectors.is_empty() || vectors.len() >= 8);
    }

    #[test]
    fn the_documented_key_signs_a_request_of_our_own_the_same_everywhere() {
        let vector = serde_json::json!({"access_key": "AKIDEXAMPLE",
            "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "method": "POST", "headers_in": {"Content-Type": "application/json"},
            "url": "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.nova-lite-v1/converse",
            "body": "{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"hi\"}]}]}"});
        let signed = keys(&vector, "").sign(&unsigned(&vector)).unwrap();
        let expected = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260115/us-east-1/bedrock/aws4_request, \
            SignedHeaders=content-type;host;x-amz-date, \
            Signature=189437fde63fc64b23ffaadf6b1922267405a14f2bf0d6b672047a51beade39d";
        assert_eq!(signed[1], ("authorization".to_owned(), expected.to_owned()));
    }

    #[test]
    fn headers_that_belong_to_the_service_are_signed_and_in_order() {
        let vector = serde_json::json!({"access_key": "A", "secret_key": "s", "session_token": "t"});
        let keys = keys(&vector, "eu-west-1");
        let headers = vec![
            ("x-amzn-bedrock-trace".to_owned(), " ENABLED  now ".to_owned()),
            ("content-type".to_owned(), "application/json".to_owned()),
            ("accept".to_owned(), "*/*".to_owned()),
        ];
        let request = Unsigned { host: "h".into(), headers: headers.into(), ..Unsigned::default() };
        let (names, before, behind) = keys.headers(&request, "D");
        assert_eq!(names, "content-type;host;x-amz-date;x-amz-security-token;x-amzn-bedrock-trace");
        assert_eq!(before, "content-type:application/json\nhost:h\nx-amz-date:D\nx-amz-security-token:");
        assert_eq!(behind, "\nx-amzn-bedrock-trace:ENABLED now\n");
    }

    #[test]
    fn the_region_is_told_by_the_host_and_demanded_otherwise() {
        let cases = [
            ("bedrock-runtime.us-east-1.amazonaws.com", Some("us-east-1")),
            ("vpce-1-2.bedrock-runtime.eu-west-1.vpce.amazonaws.com", Some("eu-west-1")),
            ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
            ("gateway.example.com", None),
            ("127.0.0.1:8080", None),
        ];
        for (host, region) in cases {
            assert_eq!(region_of(host), region, "{host}");
        }
        let vector = serde_json::json!({"access_key": "A", "secret_key": "s"});
        let request = Unsigned { host: "gateway.example.com".into(), ..Unsigned::default() };
        assert!(keys(&vector, "").sign(&request).is_err());
    }
}
