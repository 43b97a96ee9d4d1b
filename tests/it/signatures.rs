//! Whether a signed request is one that AWS would take: signed anew by AWS's own code, and compared.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign},
    sign::v4,
};
use chrono::{DateTime, NaiveDateTime, Utc};
use shared::config;

/// Credentials as Lambda lends them to a function.
pub(crate) fn credentials() -> config::Credentials {
    config::Credentials {
        access_key_id: "ASIAEXAMPLE".to_owned(),
        secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
        session_token: Some("IQoJb3JpZ2luX2VjE/+==".to_owned()),
    }
}

/// Checks a token for a database: for whom it is, that it was made just now, and who made it.
pub(crate) fn is_token(token: &str, server: &str, user: &str, region: &str) -> bool {
    let Some((path, parts)) = token.split_once('?') else { return false };
    let part = |name: &str| parts.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let Some(time) = part("X-Amz-Date").and_then(read_time) else { return false };
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(Duration::from_secs(900));
    let url = format!("https://{server}/?Action=connect&DBUser={user}");
    let expected = signature(settings, "rds-db", region, time, "GET", &url, &[], b"");
    path == format!("{server}/") && is_now(time) && part("X-Amz-Signature") == Some(&expected)
}

/// Checks the headers of a request.
pub(crate) fn is_signed(service: &str, region: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> bool {
    let header = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let (Some(time), Some(authorization)) = (header("x-amz-date").and_then(read_time), header("authorization")) else {
        return false;
    };
    let signed: Vec<_> = headers.iter().copied().filter(|(name, _)| *name == "content-type").collect();
    let expected = signature(SigningSettings::default(), service, region, time, "POST", url, &signed, body);
    is_now(time) && authorization.ends_with(&format!("Signature={expected}"))
}

#[expect(clippy::too_many_arguments, reason = "all that goes into a signature")]
fn signature(
    settings: SigningSettings,
    service: &str,
    region: &str,
    time: SystemTime,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> String {
    let lent = credentials();
    let identity = Credentials::new(lent.access_key_id, lent.secret_access_key, lent.session_token, None, "test");
    let identity = identity.into();
    let params = v4::SigningParams::builder().identity(&identity).region(region).name(service);
    let params = params.time(time).settings(settings).build().unwrap().into();
    let request = SignableRequest::new(method, url, headers.iter().copied(), SignableBody::Bytes(body)).unwrap();
    sign(request, &params).unwrap().signature().to_owned()
}

fn read_time(text: &str) -> Option<SystemTime> {
    let time = NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ").ok()?;
    Some(DateTime::<Utc>::from_naive_utc_and_offset(time, Utc).into())
}

fn is_now(time: SystemTime) -> bool {
    SystemTime::now().duration_since(time).is_ok_and(|age| age < Duration::from_secs(60))
}
