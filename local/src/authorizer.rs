//! The JWT authorizer as an HTTP API has it, and the issuer that it trusts: a key pair of this machine alone.
//!
//! Checked, as API Gateway does: the signature and that it is RS256 by the issuer's key, issuer, audience (`client_id`
//! where there is no `aud`), `exp`, `nbf`, `iat`. What the functions make of the claims is not decided here.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rsa::RsaPrivateKey;
use rsa::pkcs1::{DecodeRsaPrivateKey, EncodeRsaPrivateKey, EncodeRsaPublicKey, LineEnding};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Context, Error, Result};
use crate::workspace::{read_if_there, write_private};

/// The `iss` of local tokens.
pub const ISSUER: &str = "https://lectern.localhost";
/// The `aud` of local tokens.
pub const AUDIENCE: &str = "lectern-local";

const KEY_BITS: usize = 2048;

/// The claims of a token.
pub type Claims = Map<String, Value>;

/// A key pair that signs tokens.
#[derive(Clone)]
pub struct SigningKey {
    signing: EncodingKey,
    public: Vec<u8>,
    id: String,
}

impl SigningKey {
    /// Makes a new key pair.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn generate() -> Result<Self> {
        Self::from_rsa(&Self::new_rsa()?)
    }

    /// The key pair in a file, made when there is none, so that tokens outlive a restart.
    ///
    /// # Errors
    /// When the file can be neither read nor written, or holds something else.
    pub fn load_or_generate(path: &Path) -> Result<Self> {
        if let Some(pem) = read_if_there(path)? {
            let key = RsaPrivateKey::from_pkcs1_pem(&pem).context(|| format!("{} holds no key", path.display()))?;
            return Self::from_rsa(&key);
        }
        let key = Self::new_rsa()?;
        let pem = key.to_pkcs1_pem(LineEnding::LF).context(|| "the new key could not be written down")?;
        write_private(path, pem.as_bytes())?;
        Self::from_rsa(&key)
    }

    fn new_rsa() -> Result<RsaPrivateKey> {
        RsaPrivateKey::new(&mut rsa::rand_core::OsRng, KEY_BITS).context(|| "no key could be made")
    }

    fn from_rsa(key: &RsaPrivateKey) -> Result<Self> {
        let unusable = || "the key cannot be used";
        let private = key.to_pkcs1_der().context(unusable)?;
        let public = key.to_public_key().to_pkcs1_der().context(unusable)?.into_vec();
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(&public));
        Ok(Self { signing: EncodingKey::from_rsa_der(private.as_bytes()), public, id })
    }

    /// Signs any claims, right or wrong.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign(&self, claims: &Claims) -> Result<String> {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::RS256) };
        jsonwebtoken::encode(&header, claims, &self.signing).context(|| "the token could not be signed")
    }

    /// The public key, PKCS #1 in DER.
    pub fn public_key(&self) -> &[u8] {
        &self.public
    }

    /// The `kid` of its tokens.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a token is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The `sub`.
    pub subject: String,
    /// The groups; with none, the claim is missing.
    pub groups: Vec<String>,
    /// The `scope`.
    pub scope: Option<String>,
    /// How long the token is good for.
    pub expires_in: Duration,
}

impl Grant {
    /// An hour for somebody of these groups.
    pub fn new(subject: &str, groups: &[&str]) -> Self {
        Self {
            subject: subject.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            scope: None,
            expires_in: Duration::from_secs(3_600),
        }
    }

    /// An hour for the service that may speak for others.
    pub fn service(subject: &str) -> Self {
        Self { scope: Some("lectern/service".to_owned()), ..Self::new(subject, &[]) }
    }
}

/// Why the authorizer lets a request not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no token.
    Missing,
    /// There is one, and this is wrong with it.
    Invalid(&'static str),
}

impl Refusal {
    /// The `WWW-Authenticate` of the 401.
    pub fn challenge(self) -> HeaderValue {
        let challenge = match self {
            Self::Missing => "Bearer".to_owned(),
            Self::Invalid(why) => format!(r#"Bearer scope="" error="invalid_token" error_description="{why}""#),
        };
        HeaderValue::try_from(challenge).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
    }
}

/// The issuer and the authorizer of one machine.
#[derive(Debug)]
pub struct Authorizer {
    key: SigningKey,
    verifying: DecodingKey,
    groups_claim: String,
}

impl Authorizer {
    /// An authorizer that trusts this key; `groups_claim` names the claim that it writes groups to.
    pub fn new(key: SigningKey, groups_claim: &str) -> Self {
        let verifying = DecodingKey::from_rsa_der(key.public_key());
        Self { key, verifying, groups_claim: groups_claim.to_owned() }
    }

