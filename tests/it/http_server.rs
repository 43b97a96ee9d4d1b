//! A small HTTP server that answers as a test says and keeps what it was asked.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// What came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The method and what follows the host.
    pub(crate) line: String,
    /// The headers, their names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: String,
}

pub(crate) struct HttpServer {
    /// Where it is, without a path.
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl HttpServer {
    /// `reply` gets what came and the number of the request, from 0; without a reply the server hangs up.
    pub(crate) async fn start(
        reply: impl Fn(Asked, usize) -> BoxFuture<'static, Option<Reply>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let kept = asked.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut client = BufReader::new(client);
                let request = read(&mut client).await;
                let number = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(request.clone());
                    kept.len() - 1
                };
                let Some(Reply { status, headers, body }) = reply(request, number).await else { continue };
                let mut head =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
                for (name, value) in headers {
                    head += &format!("{name}: {value}\r\n");
                }
                client.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
            }
        });
        Self { url, asked }
    }

    /// What has come so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Reply {
    /// One without headers of its own.
    pub(crate) fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// An error as AWS tells it.
    pub(crate) fn aws_error(status: u16, kind: &'static str, message: &str) -> Self {
        let body = serde_json::json!({ "message": message }).to_string();
        Self { headers: vec![("x-amzn-errortype", kind)], ..Self::new(status, body) }
    }
}

impl Asked {
    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

async fn read(client: &mut BufReader<TcpStream>) -> Asked {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        client.read_line(&mut line).await.unwrap();
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let line = lines.remove(0);
    let headers = lines.iter().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let mut asked = Asked { line, headers, body: Vec::new() };
    let length = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
    asked.body.resize(length, 0);
    client.read_exact(&mut asked.body).await.unwrap();
    asked
}
