//! What recording adds to an enrollment is what folding everything again comes to, and it costs the same however much the
//! learner has done.
//!
//! `SEED=… make test ARGS='folds'` repeats another run of the twins.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::{
    editing::{append, crowd, put, tree_of},
    support::{Caller, Course, Lectern, environment, event, seconds_ago},
};

const OK: StatusCode = StatusCode::OK;

async fn session(lectern: &Lectern) -> Client {
    let (client, connection) = tokio_postgres::connect(&lectern.database, NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    client
}

/// One thing that somebody did.
struct Happening {
    id: Uuid,
    section: String,
    seconds: i32,
    completed: bool,
    at: DateTime<Utc>,
}

impl Happening {
    fn new(section: &str, seconds: i32, completed: bool, at: DateTime<Utc>) -> Self {
        Self { id: Uuid::now_v7(), section: section.to_owned(), seconds, completed, at }
    }
}

/// A call of a version of the function that records, for one learner.
fn call(version: u8, learner: &str, happenings: &[Happening]) -> String {
    let list = |item: fn(&Happening) -> String| happenings.iter().map(item).collect::<Vec<_>>().join(",");
    format!(
        "select recorded from record_progress_v{version}(
            array_fill('{learner}'::text, array[{count}]), array[{ids}]::uuid[], array[{sections}]::uuid[],
            array[{times}]::integer[], array[{completions}]::boolean[], array[{moments}]::timestamptz[],
            now(), now() - interval '30 days', now() + interval '5 minutes', false, false
        )",
        count = happenings.len(),
        ids = list(|happening| format!("'{}'", happening.id)),
        sections = list(|happening| format!("'{}'", happening.section)),
        times = list(|happening| happening.seconds.to_string()),
        completions = list(|happening| happening.completed.to_string()),
        moments = list(|happening| format!("'{}'", happening.at.to_rfc3339())),
    )
}

// ---- What it costs --------------------------------------------------------------------------------------------------

/// Completes sections by batches as large as a request may be.
async fn complete(learner: &Caller<'_>, sections: &[String]) {
    for sections in sections.chunks(500) {
        let events: Vec<Value> = sections.iter().map(|section| event(section, 10, true)).collect();
        learner.record(&events).await.expect(OK);
    }
}

/// Rows that a statement reads of progress and sections.
async fn rows_read(lectern: &Lectern, statement: &str) -> i64 {
    let client = session(lectern).await;
    // Tables as small as these would be read as a whole.
    client.batch_execute("set enable_seqscan = off; begin").await.expect("a transaction");
    client.batch_execute(statement).await.expect("it is done");
    // Of this transaction alone.
    let read = "select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint
        from pg_stat_xact_user_tables where relname in ('progress', 'sections')";
    let read = client.query_one(read, &[]).await.expect("a row").try_get(0).expect("a sum");
    client.batch_execute("rollback").await.expect("it is taken back");
    read
}

