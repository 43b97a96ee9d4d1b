//! Redis as a cache of ready-to-send bodies. Knows no noun: keys stand beside the query that they serve.
//!
//! An entry carries the generations under which it was loaded. A write replaces a generation by a new unique one after
//! its commit, one command whatever hangs on it, and every entry loaded before is void. An entry is stored by a script
//! that refuses when a generation has moved since the reader looked, so a slow reader cannot bring old data back.
//!
//! While PostgreSQL is away, the last copy is served however old it is, unless what it shows was withdrawn since.
//!
//! The cache may only make things faster: every step is bounded in time, and every failure is a miss.

use std::{
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rand::RngExt;
use redis::{
    Client, FromRedisValue, Pipeline, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{breaker::Breaker, error::Error, telemetry};

/// Opening a connection, which happens inside the first step.
const CONNECT_LIMIT: Duration = Duration::from_millis(80);
/// One command: a cache that needs longer is slower than the database.
const COMMAND_LIMIT: Duration = Duration::from_millis(50);
/// One step as a whole, connecting included.
const STEP_LIMIT: Duration = Duration::from_millis(100);
/// Quick failures in a row until then; a thawed environment loses its first command, and that alone means nothing.
const FAILURES_TO_OPEN: u32 = 3;
/// How long Redis keeps the bytes; how long they count as fresh is in the entry.
const KEEP_ENTRY: Duration = Duration::from_secs(24 * 3600);
/// Generations outlive what was stored under them.
const KEEP_GENERATION: Duration = Duration::from_secs(48 * 3600);
/// Freshness is shortened by up to this part, so that what was filled together does not expire together.
const JITTER: f64 = 0.1;

/// Stores the last key if the generations, all other keys, are still the ones seen. Arguments: for each generation the
/// one seen ('' for none) and the one under which the entry stands; then the entry, its life and theirs in ms.
const FILL: &str = r"
local last = #KEYS
for i = 1, last - 1 do
  if (redis.call('GET', KEYS[i]) or '') ~= ARGV[2 * i - 1] then return 0 end
end
for i = 1, last - 1 do
  if ARGV[2 * i] ~= ARGV[2 * i - 1] then redis.call('SET', KEYS[i], ARGV[2 * i], 'PX', ARGV[#ARGV]) end
end
redis.call('SET', KEYS[last], ARGV[#ARGV - 2], 'PX', ARGV[#ARGV - 1])
return 1
";

/// A ready-to-send JSON body; for a page of a list, with the cursor of the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The body.
    pub body: String,
    /// Where the next page begins.
    pub next: Option<String>,
}

impl From<String> for Document {
    fn from(body: String) -> Self {
        Self { body, next: None }
    }
}

/// Where a body came from; the value of `X-Cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The cache.
    Hit,
    /// PostgreSQL, because the cache did not have it.
    Miss,
    /// PostgreSQL, without asking the cache.
    Bypass,
    /// The cache, this long after it was stored: PostgreSQL is away.
    Stale(Duration),
}

impl Source {
    /// As `X-Cache` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
            Self::Stale(_) => "stale",
        }
    }
}

/// The key of something that many entries depend on. All keys of one entry carry the same hash tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation(pub String);

/// What is known of an entry before it is looked up.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The entry's key.
    pub key: String,
    /// What it depends on.
    pub generations: Vec<Generation>,
    /// What moves when it is withdrawn from some of those who saw it: a copy from before is not even shown as stale.
    pub visibility: Generation,
    /// How long it counts as fresh.
    pub fresh_for: Duration,
}

/// The cache, or the absence of one.
#[derive(Debug)]
pub struct Cache(Option<Redis>);

struct Redis {
    client: Client,
    connection: RwLock<ConnectionManager>,
    failures: AtomicU32,
    breaker: Breaker,
}

/// The address may hold a password, and the connection cannot show itself.
impl std::fmt::Debug for Redis {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Redis").field("failures", &self.failures).finish_non_exhaustive()
    }
}

impl Cache {
    /// A cache at `url`, or none. Connects when it is first used.
    pub fn new(url: Option<&str>) -> Result<Self, Error> {
        let Some(url) = url else { return Ok(Self(None)) };
        let unreadable = |error| Error::internal("reading REDIS_URL", error);
        let client = Client::open(url).map_err(unreadable)?;
        let connection = RwLock::new(connection(&client).map_err(unreadable)?);
        Ok(Self(Some(Redis { client, connection, failures: AtomicU32::new(0), breaker: Breaker::default() })))
    }

