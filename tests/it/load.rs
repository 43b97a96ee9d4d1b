//! Learners' devices at work: batches with known events, sent again until somebody has taken them, and a log of all
//! answers. Whether what was taken also counts is found out in `balance`.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use local::authorizer::Grant;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::{StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use uuid::{Builder, Uuid};

use crate::rig::{ENVIRONMENTS, Environments, Rig};

/// Devices that send at the same time.
const DEVICES: u64 = 10;
/// Fewer, so that some send for the same learner at once.
const LEARNERS: usize = 6;
/// The most events in a batch.
const MOST_EVENTS: usize = 50;
/// Between two batches of a device, and before it sends one again. Less patient than `Retry-After` asks for.
const PAUSE_MS: std::ops::Range<u64> = 20..80;
const PAUSE_AFTER_FAILURE_MS: std::ops::Range<u64> = 50..250;
/// After this a device sends the same batch again, elsewhere, whatever becomes of the first.
const DEVICE_PATIENCE: Duration = Duration::from_secs(4);
/// A batch that nobody has taken for so long will not be taken.
const BATCH_PATIENCE: Duration = Duration::from_secs(60);

/// An event as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: Uuid,
    pub(crate) section: Uuid,
    /// The others are to be rejected.
    pub(crate) has_section: bool,
    pub(crate) time_spent: u32,
    completed: bool,
}

/// A batch that was taken.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) learner: String,
    pub(crate) events: Vec<Event>,
    pub(crate) taken: Taken,
    /// No other device sent the same.
    pub(crate) is_only: bool,
}

/// How it was taken.
#[derive(Debug)]
pub(crate) enum Taken {
    /// 200, with these results.
    Recorded(Value),
    /// 202, as this submission.
    Parked(Uuid),
}

/// A request and what came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) environment: usize,
    pub(crate) ended: Instant,
    pub(crate) took: Duration,
    /// `None` where no answer came.
    pub(crate) status: Option<StatusCode>,
    pub(crate) retry_after: bool,
    pub(crate) is_read: bool,
    /// The environment was frozen or dead meanwhile.
    pub(crate) excused: bool,
}

/// A load that is on.
pub(crate) struct Load {
    field: Arc<Field>,
    stop: watch::Sender<bool>,
    devices: JoinSet<Vec<Delivery>>,
}

/// What devices share.
struct Field {
    environments: Arc<Environments>,
    http: reqwest::Client,
    /// With their tokens.
    learners: Vec<(String, String)>,
    courses: Vec<String>,
    sections: Vec<Uuid>,
    log: Mutex<Vec<Attempt>>,
    taken: watch::Sender<usize>,
}

