//! Redis as a cache of ready-to-send bodies. Knows no noun: keys stand beside the query that they serve.
//!
//! An entry carries the generations under which it was loaded. A write replaces a generation by a new unique one after
//! its commit, one command whatever hangs on it, and every entry loaded before is void. An entry is stored by a script
//! that refuses when a generation has moved since the reader looked, so a slow reader cannot bring old data back.
//!
//! One reader at a time loads: within an environment the others wait for what it brings, and elsewhere they go on with
//! the copy that has just passed its time, where there is one. While PostgreSQL is away, the last copy is served however
//! old it is, unless what it shows was withdrawn since.
//!
//! The cache may only make things faster: every step is bounded in time, and every failure is a miss.

mod allowance;
mod entry;
mod link;

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use rand::RngExt;
use redis::{Cmd, cmd};
use tokio::{sync::OnceCell, time::sleep};

pub use self::entry::{Body, Coding, Document};
use self::{
    entry::{Copy, new_generation, open, read_generation, seal, unix_millis},
    link::{Link, Miss},
};
use crate::{
    config,
    error::Error,
    telemetry::{self, Metric},
};

/// How long Redis keeps the bytes; how long they count as fresh is in the entry.
const KEEP_ENTRY: Duration = Duration::from_secs(24 * 3600);
/// Generations outlive what was stored under them.
const KEEP_GENERATION: Duration = Duration::from_secs(48 * 3600);
/// Whoever loads for all has this long; then somebody else may.
const LOAD_LIMIT: Duration = Duration::from_secs(2);
/// For how long a change should be told to the cache again and again.
///
/// Longer than anything is fresh, because the cache may be away when it is told first. No copy that is older is shown
/// while PostgreSQL is there.
pub const REPEATED_FOR: Duration = Duration::from_secs(12 * 60);
/// How often it is tried to erase something, whose client waits for it.
const ERASE_ATTEMPTS: u32 = 3;
/// Between two of these: a new connection may have to be opened.
const ERASE_PAUSE: Duration = Duration::from_millis(100);
/// No answer is longer, whatever it was compressed to.
const MOST_UNPACKED: usize = 4 << 20;
/// Freshness is shortened by up to this part, so that what was filled together does not expire together.
const JITTER: f64 = 0.1;