#[tokio::test]
async fn an_event_reads_the_same_however_much_its_learner_has_done_and_however_large_the_course_is() {
    let lectern = Lectern::start().await;
    let (large, small) = (lectern.course("ada", &[60; 20]).await, lectern.course("ada", &[60]).await);
    // Of each, all but the last fifty.
    for (name, course) in [("much", &large), ("little", &small)] {
        let learner = lectern.learner(name);
        learner.enrol(course).await.expect(StatusCode::CREATED);
        complete(&learner, &course.sections[..course.sections.len() - 50]).await;
    }
    lectern.sql("analyze").await;
    let last = |course: &Course, from_end: usize| course.sections[course.sections.len() - from_end].clone();
    let minute = |ago: i64| Utc::now() - TimeDelta::minutes(ago);
    type Kind = (&'static str, usize, bool, i64);
    let kinds: [Kind; 5] = [
        ("the next section", 50, true, 0),
        ("a section further on", 20, true, 0),
        ("a section looked at", 30, false, 0),
        ("a section seen again", 51, true, 0),
        ("a late event that comes first", 52, true, 60),
    ];
    for (what, from_end, completed, ago) in kinds {
        let read = async |name: &str, course: &Course| {
            let happening = Happening::new(&last(course, from_end), 5, completed, minute(ago));
            rows_read(&lectern, &call(4, name, &[happening])).await
        };
        let (much, little) = (read("much", &large).await, read("little", &small).await);
        assert_eq!(much, little, "{what}");
        assert!(much <= 16, "{what}: {much} rows");
    }
    // What recorded before had to read.
    let happening = Happening::new(&last(&large, 50), 5, true, minute(0));
    assert!(rows_read(&lectern, &call(3, "much", &[happening])).await > 1_000);
}

#[tokio::test]
async fn where_to_go_on_is_read_without_reading_progress() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[3, 3]).await;
    let learner = lectern.learner("lena");
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    complete(&learner, &[course.sections[0].clone(), course.sections[1].clone(), course.sections[3].clone()]).await;
    let expected = json!({"lastSectionId": course.sections[3], "nextSectionId": course.sections[2]});
    let client = session(&lectern).await;
    client.batch_execute("begin; lock table progress in access exclusive mode").await.expect("a lock");

    assert_eq!(learner.summary(&course).await["resume"], expected);
    let home = learner.get("/me/courses").await.expect(OK);
    assert_eq!(home["enrollments"][0]["nextSectionId"], expected["nextSectionId"]);

    client.batch_execute("rollback").await.expect("the lock is gone");
    // Clients enrol their learners again and again.
    learner.enrol(&course).await.expect(OK);
    client.batch_execute("begin; lock table progress in access exclusive mode").await.expect("a lock");
    assert_eq!(learner.summary(&course).await["resume"], expected);
    client.batch_execute("rollback").await.expect("the lock is gone");
    assert_eq!(lectern.drift().await, 0);
}

// ---- What makes it void ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn whatever_else_is_written_to_an_enrollment_or_its_course_voids_the_resume_points() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[2, 2]).await;
    let (teacher, learner) = (lectern.teacher("ada"), lectern.learner("lena"));
    let enrollment = format!("/courses/{}/enrollment", course.id);
    let known = "select coalesce(bool_and(knows_resume), false) from standings_v2";
    let [a, b, c, d] = [0, 1, 2, 3].map(|index| course.sections[index].clone());
    let shown = async |last: &str, next: &str| {
        let expected = json!({"lastSectionId": last, "nextSectionId": next});
        assert_eq!(learner.summary(&course).await["resume"], expected);
        assert_eq!(lectern.drift().await, 0);
    };
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    assert_eq!(lectern.fetch(known).await, "false");
    complete(&learner, std::slice::from_ref(&a)).await;
    assert_eq!(lectern.fetch(known).await, "true");
    shown(&a, &b).await;

    // A binary of before records.
    lectern.sql(&call(3, "lena", &[Happening::new(&b, 1, true, Utc::now())])).await;
    assert_eq!(lectern.fetch(known).await, "false");
    shown(&b, &c).await;
    complete(&learner, std::slice::from_ref(&c)).await;
    assert_eq!(lectern.fetch(known).await, "true");
    shown(&c, &d).await;

    // The course is edited: what comes last is gone, and what comes next is another.
    let outline = teacher.get(&format!("/me/courses/{}", course.id)).await.expect(OK);
    let mut tree = tree_of(&outline);
    tree["lessons"][1]["sections"].as_array_mut().expect("sections").remove(0);
    let new = json!({"title": "New", "content": "", "type": "text", "order": 1});
    tree["lessons"][1]["sections"].as_array_mut().expect("sections").push(new);
    let edited = put(&teacher, &course.id, 1, &tree).await.expect(OK);
    let new = edited["lessons"][1]["sections"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(lectern.fetch(known).await, "false");
    shown(&b, &new).await;
    complete(&learner, std::slice::from_ref(&new)).await;
    shown(&new, &d).await;

    // They leave and come back.
    learner.delete(&enrollment).await.expect(StatusCode::NO_CONTENT);
    learner.enrol(&course).await.expect(OK);
    assert_eq!(lectern.fetch(known).await, "false");
    shown(&new, &d).await;

    // They begin again.
    complete(&learner, std::slice::from_ref(&b)).await;
    shown(&b, &d).await;
    learner.delete(&format!("/courses/{}/progress", course.id)).await.expect(StatusCode::NO_CONTENT);
    let summary = learner.summary(&course).await;
    assert_eq!(summary["resume"], json!({"lastSectionId": null, "nextSectionId": a}));
    complete(&learner, std::slice::from_ref(&a)).await;
    shown(&a, &b).await;
    assert_eq!(lectern.fetch(known).await, "true");
}

