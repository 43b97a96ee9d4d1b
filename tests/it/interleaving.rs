//! Every order in which readers and writers can meet in the cache, one step at a time.
//!
//! A reader looks, loads and fills; a writer commits and bumps, and has its answer then. Whoever begins to read after
//! that must not get anything older. What is cached is a number here, and all that counts is the order of the steps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::aio::MultiplexedConnection;
use shared::{
    cache::{Body, Cache, Coding, Document, Generation, Slot, Source},
    config::Redis,
    error::Error,
};
use tokio::{sync::oneshot, task::JoinHandle};
use uuid::Uuid;

use crate::{redis_servers, support};

/// What a step is taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Actor {
    /// Three steps: look, load, fill.
    Reader(usize),
    /// Two: commit, bump.
    Writer(usize),
    /// One: Redis loses everything.
    Flush,
}

impl Actor {
    fn steps(self) -> usize {
        match self {
            Self::Reader(_) => 3,
            Self::Writer(_) => 2,
            Self::Flush => 1,
        }
    }
}

/// All orders in which these actors can take their steps.
fn schedules(actors: &[Actor]) -> Vec<Vec<Actor>> {
    fn extend(left: &mut Vec<(Actor, usize)>, schedule: &mut Vec<Actor>, all: &mut Vec<Vec<Actor>>) {
        if left.iter().all(|(_, steps)| *steps == 0) {
            all.push(schedule.clone());
        }
        for index in 0..left.len() {
            if left[index].1 > 0 {
                left[index].1 -= 1;
                schedule.push(left[index].0);
                extend(left, schedule, all);
                schedule.pop();
                left[index].1 += 1;
            }
        }
    }
    let mut all = Vec::new();
    extend(&mut actors.iter().map(|actor| (*actor, actor.steps())).collect(), &mut Vec::new(), &mut all);
    all
}

/// The protocol under test, and the one that everybody writes first.
#[derive(Clone)]
enum Protocol {
    /// One cache for each environment.
    Ours(Vec<Arc<Cache>>),
    /// Store what was loaded; a write deletes it.
    Naive(MultiplexedConnection),
}

impl Protocol {
    async fn read(&self, environment: usize, slot: &Slot, load: impl Future<Output = Document>) -> u64 {
        let document = match self {
            Self::Ours(caches) => {
                let load = async { Ok::<_, Error>(load.await) };
                caches[environment].read_through(slot, load).await.unwrap().0.body.text().unwrap().to_owned()
            }
            Self::Naive(redis) => {
                let mut redis = redis.clone();
                let found: Option<String> = redis::cmd("GET").arg(&slot.key).query_async(&mut redis).await.unwrap();
                match found {
                    Some(found) => found,
                    None => {
                        let loaded = load.await.body.text().unwrap().to_owned();
                        redis::cmd("SET").arg(&slot.key).arg(&loaded).exec_async(&mut redis).await.unwrap();
                        loaded
                    }
                }
            }
        };
        document.parse().unwrap()
    }

    async fn bump(&self, environment: usize, slot: &Slot, generation: &Generation) {
        match self {
            Self::Ours(caches) => caches[environment].bump(std::slice::from_ref(generation)).await,
            Self::Naive(redis) => redis::cmd("DEL").arg(&slot.key).exec_async(&mut redis.clone()).await.unwrap(),
        }
    }
}

/// A reader between two steps.
struct Reader {
    reading: JoinHandle<u64>,
    /// What had been acknowledged when it began.
    due: u64,
    may_load: Option<oneshot::Sender<()>>,
    has_loaded: Option<oneshot::Receiver<()>>,
    may_fill: Option<oneshot::Sender<()>>,
}

/// One meeting of actors over one cached thing.
struct Meeting {
    protocol: Protocol,
    slot: Slot,
    /// Which of the slot's generations the writers bump.
    written: Generation,
    source: Arc<AtomicU64>,
    acknowledged: u64,
    commits: [u64; 2],
    readers: [Option<Reader>; 2],
    done: Vec<(u64, u64)>,
    redis: MultiplexedConnection,
}

