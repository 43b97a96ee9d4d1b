//! What a function asks of PostgreSQL, read off the wire between the two.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
};

use crate::Fallible;

/// A statement as it was sent: its text, the types of its parameters (object ids), and their values in binary.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    /// With `$1` and so on.
    pub(crate) sql: String,
    /// The types, as the sender declared them.
    pub(crate) types: Vec<u32>,
    /// `None` is null.
    pub(crate) values: Vec<Option<Vec<u8>>>,
}

/// A pipe to PostgreSQL that keeps a copy.
pub(crate) struct Recorder {
    /// Where it listens.
    pub(crate) address: String,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Recorder {
    /// Begins to listen for one server.
    pub(crate) async fn of(server: &str) -> Fallible<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let sent = Arc::<Mutex<Vec<Sent>>>::default();
        let (server, log) = (server.to_owned(), sent.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let (from_client, mut to_client) = client.into_split();
                let (mut from_server, to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                tokio::spawn(copy(from_client, to_server, log.clone()));
            }
        });
        Ok(Self { address, sent })
    }

    /// What was sent since the last call.
    pub(crate) fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut *self.sent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn copy(mut client: OwnedReadHalf, mut server: tokio::net::tcp::OwnedWriteHalf, log: Arc<Mutex<Vec<Sent>>>) {
    let (mut buffer, mut pending, mut started) = (vec![0; 64 * 1024], Vec::new(), false);
    let mut known = HashMap::<String, Sent>::new();
    while let Ok(read @ 1..) = client.read(&mut buffer).await {
        pending.extend_from_slice(&buffer[..read]);
        while let Some(length) = length(&pending, started) {
            let message: Vec<u8> = pending.drain(..length).collect();
            match message.first() {
                Some(b'P') if started => known.extend([parse(&message[5..])]),
                Some(b'B') if started => {
                    let (name, values) = bind(&message[5..]);
                    let sent = Sent { values, ..known.get(&name).cloned().unwrap_or_default() };
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
                }
                _ => {}
            }
            started = true;
        }
        if server.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// The length of the first message, if all of it is there. The very first one, the start-up, has no type.
fn length(pending: &[u8], started: bool) -> Option<usize> {
    let head = usize::from(started);
    let length = u32::from_be_bytes(pending.get(head..head + 4)?.try_into().ok()?) as usize;
    (pending.len() >= head + length).then_some(head + length)
}

/// `Parse`: the statement's name, its text, its types.
fn parse(message: &[u8]) -> (String, Sent) {
    let mut reader = Reader(message);
    let (name, sql) = (reader.text(), reader.text());
    let types = (0..reader.short()).map(|_| reader.long() as u32).collect();
    (name, Sent { sql, types, values: Vec::new() })
}

/// `Bind`: names of portal and statement, formats, values.
fn bind(message: &[u8]) -> (String, Vec<Option<Vec<u8>>>) {
    let mut reader = Reader(message);
    reader.text();
    let name = reader.text();
    for _ in 0..reader.short() {
        reader.short();
    }
    let value = |reader: &mut Reader<'_>| match reader.long() {
        length @ 0.. => Some(reader.bytes(length as usize).to_vec()),
        _ => None,
    };
    (name, (0..reader.short()).map(|_| value(&mut reader)).collect())
}

/// Reads a message from its front; what is missing reads as nothing.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }
    fn short(&mut self) -> i16 {
        self.bytes(2).try_into().map_or(0, i16::from_be_bytes)
    }
    fn long(&mut self) -> i32 {
        self.bytes(4).try_into().map_or(-1, i32::from_be_bytes)
    }
    fn text(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let text = String::from_utf8_lossy(self.bytes(end)).into_owned();
        self.bytes(1);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_read_with_its_types_and_values() {
        let mut message = b"s7\0select $1, $2\0".to_vec();
        message.extend([0, 2, 0, 0, 0, 25, 0, 0, 0, 16]);
        let (name, parsed) = parse(&message);
        assert_eq!((name.as_str(), parsed.sql.as_str(), parsed.types), ("s7", "select $1, $2", vec![25, 16]));
        let mut message = b"\0s7\0".to_vec();
        message.extend([0, 1, 0, 1, 0, 2, 0, 0, 0, 2, b'h', b'i', 255, 255, 255, 255]);
        assert_eq!(bind(&message), ("s7".to_owned(), vec![Some(b"hi".to_vec()), None]));
    }

    #[test]
    fn a_message_that_is_not_all_there_yet_has_no_length() {
        assert_eq!(length(&[b'P', 0, 0, 0, 6, 1, 2], true), Some(7));
        assert_eq!(length(&[b'P', 0, 0, 0, 6, 1], true), None);
        assert_eq!(length(&[0, 0, 0, 4], false), Some(4));
        assert_eq!(length(&[b'P', 0], true), None);
    }
}