#[tokio::test]
async fn a_late_event_moves_a_completion_only_if_it_was_for_the_section_that_came_last() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[3]).await;
    let learner = lectern.learner("lena");
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    let at = |index: usize, seconds: i64| {
        let mut event = event(&course.sections[index], 1, true);
        event["occurredAt"] = seconds_ago(seconds).into();
        event
    };
    let first = [at(0, 900), at(1, 800), at(2, 700)];
    learner.record(&first).await.expect(OK);
    let completed_at = async || learner.summary(&course).await["completedAt"].clone();
    assert_eq!(completed_at().await, first[2]["occurredAt"]);
    // Of another section, however early: no.
    learner.record(&[at(0, 2_000)]).await.expect(OK);
    assert_eq!(completed_at().await, first[2]["occurredAt"]);
    // Of the last one, to the time in between, and then from before the second.
    let between = at(2, 750);
    learner.record(std::slice::from_ref(&between)).await.expect(OK);
    assert_eq!(completed_at().await, between["occurredAt"]);
    learner.record(&[at(2, 1_000)]).await.expect(OK);
    assert_eq!(completed_at().await, first[1]["occurredAt"]);
    // All three in one batch, twice.
    let all = [at(0, 3_000), at(1, 3_100), at(2, 3_200)];
    for _ in 0..2 {
        learner.record(&all).await.expect(OK);
        assert_eq!(completed_at().await, all[0]["occurredAt"]);
    }
    assert_eq!(lectern.drift().await, 0);
}

// ---- Twins ----------------------------------------------------------------------------------------------------------

/// The same things happen to three learners. What the first does is recorded by the function of before, which folds
/// everything; what the second does by that of today; what the third does by either, in turn.
const TWINS: [&str; 3] = ["before", "today", "either"];
const STEPS: usize = 80;

#[tokio::test]
async fn twins_stand_alike_whether_all_is_folded_or_differences_are_added() {
    let seeds = match environment("SEED").and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => vec![1, 2],
    };
    for seed in seeds {
        // Where very many are enrolled, edits leave them behind the tree.
        for crowd in [0, 251] {
            Twins::start(seed, crowd).await.live().await;
        }
    }
}

struct Twins {
    seed: u64,
    rng: StdRng,
    lectern: Lectern,
    course: Course,
    outline: Value,
    /// All that there ever were.
    sections: BTreeSet<String>,
    batches: usize,
    began: DateTime<Utc>,
}

impl Twins {
    async fn start(seed: u64, others: usize) -> Self {
        let lectern = Lectern::start().await;
        let course = lectern.course("ada", &[2, 2]).await;
        crowd(&lectern, &course.id, others).await;
        let outline = lectern.teacher("ada").get(&format!("/me/courses/{}", course.id)).await.expect(OK);
        for name in TWINS {
            lectern.learner(name).enrol(&course).await.expect(StatusCode::CREATED);
        }
        let sections = course.sections.iter().cloned().collect();
        let rng = StdRng::seed_from_u64(seed);
        Self { seed, rng, lectern, course, outline, sections, batches: 0, began: Utc::now() }
    }

    async fn live(mut self) {
        for step in 0..STEPS {
            match self.rng.random_range(0..100) {
                0..15 => self.edit().await,
                15..20 => self.append().await,
                20..25 => self.reset().await,
                25..28 => drop(self.lectern.invoke("refresh-analytics", json!({})).await),
                _ => self.record().await,
            }
            self.check(step).await;
        }
        self.lectern.invoke("refresh-analytics", json!({})).await;
        assert_eq!(self.lectern.drift().await, 0, "seed {}", self.seed);
    }

