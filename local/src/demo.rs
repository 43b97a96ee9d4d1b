//! The demo catalogue: three short courses about Lectern and a few learners who are taking them, loaded through the API
//! as any client would, once, and only into a database that had no course before.
//!
//! A load that breaks off is taken up again by the next start: every request carries a key or an id that is always the
//! same, and the moment of the first attempt is kept, because the times of the events follow from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::db::connect::Connector;
use uuid::Uuid;

use crate::api::{Api, InvokeError};
use crate::authorizer::Grant;
use crate::error::{Context, Error, Result};
use crate::workspace::{read_if_there, write_private};

/// Who wrote the courses.
const TEACHER: &str = "ada";
/// Bodies of `POST /courses`, each with the key that it is sent under. The last one stands first in the catalogue.
const COURSES: [(&str, &str); 3] = [
    ("demo-running", include_str!("../demo/running.json")),
    ("demo-progress", include_str!("../demo/progress.json")),
    ("demo-teachers", include_str!("../demo/teachers.json")),
];
/// The courses' places in that list.
const RUNNING: usize = 0;
const PROGRESS: usize = 1;
const TEACHERS: usize = 2;
/// What the ids of the demo's events are derived from.
const EVENTS: Uuid = Uuid::from_u128(0x6c65_6374_6572_6e00_8d65_6d6f_6576_6e74);

/// How a learner takes a course.
struct Study {
    learner: &'static str,
    course: usize,
    /// How many days before the load they enrolled.
    enrolled_days_ago: i64,
    /// Over how many days they have learnt since.
    days: i64,
    /// How many per cent of the sections they completed.
    completed: usize,
    /// How long they take, in per cent of a section's duration.
    pace: i64,
}

const fn study(
    learner: &'static str,
    course: usize,
    enrolled_days_ago: i64,
    days: i64,
    completed: usize,
    pace: i64,
) -> Study {
    Study { learner, course, enrolled_days_ago, days, completed, pace }
}

const STUDIES: [Study; 18] = [
    study("alice", TEACHERS, 14, 4, 100, 90),
    study("alice", PROGRESS, 9, 7, 60, 100),
    study("ben", TEACHERS, 14, 9, 100, 130),
    study("ben", RUNNING, 4, 3, 30, 140),
    study("chen", TEACHERS, 13, 2, 100, 70),
    study("chen", PROGRESS, 12, 5, 100, 75),
    study("chen", RUNNING, 8, 7, 80, 80),
    study("dora", TEACHERS, 12, 8, 70, 110),
    study("emil", PROGRESS, 11, 10, 100, 120),
    study("emil", RUNNING, 11, 9, 50, 115),
    study("farah", TEACHERS, 10, 6, 100, 100),
    study("farah", PROGRESS, 3, 2, 20, 95),
    study("goran", TEACHERS, 8, 1, 20, 60),
    study("hana", PROGRESS, 7, 6, 90, 105),
    study("hana", RUNNING, 6, 5, 100, 100),
    study("ida", TEACHERS, 5, 3, 50, 125),
    study("jonas", PROGRESS, 2, 1, 10, 90),
    study("jonas", TEACHERS, 1, 0, 0, 100),
];

/// What became of the demo on this start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demo {
    /// It was loaded, or a load that had broken off was completed.
    Loaded,
    /// It had been loaded before.
    Known,
    /// Another edition of it was loaded half; it stays as it is, because the courses' texts are no longer the same.
    Outdated,
    /// The database has courses of its own.
    Unwanted,
}

/// Loads the demo into the API's database, if it is for it.
///
/// # Errors
/// When a request fails; the next call goes on from there.
pub async fn load_once(api: &Api, state: &Path) -> Result<Demo> {
    let mut record = Record::read(state)?;
    let connector = Connector::new(&api.app().config.postgres).context(|| "the database cannot be reached")?;
    let database = Database::look_at(&connector).await.context(|| "the database could not be looked at")?;
    let mut current = match record.loads.get(&database.identity) {
        Some(before) if before.finished => return Ok(Demo::Known),
        Some(before) if before.edition != edition() => {
            record.keep(&database.identity, Load { finished: true, ..before.clone() })?;
            return Ok(Demo::Outdated);
        }
        Some(before) => before.clone(),
        None if database.has_courses => return Ok(Demo::Unwanted),
        None => Load { started: Utc::now(), edition: edition(), finished: false },
    };
    record.keep(&database.identity, current.clone())?;
    load(api, current.started).await?;
    current.finished = true;
    record.keep(&database.identity, current)?;
    Ok(Demo::Loaded)
}