impl Load {
    /// Enrols learners of this name and lets them begin.
    pub(crate) async fn start(rig: &Rig, name: &str, seed: u64) -> Self {
        let mut learners = Vec::new();
        for number in 0..LEARNERS {
            let learner = format!("{name}-{number}");
            for course in &rig.courses {
                rig.control.learner(&learner).enrol(course).await.expect(StatusCode::CREATED);
            }
            let token = rig.control.token(&Grant::new(&learner, &[]));
            learners.push((learner, token));
        }
        let sections = rig.courses.iter().flat_map(|course| &course.sections);
        let field = Arc::new(Field {
            environments: rig.environments.clone(),
            http: reqwest::Client::builder().timeout(DEVICE_PATIENCE).build().expect("a client"),
            learners,
            courses: rig.courses.iter().map(|course| course.id.clone()).collect(),
            sections: sections.map(|section| section.parse().expect("an id")).collect(),
            log: Mutex::default(),
            taken: watch::Sender::new(0),
        });
        let (stop, mut devices) = (watch::Sender::new(false), JoinSet::new());
        for number in 0..DEVICES {
            let rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number));
            devices.spawn(device(field.clone(), rng, stop.subscribe()));
        }
        Self { field, stop, devices }
    }

    /// Waits until so many events have been taken.
    pub(crate) async fn has_delivered(&self, events: usize) {
        let mut taken = self.field.taken.subscribe();
        let enough = timeout(BATCH_PATIENCE * 3, taken.wait_for(|taken| *taken >= events)).await;
        assert!(enough.is_ok(), "only {} events were taken", *self.field.taken.borrow());
    }

    /// Waits until every environment has recorded a batch again, and says how long that took, since `from`.
    pub(crate) async fn recovery(&self, from: Instant) -> Option<Duration> {
        let patience = Duration::from_secs(10);
        while from.elapsed() < patience {
            let first = |environment| {
                let log = self.field.log();
                let good = log.iter().filter(|attempt| attempt.is_good() && attempt.environment == environment);
                good.map(|attempt| attempt.ended).filter(|ended| *ended > from).min()
            };
            let firsts: Option<Vec<Instant>> = (0..ENVIRONMENTS).map(first).collect();
            if let Some(last) = firsts.and_then(|firsts| firsts.into_iter().max()) {
                return Some(last - from);
            }
            sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// Lets every device finish its batch. All that was sent has been taken then.
    pub(crate) async fn stop(self) -> (Vec<Delivery>, Vec<Attempt>) {
        self.stop.send_replace(true);
        let deliveries = self.devices.join_all().await.into_iter().flatten().collect();
        (deliveries, std::mem::take(&mut *self.field.log()))
    }
}

impl Attempt {
    /// It recorded a batch.
    pub(crate) fn is_good(&self) -> bool {
        self.status == Some(StatusCode::OK) && !self.is_read
    }
}

/// Sends batch after batch; some from two devices at once, some before a look at what they came to.
async fn device(field: Arc<Field>, mut rng: StdRng, stop: watch::Receiver<bool>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while !*stop.borrow() {
        let learner = rng.random_range(0..field.learners.len());
        let events = field.events(&mut rng);
        let copies = if rng.random_ratio(1, 10) { 2 } else { 1 };
        let seeds: Vec<u64> = (0..copies).map(|_| rng.random()).collect();
        let sendings = seeds.into_iter().map(|seed| field.deliver(learner, &events, StdRng::seed_from_u64(seed)));
        for taken in join_all(sendings).await {
            let learner = field.learners[learner].0.clone();
            deliveries.push(Delivery { learner, events: events.clone(), taken, is_only: copies == 1 });
        }
        field.taken.send_modify(|taken| *taken += events.len());
        if rng.random_ratio(1, 8) {
            field.look(learner, &mut rng).await;
        }
        sleep(Duration::from_millis(rng.random_range(PAUSE_MS))).await;
    }
    deliveries
}

impl Field {
    fn log(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.log.lock().expect("a log")
    }

    fn events(&self, rng: &mut StdRng) -> Vec<Event> {
        let count = rng.random_range(1..=MOST_EVENTS);
        let id = |rng: &mut StdRng| Builder::from_random_bytes(rng.random()).into_uuid();
        let event = |_| {
            let has_section = !rng.random_ratio(1, 40);
            let section = if has_section { self.sections[rng.random_range(0..self.sections.len())] } else { id(rng) };
            let (time_spent, completed) = (rng.random_range(1..=600), rng.random_ratio(1, 5));
            Event { id: id(rng), section, has_section, time_spent, completed }
        };
        (0..count).map(event).collect()
    }

    /// Sends a batch to one environment or another until somebody takes it.
    async fn deliver(&self, learner: usize, events: &[Event], mut rng: StdRng) -> Taken {
        let events: Vec<Value> = events.iter().map(Event::to_json).collect();
        let body = json!({ "events": events });
        let patience = Instant::now() + BATCH_PATIENCE;
        let mut environment = rng.random_range(0..ENVIRONMENTS);
        loop {
            let request = |url: &str| self.http.post(format!("{url}/progress")).json(&body);
            match self.attempt(learner, environment, false, request).await {
                Some((StatusCode::OK, mut answer)) => return Taken::Recorded(answer["results"].take()),
                Some((StatusCode::ACCEPTED, answer)) => {
                    let id = answer["submissionId"].as_str().and_then(|id| id.parse().ok());
                    return Taken::Parked(id.expect("an id"));
                }
                _ => {}
            }
            assert!(Instant::now() < patience, "nobody takes a batch");
            environment = (environment + 1) % ENVIRONMENTS;
            sleep(Duration::from_millis(rng.random_range(PAUSE_AFTER_FAILURE_MS))).await;
        }
    }

    /// Looks at the learner's progress.
    async fn look(&self, learner: usize, rng: &mut StdRng) {
        let environment = rng.random_range(0..ENVIRONMENTS);
        let path = format!("/courses/{}/progress", self.courses[rng.random_range(0..self.courses.len())]);
        self.attempt(learner, environment, true, |url| self.http.get(format!("{url}{path}"))).await;
    }

    async fn attempt(
        &self,
        learner: usize,
        environment: usize,
        is_read: bool,
        request: impl FnOnce(&str) -> reqwest::RequestBuilder,
    ) -> Option<(StatusCode, Value)> {
        let (url, started) = (self.environments.url(environment), Instant::now());
        let answer = async {
            let answer = request(&url).bearer_auth(&self.learners[learner].1).send().await?;
            let (status, retry_after) = (answer.status(), answer.headers().contains_key(RETRY_AFTER));
            Ok::<_, reqwest::Error>((status, retry_after, answer.json().await?))
        };
        let answer = answer.await.ok();
        let ended = Instant::now();
        self.log().push(Attempt {
            environment,
            ended,
            took: ended - started,
            status: answer.as_ref().map(|(status, ..)| *status),
            retry_after: answer.as_ref().is_some_and(|(_, retry_after, _)| *retry_after),
            is_read,
            excused: self.environments.was_in_trouble(environment, started, ended),
        });
        answer.map(|(status, _, body)| (status, body))
    }
}

impl Event {
    fn to_json(&self) -> Value {
        json!({
            "eventId": self.id,
            "sectionId": self.section,
            "timeSpent": self.time_spent,
            "completed": self.completed,
        })
    }
}