/// Answers the generations, and makes those that are missing or none of ours. Arguments: one for each, if it has to be
/// made, and their life in ms.
const PREPARE: &str = r"
local generations = {}
for i = 1, #KEYS do
  local generation = redis.pcall('GET', KEYS[i])
  if type(generation) ~= 'string' or #generation ~= 32 then
    generation = ARGV[i]
    redis.call('SET', KEYS[i], generation, 'PX', ARGV[#ARGV])
  end
  generations[i] = generation
end
return generations
";

/// Stores the last key if the generations, all other keys, are still the ones seen. Arguments: the generations; then the
/// entry and its life in ms.
const FILL: &str = r"
local last = #KEYS
for i = 1, last - 1 do
  if redis.call('GET', KEYS[i]) ~= ARGV[i] then return 0 end
end
redis.call('SET', KEYS[last], ARGV[last], 'PX', ARGV[last + 1])
return 1
";

/// Where a body came from; the value of `X-Cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The cache.
    Hit,
    /// PostgreSQL, because the cache did not have it.
    Miss,
    /// PostgreSQL, without asking the cache.
    Bypass,
    /// The cache, this long after it was stored: PostgreSQL is away, or another reader is fetching it anew.
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

/// A key beside another one, on which a writer tries now and then whether the server takes writes.
pub fn probe(key: &str) -> String {
    format!("{key}:written")
}

/// The key of something that many entries depend on. All keys of one entry carry the same hash tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation(pub String);

/// What is known of an entry before it is looked up. Keys stand without the prefix that a cache puts before all of its.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The entry's key, but for what it ends with in another coding than the plain one.
    pub key: String,
    /// How the entry is coded.
    pub coding: Coding,
    /// What it depends on.
    pub generations: Vec<Generation>,
    /// What moves when it is withdrawn from some of those who saw it: a copy from before is not even shown as stale.
    pub visibility: Generation,
    /// How long it counts as fresh.
    pub fresh_for: Duration,
    /// Whether many may want it at once. Then one of them fetches it anew, and the others go on with the copy that has
    /// just passed its time.
    pub is_shared: bool,
    /// That of the generations which exists for the reader alone: nothing is kept under somebody who turns out to have
    /// nothing here.
    pub own: Option<Generation>,
}

impl Slot {
    /// The same in the other coding.
    fn otherwise(&self) -> Self {
        Self { coding: self.coding.other(), ..self.clone() }
    }
}

/// The cache, or the absence of one.
#[derive(Debug)]
pub struct Cache(Option<Redis>);

struct Redis {
    link: Link,
    prefix: String,
    flights: Flights,
}

/// The address may hold a password, and the connection cannot show itself.
impl std::fmt::Debug for Redis {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Redis").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Cache {
    /// The cache of these settings, or none. Connects when it is first used.
    pub fn new(settings: Option<&config::Redis>) -> Result<Self, Error> {
        let Some(settings) = settings else { return Ok(Self(None)) };
        let (link, prefix) = (Link::new(settings)?, format!("{}:", settings.prefix));
        Ok(Self(Some(Redis { link, prefix, flights: Flights::default() })))
    }

    /// The entry of a slot, or what `load` brings, which is then stored. Where that is unavailable, the entry as it is.
    pub async fn read_through(
        &self,
        slot: &Slot,
        load: impl Future<Output = Result<Document, Error>>,
    ) -> Result<(Document, Source), Error> {
        // Pinned where it lies, for it would lie here once more for each way to it.
        let load = pin!(load);
        let Some(redis) = &self.0 else { return Ok((load.await?, Source::Bypass)) };
        if !redis.link.admits() {
            telemetry::count(Metric::CacheBreakerOpen);
            return Ok((load.await?, Source::Bypass));
        }
        let Ok(Found { seen, copy }) = redis.look_up(slot).await else {
            return Ok((load.await?, Source::Bypass));
        };
        let copy = match copy {
            Some(copy) if copy.is_current && copy.is_fresh => return Ok(counted(copy.document, Source::Hit)),
            Some(copy) if copy.is_current && copy.age < REPEATED_FOR && slot.is_shared => {
                if !redis.may_load(slot).await {
                    return Ok(counted(copy.document, Source::Stale(copy.age)));
                }
                Some(copy)
            }
            copy => copy,
        };
        // On the heap, so that a hit is not as large as a miss.
        match (Box::pin(redis.load(slot, seen, load)).await, copy) {
            (Ok(document), _) => Ok(counted(document, Source::Miss)),
            (Err(error @ Error::Unavailable { .. }), copy) => {
                let copy = match copy {
                    None => redis.look_up_otherwise(slot).await,
                    copy => copy,
                };
                let Some(copy) = copy else { return Err(error) };
                tracing::warn!(error = telemetry::chain(&error), "PostgreSQL is away: a stale copy is served");
                Ok(counted(copy.document, Source::Stale(copy.age)))
            }
            (Err(error), _) => {
                // It may be gone, or not for everybody any more, and nobody has told us.
                redis.forget(slot).await;
                Err(error)
            }
        }
    }

    /// Makes void whatever was stored under these generations. Called after the commit, before the answer.
    ///
    /// Tried even while reads leave Redis alone: an entry that outlives its write is worse than a wait.
    pub async fn bump(&self, generations: &[Generation]) {
        let (Some(redis), false) = (&self.0, generations.is_empty()) else { return };
        let keys: Vec<String> = generations.iter().map(|Generation(key)| redis.key(key)).collect();
        // A generation must never be set a second time: another write may have come in between.
        let set = |key: &str| {
            let mut command = cmd("SET");
            command.arg(key).arg(new_generation()).arg("PX").arg(KEEP_GENERATION.as_millis() as u64);
            command
        };
        let told = redis.link.tell("bump", &keys, set).await;
        if let Err(miss) = told {
            telemetry::count(Metric::LostBumps);
            if miss == Miss::Failed {
                // A Redis that is full takes nothing, but it can still forget, and what has no generation is void.
                let _ = redis.link.tell("forget", &keys, |key| Cmd::del(key)).await;
            }
        }
    }

    /// Takes away keys, generations among them, and fails where it cannot: the one thing that is not done for speed.
    ///
    /// Nothing brings them back: whoever loads what was stored there finds the generation gone and does not store it.
    pub async fn erase(&self, keys: &[String]) -> Result<(), Error> {
        let Some(redis) = self.0.as_ref().filter(|_| !keys.is_empty()) else { return Ok(()) };
        let keys: Vec<String> = keys.iter().map(|key| redis.key(key)).collect();
        for attempt in 0..ERASE_ATTEMPTS {
            if attempt > 0 {
                sleep(ERASE_PAUSE).await;
            }
            if redis.link.tell("erase", &keys, |key| Cmd::unlink(key)).await.is_ok() {
                return Ok(());
            }
        }
        Err(Error::Unavailable { context: "Redis: keys have to be erased", source: None })
    }
}

/// What is read, once its source is counted.
fn counted(document: Document, source: Source) -> (Document, Source) {
    match source {
        Source::Hit => telemetry::count(Metric::CacheHit),
        Source::Miss => telemetry::count(Metric::CacheMiss),
        Source::Stale(_) => telemetry::count(Metric::CacheStale),
        Source::Bypass => {}
    }
    (document, source)
}

/// What a look-up found: the generations as they are now (empty where there is none), and the entry if it may be shown.
struct Found {
    seen: Vec<Vec<u8>>,
    copy: Option<Copy>,
}

impl Redis {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// All that a look-up needs: what the entry depends on, its visibility last, and then the entry.
    fn keys(&self, slot: &Slot) -> Vec<String> {
        let dependencies = slot.generations.iter().chain([&slot.visibility]).map(|Generation(key)| key);
        dependencies.map(|key| self.key(key)).chain([self.entry(slot)]).collect()
    }

    fn entry(&self, slot: &Slot) -> String {
        self.key(&slot.key) + slot.coding.suffix()
    }

    async fn look_up(&self, slot: &Slot) -> Result<Found, Miss> {
        let mut command = cmd("MGET");
        command.arg(self.keys(slot));
        let mut values: Vec<Option<Vec<u8>>> = self.link.read(&self.entry(slot), &command).await?;
        let entry = values.pop().flatten();
        let seen: Vec<Vec<u8>> = values.into_iter().map(Option::unwrap_or_default).collect();
        let copy = entry.and_then(|entry| open(entry, &seen, unix_millis()));
        Ok(Found { seen, copy })
    }

    /// The entry in the other coding, as a text, which the answer is made of in either. What one reader alone wants is
    /// kept in one coding.
    async fn look_up_otherwise(&self, slot: &Slot) -> Option<Copy> {
        if !slot.is_shared || !self.link.admits() {
            return None;
        }
        let copy = self.look_up(&slot.otherwise()).await.ok()?.copy?;
        Some(Copy { document: copy.document.unpacked(MOST_UNPACKED)?, ..copy })
    }

    /// The generations under which something may be stored: made, where there are none. A reader who had seen none could
    /// not tell that one was set, and lost again, while it loaded.
    async fn prepare(&self, slot: &Slot, seen: Vec<Vec<u8>>) -> Result<Vec<String>, Miss> {
        let known: Vec<String> = seen.iter().filter_map(|seen| read_generation(seen)).map(str::to_owned).collect();
        if known.len() == seen.len() {
            return Ok(known);
        }
        let mut keys = self.keys(slot);
        keys.truncate(seen.len());
        let mut command = cmd("EVAL");
        command.arg(PREPARE).arg(keys.len()).arg(&keys);
        for _ in &keys {
            command.arg(new_generation());
        }
        command.arg(KEEP_GENERATION.as_millis() as u64);
        self.link.ask("prepare", &command).await
    }

    /// Whether nobody else is at it. Where that cannot be told, nobody is.
    async fn may_load(&self, slot: &Slot) -> bool {
        let mut command = cmd("SET");
        command.arg(format!("{}:load", self.entry(slot))).arg("1").arg("NX");
        command.arg("PX").arg(LOAD_LIMIT.as_millis() as u64);
        self.link.ask::<bool>("lock", &command).await.unwrap_or(true)
    }

    /// Loads and stores, or waits for another reader of this environment who saw the same generations and is at it:
    /// nothing that was acknowledged before we came can be missing from what it brings.
    async fn load(
        &self,
        slot: &Slot,
        seen: Vec<Vec<u8>>,
        load: impl Future<Output = Result<Document, Error>>,
    ) -> Result<Document, Error> {
        let Ok(seen) = self.prepare(slot, seen).await else { return load.await };
        let flight = self.flights.join(self.entry(slot), seen);
        let (mut load, mut failure) = (Some(load), None);
        let shared = flight.cell.get_or_init(|| async {
            let result = match load.take() {
                Some(load) => load.await,
                None => return None,
            };
            result.map_err(|error| failure = Some(error)).ok()
        });
        let shared = shared.await.clone();
        match (load, failure, shared) {
            // What has failed for another may still work for us.
            (Some(load), _, None) => load.await,
            (Some(_), _, Some(document)) => Ok(document),
            (None, Some(error), _) => Err(error),
            (None, None, document) => {
                let document = document.ok_or(Error::Internal { context: "loading", source: None })?;
                self.store(slot, &flight.name.1, &document).await;
                Ok(document)
            }
        }
    }

    /// A generation that is missing voids as well as a new one, so taking it away hurts nobody.
    async fn forget(&self, slot: &Slot) {
        let own = slot.own.iter().map(|Generation(key)| self.key(key));
        let keys: Vec<String> = own.chain([self.entry(slot), self.entry(&slot.otherwise())]).collect();
        let _ = self.link.ask::<i64>("forget", &Cmd::del(keys)).await;
    }

    async fn store(&self, slot: &Slot, generations: &[String], document: &Document) {
        let jitter = 1.0 - rand::rng().random_range(0.0..=JITTER);
        let keys = self.keys(slot);
        let mut command = cmd("EVAL");
        command.arg(FILL).arg(keys.len()).arg(keys).arg(generations);
        command.arg(seal(document, generations, unix_millis(), slot.fresh_for.mul_f64(jitter)));
        command.arg(KEEP_ENTRY.as_millis() as u64);
        // Refused or not, the reader has what it came for.
        let _ = self.link.ask::<i64>("fill", &command).await;
    }
}

/// A slot's key and the generations that were seen with it.
type FlightName = (String, Vec<String>);

/// What is being loaded in this environment right now.
#[derive(Default)]
struct Flights(Mutex<HashMap<FlightName, Weak<OnceCell<Option<Document>>>>>);

impl Flights {
    fn join(&self, key: String, seen: Vec<String>) -> Flight<'_> {
        let name = (key, seen);
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = flights.get(&name).and_then(Weak::upgrade).unwrap_or_else(|| {
            let cell = Arc::default();
            flights.insert(name.clone(), Arc::downgrade(&cell));
            cell
        });
        Flight { flights: self, name, cell }
    }
}

/// A part in a load. The last one to leave, whether it is done or was given up, takes the flight off the board.
struct Flight<'a> {
    flights: &'a Flights,
    name: FlightName,
    /// What was loaded, or nothing where that failed.
    cell: Arc<OnceCell<Option<Document>>>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&self.cell) == 1 {
            flights.remove(&self.name);
        }
    }
}