/// Changes whenever a course does: what was begun with one text cannot be completed with another.
fn edition() -> String {
    let digest = COURSES.iter().fold(Sha256::new(), |digest, (_, body)| digest.chain_update(body)).finalize();
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// What is known of a database before the demo goes into it.
struct Database {
    /// Tells this database from any other, the port of its server notwithstanding.
    identity: String,
    has_courses: bool,
}

impl Database {
    async fn look_at(connector: &Connector) -> std::result::Result<Self, tokio_postgres::Error> {
        let (client, _) = connector.open().await?;
        let sql = "select (select system_identifier from pg_control_system()) || '/' || oid as identity,
                exists (select from courses) as has_courses
            from pg_database where datname = current_database()";
        let row = client.query_one(sql, &[]).await?;
        Ok(Self { identity: row.try_get("identity")?, has_courses: row.try_get("has_courses")? })
    }
}

/// The file that remembers which databases have the demo.
struct Record {
    path: PathBuf,
    loads: BTreeMap<String, Load>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Load {
    started: DateTime<Utc>,
    edition: String,
    finished: bool,
}

impl Record {
    fn read(state: &Path) -> Result<Self> {
        let path = state.join("demo.json");
        let loads = match read_if_there(&path)? {
            Some(text) => {
                serde_json::from_str(&text).context(|| format!("{} is damaged: remove it", path.display()))?
            }
            None => BTreeMap::new(),
        };
        Ok(Self { path, loads })
    }

    fn keep(&mut self, database: &str, load: Load) -> Result<()> {
        self.loads.insert(database.to_owned(), load);
        write_private(&self.path, json!(self.loads).to_string().as_bytes())
    }
}

async fn load(api: &Api, now: DateTime<Utc>) -> Result<()> {
    let mut courses = Vec::new();
    for (key, body) in COURSES {
        courses.push(Course::create(api, key, body).await?);
    }
    for (index, course) in courses.iter().enumerate() {
        let studies: Vec<&Study> = STUDIES.iter().filter(|study| study.course == index).collect();
        course.enroll(api, &studies, now).await?;
        for study in studies {
            course.learn(api, study, now).await?;
        }
    }
    api.invoke("refresh-analytics", json!({})).await.map(drop).map_err(|error| match error {
        InvokeError::Unknown => Error::new("there is no refresh-analytics"),
        InvokeError::Failed { message, .. } => Error::new(format!("the figures could not be computed: {message}")),
    })
}

/// A course as it was created.
struct Course {
    id: String,
    /// Ids and durations, in the course's order.
    sections: Vec<(String, i64)>,
}

impl Course {
    async fn create(api: &Api, key: &str, body: &str) -> Result<Self> {
        let grant = Grant::new(TEACHER, &["instructor"]);
        let answer = send(api, &grant, "/courses", Some(key), body.to_owned()).await?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let sections = list(&answer["lessons"]).iter().flat_map(|lesson| list(&lesson["sections"])).collect::<Vec<_>>();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Self {
            id: text(&answer["id"]),
            sections: sections
                .iter()
                .map(|section| (text(&section["id"]), section["duration"].as_i64().unwrap_or_default()))
                .collect(),
        })
    }

    async fn enroll(&self, api: &Api, studies: &[&Study], now: DateTime<Utc>) -> Result<()> {
        let rows: Vec<Value> = studies
            .iter()
            .map(|study| json!({"userId": study.learner, "enrolledAt": rfc3339(study.enrolled(now))}))
            .collect();
        let path = format!("/courses/{}/enrollments", self.id);
        let body = json!({"enrollments": rows}).to_string();
        send(api, &Grant::service("demo"), &path, None, body).await.map(drop)
    }

    async fn learn(&self, api: &Api, study: &Study, now: DateTime<Utc>) -> Result<()> {
        let events = self.events(study, now);
        if events.is_empty() {
            return Ok(());
        }
        let body = json!({"events": events}).to_string();
        send(api, &Grant::new(study.learner, &[]), "/progress", None, body).await.map(drop)
    }

    /// One event for each section that the learner completed, spread over their days, and one for the section that they
    /// have begun since.
    fn events(&self, study: &Study, now: DateTime<Utc>) -> Vec<Value> {
        let completed = self.sections.len() * study.completed / 100;
        let seen = if study.completed == 0 { 0 } else { self.sections.len().min(completed + 1) };
        let step = TimeDelta::days(study.days) / i32::try_from(seen.max(1)).unwrap_or(i32::MAX);
        let mut turn = study.enrolled(now);
        let mut events = Vec::new();
        for (position, (section, duration)) in self.sections.iter().take(seen).enumerate() {
            turn += step;
            let id = Uuid::new_v5(&EVENTS, format!("{}/{}/{position}", study.learner, study.course).as_bytes());
            let done = position < completed;
            events.push(json!({
                "eventId": id,
                "sectionId": section,
                "timeSpent": duration * study.pace / if done { 100 } else { 300 },
                "completed": done,
                // People are no clockwork: up to half a step earlier, and always the same for the same event.
                "occurredAt": rfc3339(turn - step / 512 * i32::from(id.as_bytes()[0])),
            }));
        }
        events
    }
}

impl Study {
    fn enrolled(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now - TimeDelta::days(self.enrolled_days_ago)
    }
}

async fn send(api: &Api, grant: &Grant, path: &str, key: Option<&str>, body: String) -> Result<Value> {
    let failed = || format!("POST {path} failed");
    let token = api.authorizer().mint(grant, Utc::now())?;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .header(CONTENT_TYPE, "application/json");
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let answer = api.call(request.body(Bytes::from(body)).context(failed)?).await;
    if !answer.status().is_success() {
        let said = String::from_utf8_lossy(answer.body()).into_owned();
        return Err(Error::new(format!("{} {said}", answer.status()))).context(failed);
    }
    serde_json::from_slice(answer.body()).context(failed)
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_300_000, 0).expect("a time")
    }

    fn course(sections: usize) -> Course {
        Course { id: "c".to_owned(), sections: (0..sections).map(|section| (format!("s{section}"), 300)).collect() }
    }

    #[test]
    fn every_course_is_a_published_tree_with_something_to_read() {
        for (key, body) in COURSES {
            let body: Value = serde_json::from_str(body).expect(key);
            assert_eq!(body["courseData"]["isPublished"], true, "{key}");
            let lessons = body["lessons"].as_array().expect(key);
            assert!((3..=4).contains(&lessons.len()), "{key}");
            for (position, lesson) in lessons.iter().enumerate() {
                assert_eq!(lesson["order"], position + 1, "{key}");
                let sections = lesson["sections"].as_array().expect(key);
                assert!((2..=4).contains(&sections.len()), "{key}: {}", lesson["title"]);
                for (position, section) in sections.iter().enumerate() {
                    assert_eq!(section["order"], position + 1, "{key}");
                    assert!(section["content"].as_str().is_some_and(|text| text.len() > 200), "{}", section["title"]);
                    assert!(section["duration"].as_i64().is_some_and(|seconds| seconds > 0), "{}", section["title"]);
                }
            }
        }
    }

    #[test]
    fn a_learner_learns_between_their_enrollment_and_now_and_always_the_same() {
        for study in &STUDIES {
            let events = course(10).events(study, now());
            assert_eq!(events, course(10).events(study, now()));
            let times: Vec<&str> = events.iter().filter_map(|event| event["occurredAt"].as_str()).collect();
            assert!(times.is_sorted(), "{}", study.learner);
            let (enrolled, now) = (rfc3339(study.enrolled(now())), rfc3339(now()));
            assert!(times.iter().all(|time| *time >= enrolled.as_str() && *time <= now.as_str()), "{}", study.learner);
        }
    }

    #[test]
    fn who_completes_a_course_has_completed_every_section() {
        let all = course(10).events(&study("x", 0, 14, 4, 100, 90), now());
        assert_eq!((all.len(), all.iter().filter(|event| event["completed"] == true).count()), (10, 10));
        let half = course(10).events(&study("x", 0, 14, 4, 50, 90), now());
        assert_eq!((half.len(), half.iter().filter(|event| event["completed"] == true).count()), (6, 5));
        assert_eq!(course(10).events(&study("x", 0, 1, 0, 0, 100), now()), Vec::<Value>::new());
    }

    #[test]
    fn what_was_loaded_is_remembered_for_each_database() {
        let scratch = crate::testing::Scratch::new("demo");
        let mut record = Record::read(scratch.path()).expect("nothing yet");
        assert!(record.loads.is_empty());
        record.keep("one", Load { started: now(), edition: edition(), finished: true }).expect("kept");
        let record = Record::read(scratch.path()).expect("read again");
        assert!(record.loads["one"].finished && !record.loads.contains_key("other"));
        assert_eq!(record.loads["one"].started, now());
    }
}