impl Meeting {
    /// Takes all steps of a schedule; answers how many reads were older than they may be.
    async fn hold(mut self, schedule: &[Actor]) -> usize {
        for actor in schedule {
            match *actor {
                Actor::Reader(index) => self.read_on(index).await,
                Actor::Writer(index) => self.write_on(index).await,
                Actor::Flush => redis::cmd("FLUSHDB").exec_async(&mut self.redis).await.unwrap(),
            }
        }
        // Who comes afterwards must see it all, be it by what the others have left behind.
        for environment in 0..2 {
            let last = self.source.load(Ordering::Relaxed);
            let value = self.protocol.read(environment, &self.slot, load(&self.source)).await;
            self.done.push((value, last));
        }
        self.done.iter().filter(|(value, due)| value < due).count()
    }

    async fn read_on(&mut self, index: usize) {
        match self.readers[index].take() {
            None => self.begin(index).await,
            Some(mut reader) => {
                if let (Some(go), Some(loaded)) = (reader.may_load.take(), reader.has_loaded.take()) {
                    go.send(()).unwrap();
                    loaded.await.unwrap();
                    self.readers[index] = Some(reader);
                } else if let Some(go) = reader.may_fill.take() {
                    go.send(()).unwrap();
                    self.done.push((reader.reading.await.unwrap(), reader.due));
                    self.readers[index] = Some(finished());
                } else {
                    self.readers[index] = Some(reader);
                }
            }
        }
    }

    /// Up to where it would ask PostgreSQL, or to its end if it finds what it came for.
    async fn begin(&mut self, index: usize) {
        let (entered, has_entered) = oneshot::channel();
        let (may_load, go_load) = oneshot::channel::<()>();
        let (loaded, has_loaded) = oneshot::channel();
        let (may_fill, go_fill) = oneshot::channel::<()>();
        let (protocol, slot, source) = (self.protocol.clone(), self.slot.clone(), self.source.clone());
        let due = self.acknowledged;
        let mut reading = tokio::spawn(async move {
            let load = async {
                entered.send(()).unwrap();
                go_load.await.unwrap();
                let document = load(&source).await;
                loaded.send(()).unwrap();
                go_fill.await.unwrap();
                document
            };
            protocol.read(index, &slot, load).await
        });
        tokio::select! {
            Ok(()) = has_entered => {
                let (may_load, has_loaded, may_fill) = (Some(may_load), Some(has_loaded), Some(may_fill));
                self.readers[index] = Some(Reader { reading, due, may_load, has_loaded, may_fill });
            }
            value = &mut reading => {
                self.done.push((value.unwrap(), due));
                self.readers[index] = Some(finished());
            }
        }
    }

    async fn write_on(&mut self, index: usize) {
        if self.commits[index] == 0 {
            self.commits[index] = self.source.fetch_add(1, Ordering::Relaxed) + 1;
        } else {
            self.protocol.bump(index, &self.slot, &self.written).await;
            self.acknowledged = self.acknowledged.max(self.commits[index]);
        }
    }
}

/// A reader that has no steps left.
fn finished() -> Reader {
    Reader { reading: tokio::spawn(async { 0 }), due: 0, may_load: None, has_loaded: None, may_fill: None }
}

/// What PostgreSQL would say.
async fn load(source: &AtomicU64) -> Document {
    Document::from(source.load(Ordering::Relaxed).to_string())
}

/// The shapes of what is cached: how many generations it depends on beside its visibility, and which one is written.
const SHAPES: [(usize, usize); 4] = [(1, 0), (2, 0), (2, 1), (1, 1)];

fn slot(generations: usize) -> Slot {
    let tag = Uuid::now_v7();
    Slot {
        key: format!("{{{tag}}}:v"),
        coding: Coding::Identity,
        generations: (0..generations).map(|index| Generation(format!("{{{tag}}}:g{index}"))).collect(),
        visibility: Generation(format!("{{{tag}}}:visibility")),
        fresh_for: Duration::from_secs(60),
        is_shared: false,
        own: None,
    }
}

