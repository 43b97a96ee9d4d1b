//! The calls that are measured: which function, which event, about which of the courses and learners that are there.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio_postgres::{Client, types::Type};
use uuid::Uuid;

use crate::{Fallible, failed, recorder::Sent};

/// Reads go round so many courses, learners, sections.
pub(crate) const VARIANTS: usize = 20;
/// Who writes courses here; what is theirs is removed afterwards.
pub(crate) const AUTHOR: &str = "bench-author";

/// How a call is repeated.
pub(crate) enum Work {
    /// Reads: one of these after the other.
    Read(Vec<Bytes>),
    /// Writes: something new each time, of this size.
    Record(usize),
    /// `POST /courses`, 50 lessons of 20 sections.
    Create,
    /// `PUT /courses/{courseId}/enrollment` by somebody new.
    Enroll,
}

/// A call.
pub(crate) struct Call {
    /// What is called.
    pub(crate) name: String,
    /// The function's binary.
    pub(crate) function: &'static str,
    /// What it does.
    pub(crate) work: Work,
    /// How often it is made in a round.
    pub(crate) times: usize,
    /// Whether its answers stand in the cache.
    pub(crate) cached: bool,
}

impl Call {
    /// As the tables name it: its name, and whether the cache answers.
    pub(crate) fn title(&self) -> String {
        if self.cached { format!("{}, cached", self.name) } else { self.name.clone() }
    }
}

/// What is in the database to read and to write about.
pub(crate) struct Facts {
    /// Courses of 80 sections.
    courses: Vec<Uuid>,
    /// Sections of theirs, with a learner each.
    sections: Vec<(Uuid, Uuid, String)>,
    /// Learners in the middle of a course of 80 sections.
    learners: Vec<(Uuid, String)>,
    /// Learners of the course of 1000 sections, and these.
    batch_learners: Vec<String>,
    batch_sections: Vec<Uuid>,
    owners: HashMap<Uuid, String>,
    last_cursor: String,
}

impl Facts {
    /// Looks around.
    pub(crate) async fn of(client: &Client) -> Fallible<Self> {
        let spread = format!("order by md5(enrollments.user_id || enrollments.course_id) limit {VARIANTS}");
        let rows = client
            .query(
                &format!(
                    "select enrollments.course_id, enrollments.user_id, courses.owner_id,
                        (select id from sections where course_id = courses.id order by id limit 1) as section_id,
                        (select id from lessons where course_id = courses.id order by id limit 1) as lesson_id
                    from enrollments join courses on courses.id = enrollments.course_id
                    where courses.section_count = 80 and enrollments.completed_sections between 10 and 40
                        and enrollments.status = 'active' {spread}"
                ),
                &[],
            )
            .await?;
        let (mut learners, mut owners, mut sections) = (Vec::new(), HashMap::new(), Vec::new());
        for row in rows {
            let (course, learner): (Uuid, String) = (row.try_get(0)?, row.try_get(1)?);
            owners.insert(course, row.try_get(2)?);
            sections.push((row.try_get(3)?, row.try_get(4)?, learner.clone()));
            learners.push((course, learner));
        }
        let courses = learners.iter().map(|(course, _)| *course).collect();
        let rows = client
            .query(
                "select enrollments.user_id from enrollments join bench.courses on courses.id = enrollments.course_id
                where courses.number = 2 and enrollments.completed_at is null
                order by md5(enrollments.user_id) limit 40",
                &[],
            )
            .await?;
        let batch_learners = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let rows = client.query("select id from bench.sections where course = 2 order by place", &[]).await?;
        let batch_sections = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        Ok(Self { courses, sections, learners, batch_learners, batch_sections, owners, last_cursor: String::new() })
    }

    /// The cursor of the catalogue's last page, which only walking there tells.
    pub(crate) fn set_last_cursor(&mut self, cursor: String) {
        self.last_cursor = cursor;
    }

    /// The first page of the catalogue, or the one behind a cursor.
    pub(crate) fn list(&self, cursor: Option<&str>) -> Fallible<Bytes> {
        match cursor {
            Some(cursor) => catalogue(&[("limit", "20"), ("cursor", cursor)]),
            None => catalogue(&[("limit", "20")]),
        }
    }

    /// All that is measured.
    pub(crate) fn calls(&self) -> Fallible<Vec<Call>> {
        let mut calls = Vec::new();
        let mut read = |name: &str, function: &'static str, cached: bool, events: Fallible<Vec<Bytes>>| {
            events.map(|events| {
                // A hit takes a third of a millisecond: its processor time is only seen in many.
                let times = if cached { 1_000 } else { 200 };
                calls.push(Call { name: name.to_owned(), function, work: Work::Read(events), times, cached });
            })
        };
        let each = |template: &str, path: &str, parameter: &str, pairs: &[(Uuid, &str)]| -> Fallible<Vec<Bytes>> {
            let made = pairs.iter().map(|(id, user)| {
                event(template, |event| {
                    at(event, &path.replace("{}", &id.to_string()));
                    event["pathParameters"] = json!({parameter: id});
                    speak(event, user);
                })
            });
            made.collect()
        };
        let learners: Vec<_> = self.learners.iter().map(|(course, user)| (*course, user.as_str())).collect();
        let sections: Vec<_> = self.sections.iter().map(|(section, _, user)| (*section, user.as_str())).collect();
        let lessons: Vec<_> = self.sections.iter().map(|(_, lesson, user)| (*lesson, user.as_str())).collect();
        let courses: Vec<_> = self.courses.iter().map(|course| (*course, "")).collect();
        let owners: Vec<_> = self.owners.iter().map(|(course, owner)| (*course, owner.as_str())).collect();