    /// The entry of a slot, or what `load` brings, which is then stored. Where that is unavailable, the entry as it is.
    pub async fn read_through(
        &self,
        slot: &Slot,
        load: impl Future<Output = Result<Document, Error>>,
    ) -> Result<(Document, Source), Error> {
        let Some(redis) = self.0.as_ref().filter(|redis| redis.breaker.admits()) else {
            return Ok((load.await?, Source::Bypass));
        };
        let Some(found) = redis.look_up(slot).await else {
            return Ok((load.await?, Source::Bypass));
        };
        let copy = match found.copy {
            Some(Copy { document, is_current: true, .. }) => return Ok((document, Source::Hit)),
            copy => copy,
        };
        match (load.await, copy) {
            (Ok(document), _) => {
                redis.store(slot, &found.seen, &document).await;
                Ok((document, Source::Miss))
            }
            (Err(error @ Error::Unavailable { .. }), Some(Copy { document, age, .. })) => {
                tracing::warn!(error = telemetry::chain(&error), "PostgreSQL is away: a stale copy is served");
                Ok((document, Source::Stale(age)))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Makes void whatever was stored under these generations. Called after the commit, before the answer.
    ///
    /// Tried even while reads leave Redis alone: an entry that outlives its write is worse than a wait.
    pub async fn bump(&self, generations: &[Generation]) {
        let (Some(redis), false) = (&self.0, generations.is_empty()) else { return };
        let commands = || {
            let mut pipeline = redis::pipe();
            for Generation(key) in generations {
                let command = pipeline.cmd("SET").arg(key).arg(new_generation());
                command.arg("PX").arg(KEEP_GENERATION.as_millis() as u64).ignore();
            }
            pipeline
        };
        redis.step::<()>("bump", commands).await;
    }
}

/// What a look-up found: the generations as they are now (empty where there is none), and the entry if it may be shown.
struct Found {
    seen: Vec<Vec<u8>>,
    copy: Option<Copy>,
}

/// An entry that may be shown.
#[derive(Debug, PartialEq, Eq)]
struct Copy {
    document: Document,
    /// Fresh, and nothing that it depends on has moved: as good as what PostgreSQL would say.
    is_current: bool,
    age: Duration,
}

impl Slot {
    /// All that the entry depends on; the visibility comes last.
    fn dependencies(&self) -> impl Iterator<Item = &String> {
        self.generations.iter().chain([&self.visibility]).map(|Generation(key)| key)
    }
}

impl Redis {
    async fn look_up(&self, slot: &Slot) -> Option<Found> {
        let commands = || {
            let mut pipeline = redis::pipe();
            let command = pipeline.cmd("MGET");
            for key in slot.dependencies().chain([&slot.key]) {
                command.arg(key);
            }
            pipeline
        };
        let (mut values,): (Vec<Option<Vec<u8>>>,) = self.step("read", commands).await?;
        let entry = values.pop().flatten();
        let seen: Vec<Vec<u8>> = values.into_iter().map(Option::unwrap_or_default).collect();
        let copy = entry.and_then(|entry| open(entry, &seen, unix_millis()));
        Some(Found { seen, copy })
    }

    async fn store(&self, slot: &Slot, seen: &[Vec<u8>], document: &Document) {
        // Where there is none, or something that is not ours, begin anew.
        let current = |seen: &Vec<u8>| read_generation(seen).map_or_else(new_generation, str::to_owned);
        let generations: Vec<String> = seen.iter().map(current).collect();
        let jitter = 1.0 - rand::rng().random_range(0.0..=JITTER);
        let entry = seal(document, &generations, unix_millis(), slot.fresh_for.mul_f64(jitter));
        let commands = || {
            let keys: Vec<&String> = slot.dependencies().chain([&slot.key]).collect();
            let mut pipeline = redis::pipe();
            let command = pipeline.cmd("EVAL").arg(FILL).arg(keys.len()).arg(keys);
            for (seen, generation) in seen.iter().zip(&generations) {
                command.arg(seen).arg(generation);
            }
            command.arg(&entry).arg(KEEP_ENTRY.as_millis() as u64).arg(KEEP_GENERATION.as_millis() as u64);
            pipeline
        };
        self.step::<(i64,)>("fill", commands).await;
    }

    /// One bounded step; a failure is counted and is nothing.
    ///
    /// A connection that died while nobody looked fails its first command and is then made anew, so a command that
    /// failed without a time-out is sent once more, made anew too: a generation must never be set a second time.
    async fn step<T: FromRedisValue>(&self, step: &'static str, commands: impl Fn() -> Pipeline) -> Option<T> {
        let started = Instant::now();
        let work = async {
            match commands().query_async(&mut self.connection()).await {
                Err(error) if !error.is_timeout() => commands().query_async(&mut self.connection()).await,
                result => result,
            }
        };
        let (failures, error) = match timeout(STEP_LIMIT, work).await {
            Ok(Ok(value)) => {
                self.failures.store(0, Ordering::Relaxed);
                self.breaker.close();
                return Some(value);
            }
            Ok(Err(error)) if error.is_timeout() => (FAILURES_TO_OPEN, error.to_string()),
            Ok(Err(error)) => (self.failures.fetch_add(1, Ordering::Relaxed) + 1, error.to_string()),
            Err(_) => (FAILURES_TO_OPEN, "no answer in time".to_owned()),
        };
        telemetry::count_cache_failure();
        if failures >= FAILURES_TO_OPEN {
            self.leave_alone(step, started, &error);
        }
        None
    }

    fn connection(&self) -> ConnectionManager {
        self.connection.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leaves Redis alone for a while, and begins with a new connection then: a silent one is never replaced by itself.
    fn leave_alone(&self, step: &'static str, since: Instant, error: &str) {
        if self.breaker.open(since) {
            tracing::warn!(step, error, "the cache is left alone for a while");
        }
        if let Ok(fresh) = connection(&self.client) {
            *self.connection.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
    }
}

/// A connection that is opened when it is first used.
fn connection(client: &Client) -> Result<ConnectionManager, RedisError> {
    let settings = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(CONNECT_LIMIT))
        .set_response_timeout(Some(COMMAND_LIMIT));
    ConnectionManager::new_lazy_with_config(client.clone(), settings)
}

/// Stands before the body, in one line.
#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    generations: Vec<&'a str>,
    stored: u64,
    until: u64,
    next: Option<String>,
}

fn seal(document: &Document, generations: &[String], now: u64, fresh_for: Duration) -> Vec<u8> {
    let envelope = Envelope {
        generations: generations.iter().map(String::as_str).collect(),
        stored: now,
        until: now + fresh_for.as_millis() as u64,
        next: document.next.clone(),
    };
    // A struct of strings and a number always serialises.
    let mut bytes = serde_json::to_vec(&envelope).unwrap_or_default();
    bytes.push(b'\n');
    bytes.extend_from_slice(document.body.as_bytes());
    bytes
}

/// A stored entry, if it is whole and its visibility, the last generation, has not moved. The body is not parsed.
fn open(mut entry: Vec<u8>, generations: &[Vec<u8>], now: u64) -> Option<Copy> {
    let end = entry.iter().position(|byte| *byte == b'\n')?;
    let body = entry.split_off(end + 1);
    let envelope: Envelope<'_> = serde_json::from_slice(entry.get(..end)?).ok()?;
    let current: Vec<&str> = generations.iter().map(|generation| read_generation(generation).unwrap_or("")).collect();
    let visibility = current.last().filter(|visibility| !visibility.is_empty())?;
    if envelope.generations.last() != Some(visibility) {
        return None;
    }
    Some(Copy {
        is_current: now < envelope.until && current == envelope.generations,
        age: Duration::from_millis(now.saturating_sub(envelope.stored)),
        document: Document { body: String::from_utf8(body).ok()?, next: envelope.next },
    })
}

/// Unique, so that a generation which was evicted and made anew never revives what was stored under an old one.
fn new_generation() -> String {
    Uuid::now_v7().simple().to_string()
}

/// A generation as we make them; anything else in its place is none.
fn read_generation(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.len() == 32)
}

fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(generations: &[String]) -> Vec<Vec<u8>> {
        generations.iter().map(|generation| generation.as_bytes().to_vec()).collect()
    }

    const FRESH_FOR: Duration = Duration::from_millis(100);

    fn is_current(copy: Option<Copy>) -> Option<bool> {
        copy.map(|copy| copy.is_current)
    }

    #[test]
    fn an_entry_comes_back_as_it_was_stored() {
        let generations = [new_generation(), new_generation()];
        let document = Document { body: "{\"title\":\"line\\nbreak 🦀\"}\n".into(), next: Some("cursor".into()) };
        let entry = seal(&document, &generations, 1_000, FRESH_FOR);
        let copy = Copy { document, is_current: true, age: Duration::from_millis(99) };
        assert_eq!(open(entry, &seen(&generations), 1_099), Some(copy));
    }

    #[test]
    fn an_entry_of_another_generation_or_past_its_time_is_not_current() {
        let generations = [new_generation(), new_generation()];
        let entry = || seal(&Document::from("{}".to_owned()), &generations, 1_000, FRESH_FOR);
        assert_eq!(is_current(open(entry(), &seen(&generations), 1_099)), Some(true));
        assert_eq!(is_current(open(entry(), &seen(&generations), 1_100)), Some(false));
        for other in [new_generation().into_bytes(), Vec::new(), b"\xff".to_vec()] {
            assert_eq!(is_current(open(entry(), &[other, seen(&generations)[1].clone()], 1_000)), Some(false));
        }
    }

    #[test]
    fn what_was_withdrawn_is_not_shown_at_all() {
        let generations = [new_generation(), new_generation()];
        let entry = || seal(&Document::from("{}".to_owned()), &generations, 1_000, FRESH_FOR);
        for other in [new_generation().into_bytes(), Vec::new(), b"\xff".to_vec()] {
            assert_eq!(open(entry(), &[seen(&generations)[0].clone(), other], 1_000), None);
        }
        assert_eq!(open(entry(), &[], 1_000), None);
    }

    #[test]
    fn garbage_is_a_miss() {
        let generations = [new_generation()];
        let mut torn = seal(&Document::from("{}".to_owned()), &generations, 1, FRESH_FOR);
        torn.push(0xff);
        for garbage in [&b""[..], b"\n", b"{}\n{}", b"\xff\xfe", &torn] {
            assert_eq!(open(garbage.to_vec(), &seen(&generations), 1), None);
        }
    }
}