    async fn check(&self, step: usize) {
        let place = format!("seed {}, step {step}", self.seed);
        let stored = self
            .lectern
            .fetch(
                "select count(distinct to_jsonb(twin) - array[
                    'user_id', 'enrolled_at', 'active_during', 'last_section_id', 'next_section_id', 'resume_version',
                    'resume_xact'
                ])
                from enrollments as twin where user_id in ('before', 'today', 'either')",
            )
            .await;
        assert_eq!(stored, "1", "{place}");
        let [before, today, either] = TWINS.map(|name| self.lectern.learner(name));
        let expected = before.summary(&self.course).await;
        assert_eq!(today.summary(&self.course).await, expected, "{place}");
        assert_eq!(either.summary(&self.course).await, expected, "{place}");
        if step.is_multiple_of(10) {
            assert_eq!(self.lectern.drift().await, 0, "{place}");
        }
    }

    async fn record(&mut self) {
        let sections: Vec<&String> = self.sections.iter().collect();
        // Ten minutes before the twins began to learn, in a few places of time: many come at the same moment.
        let mut events = Vec::new();
        for _ in 0..self.rng.random_range(1..=5) {
            let section = sections[self.rng.random_range(0..sections.len())];
            let moment = self.began - TimeDelta::seconds(self.rng.random_range(-3..20) * 30);
            let (seconds, completed) = (self.rng.random_range(0..100), self.rng.random_ratio(2, 3));
            events.push(Happening::new(section, seconds, completed, moment));
        }
        self.batches += 1;
        for (name, version) in TWINS.into_iter().zip([3, 4, if self.batches.is_multiple_of(2) { 3 } else { 4 }]) {
            self.lectern.sql(&call(version, name, &events)).await;
        }
        // What was recorded by hand has told the cache nothing.
        self.forget().await;
    }

    async fn reset(&mut self) {
        let at = Utc::now() - TimeDelta::seconds(self.rng.random_range(0..1_200));
        for name in TWINS {
            let reset = format!("select * from reset_progress_v1('{name}', '{}', '{at}', false)", self.course.id);
            self.lectern.sql(&reset).await;
        }
        self.forget().await;
    }

    async fn forget(&self) {
        let generations = TWINS.map(|name| {
            let course = self.course.id.parse().expect("an id");
            shared::learning::generation(name, course)
        });
        self.lectern.app().cache.bump(&generations).await;
    }

    /// Sections go, come back, come new and change places.
    async fn edit(&mut self) {
        let mut tree = tree_of(&self.outline);
        let mut held: Vec<Vec<String>> = Vec::new();
        for lesson in tree["lessons"].as_array().expect("lessons") {
            let sections = lesson["sections"].as_array().expect("sections").iter();
            held.push(sections.map(|section| section["id"].as_str().expect("an id").to_owned()).collect());
        }
        let placed: BTreeSet<String> = held.iter().flatten().cloned().collect();
        for lesson in &mut held {
            if self.rng.random_ratio(1, 2) && !lesson.is_empty() {
                lesson.remove(self.rng.random_range(0..lesson.len()));
            }
        }
        let lesson = self.rng.random_range(0..held.len());
        for id in self.sections.difference(&placed) {
            if self.rng.random_ratio(1, 3) {
                held[lesson].push(id.clone());
            }
        }
        if self.rng.random_ratio(1, 4) {
            held[lesson].push(String::new());
        }
        held.iter_mut().for_each(|lesson| lesson.shuffle(&mut self.rng));
        if self.rng.random_ratio(1, 4) {
            held.shuffle(&mut self.rng);
        }
        for (lesson, held) in tree["lessons"].as_array_mut().expect("lessons").iter_mut().zip(held) {
            let sections = held.iter().zip(1..).map(|(id, order)| {
                let mut section = json!({"title": "S", "type": "text", "order": order, "content": ""});
                if !id.is_empty() {
                    section["id"] = id.as_str().into();
                }
                section
            });
            lesson["sections"] = sections.collect();
        }
        let version = self.outline["version"].as_i64().expect("a version");
        let teacher = self.lectern.teacher("ada");
        self.outline = put(&teacher, &self.course.id, version, &tree).await.expect(OK);
        self.learn_sections();
    }

    async fn append(&mut self) {
        let lessons = self.outline["lessons"].as_array().expect("lessons").len();
        let section = json!({"title": "S", "content": "", "type": "text", "order": 1});
        let lesson = json!([{"title": "L", "order": lessons + 1, "sections": [section]}]);
        let teacher = self.lectern.teacher("ada");
        let answer = append(&teacher, &self.course.id, &Uuid::now_v7().to_string(), &lesson).await;
        self.outline = answer.expect(StatusCode::CREATED);
        self.learn_sections();
    }

    fn learn_sections(&mut self) {
        for lesson in self.outline["lessons"].as_array().expect("lessons") {
            for section in lesson["sections"].as_array().expect("sections") {
                self.sections.insert(section["id"].as_str().expect("an id").to_owned());
            }
        }
    }
}