        let outline = || each("get-course", "/courses/{}", "courseId", &courses);
        let summary = || each("get-progress", "/courses/{}/progress", "courseId", &learners);
        for cached in [true, false] {
            read("GET /courses", "list-courses", cached, Ok(vec![self.list(None)?]))?;
            read("GET /courses/{courseId}", "get-course", cached, outline())?;
            read("GET /courses/{courseId}/progress", "get-progress", cached, summary())?;
        }
        let compressed = outline()?.iter().map(accepting_gzip).collect();
        read("GET /courses/{courseId}, gzip", "get-course", true, compressed)?;
        let last = vec![self.list(Some(&self.last_cursor))?];
        read("GET /courses, last page", "list-courses", false, Ok(last))?;
        // One course has the number in its title, however many there are; the last word is a prefix, which all have.
        let searches = (0..VARIANTS).map(|turn| catalogue(&[("limit", "20"), ("q", &format!("{} a", 100 + turn))]));
        read("GET /courses?q=", "list-courses", false, searches.collect())?;
        let mine = each("get-course-mine", "/me/courses/{}", "courseId", &learners);
        read("GET /me/courses/{courseId}", "get-course", false, mine)?;
        read(
            "GET /sections/{sectionId}",
            "get-course",
            false,
            each("get-course-section", "/sections/{}", "sectionId", &sections),
        )?;
        let lesson = each("get-progress-lesson", "/lessons/{}/progress", "lessonId", &lessons);
        read("GET /lessons/{lessonId}/progress", "get-progress", false, lesson)?;
        let home = learners.iter().map(|(_, user)| {
            event("get-progress-courses", |event| {
                ask(event, &[("limit", "20")]);
                speak(event, user);
            })
        });
        read("GET /me/courses", "get-progress", false, home.collect())?;
        for (name, accept) in [("", "application/json"), (", CSV", "text/csv")] {
            let roster = owners.iter().map(|(course, user)| {
                event("get-progress-roster", |event| {
                    at(event, &format!("/courses/{course}/enrollments"));
                    event["headers"]["accept"] = accept.into();
                    event["pathParameters"] = json!({"courseId": course});
                    ask(event, &[("limit", "20")]);
                    speak(event, user);
                })
            });
            let name = format!("GET /courses/{{courseId}}/enrollments{name}");
            read(&name, "get-progress", false, roster.collect())?;
        }
        // Everybody has as many, for pages of one size.
        let authored = owners.iter().map(|(_, owner)| {
            event("list-courses-authored", |event| {
                ask(event, &[("limit", "2")]);
                speak(event, owner);
            })
        });
        read("GET /me/authored-courses", "list-courses", false, authored.collect())?;
        let figures = each("get-analytics", "/courses/{}/analytics", "courseId", &owners);
        read("GET /courses/{courseId}/analytics", "get-analytics", false, figures)?;

        let mut write = |name: &str, function: &'static str, work: Work, times: usize| {
            calls.push(Call { name: name.to_owned(), function, work, times, cached: false });
        };
        write("PUT /courses/{courseId}/enrollment", "enroll-learner", Work::Enroll, 50);
        for (events, times) in [(1, 100), (10, 60), (100, 20), (500, 8)] {
            let plural = if events == 1 { "event" } else { "events" };
            write(&format!("POST /progress, {events} {plural}"), "record-progress", Work::Record(events), times);
        }
        write("POST /courses, 50 × 20 sections", "generate-course", Work::Create, 3);
        Ok(calls)
    }

    /// A statement about each of the courses and its learner.
    pub(crate) fn summaries(&self, sql: &str) -> Vec<Sent> {
        let types = vec![Type::UUID.oid(), Type::TEXT.oid()];
        let values =
            |(course, user): &(Uuid, String)| vec![Some(course.as_bytes().to_vec()), Some(user.clone().into_bytes())];
        let sent = |learner| Sent { sql: sql.to_owned(), types: types.clone(), values: values(learner) };
        self.learners.iter().map(sent).collect()
    }

    /// One more event of a call, and the ids and keys in it that a repetition has to have new ones for.
    pub(crate) fn next(&self, call: &Call, turn: usize) -> Fallible<(Bytes, Vec<Uuid>)> {
        match &call.work {
            Work::Read(events) => {
                let event = events.get(turn % events.len().max(1)).ok_or_else(|| failed("nothing to read"))?;
                Ok((event.clone(), Vec::new()))
            }
            Work::Record(count) => self.record(*count, turn),
            Work::Create => create(turn, 50, 20),
            Work::Enroll => {
                let (course, user) = (self.courses[turn % self.courses.len()], Uuid::now_v7());
                let event = event("enroll-learner", |event| {
                    at(event, &format!("/courses/{course}/enrollment"));
                    event["pathParameters"] = json!({"courseId": course});
                    speak(event, &user.to_string());
                });
                Ok((event?, vec![user]))
            }
        }
    }

    /// After so many a call begins again with what it began with. Whoever records does so in the same sections each round,
    /// as the floor does: in another one it would be another work.
    pub(crate) fn turns(&self, call: &Call) -> usize {
        match &call.work {
            Work::Record(_) => call.times,
            Work::Read(_) | Work::Create | Work::Enroll => usize::MAX,
        }
    }

    fn record(&self, count: usize, turn: usize) -> Fallible<(Bytes, Vec<Uuid>)> {
        let user = &self.batch_learners[turn % self.batch_learners.len()];
        let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
        // Any sections, but each only once, and others each time.
        let section = |index: usize| self.batch_sections[(turn * 7919 + index * 7) % self.batch_sections.len()];
        let events: Vec<Value> = ids
            .iter()
            .enumerate()
            .map(|(index, id)| json!({"eventId": id, "sectionId": section(index), "timeSpent": 60, "completed": index % 2 == 0}))
            .collect();
        let body = json!({"events": events}).to_string();
        let event = event("record-progress", |event| {
            event["body"] = body.into();
            speak(event, user);
        });
        Ok((event?, ids))
    }
}

