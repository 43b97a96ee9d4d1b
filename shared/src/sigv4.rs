//! Signature Version 4, by which AWS knows who sends a request: where no client of AWS is linked.
//!
//! A client would be larger than all else in a function that has none. What is signed here is simple: a fixed path,
//! nothing that would have to be normalised.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::config::Credentials;

/// Everything but what RFC 3986 leaves unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// For whom and when requests are signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signer<'a> {
    /// Who signs.
    pub(crate) credentials: &'a Credentials,
    /// Where the service is.
    pub(crate) region: &'a str,
    /// Which service.
    pub(crate) service: &'a str,
    /// The moment.
    pub(crate) now: DateTime<Utc>,
}

impl Signer<'_> {
    /// A `GET https://<host>/` of this query that whoever has it may send within `seconds`, without its scheme.
    /// The query's parts come in the order of their names, and all before `X`.
    pub(crate) fn presign(&self, host: &str, query: &[(&str, &str)], seconds: u32) -> String {
        let credential = format!("{}/{}", self.credentials.access_key_id, self.scope());
        let (time, seconds) = (self.time(), seconds.to_string());
        let mut parts = query.to_vec();
        parts.extend([
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &*credential),
            ("X-Amz-Date", &*time),
            ("X-Amz-Expires", &*seconds),
        ]);
        parts.extend(self.credentials.session_token.as_deref().map(|token| ("X-Amz-Security-Token", token)));
        parts.push(("X-Amz-SignedHeaders", "host"));
        let encoded = |text| utf8_percent_encode(text, RESERVED);
        let parts: Vec<String> =
            parts.into_iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let query = parts.join("&");
        let request = format!("GET\n/\n{query}\nhost:{host}\n\nhost\n{}", hex(&Sha256::digest("")));
        format!("{host}/?{query}&X-Amz-Signature={}", self.sign(&request))
    }

    /// The headers by which a `POST` of this JSON to a path is signed.
    pub(crate) fn headers(&self, host: &str, path: &str, body: &[u8]) -> Vec<(&'static str, String)> {
        let time = self.time();
        let mut signed = vec![("content-type", "application/json"), ("host", host), ("x-amz-date", &*time)];
        signed.extend(self.credentials.session_token.as_deref().map(|token| ("x-amz-security-token", token)));
        let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request = format!("POST\n{path}\n\n{lines}\n{names}\n{}", hex(&Sha256::digest(body)));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={names}, Signature={}",
            self.credentials.access_key_id,
            self.scope(),
            self.sign(&request)
        );
        let mut headers: Vec<_> = signed.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        headers.push(("authorization", authorization));
        headers
    }

    fn time(&self) -> String {
        self.now.format("%Y%m%dT%H%M%SZ").to_string()
    }

    fn scope(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.now.format("%Y%m%d"), self.region, self.service)
    }

    fn sign(&self, request: &str) -> String {
        let scope = self.scope();
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", self.time(), hex(&Sha256::digest(request)));
        let secret = format!("AWS4{}", self.credentials.secret_access_key).into_bytes();
        let key = scope.split('/').fold(secret, |key, part| mac(&key, part));
        hex(&mac(&key, &text))
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    // A key of any length will do; the error is there for kinds that have one.
    Hmac::<Sha256>::new_from_slice(key)
        .map(|mac| mac.chain_update(text).finalize().into_bytes().to_vec())
        .unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "lectern.proxy-c0.eu-central-1.rds.amazonaws.com:5432";

    fn credentials(session_token: Option<&str>) -> Credentials {
        Credentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: session_token.map(str::to_owned),
        }
    }

    fn signer<'a>(credentials: &'a Credentials, service: &'a str) -> Signer<'a> {
        let now = "2026-11-28T09:30:05Z".parse().unwrap();
        Signer { credentials, region: "eu-central-1", service, now }
    }

    /// What botocore's `generate_db_auth_token` gives for the same, its parts in alphabetical order.
    #[test]
    fn a_presigned_request_is_the_one_that_botocore_makes() {
        let before = "Action=connect&DBUser=lectern_read&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=\
            AKIDEXAMPLE%2F20261128%2Feu-central-1%2Frds-db%2Faws4_request&X-Amz-Date=20261128T093005Z&X-Amz-Expires=900";
        for (session_token, rest) in [
            (
                None,
                "&X-Amz-SignedHeaders=host\
                &X-Amz-Signature=a30eb02c4ff041b3081bf98950dd6d20b719fcfa94a3f47139b2a843d8e5ef74",
            ),
            (
                Some("IQoJb3JpZ2luX2VjE/+=="),
                "&X-Amz-Security-Token=IQoJb3JpZ2luX2VjE%2F%2B%3D%3D&X-Amz-SignedHeaders=host\
                &X-Amz-Signature=16fdb34f3ea2d80179902fc4c445c14f518f32a6da47cc301eddb90aca2a0e7f",
            ),
        ] {
            let credentials = credentials(session_token);
            let query = [("Action", "connect"), ("DBUser", "lectern_read")];
            let made = signer(&credentials, "rds-db").presign(HOST, &query, 900);
            assert_eq!(made, format!("{HOST}/?{before}{rest}"));
        }
    }

    /// What botocore's `SigV4Auth` gives for the same.
    #[test]
    fn a_signed_request_is_the_one_that_botocore_makes() {
        for (session_token, names, signature) in [
            (None, "content-type;host;x-amz-date", "f7177f760d93a775b07692bd0bcc5e104a870272346c597e09b80b54d72d0070"),
            (
                Some("IQoJb3JpZ2luX2VjE/+=="),
                "content-type;host;x-amz-date;x-amz-security-token",
                "4ac2b5d5d98c8960bb2d5b99f498f53d5e65bd525e6ccab6216473da56e1b5ec",
            ),
        ] {
            let credentials = credentials(session_token);
            let signer = signer(&credentials, "rds-data");
            let headers = signer.headers("rds-data.eu-central-1.amazonaws.com", "/Execute", br#"{"sql":"select 1"}"#);
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261128/eu-central-1/rds-data/aws4_request, \
                SignedHeaders={names}, Signature={signature}"
            );
            assert_eq!(headers.last(), Some(&("authorization", expected)));
        }
    }
}