    /// The key that it trusts.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The claims of a good token.
    pub fn claims(&self, grant: &Grant, now: DateTime<Utc>) -> Claims {
        let issued = now.timestamp();
        let lifetime = i64::try_from(grant.expires_in.as_secs()).unwrap_or(i64::MAX);
        let mut claims = Map::from_iter([
            ("iss".to_owned(), json!(ISSUER)),
            ("aud".to_owned(), json!(AUDIENCE)),
            ("sub".to_owned(), json!(grant.subject)),
            ("token_use".to_owned(), json!("access")),
            ("iat".to_owned(), json!(issued)),
            ("exp".to_owned(), json!(issued.saturating_add(lifetime))),
            ("jti".to_owned(), json!(Uuid::now_v7())),
        ]);
        if !grant.groups.is_empty() {
            claims.insert(self.groups_claim.clone(), json!(grant.groups));
        }
        if let Some(scope) = &grant.scope {
            claims.insert("scope".to_owned(), json!(scope));
        }
        claims
    }

    /// A good token.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn mint(&self, grant: &Grant, now: DateTime<Utc>) -> Result<String> {
        self.key.sign(&self.claims(grant, now))
    }

    /// The claims of the request's token, if it has a good one.
    ///
    /// # Errors
    /// Why the request is refused.
    pub fn authorize(&self, headers: &HeaderMap, now: DateTime<Utc>) -> std::result::Result<Claims, Refusal> {
        let token = bearer_token(headers)?;
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Invalid("the token cannot be decoded"))?;
        if header.alg != Algorithm::RS256 {
            return Err(Refusal::Invalid("the signing method is invalid"));
        }
        if header.kid.as_deref() != Some(self.key.id()) {
            return Err(Refusal::Invalid("the token was signed by an unknown key"));
        }
        let token = jsonwebtoken::decode::<Claims>(token, &self.verifying, &signature_only())
            .map_err(|_| Refusal::Invalid("the signature is invalid"))?;
        check_claims(&token.claims, now)?;
        Ok(token.claims)
    }
}

fn bearer_token(headers: &HeaderMap) -> std::result::Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::Missing)?.to_str().unwrap_or_default().trim();
    if values.next().is_some() {
        return Err(Refusal::Invalid("there is more than one token"));
    }
    let token = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        // The gateway takes a token without a scheme, too.
        _ => value,
    };
    if token.is_empty() { Err(Refusal::Missing) } else { Ok(token) }
}

/// The claims are checked here, against a time that is a parameter.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn check_claims(claims: &Claims, now: DateTime<Utc>) -> std::result::Result<(), Refusal> {
    let now = now.timestamp() as f64;
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(Refusal::Invalid("a time in the token is not a number")),
    };
    if claims.get("iss").and_then(Value::as_str) != Some(ISSUER) {
        return Err(Refusal::Invalid("the token does not have a valid issuer"));
    }
    if !is_for_us(claims) {
        return Err(Refusal::Invalid("the token does not have a valid audience"));
    }
    if time("exp")?.is_none_or(|expiry| expiry <= now) {
        return Err(Refusal::Invalid("the token has expired"));
    }
    if time("nbf")?.is_some_and(|start| start > now) {
        return Err(Refusal::Invalid("the token is not valid yet"));
    }
    if time("iat")?.is_some_and(|issued| issued > now) {
        return Err(Refusal::Invalid("the token was issued in the future"));
    }
    Ok(())
}

/// `aud`, one or many, decides; only where there is none, `client_id` does.
fn is_for_us(claims: &Claims) -> bool {
    match claims.get("aud").or_else(|| claims.get("client_id")) {
        Some(Value::String(one)) => one == AUDIENCE,
        Some(Value::Array(many)) => many.iter().any(|one| one == AUDIENCE),
        _ => false,
    }
}

/// The claims as API Gateway hands them to a function: every one a text, lists as `[a b]`, nothing for null.
pub(crate) fn render_claims(claims: &Claims) -> Claims {
    claims
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.clone(), Value::String(render(value))))
        .collect()
}

