//! A proxy in front of a server of 127.0.0.1 that does to connections what networks and failing servers do to them.
//!
//! What it does can be changed while it runs, and concerns connections that are open as well as new ones; all of them,
//! every second or third, or only those that ask for something certain. It knows just enough of PostgreSQL and of HTTP
//! to tell where an answer ends. What a fault then means for Lectern is tested elsewhere.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// What the other side of a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// PostgreSQL's, version 3, without TLS.
    Postgres,
    /// HTTP/1.1 with `Content-Length`, one request at a time.
    Http,
    /// Anything: what has been read at once counts as an answer.
    Other,
}

/// What is done to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    Pass,
    /// Whatever is read, in either direction, is passed on so much later.
    Delay(Duration),
    /// It is reset.
    Reset,
    /// It is reset, and new ones find nobody listening.
    Refuse,
    /// From the next byte on, what comes is swallowed in both directions, for as long as the connection lasts.
    BlackHole,
    /// The server gets all requests, but nobody hears of it again.
    Mute,
    /// The server answers a request to the end, all is committed; then the connection is reset instead.
    CutAnswer,
    /// The server is not asked: the answer to a request is HTTP 500.
    ServerError,
}

/// A fault and whom it concerns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    fault: Fault,
    every: usize,
    only: Option<&'static str>,
}

impl Fault {
    /// It happens to one of so many connections.
    pub(crate) fn to_every(self, every: usize) -> Plan {
        Plan { every, ..self.into() }
    }

    /// It happens to requests that begin with something in which this text occurs.
    pub(crate) fn only_to(self, text: &'static str) -> Plan {
        Plan { only: Some(text), ..self.into() }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.fault)?;
        if self.every > 1 { write!(formatter, " 1/{}", self.every) } else { Ok(()) }
    }
}

impl From<Fault> for Plan {
    fn from(fault: Fault) -> Self {
        Self { fault, every: 1, only: None }
    }
}

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// A running proxy. It and its connections end when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    protocol: Protocol,
    target: Mutex<SocketAddr>,
    plan: watch::Sender<Plan>,
    resets: watch::Sender<usize>,
    bites: AtomicUsize,
}

impl Proxy {
    /// One in front of `target`, on a free port of 127.0.0.1.
    pub(crate) async fn start(target: SocketAddr, protocol: Protocol) -> Self {
        let listener = bound(([127, 0, 0, 1], 0).into()).listen(BACKLOG).expect("it listens");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            protocol,
            target: Mutex::new(target),
            plan: watch::Sender::new(Fault::Pass.into()),
            resets: watch::Sender::new(0),
            bites: AtomicUsize::new(0),
        });
        Self { address, serving: tokio::spawn(serve(listener, address, shared.clone())), shared }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, this happens.
    pub(crate) fn set(&self, plan: impl Into<Plan>) {
        self.shared.plan.send_replace(plan.into());
    }

    /// Resets all connections that are open now.
    pub(crate) fn reset_all(&self) {
        self.shared.resets.send_modify(|resets| *resets += 1);
    }

    /// New connections lead there: a server that was restarted may listen elsewhere.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().expect("a target") = target;
    }

    /// How often a fault was met with.
    pub(crate) fn bites(&self) -> usize {
        self.shared.bites.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A socket at this address, beside another of ours that may still listen there.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).and_then(|()| socket.set_reuseport(true)).expect("options");
    socket.bind(address).expect("a free port, or one of ours");
    socket
}

async fn serve(mut listener: TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    let mut plan = shared.plan.subscribe();
    let mut connections = JoinSet::new();
    for number in 0.. {
        let refuses = |plan: &Plan| plan.fault == Fault::Refuse;
        let accepted = tokio::select! {
            accepted = listener.accept() => Some(accepted),
            _ = plan.wait_for(refuses) => None,
        };
        let Some(accepted) = accepted else {
            // Bound, but nobody listens: who connects is refused, and the port is ours all the while.
            let socket = bound(address);
            drop(listener);
            shared.bite();
            let _ = plan.wait_for(|plan| !refuses(plan)).await;
            listener = socket.listen(BACKLOG).expect("it listens again");
            continue;
        };
        while connections.try_join_next().is_some() {}
        if let Ok((client, _)) = accepted {
            connections.spawn(Connection::new(shared.clone(), number).relay(client));
        }
    }
}

impl Shared {
    fn bite(&self) {
        self.bites.fetch_add(1, Ordering::Relaxed);
    }
}

/// One connection between a client and the server.
struct Connection {
    shared: Arc<Shared>,
    number: usize,
    /// What the client has sent since the last answer.
    request: Vec<u8>,
    answers: Answers,
    /// An answer that will not be delivered unless it turns out to commit nothing.
    held: Vec<u8>,
    /// What has been swallowed once cannot be made good: neither requests nor answers pass any more.
    is_deaf: bool,
    is_mute: bool,
}

/// How a connection goes on.
enum Next {
    Relay,
    Reset,
}

impl Connection {
    fn new(shared: Arc<Shared>, number: usize) -> Self {
        let answers = Answers { protocol: shared.protocol, begun: shared.protocol != Protocol::Postgres, rest: vec![] };
        Self { shared, number, request: vec![], answers, held: vec![], is_deaf: false, is_mute: false }
    }

    /// What the plan has for this connection, which asked for `request`.
    fn fault(&self) -> Fault {
        let plan = *self.shared.plan.borrow();
        let asked = |text: &str| self.request.windows(text.len()).any(|window| window == text.as_bytes());
        let concerned = self.number.is_multiple_of(plan.every) && plan.only.is_none_or(asked);
        if concerned { plan.fault } else { Fault::Pass }
    }