/// Holds a meeting for each schedule, with a cold cache and with a warm one; answers how many reads were too old.
async fn old_reads(is_ours: bool, actors: &[Actor]) -> usize {
    let settings = support::unhurried(&support::redis());
    let redis = redis_servers::connect(&settings.url).await;
    let protocol = if is_ours {
        Protocol::Ours((0..2).map(|_| Arc::new(Cache::new(Some(&settings)).unwrap())).collect())
    } else {
        Protocol::Naive(redis.clone())
    };
    let mut old = 0;
    for (generations, written) in SHAPES {
        for schedule in schedules(actors) {
            for is_warm in [false, true] {
                let slot = slot(generations);
                let written = slot.generations.get(written).unwrap_or(&slot.visibility).clone();
                let source = Arc::new(AtomicU64::new(0));
                if is_warm {
                    protocol.read(0, &slot, load(&source)).await;
                }
                let meeting = Meeting {
                    protocol: protocol.clone(),
                    slot,
                    written,
                    source,
                    acknowledged: 0,
                    commits: [0; 2],
                    readers: [None, None],
                    done: Vec::new(),
                    redis: redis.clone(),
                };
                let found = meeting.hold(&schedule).await;
                assert!(!is_ours || found == 0, "{found} old reads in {schedule:?}, warm: {is_warm}");
                old += found;
            }
        }
    }
    old
}

#[tokio::test]
async fn no_order_of_readers_and_a_writer_brings_back_what_was_before_the_write() {
    assert_eq!(old_reads(true, &[Actor::Reader(0), Actor::Reader(1), Actor::Writer(0)]).await, 0);
}

#[tokio::test]
async fn nor_does_any_order_of_a_reader_and_two_writers() {
    assert_eq!(old_reads(true, &[Actor::Reader(0), Actor::Writer(0), Actor::Writer(1)]).await, 0);
}

#[tokio::test]
async fn nor_does_a_redis_that_loses_everything_in_between() {
    assert_eq!(old_reads(true, &[Actor::Reader(0), Actor::Writer(0), Actor::Flush]).await, 0);
    assert_eq!(old_reads(true, &[Actor::Reader(0), Actor::Reader(1), Actor::Flush]).await, 0);
}

/// That the tests above can fail.
#[tokio::test]
async fn a_cache_that_stores_whatever_was_loaded_does_bring_it_back() {
    assert!(old_reads(false, &[Actor::Reader(0), Actor::Writer(0)]).await > 0);
}

/// A load that waits until it is let go on, and says when it has begun.
fn slow_load(
    value: &str,
) -> (impl Future<Output = Result<Document, Error>> + use<>, oneshot::Receiver<()>, oneshot::Sender<()>) {
    let (begun, has_begun) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel();
    let document = Document::from(value.to_owned());
    let load = async move {
        begun.send(()).unwrap();
        may_go_on.await.unwrap();
        Ok(document)
    };
    (load, has_begun, go_on)
}

async fn unexpected() -> Result<Document, Error> {
    panic!("loaded a second time")
}

#[tokio::test]
async fn who_comes_while_another_loads_waits_for_it_but_not_for_one_from_before_a_write() {
    let settings = support::unhurried(&support::redis());
    let cache = Arc::new(Cache::new(Some(&settings)).unwrap());
    let slot = slot(1);
    let read = |load| {
        let (cache, slot) = (cache.clone(), slot.clone());
        tokio::spawn(async move { cache.read_through(&slot, load).await.map(|(document, _)| document.body) })
    };
    let (load, begun, go_on) = slow_load("old");
    let first = read(load);
    begun.await.unwrap();
    let joined: Vec<_> = (0..50)
        .map(|_| {
            let (cache, slot) = (cache.clone(), slot.clone());
            tokio::spawn(
                async move { cache.read_through(&slot, unexpected()).await.map(|(document, _)| document.body) },
            )
        })
        .collect();
    // They ask over one connection, in turn: when Redis has answered us, it has answered them.
    tokio::task::yield_now().await;
    let other = Slot { key: format!("{}2", slot.key), ..slot.clone() };
    cache.read_through(&other, async { Ok(Document::from("another".to_owned())) }).await.unwrap();
    tokio::task::yield_now().await;
    cache.bump(&slot.generations).await;
    // The first is still at it, but what it brings is from before the bump.
    let new = cache.read_through(&slot, async { Ok(Document::from("new".to_owned())) }).await.unwrap();
    assert_eq!((new.0.body.text(), new.1), (Some("new"), Source::Miss));
    go_on.send(()).unwrap();
    assert_eq!(first.await.unwrap().unwrap(), Body::Text("old".to_owned()));
    for joined in joined {
        assert_eq!(joined.await.unwrap().unwrap(), Body::Text("old".to_owned()));
    }
    assert_eq!(cache.read_through(&slot, unexpected()).await.unwrap().0.body.text(), Some("new"));
}