fn render(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(render).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

/// Reads the subject, groups, scope and lifetime that a token is asked for with, as `/_local/token` gets them.
///
/// # Errors
/// When there is no usable `sub` or `expires_in`.
pub fn parse_grant(query: &[(String, String)]) -> Result<Grant> {
    let value = |name: &str| {
        query.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    };
    let subject = value("sub").ok_or_else(|| Error::new("say who the token is for: /_local/token?sub=alice"))?;
    let groups: Vec<&str> = value("groups").map(|list| list.split(',').collect()).unwrap_or_default();
    let groups: Vec<&str> = groups.into_iter().map(str::trim).filter(|group| !group.is_empty()).collect();
    let mut grant = Grant { scope: value("scope").map(str::to_owned), ..Grant::new(subject, &groups) };
    if let Some(seconds) = value("expires_in") {
        let seconds: u32 = seconds.parse().context(|| "expires_in is a whole number of seconds")?;
        grant.expires_in = Duration::from_secs(seconds.into());
    }
    Ok(grant)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::testing::{Scratch, signing_key};

    static AUTHORIZER: LazyLock<Authorizer> = LazyLock::new(|| Authorizer::new(signing_key(), "cognito:groups"));

    fn authorizer() -> &'static Authorizer {
        &AUTHORIZER
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000, 0).expect("a time")
    }

    fn good_claims() -> Claims {
        authorizer().claims(&Grant::new("alice", &["instructor", "admin"]), now())
    }

    fn authorize(authorization: &str) -> std::result::Result<Claims, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).expect("a header"));
        authorizer().authorize(&headers, now())
    }

    fn authorize_with(change: impl FnOnce(&mut Claims)) -> std::result::Result<Claims, Refusal> {
        let mut claims = good_claims();
        change(&mut claims);
        authorize(&format!("Bearer {}", authorizer().key().sign(&claims).expect("signed")))
    }

    fn forged(header: &Value, claims: &Claims, signature: &[u8]) -> String {
        let part = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
        let claims = serde_json::to_vec(claims).expect("JSON");
        format!("{}.{}.{}", part(header.to_string().as_bytes()), part(&claims), part(signature))
    }

    #[test]
    fn a_good_token_passes_with_its_claims() {
        let token = authorizer().mint(&Grant::new("alice", &["instructor"]), now()).expect("a token");
        let claims = authorize(&format!("Bearer {token}")).expect("authorized");
        assert_eq!((&claims["sub"], &claims["token_use"]), (&json!("alice"), &json!("access")));
        assert_eq!(authorize(&token).expect("authorized without a scheme, too"), claims);
    }

    #[test]
    fn no_token_is_told_apart_from_a_bad_one() {
        assert_eq!(authorizer().authorize(&HeaderMap::new(), now()), Err(Refusal::Missing));
        assert_eq!(authorize(""), Err(Refusal::Missing));
        for garbage in ["Bearer", "Bearer garbage", "Bearer a.b.c", "Bearer ..", "Basic YTpi", "Bearer Bearer x"] {
            assert!(matches!(authorize(garbage), Err(Refusal::Invalid(_))), "{garbage}");
        }
        assert_eq!(Refusal::Missing.challenge(), "Bearer");
        let challenge = Refusal::Invalid("the token has expired").challenge();
        assert_eq!(challenge, r#"Bearer scope="" error="invalid_token" error_description="the token has expired""#);
    }

    #[test]
    fn two_tokens_are_one_too_many() {
        let token = authorizer().mint(&Grant::new("alice", &[]), now()).expect("a token");
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            headers.append(AUTHORIZATION, HeaderValue::from_str(&token).expect("a header"));
        }
        assert!(authorizer().authorize(&headers, now()).is_err());
    }

    #[test]
    fn an_unsigned_token_is_refused() {
        for alg in ["none", "None", "NONE"] {
            let header = json!({"alg": alg, "typ": "JWT", "kid": authorizer().key().id()});
            assert!(authorize(&forged(&header, &good_claims(), b"")).is_err(), "{alg}");
        }
    }

    #[test]
    fn a_token_signed_with_the_public_key_as_a_secret_is_refused() {
        let header = Header { kid: Some(authorizer().key().id().to_owned()), ..Header::new(Algorithm::HS256) };
        let secret = EncodingKey::from_secret(authorizer().key().public_key());
        let token = jsonwebtoken::encode(&header, &good_claims(), &secret).expect("signed");
        assert_eq!(authorize(&token), Err(Refusal::Invalid("the signing method is invalid")));
    }

    #[test]
    fn another_key_is_refused_even_under_our_keys_name() {
        let other = SigningKey::generate().expect("a key");
        let token = other.sign(&good_claims()).expect("signed");
        assert_eq!(authorize(&token), Err(Refusal::Invalid("the token was signed by an unknown key")));
        let header = Header { kid: Some(authorizer().key().id().to_owned()), ..Header::new(Algorithm::RS256) };
        let token = jsonwebtoken::encode(&header, &good_claims(), &other.signing).expect("signed");
        assert_eq!(authorize(&token), Err(Refusal::Invalid("the signature is invalid")));
    }

    #[test]
    fn changed_claims_are_refused() {
        let token = authorizer().mint(&Grant::new("alice", &[]), now()).expect("a token");
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let mut claims = good_claims();
        claims.insert("sub".to_owned(), json!("mallory"));
        parts[1] = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).expect("JSON"));
        assert_eq!(authorize(&parts.join(".")), Err(Refusal::Invalid("the signature is invalid")));
    }

    #[test]
    fn times_are_judged_as_the_gateway_does() {
        let at = |offset: i64| json!(now().timestamp() + offset);
        assert!(authorize_with(|claims| drop(claims.insert("exp".to_owned(), at(1)))).is_ok());
        assert!(authorize_with(|claims| drop(claims.insert("nbf".to_owned(), at(0)))).is_ok());
        assert!(authorize_with(|claims| drop(claims.remove("iat"))).is_ok());
        for (name, value) in
            [("exp", at(0)), ("exp", at(-1)), ("exp", json!("2099-01-01T00:00:00Z")), ("nbf", at(1)), ("iat", at(1))]
        {
            assert!(
                authorize_with(|claims| drop(claims.insert(name.to_owned(), value.clone()))).is_err(),
                "{name} {value}"
            );
        }
        assert!(authorize_with(|claims| drop(claims.remove("exp"))).is_err(), "a token for ever");
    }

    #[test]
    fn the_issuer_has_to_be_ours() {
        for issuer in [json!("https://evil.example"), json!([ISSUER]), Value::Null] {
            assert!(
                authorize_with(|claims| drop(claims.insert("iss".to_owned(), issuer.clone()))).is_err(),
                "{issuer}"
            );
        }
    }

    #[test]
    fn the_audience_decides_and_the_client_stands_in_for_a_missing_one() {
        let with = |aud: Option<Value>, client: Option<Value>| {
            authorize_with(|claims| {
                claims.remove("aud");
                claims.extend(aud.map(|aud| ("aud".to_owned(), aud)));
                claims.extend(client.map(|client| ("client_id".to_owned(), client)));
            })
            .is_ok()
        };
        assert!(with(Some(json!([AUDIENCE, "other"])), None));
        assert!(with(None, Some(json!(AUDIENCE))));
        assert!(!with(None, None));
        assert!(!with(Some(json!("other")), Some(json!(AUDIENCE))));
        assert!(!with(Some(json!([])), Some(json!(AUDIENCE))));
    }

    #[test]
    fn claims_are_rendered_as_the_gateway_does() {
        let claims = json!({
            "sub": "alice", "cognito:groups": ["instructor", "admin"], "none": [], "exp": 1_790_000_000,
            "verified": true, "gone": null, "address": {"city": "Graz"},
        });
        let rendered = render_claims(claims.as_object().expect("an object"));
        let expected = json!({
            "sub": "alice", "cognito:groups": "[instructor admin]", "none": "[]", "exp": "1790000000",
            "verified": "true", "address": r#"{"city":"Graz"}"#,
        });
        assert_eq!(Value::Object(rendered), expected);
    }

    #[test]
    fn a_key_is_kept_so_that_tokens_outlive_a_restart() {
        let scratch = Scratch::new("key");
        let path = scratch.path().join("key.pem");
        let first = SigningKey::load_or_generate(&path).expect("made");
        assert_eq!(SigningKey::load_or_generate(&path).expect("kept").id(), first.id());
        std::fs::write(&path, "something else").expect("written");
        assert!(SigningKey::load_or_generate(&path).is_err());
    }

    #[test]
    fn a_grant_is_read_from_a_query() {
        let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let query = pairs(&[("sub", "alice"), ("groups", "instructor, admin,"), ("expires_in", "60")]);
        let grant = parse_grant(&query).expect("a grant");
        assert_eq!(
            (grant.groups, grant.expires_in),
            (vec!["instructor".to_owned(), "admin".to_owned()], Duration::from_secs(60))
        );
        assert_eq!(
            parse_grant(&pairs(&[("sub", "svc"), ("scope", "lectern/service")])).expect("a grant"),
            Grant::service("svc")
        );
        for query in [pairs(&[]), pairs(&[("sub", "")]), pairs(&[("sub", "a"), ("expires_in", "-1")])] {
            assert!(parse_grant(&query).is_err(), "{query:?}");
        }
    }
}
