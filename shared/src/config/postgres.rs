//! The settings of PostgreSQL: a URL, or its parts with a password or with AWS's word for who comes.

use std::{fmt, net::Ipv6Addr};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::Environment;
use crate::{db::connect, tls};

/// PostgreSQL's own.
const DEFAULT_PORT: u32 = 5432;

/// Where PostgreSQL is, and how one comes in.
#[derive(Clone)]
pub struct Postgres {
    /// Its address, the database and the role, with the password where there is one.
    pub url: String,
    /// The authorities beside the public ones that its certificate may come from.
    pub ca_bundle: Vec<CertificateDer<'static>>,
    /// What passwords are made of where there is none.
    pub iam: Option<Iam>,
    /// Whether statements are prepared by name; if nobody says so, where the server is on this machine.
    pub prepares: Option<bool>,
}

/// Who a function is for AWS, and where: RDS takes its word for a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iam {
    /// Where it runs, and with it the database.
    pub region: String,
    /// Whose word it is.
    pub credentials: Credentials,
}

/// What requests to AWS are signed by. Lambda gives them to an environment once, when it starts.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Which key.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: String,
    /// Goes with a key that is lent for a while.
    pub session_token: Option<String>,
}

impl Postgres {
    /// One that a URL says all about.
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), ca_bundle: Vec::new(), iam: None, prepares: None }
    }

    pub(super) fn read(env: &mut Environment<'_>) -> Self {
        let ca_bundle = bundle(env);
        let (url, iam) = match (env.text("DATABASE_URL"), env.text("DB_HOST")) {
            (Some(url), host) => {
                if host.is_some() {
                    env.problem("DB_HOST", "must be absent where DATABASE_URL is set");
                }
                if let Err(what) = connect::parse(&url) {
                    env.problem("DATABASE_URL", what);
                }
                (url, None)
            }
            (None, Some(host)) => of_parts(env, &host),
            (None, None) => {
                env.problem("DATABASE_URL", "or DB_HOST is required");
                (String::new(), None)
            }
        };
        Self { url, ca_bundle, iam, prepares: env.flag("DB_PREPARE") }
    }
}

/// The same from `DB_HOST` and its kin.
fn of_parts(env: &mut Environment<'_>, host: &str) -> (String, Option<Iam>) {
    let is_name = |name: &str| name.chars().all(|sign| sign.is_ascii_alphanumeric() || "-._".contains(sign));
    let host = if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() };
    if !host.starts_with('[') && !is_name(&host) {
        env.problem("DB_HOST", "must be a host name, without a port");
    }
    let port = env.number("DB_PORT", DEFAULT_PORT, 1..=65_535);
    let (name, user) = (env.required("DB_NAME"), env.required("DB_USER"));
    let password = env.text("DB_PASSWORD");
    let iam = match (env.text("DB_AUTH").as_deref(), &password) {
        (Some("iam"), None) => {
            for name in Iam::VARIABLES {
                env.required(name);
            }
            Iam::find(env)
        }
        (Some("iam"), Some(_)) => {
            env.problem("DB_PASSWORD", "must be absent where DB_AUTH is `iam`");
            None
        }
        (Some(_), _) => {
            env.problem("DB_AUTH", "must be `iam` or absent");
            None
        }
        (None, None) => {
            env.problem("DB_PASSWORD", "is required, unless DB_AUTH is `iam`");
            None
        }
        (None, Some(_)) => None,
    };
    let password = password.map(|password| format!(":{}", encoded(&password))).unwrap_or_default();
    (format!("postgres://{}{password}@{host}:{port}/{}", encoded(&user), encoded(&name)), iam)
}

fn encoded(text: &str) -> impl fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