#[tokio::test]
async fn who_waits_for_a_load_that_is_given_up_loads_itself() {
    let settings = support::unhurried(&support::redis());
    let cache = Arc::new(Cache::new(Some(&settings)).unwrap());
    let slot = slot(1);
    let (load, begun, _go_on) = slow_load("never");
    let first = tokio::spawn({
        let (cache, slot) = (cache.clone(), slot.clone());
        async move { cache.read_through(&slot, load).await.map(drop) }
    });
    begun.await.unwrap();
    let second = cache.read_through(&slot, async { Ok(Document::from("here".to_owned())) });
    first.abort();
    assert_eq!(second.await.unwrap().0.body.text(), Some("here"));
    // A failure is nobody else's.
    let other = Slot { key: format!("{}2", slot.key), ..slot.clone() };
    let failed = cache.read_through(&other, async { Err(Error::Unavailable { context: "test", source: None }) });
    assert!(failed.await.is_err());
    let good = cache.read_through(&other, async { Ok(Document::from("good".to_owned())) });
    assert_eq!(good.await.unwrap().0.body.text(), Some("good"));
}

/// An entry that has passed its time, but of which nothing has moved.
async fn with_expired_entry(cache: &Cache, slot: &Slot) {
    let at_once = Slot { fresh_for: Duration::ZERO, ..slot.clone() };
    cache.read_through(&at_once, async { Ok(Document::from("old".to_owned())) }).await.unwrap();
}

#[tokio::test]
async fn one_environment_fetches_a_shared_copy_anew_and_the_others_go_on_with_it() {
    let settings = support::unhurried(&support::redis());
    let (one, other) = (Cache::new(Some(&settings)).unwrap(), Cache::new(Some(&settings)).unwrap());
    let slot = Slot { is_shared: true, ..slot(1) };
    with_expired_entry(&one, &slot).await;
    let (load, begun, go_on) = slow_load("new");
    let fetching = one.read_through(&slot, load);
    let meanwhile = async {
        begun.await.unwrap();
        let (document, source) = other.read_through(&slot, unexpected()).await.unwrap();
        assert_eq!(document.body.text(), Some("old"));
        assert!(matches!(source, Source::Stale(age) if age < Duration::from_secs(60)), "{source:?}");
        // A write ends that: what was acknowledged is seen by all.
        other.bump(&slot.generations).await;
        let newest = other.read_through(&slot, async { Ok(Document::from("newest".to_owned())) }).await.unwrap();
        assert_eq!(newest.0.body.text(), Some("newest"));
        go_on.send(()).unwrap();
    };
    let (fetched, ()) = tokio::join!(fetching, meanwhile);
    assert_eq!(fetched.unwrap().0.body.text(), Some("new"));
    assert_eq!(one.read_through(&slot, unexpected()).await.unwrap().0.body.text(), Some("newest"));
}

#[tokio::test]
async fn a_copy_of_ones_own_is_fetched_by_whoever_needs_it() {
    let settings = support::unhurried(&support::redis());
    let (one, other) = (Cache::new(Some(&settings)).unwrap(), Cache::new(Some(&settings)).unwrap());
    let slot = slot(2);
    with_expired_entry(&one, &slot).await;
    let (load, begun, go_on) = slow_load("new");
    let meanwhile = async {
        begun.await.unwrap();
        let own = other.read_through(&slot, async { Ok(Document::from("newer".to_owned())) }).await.unwrap();
        assert_eq!((own.0.body.text(), own.1), (Some("newer"), Source::Miss));
        go_on.send(()).unwrap();
    };
    let (fetched, ()) = tokio::join!(one.read_through(&slot, load), meanwhile);
    assert_eq!(fetched.unwrap().1, Source::Miss);
}

#[tokio::test]
async fn stacks_with_other_prefixes_do_not_see_each_other() {
    let settings = support::unhurried(&support::redis());
    let other = Redis { prefix: "other".to_owned(), ..settings.clone() };
    let (one, other) = (Cache::new(Some(&settings)).unwrap(), Cache::new(Some(&other)).unwrap());
    let slot = slot(1);
    one.read_through(&slot, async { Ok(Document::from("one".to_owned())) }).await.unwrap();
    let (document, source) = other.read_through(&slot, async { Ok(Document::from("other".to_owned())) }).await.unwrap();
    assert_eq!((document.body.text(), source), (Some("other"), Source::Miss));
    other.bump(&slot.generations).await;
    assert_eq!(one.read_through(&slot, unexpected()).await.unwrap().1, Source::Hit);
}
