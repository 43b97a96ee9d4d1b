//! What the local run reads from its environment. The only file of this package that does.

use std::net::IpAddr;

use shared::db::connect;

use crate::error::{Context, Error, Result};

const DEFAULT_PORT: u16 = 3000;
/// What went wrong, and nothing else; `RUST_LOG=info` shows every request.
const DEFAULT_LOG_LEVEL: &str = "warn";

/// The settings of `lectern run`.
#[derive(Clone, Default)]
pub struct Settings {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// A PostgreSQL to use instead of starting one.
    pub database_url: Option<String>,
    /// A Redis to use instead of starting one.
    pub redis_url: Option<String>,
    /// A `DynamoDB` to use instead of starting a stand-in.
    pub dynamodb_url: Option<String>,
    /// The least level of the functions' log lines.
    pub log_level: String,
}

impl Settings {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// When a value cannot be used, or names a server on another machine without leave.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(read)
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let port = match lookup("PORT") {
            None => DEFAULT_PORT,
            Some(port) => port.parse().context(|| format!("PORT must be a number from 0 to 65535, not {port:?}"))?,
        };
        let log_level = lookup("RUST_LOG").unwrap_or_else(|| DEFAULT_LOG_LEVEL.to_owned());
        let settings = Self {
            port,
            database_url: lookup("DATABASE_URL"),
            redis_url: lookup("REDIS_URL"),
            dynamodb_url: lookup("AWS_ENDPOINT_URL_DYNAMODB"),
            log_level,
        };
        if lookup("ALLOW_REMOTE").as_deref() != Some("1") {
            settings.refuse_remote()?;
        }
        Ok(settings)
    }

    /// A run migrates and may load a demo: that must not happen to somebody's server because a variable was still set.
    fn refuse_remote(&self) -> Result<()> {
        let remote = |variable: &str| {
            Error::new(format!(
                "{variable} names a server that is not on this machine; set ALLOW_REMOTE=1 if that is what you want"
            ))
        };
        if let Some(url) = &self.database_url
            && !is_database_local(url)?
        {
            return Err(remote("DATABASE_URL"));
        }
        if let Some(url) = &self.redis_url
            && !is_redis_local(url)?
        {
            return Err(remote("REDIS_URL"));
        }
        if let Some(url) = &self.dynamodb_url
            && !is_endpoint_local(url)?
        {
            return Err(remote("AWS_ENDPOINT_URL_DYNAMODB"));
        }
        Ok(())
    }
}

/// A variable as the shared configuration reads it: an empty one counts as absent.
pub(crate) fn read(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the one file of the local run that reads the environment")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_database_local(url: &str) -> Result<bool> {
    let target = connect::parse(url).map_err(|what| Error::new(format!("DATABASE_URL {what}")))?;
    Ok(connect::is_local(&target))
}

fn is_redis_local(url: &str) -> Result<bool> {
    use redis::{ConnectionAddr, IntoConnectionInfo};
    let info = url.into_connection_info().map_err(|_| Error::new("REDIS_URL is not a Redis URL"))?;
    Ok(match info.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => is_host_local(host),
        ConnectionAddr::Unix(_) => true,
        _ => false,
    })
}

fn is_endpoint_local(url: &str) -> Result<bool> {
    let uri: http::Uri = url.parse().map_err(|_| Error::new("AWS_ENDPOINT_URL_DYNAMODB is not a URL"))?;
    Ok(uri.host().is_some_and(is_host_local))
}

fn is_host_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_lookup(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_has_to_be_set() {
        let settings = settings(&[]).expect("settings");
        assert_eq!((settings.port, settings.database_url, settings.redis_url), (3000, None, None));
    }

    #[test]
    fn servers_of_this_machine_may_be_used() {
        for url in [
            "postgres://me:secret@localhost/db",
            "postgres://me@127.0.0.1:5433,127.0.0.2/db",
            "host=/var/run/postgresql user=me",
            "postgres://me@[::1]/db",
        ] {
            assert!(settings(&[("DATABASE_URL", url)]).is_ok(), "{url}");
        }
        for url in
            ["redis://127.0.0.1:6379/1", "redis://:pw@localhost", "redis://[::1]/", "redis+unix:///run/redis.sock"]
        {
            assert!(settings(&[("REDIS_URL", url)]).is_ok(), "{url}");
        }
    }

    #[test]
    fn servers_elsewhere_need_leave() {
        for (name, url) in [
            ("DATABASE_URL", "postgres://me:secret@db.example/db"),
            ("DATABASE_URL", "postgres://me@localhost,db.example/db"),
            ("DATABASE_URL", "postgres://me@localhost/db?hostaddr=10.0.0.1"),
            ("DATABASE_URL", "postgres://me@localhost.example/db"),
            ("REDIS_URL", "redis://cache.example"),
            ("REDIS_URL", "rediss://10.0.0.1:6379"),
        ] {
            let error = settings(&[(name, url)]).err().expect(url).report();
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
            assert!(settings(&[(name, url), ("ALLOW_REMOTE", "1")]).is_ok(), "{url}");
            assert!(settings(&[(name, url), ("ALLOW_REMOTE", "0")]).is_err(), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_without_its_value() {
        for (name, value) in [("PORT", "http"), ("DATABASE_URL", "secret"), ("REDIS_URL", "secret")] {
            let error = settings(&[(name, value)]).err().expect(name).report();
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
        }
    }
}