impl Iam {
    const VARIABLES: [&'static str; 3] = ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

    /// What Lambda says, where it does.
    pub(super) fn find(env: &Environment<'_>) -> Option<Self> {
        let [region, access_key_id, secret_access_key] = Self::VARIABLES.map(|name| env.text(name));
        let credentials = Credentials {
            access_key_id: access_key_id?,
            secret_access_key: secret_access_key?,
            session_token: env.text("AWS_SESSION_TOKEN"),
        };
        Some(Self { region: region?, credentials })
    }
}

/// The authorities of a file.
fn bundle(env: &mut Environment<'_>) -> Vec<CertificateDer<'static>> {
    let Some(pem) = env.file("DB_CA_BUNDLE") else { return Vec::new() };
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(authorities) if tls::has_authority(&authorities) => authorities,
        _ => {
            env.problem("DB_CA_BUNDLE", "holds no certificates in PEM");
            Vec::new()
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Postgres").field("iam", &self.iam).finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Config, ConfigError},
        db::connect::Connector,
    };

    const PARTS: [(&str, &str); 3] = [("DB_HOST", "db.example"), ("DB_NAME", "lectern"), ("DB_USER", "lectern_read")];
    const ROLE: [(&str, &str); 5] = [
        ("DB_AUTH", "iam"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", "secret"),
    ];

    fn postgres(parts: &[&[(&str, &str)]]) -> Result<Postgres, ConfigError> {
        let variables = parts.concat();
        let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Config::from_lookup(lookup).map(|config| config.postgres)
    }

    fn problems(parts: &[&[(&str, &str)]]) -> String {
        postgres(parts).unwrap_err().to_string()
    }

    #[test]
    fn the_parts_make_a_url_whatever_signs_are_in_them() {
        let password = [("DB_PASSWORD", "a/b:c@d?e#ü%20"), ("DB_PORT", "6432")];
        let target = connect::parse(&postgres(&[&PARTS, &password]).unwrap().url).unwrap();
        assert_eq!(target.get_password(), Some("a/b:c@d?e#ü%20".as_bytes()));
        assert_eq!((target.get_user(), target.get_dbname()), (Some("lectern_read"), Some("lectern")));
        assert_eq!((target.get_ports(), target.get_hosts().len()), (&[6432][..], 1));
        let local = [("DB_HOST", "::1"), ("DB_NAME", "a"), ("DB_USER", "b"), ("DB_PASSWORD", "c")];
        assert!(connect::is_local(&connect::parse(&postgres(&[&local]).unwrap().url).unwrap()));
    }

    #[test]
    fn statements_are_prepared_on_this_machine_and_elsewhere_where_somebody_says_so() {
        let prepares = |url: &str, said: &str| {
            let postgres = postgres(&[&[("DATABASE_URL", url), ("DB_PREPARE", said)]]).ok()?;
            Some(Connector::new(&postgres).unwrap().prepares)
        };
        let (here, there) = ("postgres://a@127.0.0.1/b", "postgres://a@pooler.example/b");
        assert_eq!([prepares(here, ""), prepares(here, "false")], [Some(true), Some(false)]);
        assert_eq!([prepares(there, ""), prepares(there, "true")], [Some(false), Some(true)]);
        assert_eq!(prepares(here, "perhaps"), None);
    }

    #[test]
    fn by_iam_there_is_no_password_but_the_credentials_of_the_function() {
        let postgres = postgres(&[&PARTS, &ROLE]).unwrap();
        assert_eq!(postgres.url, "postgres://lectern%5Fread@db.example:5432/lectern");
        let iam = postgres.iam.clone().unwrap();
        assert_eq!((iam.region.as_str(), iam.credentials.session_token.as_deref()), ("eu-central-1", Some("secret")));
        assert!(!format!("{postgres:?}").contains("secret"));
    }

    #[test]
    fn what_is_missing_or_contradicts_itself_is_named_at_once() {
        let missing = problems(&[&[("DB_HOST", "db.example:5432"), ("DB_AUTH", "iam"), ("DB_PORT", "0")]]);
        for name in ["DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "AWS_REGION", "AWS_ACCESS_KEY_ID"] {
            assert!(missing.contains(name), "{missing}");
        }
        for (wrong, name) in [
            (vec![], "DATABASE_URL or DB_HOST is required"),
            ([&PARTS[..], &[("DATABASE_URL", "postgres://secret@localhost/db")]].concat(), "DB_HOST must be absent"),
            (PARTS.to_vec(), "DB_PASSWORD is required"),
            ([&PARTS[..], &ROLE, &[("DB_PASSWORD", "secret")]].concat(), "DB_PASSWORD must be absent"),
            ([&PARTS[..], &[("DB_AUTH", "kerberos")]].concat(), "DB_AUTH must be `iam` or absent"),
        ] {
            let error = problems(&[&wrong]);
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        let file = std::env::temp_dir().join(format!("lectern-bundle-{}.pem", uuid::Uuid::now_v7()));
        let path = file.to_str().unwrap().to_owned();
        let url = [("DATABASE_URL", "postgres://localhost/db"), ("DB_CA_BUNDLE", path.as_str())];
        assert!(problems(&[&url]).contains("DB_CA_BUNDLE cannot be read"));
        for text in ["", "-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&file, text).unwrap();
            assert!(problems(&[&url]).contains("DB_CA_BUNDLE holds no certificates in PEM"), "{text}");
        }
        std::fs::remove_file(&file).unwrap();
    }
}