/// A course of so many lessons of so many sections with 3 kB of text each, under a new key. 50 × 20 are what fits into one
/// request.
pub(crate) fn create(turn: usize, lessons: usize, sections: usize) -> Fallible<(Bytes, Vec<Uuid>)> {
    let key = Uuid::now_v7();
    let lessons: Vec<Value> = (1..=lessons)
        .map(|lesson| {
            let sections: Vec<Value> = (1..=sections)
                .map(|section| {
                    let content = prose(turn * 1_000 + lesson * 20 + section, 3_000);
                    json!({"title": format!("Section {section}"), "content": content, "type": "text", "order": section, "duration": 300})
                })
                .collect();
            json!({"title": format!("Lesson {lesson}"), "order": lesson, "sections": sections})
        })
        .collect();
    let data = json!({"title": "A course", "description": "Made by the benchmark", "difficulty": "beginner"});
    let body = json!({"courseData": data, "lessons": lessons}).to_string();
    let event = event("generate-course", |event| {
        event["headers"]["idempotency-key"] = key.to_string().into();
        event["body"] = body.into();
        speak(event, AUTHOR);
        event["requestContext"]["authorizer"]["jwt"]["claims"]["cognito:groups"] = "[instructor]".into();
    });
    Ok((event?, vec![key]))
}

/// Text that compresses as prose does: words as unevenly frequent as in a language.
fn prose(seed: usize, length: usize) -> String {
    let mut state = seed as u64 + 1;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1_u64 << 31) as f64
    };
    let mut text = String::with_capacity(length + 16);
    while text.len() < length {
        let mut word = (900.0 * random().powi(5)) as u64 + 7;
        for _ in 0..2 + word % 9 {
            word = word.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(3_037_000_493);
            text.push(char::from(b'a' + (word >> 40) as u8 % 16));
        }
        text.push(' ');
    }
    text
}

/// The same event from a client that takes compressed answers, as browsers do.
fn accepting_gzip(event: &Bytes) -> Fallible<Bytes> {
    let mut event: Value = serde_json::from_slice(event)?;
    event["headers"]["accept-encoding"] = "gzip".into();
    Ok(serde_json::to_vec(&event)?.into())
}

/// An event as API Gateway sends it, made from a sample.
pub(crate) fn event(sample: &str, change: impl FnOnce(&mut Value)) -> Fallible<Bytes> {
    let text = std::fs::read_to_string(format!("tests/events/{sample}.json"))?;
    let mut event: Value = serde_json::from_str(&text)?;
    // Compressing would be counted here and not in the floor.
    if let Some(headers) = event["headers"].as_object_mut() {
        headers.remove("accept-encoding");
    }
    change(&mut event);
    Ok(serde_json::to_vec(&event)?.into())
}

/// `GET /courses` with these parameters.
fn catalogue(parameters: &[(&str, &str)]) -> Fallible<Bytes> {
    event("list-courses", |event| ask(event, parameters))
}

/// These parameters, in the query.
pub(crate) fn ask(event: &mut Value, parameters: &[(&str, &str)]) {
    let raw: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "%20"))).collect();
    event["rawQueryString"] = raw.join("&").into();
    event["queryStringParameters"] = parameters.iter().copied().collect();
}

/// At this path.
pub(crate) fn at(event: &mut Value, path: &str) {
    event["rawPath"] = path.into();
    event["requestContext"]["http"]["path"] = path.into();
}

/// From this person.
pub(crate) fn speak(event: &mut Value, user: &str) {
    if let Some(claims) = event.pointer_mut("/requestContext/authorizer/jwt/claims") {
        claims["sub"] = user.into();
    }
}
