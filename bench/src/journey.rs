//! The routes that have no floor, because they take several statements or cannot be repeated as they were: a course is
//! made, edited, taught and archived, again and again.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Fallible,
    calls::{AUTHOR, ask, at, create, event, speak},
    failed,
    measure::{Bench, Series},
    runtime::Function,
    sample::Rounds,
};

/// So many rounds.
const ROUNDS: usize = 7;
/// Of so many courses.
const COURSES: usize = 8;
/// Lessons of such a course, and sections of each of them.
const SHAPE: (usize, usize) = (10, 10);
/// Learners of the class that is enrolled at once.
const CLASS: usize = 100;
/// A `record-progress` whose PostgreSQL is away.
const ALONE: &str = "record-progress, alone";
/// Where that is.
const NOWHERE: &str = "postgres://lectern:secret@127.0.0.1:1/lectern";

/// What one call took in each round.
#[derive(Default)]
pub(crate) struct Step {
    /// Milliseconds: the median.
    pub(crate) half: Rounds,
    /// The slowest.
    pub(crate) worst: Rounds,
    /// Processor time of one, in microseconds.
    pub(crate) cpu: Rounds,
}

/// All steps, in their order, which is the same in each round.
pub(crate) async fn measure(bench: &Bench) -> Fallible<Vec<(&'static str, Step)>> {
    let refresh = bench.start("refresh-analytics", &[]).await?;
    let [endpoint, table] = bench.parking();
    let alone = bench.start("record-progress", &[("DATABASE_URL", NOWHERE), endpoint, table]).await?;
    let functions = HashMap::from([(ALONE, alone)]);
    let mut journey = Journey { bench, refresh, functions, round: Vec::new() };
    let mut steps: Vec<(&'static str, Step)> = Vec::new();
    for round in 0..=ROUNDS {
        for course in 0..COURSES {
            journey.course(round * COURSES + course).await?;
        }
        let took = std::mem::take(&mut journey.round);
        // The first round opens the connections.
        if round == 0 {
            steps = took.into_iter().map(|(name, _)| (name, Step::default())).collect();
            continue;
        }
        for ((_, step), (_, series)) in steps.iter_mut().zip(took) {
            step.half.0.push(series.percentile(0.5));
            step.worst.0.push(series.percentile(1.0));
            step.cpu.0.push(series.cpu());
        }
    }
    Ok(steps)
}

struct Journey<'a> {
    bench: &'a Bench,
    refresh: Function,
    /// By their names; one of them is `ALONE`.
    functions: HashMap<&'static str, Function>,
    /// What each step has taken in this round.
    round: Vec<(&'static str, Series)>,
}

impl Journey<'_> {
    async fn course(&mut self, turn: usize) -> Fallible<()> {
        let (made, _) = create(turn, SHAPE.0, SHAPE.1)?;
        let answer = self.call("POST /courses, 10 × 10 sections", "generate-course", made).await?;
        let course = text(&body(&answer)?, "id")?;
        let at_course = |event: &mut Value, rest: &str| {
            at(event, &format!("/courses/{course}{rest}"));
            event["pathParameters"] = json!({"courseId": course});
        };
        let edit = |sample: &str, rest: &str, version: &str, body: Option<Value>| {
            event(sample, |event| {
                at_course(event, rest);
                event["headers"]["if-match"] = version.into();
                event["headers"]["idempotency-key"] = Uuid::now_v7().to_string().into();
                event["body"] = body.map_or(Value::Null, |body| body.to_string().into());
                speak(event, AUTHOR);
            })
        };
        let section = json!({"title": "More", "content": "Of the same.", "type": "text", "order": 1});
        let lesson = json!({"lessons": [{"title": "More", "order": SHAPE.0 + 1, "sections": [section]}]});
        let added = edit("update-course-lessons", "/lessons", "*", Some(lesson))?;
        self.call("POST /courses/{courseId}/lessons", "update-course", added).await?;
        let published = edit("update-course", "", "\"v2\"", Some(json!({"status": "published"})))?;
        let answer = self.call("PATCH /courses/{courseId}", "update-course", published).await?;
        let tree = self.tree(&course).await?;
        let put = edit("update-course-content", "/content", &version(&answer)?, Some(json!({"lessons": tree})))?;
        let answer = self.call("PUT /courses/{courseId}/content, 1 of 101 changed", "update-course", put).await?;
        let version = version(&answer)?;

        let class: Vec<_> = (0..CLASS).map(|index| json!({"userId": format!("bench-{course}-{index}")})).collect();
        let learner = format!("bench-{course}-0");
        let class = event("enroll-learner-class", |event| {
            at_course(event, "/enrollments");
            event["body"] = json!({"enrollments": class}).to_string().into();
        })?;
        self.call("POST /courses/{courseId}/enrollments, 100 learners", "enroll-learner", class).await?;
        let section = tree[0]["sections"][0]["id"].clone();
        let done = || {
            event("record-progress", |event| {
                let done = json!({"eventId": Uuid::now_v7(), "sectionId": section, "timeSpent": 60, "completed": true});
                event["body"] = json!({ "events": [done] }).to_string().into();
                speak(event, &learner);
            })
        };
        self.call("POST /progress, a course's first event", "record-progress", done()?).await?;
        let answer = self.call("POST /progress, 1 event, parked", ALONE, done()?).await?;
        let submission = text(&body(&answer)?, "submissionId")?;
        let asked = event("get-progress-submission", |event| {
            at(event, &format!("/progress/submissions/{submission}"));
            event["pathParameters"] = json!({"submissionId": submission});
            speak(event, &learner);
        })?;
        self.call("GET /progress/submissions/{submissionId}", "get-progress", asked).await?;
        // Which computes what is asked for next.
        self.refresh.invoke(&Bytes::from_static(b"{}")).await?;
        let figures = event("get-analytics", |event| {
            at_course(event, "/analytics");
            ask(event, &[("detail", "sections")]);
            speak(event, AUTHOR);
        })?;
        self.call("GET /courses/{courseId}/analytics?detail=sections", "get-analytics", figures).await?;
        for (name, function, sample, rest) in [
            ("DELETE /courses/{courseId}/progress", "record-progress", "record-progress-reset", "/progress"),
            ("DELETE /courses/{courseId}/enrollment", "enroll-learner", "enroll-learner-cancel", "/enrollment"),
        ] {
            let left = event(sample, |event| {
                at_course(event, rest);
                speak(event, &learner);
            })?;
            self.call(name, function, left).await?;
        }
        for (name, sample) in [
            ("GET /learners/{userId}/data", "manage-learner"),
            ("DELETE /learners/{userId}/data", "manage-learner-erase"),
        ] {
            let personal = event(sample, |event| {
                at(event, &format!("/learners/{learner}/data"));
                event["pathParameters"] = json!({"userId": learner});
            })?;
            self.call(name, "manage-learner", personal).await?;
        }
        let archived = edit("update-course-archive", "", &version, None)?;
        self.call("DELETE /courses/{courseId}", "update-course", archived).await?;
        Ok(())
    }

    /// What the course has, with another content in its first section.
    async fn tree(&self, course: &str) -> Fallible<Value> {
        let sql = "select json_agg(lesson order by position)::text from (
                select lessons.position, json_build_object(
                    'id', lessons.id, 'title', lessons.title, 'order', lessons.position,
                    'sections', json_agg(json_build_object(
                        'id', sections.id, 'title', sections.title, 'type', sections.type, 'order', sections.position
                    ) order by sections.position)
                ) as lesson
                from lessons join sections on sections.lesson_id = lessons.id
                where lessons.course_id = $1
                group by lessons.id
            ) as lessons";
        let row = self.bench.client.query_one(sql, &[&course.parse::<Uuid>()?]).await?;
        let mut tree: Value = serde_json::from_str(row.try_get(0)?)?;
        tree[0]["sections"][0]["content"] = "Corrected".into();
        Ok(tree)
    }

    /// Makes a call and answers what the function answered.
    async fn call(&mut self, name: &'static str, function: &'static str, event: Bytes) -> Fallible<Value> {
        if !self.functions.contains_key(function) {
            self.functions.insert(function, self.bench.start(function, &self.bench.parking()).await?);
        }
        let Some(process) = self.functions.get_mut(function) else { return Err(failed("no function")) };
        let step = self.round.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.round.push((name, Series::default()));
            self.round.len() - 1
        });
        let series = &mut self.round[step].1;
        let answer: Value = serde_json::from_slice(&series.one(process, &event).await?)?;
        match answer["statusCode"].as_u64() {
            Some(200..=299) => Ok(answer),
            _ => Err(failed(format!("{name}: {answer}"))),
        }
    }
}

fn body(answer: &Value) -> Fallible<Value> {
    Ok(serde_json::from_str(&text(answer, "body")?)?)
}

/// The version that a course has now, as `If-Match` names it.
fn version(answer: &Value) -> Fallible<String> {
    Ok(format!("\"v{}\"", body(answer)?["version"]))
}

fn text(value: &Value, key: &str) -> Fallible<String> {
    value[key].as_str().map(str::to_owned).ok_or_else(|| failed(format!("no {key} in {value}")))
}