    async fn relay(mut self, mut client: TcpStream) {
        let (mut plan, mut resets) = (self.shared.plan.subscribe(), self.shared.resets.subscribe());
        let target = *self.shared.target.lock().expect("a target");
        let Ok(mut server) = TcpStream::connect(target).await else {
            let _ = client.set_zero_linger();
            return;
        };
        let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        loop {
            let next = tokio::select! {
                read = client.read(&mut up) => match read {
                    Ok(0) => return,
                    Ok(count) => self.pass_up(&up[..count], &mut client, &mut server).await,
                    Err(_) => Next::Reset,
                },
                read = server.read(&mut down) => match read {
                    Ok(count @ 1..) => self.pass_down(&down[..count], &mut client).await,
                    // Who hears nothing does not hear of the end either.
                    _ if self.is_mute => {
                        while matches!(client.read(&mut up).await, Ok(1..)) {}
                        return;
                    }
                    Ok(_) => return,
                    Err(_) => Next::Reset,
                },
                _ = plan.changed() => match self.fault() {
                    Fault::Reset | Fault::Refuse => self.bitten(Next::Reset),
                    _ => Next::Relay,
                },
                _ = resets.changed() => self.bitten(Next::Reset),
            };
            if matches!(next, Next::Reset) {
                let _ = (client.set_zero_linger(), server.set_zero_linger());
                return;
            }
        }
    }

    async fn pass_up(&mut self, bytes: &[u8], client: &mut TcpStream, server: &mut TcpStream) -> Next {
        self.request.extend_from_slice(bytes);
        match self.fault() {
            _ if self.is_deaf => return Next::Relay,
            Fault::Reset | Fault::Refuse => return self.bitten(Next::Reset),
            Fault::BlackHole => {
                (self.is_deaf, self.is_mute) = (true, true);
                return self.bitten(Next::Relay);
            }
            Fault::ServerError => {
                if is_whole(&self.request) {
                    self.request.clear();
                    let _ = client.write_all(INTERNAL_SERVER_ERROR).await;
                    return self.bitten(Next::Relay);
                }
                return Next::Relay;
            }
            Fault::Delay(delay) => {
                self.shared.bite();
                sleep(delay).await;
            }
            Fault::Pass | Fault::Mute | Fault::CutAnswer => {}
        }
        match server.write_all(bytes).await {
            Ok(()) => Next::Relay,
            Err(_) => Next::Reset,
        }
    }

    async fn pass_down(&mut self, bytes: &[u8], client: &mut TcpStream) -> Next {
        let (fault, begun) = (self.fault(), self.answers.begun);
        let end = self.answers.push(bytes);
        if end.is_some() {
            self.request.clear();
        }
        match fault {
            _ if self.is_mute => return Next::Relay,
            Fault::BlackHole => {
                (self.is_deaf, self.is_mute) = (true, true);
                return self.bitten(Next::Relay);
            }
            Fault::Mute if begun => {
                self.is_mute = true;
                return self.bitten(Next::Relay);
            }
            Fault::Delay(delay) => sleep(delay).await,
            _ => {}
        }
        if !self.held.is_empty() || fault == Fault::CutAnswer && begun {
            self.held.extend_from_slice(bytes);
            return match end {
                None => Next::Relay,
                Some(End::Done) => self.bitten(Next::Reset),
                // Nothing is committed before the transaction ends.
                Some(End::InTransaction) => match client.write_all(&std::mem::take(&mut self.held)).await {
                    Ok(()) => Next::Relay,
                    Err(_) => Next::Reset,
                },
            };
        }
        match client.write_all(bytes).await {
            Ok(()) => Next::Relay,
            Err(_) => Next::Reset,
        }
    }

    fn bitten(&self, next: Next) -> Next {
        self.shared.bite();
        next
    }
}

const INTERNAL_SERVER_ERROR: &[u8] =
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/x-amz-json-1.0\r\n\
    Content-Length: 59\r\n\r\n{\"__type\":\"InternalServerError\",\"message\":\"out of order!!\"}";

/// How an answer ended.
enum End {
    /// Nothing is under way any more.
    Done,
    /// A transaction of PostgreSQL is.
    InTransaction,
}

/// Finds the ends of answers in what a server sends.
struct Answers {
    protocol: Protocol,
    /// The connection is made: what comes now are answers to requests.
    begun: bool,
    rest: Vec<u8>,
}

impl Answers {
    /// Takes the next bytes; says how the answer ended that they complete.
    fn push(&mut self, bytes: &[u8]) -> Option<End> {
        self.rest.extend_from_slice(bytes);
        match self.protocol {
            Protocol::Other => self.rest.clear(),
            Protocol::Http if is_whole(&self.rest) => self.rest.clear(),
            Protocol::Http => return None,
            Protocol::Postgres => {
                let mut status = None;
                // A message is a letter and a length, which counts itself but not the letter.
                while let Some(length) = self.rest.get(1..5).and_then(|length| length.try_into().ok()) {
                    let length = u32::from_be_bytes(length) as usize + 1;
                    if self.rest.len() < length {
                        return None;
                    }
                    let message: Vec<u8> = self.rest.drain(..length).collect();
                    // ReadyForQuery: I(dle), in a T(ransaction), or in one that E(nded) in an error.
                    status = (message[0] == b'Z').then(|| message[5]);
                }
                self.begun |= status.is_some();
                return status.map(|status| if status == b'I' { End::Done } else { End::InTransaction });
            }
        }
        Some(End::Done)
    }
}

/// Whether a message of HTTP is complete.
fn is_whole(message: &[u8]) -> bool {
    let Some(head) = message.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let length = String::from_utf8_lossy(&message[..head]).lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    message.len() >= head + 4 + length.unwrap_or(0)
}

#[cfg(test)]
mod tests;
