//! Connections to PostgreSQL: where it is, who comes and how that is proved, and TLS.
//!
//! A server on this machine is spoken to in plain text, unless its URL says otherwise; any other through TLS, unless its
//! URL says `sslmode=disable`. Through TLS the server is always known by its chain and its name: what PostgreSQL's own
//! clients call `verify-full`.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use chrono::Utc;
use deadpool_postgres::Connect;
use futures_util::future::BoxFuture;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinHandle,
};
use tokio_postgres::{
    Client, Config, Connection, NoTls,
    config::{ChannelBinding as Binding, Host, SslMode, SslNegotiation},
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};
use tokio_rustls::TlsConnector;

use crate::{
    config::{Iam, Postgres},
    error::Error,
    sigv4::Signer,
    telemetry, tls,
};

/// How long a token may be used to connect, which is at once: the longest that AWS takes.
const TOKEN_SECONDS: u32 = 900;
/// The name of TLS for PostgreSQL's protocol, which a server asks for that is spoken to in TLS from the first byte.
const PROTOCOL: &[u8] = b"postgresql";

/// Opens connections to one PostgreSQL, in one role.
pub struct Connector {
    target: Config,
    /// `None` is plain text.
    tls: Option<TlsConnector>,
    iam: Option<Iam>,
    /// Whether statements may be prepared by name on them.
    pub prepares: bool,
}

impl Connector {
    /// Prepares connecting; nothing is asked of the network.
    pub fn new(settings: &Postgres) -> Result<Self, Error> {
        let mut target = parse(&settings.url).map_err(|what| Error::internal("reading DATABASE_URL", what))?;
        target.keepalives_idle(Duration::from_secs(60));
        if target.get_application_name().is_none() {
            target.application_name("lectern");
        }
        let tls = (target.get_ssl_mode() != SslMode::Disable).then(|| {
            let mut config = tls::client(&settings.ca_bundle);
            if target.get_ssl_negotiation() == SslNegotiation::Direct {
                config.alpn_protocols = vec![PROTOCOL.to_vec()];
            }
            // Kept for all connections: the next one resumes the session of the one before.
            TlsConnector::from(Arc::new(config))
        });
        // On this machine a server is developed with, and no environment of Lambda is. A pooler that is there knows names by
        // itself (PgBouncer does so since 1.24), or somebody has to say that it does not.
        let prepares = settings.prepares.unwrap_or_else(|| is_local(&target));
        Ok(Self { target, tls, iam: settings.iam.clone(), prepares })
    }

    /// Opens a connection. What drives it ends when the client is dropped.
    pub async fn open(&self) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let mut target = self.target.clone();
        if let Some(iam) = &self.iam {
            target.password(token(iam, &self.target));
        }
        Ok(match &self.tls {
            None => driven(target.connect(NoTls).await?),
            Some(tls) => driven(target.connect(Rustls(tls.clone())).await?),
        })
    }
}

impl Connect for Connector {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        Box::pin(self.open())
    }
}

fn driven<S, T>((client, connection): (Client, Connection<S, T>)) -> (Client, JoinHandle<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::warn!(error = telemetry::chain(&error), "a connection to PostgreSQL broke");
        }
    });
    (client, driver)
}

/// The password that says who comes, made anew for each connection: it is a signed request that nobody sends.
fn token(iam: &Iam, target: &Config) -> String {
    let host = match target.get_hosts() {
        [Host::Tcp(name), ..] => name.as_str(),
        _ => "",
    };
    let port = target.get_ports().first().copied().unwrap_or(5432);
    let signer = Signer { credentials: &iam.credentials, region: &iam.region, service: "rds-db", now: Utc::now() };
    let query = [("Action", "connect"), ("DBUser", target.get_user().unwrap_or_default())];
    signer.presign(&format!("{host}:{port}"), &query, TOKEN_SECONDS)
}

/// Reads a URL, and decides whether its server is spoken to in plain text or through TLS. The error never quotes it.
pub fn parse(url: &str) -> Result<Config, &'static str> {
    // The driver has no word for what is done here anyway: whom rustls connects to has been verified in full.
    let known = |option| match option {
        "sslmode=verify-full" | "sslmode=verify-ca" => "sslmode=require",
        option => option,
    };
    let url = match url.split_once('?') {
        Some((address, options)) => {
            format!("{address}?{}", options.split('&').map(known).collect::<Vec<_>>().join("&"))
        }
        None => url.to_owned(),
    };
    let mut target: Config = url.parse().map_err(|_| "is not a PostgreSQL URL")?;
    if target.get_hosts().is_empty() {
        return Err("names no host");
    }
    if target.get_channel_binding() == Binding::Require {
        return Err("asks for channel binding, which is not there: the server is known by its certificate");
    }
    if target.get_ssl_mode() == SslMode::Prefer {
        target.ssl_mode(if is_local(&target) { SslMode::Disable } else { SslMode::Require });
    }
    Ok(target)
}

/// Whether all its servers are on this machine.
pub fn is_local(target: &Config) -> bool {
    let named = target.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => is_loopback(name),
        Host::Unix(_) => true,
    });
    named && target.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// Whether a name or an address is this machine's.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// TLS by rustls, as the driver wants it.
///
/// Without channel binding, which proves to either side that nobody stands between them: the certificate has proved it
/// to us, and what computes it needs a parser of certificates of its own.
struct Rustls(TlsConnector);

struct Handshake {
    tls: TlsConnector,
    host: String,
}

struct Encrypted<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Rustls {
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        Ok(Handshake { tls: self.0.clone(), host: host.to_owned() })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Handshake {
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Encrypted<S>>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let server = ServerName::try_from(self.host).map_err(io::Error::other)?;
            self.tls.connect(server, stream).await.map(Encrypted)
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_is_spoken_to_through_tls_unless_its_url_says_otherwise() {
        for (url, mode) in [
            ("postgres://me:pw@localhost/db", SslMode::Disable),
            ("postgres://me:pw@127.0.0.2:5433/db", SslMode::Disable),
            ("postgres://me:pw@[::1]/db", SslMode::Disable),
            ("host=/run/postgresql user=me", SslMode::Disable),
            ("postgres://me:pw@127.0.0.1/db?sslmode=prefer", SslMode::Disable),
            ("postgres://me:pw@db.example/db?sslmode=disable", SslMode::Disable),
            ("postgres://me:pw@db.example/db", SslMode::Require),
            ("postgres://me:pw@10.0.0.1/db", SslMode::Require),
            ("postgres://me:pw@127.0.0.1,db.example/db", SslMode::Require),
            ("postgres://me:pw@localhost/db?hostaddr=10.0.0.1", SslMode::Require),
            ("postgres://me:pw@db.example/db?sslmode=prefer&application_name=x", SslMode::Require),
            ("postgres://me:pw@localhost/db?application_name=x&sslmode=require", SslMode::Require),
            ("postgres://me:pw@localhost/db?sslmode=verify-full", SslMode::Require),
            ("postgres://me:pw@localhost/db?sslmode=verify-ca", SslMode::Require),
            ("host=db.example user=me password=a?b", SslMode::Require),
        ] {
            assert_eq!(parse(url).unwrap().get_ssl_mode(), mode, "{url}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_being_quoted() {
        for url in [
            "secret",
            "postgres://",
            "postgres:///db",
            "postgres://secret@db.example/db?sslmode=secret",
            "postgres://db.example/db?channel_binding=require",
        ] {
            assert!(!parse(url).unwrap_err().contains("secret"), "{url}");
        }
    }
}
