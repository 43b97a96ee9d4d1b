//! One request over HTTPS, for functions that speak to something else than their servers once in a while.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use lambda_http::http::{Request, Response, Uri, header::HOST};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{db::connect::is_loopback, tls};

/// The largest answer that is read.
const MOST_BYTES: usize = 1024 * 1024;

/// Why there was no answer. It never quotes the address, which may be a secret of its own.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Sends a request to the address that it names and reads the answer, all within `limit`.
pub(crate) async fn send(request: Request<Bytes>, limit: Duration) -> Result<Response<Bytes>, Failed> {
    timeout(limit, exchange(request)).await?
}

async fn exchange(mut request: Request<Bytes>) -> Result<Response<Bytes>, Failed> {
    let uri = std::mem::replace(request.uri_mut(), Uri::from_static("/"));
    let (host, authority) =
        (uri.host().unwrap_or_default(), uri.authority().map_or("", |authority| authority.as_str()));
    request.headers_mut().insert(HOST, authority.parse()?);
    *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    let host = host.trim_matches(['[', ']']);
    match uri.scheme_str() {
        Some("https") => {
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
            let tls = TlsConnector::from(std::sync::Arc::new(tls::client(&[])));
            answer(tls.connect(ServerName::try_from(host.to_owned())?, stream).await?, request).await
        }
        // A stand-in on this machine.
        Some("http") if is_loopback(host) => {
            answer(TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?, request).await
        }
        _ => Err("the address is not of https".into()),
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, Failed> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender; what goes wrong is told to that.
    tokio::spawn(connection);
    let answer = sender.send_request(request.map(Full::new)).await?;
    let (head, body) = answer.into_parts();
    Ok(Response::from_parts(head, Limited::new(body, MOST_BYTES).collect().await?.to_bytes()))
}
