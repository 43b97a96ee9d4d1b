//! Random edits, appended lessons, events, resets, cancellations and refreshes of one course, beside a model that is too
//! simple to be wrong. After every step everything that the API shows of every learner must be what the model has.
//!
//! `SEED=… make test ARGS='model'` repeats another run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    ops::RangeInclusive,
};

use chrono::{DateTime, TimeDelta, Utc};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    editing::{append, crowd, put},
    support::{Lectern, course_body, environment},
};

const STEPS: usize = 120;
const LEARNERS: [&str; 4] = ["ann", "bob", "cem", "dai"];
/// So many that edits leave their counts to the refresh.
const CROWD: usize = 260;

/// Ranges of the percentage that is shown.
const RANGES: [(&str, RangeInclusive<f64>); 6] = [
    ("0", 0.0..=0.0),
    ("1-25", 0.01..=25.0),
    ("26-50", 25.01..=50.0),
    ("51-75", 50.01..=75.0),
    ("76-99", 75.01..=99.99),
    ("100", 100.0..=100.0),
];

#[tokio::test]
async fn a_small_class_in_a_changing_course_stands_as_a_naive_model_says() {
    for seed in seeds() {
        World::start(seed, 0).await.run().await;
    }
}

#[tokio::test]
async fn a_large_class_in_a_changing_course_stands_as_a_naive_model_says() {
    for seed in seeds() {
        World::start(seed, CROWD).await.run().await;
    }
}

fn seeds() -> Vec<u64> {
    match environment("SEED").and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => vec![1, 2],
    }
}

/// When a request was under way: what it did, it did somewhere in between.
#[derive(Clone, Copy, Debug)]
struct Moment {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

impl Moment {
    /// Whether it was before a time; `None` where that cannot be known from here.
    fn is_before(self, time: DateTime<Utc>) -> Option<bool> {
        if self.to < time {
            Some(true)
        } else if self.from > time {
            Some(false)
        } else {
            None
        }
    }
}

#[derive(Clone, Debug)]
struct Lesson {
    id: String,
    title: String,
    sections: Vec<String>,
}

#[derive(Clone, Debug)]
struct Section {
    title: String,
    content: String,
    /// Since when it stands in the tree, be it again.
    placed: Moment,
}

#[derive(Clone, Debug, Default)]
struct Done {
    completed_at: Option<DateTime<Utc>>,
    time_spent: i64,
    last_at: DateTime<Utc>,
}

#[derive(Clone, Debug, Default)]
struct Learner {
    /// Each enrolment, and the cancellation that ended it.
    periods: Vec<(Moment, Option<Moment>)>,
    reset: Option<Moment>,
    done: BTreeMap<String, Done>,
    completed_at: Option<DateTime<Utc>>,
    /// The sections that the course had when they were found complete.
    counted: Vec<String>,
    /// Events that counted, also before a reset.
    ledger: BTreeMap<Uuid, Value>,
}

impl Learner {
    fn is_active(&self) -> bool {
        self.periods.last().is_some_and(|(_, end)| end.is_none())
    }

    /// Whether they were enrolled at a time.
    fn was_active(&self, time: DateTime<Utc>) -> Option<bool> {
        for (start, end) in &self.periods {
            let started = start.is_before(time)?;
            let ended = match end {
                Some(end) => end.is_before(time)?,
                None => false,
            };
            if started && !ended {
                return Some(true);
            }
        }
        Some(false)
    }

    fn latest<'a>(&'a self, sections: impl Iterator<Item = &'a String>) -> Option<DateTime<Utc>> {
        sections.filter_map(|id| self.done.get(id)?.completed_at).max()
    }

    /// The completion, after the tree or the progress has changed.
    fn settle(&mut self, current: &[String]) {
        if let Some(completed_at) = self.completed_at {
            self.completed_at = self.latest(self.counted.iter()).map(|latest| latest.min(completed_at));
        } else if !current.is_empty() && self.completed(current) == current.len() {
            self.completed_at = self.latest(current.iter());
            self.counted = current.to_vec();
        }
    }

    fn completed(&self, current: &[String]) -> usize {
        current.iter().filter(|id| self.done.get(*id).is_some_and(|done| done.completed_at.is_some())).count()
    }
}

struct World {
    seed: u64,
    step: usize,
    rng: StdRng,
    lectern: Lectern,
    course: String,
    version: i64,
    crowd: usize,
    lessons: Vec<Lesson>,
    /// All there ever were, the retired included.
    sections: BTreeMap<String, Section>,
    retired_lessons: Vec<Lesson>,
    learners: BTreeMap<&'static str, Learner>,
    /// Events that were sent, to be sent again.
    sent: Vec<(&'static str, Value)>,
}

impl World {
    async fn start(seed: u64, crowd_size: usize) -> Self {
        let lectern = Lectern::start().await;
        let from = Utc::now();
        let outline = lectern.teacher("ada").create(&course_body("C", &[2, 3], true)).await.expect(StatusCode::CREATED);
        let course = outline["id"].as_str().expect("an id").to_owned();
        crowd(&lectern, &course, crowd_size).await;
        let mut world = Self {
            seed,
            step: 0,
            rng: StdRng::seed_from_u64(seed),
            lectern,
            course,
            version: 1,
            crowd: crowd_size,
            lessons: vec![],
            sections: BTreeMap::new(),
            retired_lessons: vec![],
            learners: LEARNERS.map(|name| (name, Learner::default())).into(),
            sent: vec![],
        };
        world.learn_ids(&outline, Moment { from, to: Utc::now() });
        for lesson in &world.lessons {
            for (index, id) in lesson.sections.iter().enumerate() {
                world.sections.get_mut(id).expect("a section").content = format!("Content {}", index + 1);
            }
        }
        for name in LEARNERS {
            world.enrol(name).await;
        }
        world
    }

    async fn run(mut self) {
        for step in 0..STEPS {
            self.step = step;
            match self.rng.random_range(0..100) {
                0..30 => self.edit().await,
                30..34 => self.append().await,
                34..82 => self.record().await,
                82..86 => self.reset().await,
                86..90 => self.cancel().await,
                90..96 => {
                    let name = self.somebody();
                    self.enrol(name).await;
                }
                _ => self.refresh().await,
            }
            self.check().await;
        }
        self.refresh().await;
        assert_eq!(self.lectern.drift().await, 0, "{}", self.place());
    }

    fn place(&self) -> String {
        format!("seed {}, crowd {}, step {}", self.seed, self.crowd, self.step)
    }

    #[track_caller]
    fn equal<T: PartialEq + Debug>(&self, shown: &T, expected: &T, what: &str) {
        assert_eq!(shown, expected, "{what} at {}", self.place());
    }

    fn somebody(&mut self) -> &'static str {
        LEARNERS[self.rng.random_range(0..LEARNERS.len())]
    }

    fn current(&self) -> Vec<String> {
        self.lessons.iter().flat_map(|lesson| lesson.sections.clone()).collect()
    }

    // ---- Steps

    /// Any tree made of what there is, what there was, and what is new.
    async fn edit(&mut self) {
        let mut lessons = self.lessons.clone();
        let mut retired_lessons = self.retired_lessons.clone();
        if self.rng.random_ratio(1, 6) && !retired_lessons.is_empty() {
            let index = self.rng.random_range(0..retired_lessons.len());
            lessons.push(Lesson { sections: vec![], ..retired_lessons.remove(index) });
        }
        if self.rng.random_ratio(1, 6) || lessons.is_empty() {
            lessons.push(Lesson { id: String::new(), title: "New lesson".to_owned(), sections: vec![] });
        }
        // Most edits touch little. Some turn everything around.
        let current: BTreeSet<String> = self.current().into_iter().collect();
        let retired: Vec<String> = self.sections.keys().filter(|id| !current.contains(*id)).cloned().collect();
        for _ in 0..self.rng.random_range(0..3) {
            let from = self.rng.random_range(0..lessons.len());
            let to = self.rng.random_range(0..lessons.len());
            if lessons[from].sections.is_empty() {
                continue;
            }
            let index = self.rng.random_range(0..lessons[from].sections.len());
            let section = lessons[from].sections.remove(index);
            // Retired, or moved.
            if self.rng.random_ratio(1, 2) {
                let index = self.rng.random_range(0..=lessons[to].sections.len());
                lessons[to].sections.insert(index, section);
            }
        }
        for id in retired {
            if self.rng.random_ratio(1, 6) {
                let lesson = self.rng.random_range(0..lessons.len());
                lessons[lesson].sections.push(id);
            }
        }
        if self.rng.random_ratio(1, 3) {
            let lesson = self.rng.random_range(0..lessons.len());
            lessons[lesson].sections.insert(0, String::new());
        }
        if self.rng.random_ratio(1, 8) {
            let index = self.rng.random_range(0..lessons.len());
            lessons.remove(index);
        }
        if self.rng.random_ratio(1, 5) {
            lessons.shuffle(&mut self.rng);
        }
        if self.rng.random_ratio(1, 5) {
            for lesson in &mut lessons {
                lesson.sections.shuffle(&mut self.rng);
            }
        }
        let mut contents = BTreeMap::new();
        let body = self.body(&mut lessons, &mut contents);

        let teacher = self.lectern.teacher("ada");
        let from = Utc::now();
        let outline = put(&teacher, &self.course, self.version, &body).await.expect(StatusCode::OK);
        let moment = Moment { from, to: Utc::now() };

        let version = outline["version"].as_i64().expect("a version");
        assert!(version == self.version || version == self.version + 1);
        self.version = version;
        let kept: BTreeSet<String> = lessons.iter().map(|lesson| lesson.id.clone()).collect();
        self.retired_lessons = retired_lessons;
        self.retired_lessons.extend(self.lessons.iter().filter(|lesson| !kept.contains(&lesson.id)).cloned());
        for id in lessons.iter().flat_map(|lesson| &lesson.sections) {
            if let Some(section) = self.sections.get_mut(id)
                && !current.contains(id)
            {
                section.placed = moment;
            }
        }
        self.learn_ids(&outline, moment);
        for (id, content) in contents {
            if let Some(section) = self.sections.get_mut(&id) {
                section.content = content;
            }
        }
        self.settle_all();
    }

    /// The tree as it is sent, with places that leave gaps. Titles change at times, and contents with or without them.
    fn body(&mut self, lessons: &mut [Lesson], contents: &mut BTreeMap<String, String>) -> Value {
        let mut sent = Vec::new();
        for (place, lesson) in lessons.iter_mut().enumerate() {
            let mut sections = Vec::new();
            for (place, id) in lesson.sections.iter().enumerate() {
                let mut section = match self.sections.get_mut(id) {
                    Some(known) => {
                        if self.rng.random_ratio(1, 20) {
                            known.title = format!("Title {}", self.rng.random_range(0..1_000));
                        }
                        json!({"id": id, "title": known.title})
                    }
                    None => json!({"title": "New section", "content": "new"}),
                };
                if !id.is_empty() && self.rng.random_ratio(1, 10) {
                    let content = format!("content {}", self.rng.random_range(0..3));
                    section["content"] = content.as_str().into();
                    contents.insert(id.clone(), content);
                }
                section["type"] = "text".into();
                section["order"] = (2 * place + 1).into();
                sections.push(section);
            }
            let id = if lesson.id.is_empty() { Value::Null } else { lesson.id.as_str().into() };
            sent.push(json!({"id": id, "title": lesson.title, "order": place + 1, "sections": sections}));
        }
        // Siblings have an order by their number, not by where they stand.
        sent.shuffle(&mut self.rng);
        json!({ "lessons": sent })
    }

    async fn append(&mut self) {
        let order = self.lessons.len() + 1;
        let mut lesson = course_body("", &[self.rng.random_range(0..3)], false)["lessons"][0].take();
        lesson["order"] = order.into();
        let from = Utc::now();
        let teacher = self.lectern.teacher("ada");
        let answer = append(&teacher, &self.course, &Uuid::now_v7().to_string(), &json!([lesson])).await;
        // The places of an edit start at 1 and leave no gap among lessons.
        let outline = answer.expect(StatusCode::CREATED);
        self.version += 1;
        self.learn_ids(&outline, Moment { from, to: Utc::now() });
        for section in lesson["sections"].as_array().expect("sections").iter().zip(&self.lessons[order - 1].sections) {
            let content = section.0["content"].as_str().expect("a content").to_owned();
            self.sections.get_mut(section.1).expect("a section").content = content;
        }
        self.settle_all();
    }

    async fn record(&mut self) {
        let name = self.somebody();
        let all: Vec<String> = self.sections.keys().cloned().collect();
        let current = self.current();
        let mut events = Vec::new();
        for _ in 0..self.rng.random_range(1..=4) {
            if self.rng.random_ratio(1, 8) && !self.sent.is_empty() {
                let (sender, event) = self.sent[self.rng.random_range(0..self.sent.len())].clone();
                let occurred_at = time(&event["occurredAt"]).expect("a time");
                if sender == name && self.is_certain(name, occurred_at) {
                    events.push(event);
                }
                continue;
            }
            let from = if self.rng.random_ratio(4, 5) && !current.is_empty() { &current } else { &all };
            let section = &from[self.rng.random_range(0..from.len())];
            // From ten minutes ago to four minutes ahead.
            let occurred_at = Utc::now() + TimeDelta::milliseconds(self.rng.random_range(-600_000..240_000));
            let occurred_at = DateTime::from_timestamp_micros(occurred_at.timestamp_micros()).expect("a time");
            if !self.is_certain(name, occurred_at) {
                continue;
            }
            let (time_spent, completed) = (self.rng.random_range(0..100), self.rng.random_ratio(2, 3));
            let id = Uuid::from_u128(self.rng.random());
            let event = json!({
                "eventId": id, "sectionId": section, "timeSpent": time_spent, "completed": completed,
                "occurredAt": occurred_at,
            });
            self.sent.push((name, event.clone()));
            events.push(event);
        }
        if events.is_empty() {
            return;
        }
        let answer = self.lectern.learner(name).record(&events).await.expect(StatusCode::OK);

        let learner = self.learners.get_mut(name).expect("a learner");
        let mut expected = Vec::new();
        for event in &events {
            expected.push(learner.judge(event));
        }
        learner.settle(&current);
        let results = answer["results"].as_array().expect("results").iter();
        let told: Vec<String> = results
            .map(|result| result["code"].as_str().or(result["status"].as_str()).expect("a word").to_owned())
            .collect();
        self.equal(&told, &expected, "results");
    }

    /// Whether it is known from here how an event of this time is judged.
    fn is_certain(&self, name: &str, time: DateTime<Utc>) -> bool {
        let learner = &self.learners[name];
        learner.was_active(time).is_some() && learner.reset.is_none_or(|reset| reset.is_before(time).is_some())
    }

    async fn reset(&mut self) {
        let name = self.somebody();
        let from = Utc::now();
        let path = format!("/courses/{}/progress", self.course);
        self.lectern.learner(name).delete(&path).await.expect(StatusCode::NO_CONTENT);
        let learner = self.learners.get_mut(name).expect("a learner");
        learner.reset = Some(Moment { from, to: Utc::now() });
        learner.done.clear();
        learner.completed_at = None;
    }

    async fn cancel(&mut self) {
        let name = self.somebody();
        let from = Utc::now();
        let path = format!("/courses/{}/enrollment", self.course);
        self.lectern.learner(name).delete(&path).await.expect(StatusCode::NO_CONTENT);
        let learner = self.learners.get_mut(name).expect("a learner");
        if let Some((_, end @ None)) = learner.periods.last_mut() {
            *end = Some(Moment { from, to: Utc::now() });
        }
    }

    async fn enrol(&mut self, name: &'static str) {
        let from = Utc::now();
        let answer = self.lectern.learner(name).put(&format!("/courses/{}/enrollment", self.course)).await;
        let moment = Moment { from, to: Utc::now() };
        let learner = self.learners.get_mut(name).expect("a learner");
        let first = learner.periods.is_empty();
        if !learner.is_active() {
            learner.periods.push((moment, None));
        }
        let answer = answer.expect(if first { StatusCode::CREATED } else { StatusCode::OK });
        let completed_at = self.learners[name].completed_at;
        self.equal(&time(&answer["completedAt"]), &completed_at, "an enrollment's completedAt");
    }

    async fn refresh(&mut self) {
        let refreshed = self.lectern.invoke("refresh-analytics", json!({})).await;
        self.equal(&refreshed["failed"], &json!(0), "failed courses");
        self.equal(&refreshed["remaining"], &json!(0), "remaining courses");
        let path = format!("/courses/{}/analytics?detail=sections", self.course);
        let figures = self.lectern.teacher("ada").get(&path).await.expect(StatusCode::OK);
        let active = || self.learners.values().filter(|learner| learner.is_active());
        let total = active().count() + self.crowd;
        let completed = active().filter(|learner| learner.completed_at.is_some()).count();
        self.equal(&figures["totalEnrollments"], &json!(total), "totalEnrollments");
        self.equal(&figures["completedEnrollments"], &json!(completed), "completedEnrollments");
        let current = self.current();
        let has_done = |learner: &&Learner, id: &String| learner.completed(std::slice::from_ref(id)) == 1;
        let sections: Vec<Value> =
            current.iter().map(|id| json!([id, active().filter(|learner| has_done(learner, id)).count()])).collect();
        let shown = figures["sections"].as_array().expect("sections").iter();
        let shown: Vec<Value> = shown.map(|section| json!([section["sectionId"], section["completed"]])).collect();
        self.equal(&shown, &sections, "completions of sections");
        let percentages: Vec<f64> = active()
            .map(|learner| learner.completed(&current))
            .chain(std::iter::repeat_n(0, self.crowd))
            .filter(|_| !current.is_empty())
            .map(|completed| u16::try_from(completed * 10_000 / current.len()).expect("hundredths"))
            .map(|hundredths| f64::from(hundredths) / 100.0)
            .collect();
        for (shown, (range, bounds)) in figures["progress"].as_array().expect("ranges").iter().zip(RANGES) {
            let learners = percentages.iter().filter(|percentage| bounds.contains(*percentage)).count();
            self.equal(shown, &json!({"range": range, "learners": learners}), "learners by progress");
        }
    }

    /// Takes over the tree as it was answered, and whatever in it is new.
    fn learn_ids(&mut self, outline: &Value, moment: Moment) {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let list = |value: &Value| value.as_array().expect("a list").clone();
        self.lessons.clear();
        for lesson in list(&outline["lessons"]) {
            let mut sections = Vec::new();
            for section in list(&lesson["sections"]) {
                let id = text(&section["id"]);
                let new = Section { title: text(&section["title"]), content: "new".to_owned(), placed: moment };
                self.sections.entry(id.clone()).or_insert(new);
                sections.push(id);
            }
            self.lessons.push(Lesson { id: text(&lesson["id"]), title: text(&lesson["title"]), sections });
        }
    }

    fn settle_all(&mut self) {
        let current = self.current();
        self.learners.values_mut().for_each(|learner| learner.settle(&current));
    }

    // ---- What is shown

    async fn check(&self) {
        let mut rows = BTreeMap::new();
        for name in LEARNERS {
            rows.insert(name, self.check_learner(name).await);
        }
        if self.step.is_multiple_of(4) {
            self.check_roster(&rows).await;
        }
        let section = self.sections.keys().next().expect("a section");
        let answer = self.lectern.teacher("ada").get(&format!("/sections/{section}")).await;
        if self.current().contains(section) {
            let content = self.sections[section].content.as_str().into();
            self.equal(&answer.expect(StatusCode::OK)["content"], &content, "a content");
        } else {
            self.equal(&answer.status, &StatusCode::NOT_FOUND, "a retired section");
        }
    }

    /// The whole roster, and each range of progress, against what each learner has been shown.
    async fn check_roster(&self, summaries: &BTreeMap<&str, Value>) {
        let whole = self.roster("").await;
        self.equal(&whole.len(), &(LEARNERS.len() + self.crowd), "learners on the roster");
        let heard: Vec<_> =
            whole.iter().map(|row| time(&row["lastActivityAt"]).or_else(|| time(&row["enrolledAt"]))).collect();
        assert!(heard.is_sorted_by(|one, next| one >= next), "the order of the roster at {}", self.place());
        for row in &whole {
            let Some(summary) = row["userId"].as_str().and_then(|name| summaries.get(name)) else { continue };
            let status =
                if self.learners[row["userId"].as_str().expect("a name")].is_active() { "active" } else { "cancelled" };
            self.equal(&row["status"], &json!(status), "a status on the roster");
            for key in ["completedSections", "totalSections", "totalTimeSpent", "completionPercentage", "completedAt"] {
                self.equal(&row[key], &summary[key], key);
            }
        }
        let mut found = 0;
        for (range, percentages) in RANGES {
            let rows = self.roster(&format!("&progress={range}")).await;
            found += rows.len();
            for row in &rows {
                let percentage = row["completionPercentage"].as_f64().expect("a percentage");
                assert!(percentages.contains(&percentage), "{percentage} in {range} at {}", self.place());
            }
        }
        self.equal(&found, &if self.current().is_empty() { 0 } else { whole.len() }, "learners in all ranges");
    }

    async fn roster(&self, filter: &str) -> Vec<Value> {
        let teacher = self.lectern.teacher("ada");
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/courses/{}/enrollments?limit=100{filter}{cursor}", self.course);
            let page = teacher.get(&path).await.expect(StatusCode::OK);
            rows.extend(page["enrollments"].as_array().expect("learners").clone());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return rows,
            }
        }
    }

    /// Answers the summary.
    async fn check_learner(&self, name: &'static str) -> Value {
        let (learner, caller, current) = (&self.learners[name], self.lectern.learner(name), self.current());
        let (summary, outline) = (format!("/courses/{}/progress", self.course), format!("/me/courses/{}", self.course));
        let (summary, outline, home) =
            tokio::join!(caller.get(&summary), caller.get(&outline), caller.get("/me/courses"));
        let summary = summary.expect(StatusCode::OK);

        let (completed, total) = (learner.completed(&current), current.len());
        let hundredths = (completed * 10_000).checked_div(total).and_then(|hundredths| u16::try_from(hundredths).ok());
        let percentage = hundredths.map_or(Value::Null, |hundredths| json!(f64::from(hundredths) / 100.0));
        let same = |value: &Value| value.as_f64().map_or(Value::Null, |number| json!(number));
        self.equal(&same(&summary["completionPercentage"]), &percentage, "completionPercentage");
        self.equal(&summary["completedSections"], &json!(completed), "completedSections");
        self.equal(&summary["totalSections"], &json!(total), "totalSections");
        let spent: i64 = learner.done.values().map(|done| done.time_spent).sum();
        self.equal(&summary["totalTimeSpent"], &json!(spent), "totalTimeSpent");
        self.equal(&time(&summary["completedAt"]), &learner.completed_at, "completedAt");
        assert!(percentage != json!(100.0) || learner.completed_at.is_some(), "stuck at {}", self.place());
        self.check_new(learner, &current, &summary["newSectionsSinceCompletion"]);
        let is_open = |id: &&String| learner.done.get(*id).is_none_or(|done| done.completed_at.is_none());
        let next = json!(current.iter().find(is_open));
        self.equal(&summary["resume"]["nextSectionId"], &next, "nextSectionId");
        let last =
            learner.done.iter().filter(|(id, _)| current.contains(id)).max_by_key(|(id, done)| (done.last_at, *id));
        self.equal(&summary["resume"]["lastSectionId"], &json!(last.map(|(id, _)| id)), "lastSectionId");

        let home = home.expect(StatusCode::OK);
        let shown = &home["enrollments"][0];
        self.equal(&shown.is_object(), &learner.is_active(), "the home page");
        if learner.is_active() {
            for key in ["completionPercentage", "completedSections", "totalSections", "totalTimeSpent", "completedAt"] {
                self.equal(&shown[key], &summary[key], key);
            }
            self.equal(&shown["nextSectionId"], &next, "nextSectionId at home");
        }

        let outline = outline.expect(StatusCode::OK);
        for key in ["completionPercentage", "completedSections", "completedAt", "newSectionsSinceCompletion"] {
            self.equal(&outline["progress"][key], &summary[key], key);
        }
        self.equal(&outline["sectionCount"], &json!(total), "sectionCount");
        let mut shown = Vec::new();
        for lesson in outline["lessons"].as_array().expect("lessons") {
            shown.push(json!([lesson["id"], lesson["title"]]));
            for section in lesson["sections"].as_array().expect("sections") {
                let progress = &section["progress"];
                shown.push(json!([section["id"], section["title"], progress["completed"], progress["timeSpent"]]));
            }
        }
        let mut expected = Vec::new();
        for lesson in &self.lessons {
            expected.push(json!([lesson.id, lesson.title]));
            for id in &lesson.sections {
                let done = learner.done.get(id);
                let completed = done.map(|done| done.completed_at.is_some());
                expected.push(json!([id, self.sections[id].title, completed, done.map(|done| done.time_spent)]));
            }
        }
        self.equal(&shown, &expected, "the outline");
        summary
    }

    fn check_new(&self, learner: &Learner, current: &[String], shown: &Value) {
        let Some(completed_at) = learner.completed_at else {
            return self.equal(shown, &Value::Null, "newSectionsSinceCompletion");
        };
        let mut count = 0;
        for id in current {
            let open = learner.done.get(id).is_none_or(|done| done.completed_at.is_none());
            match self.sections[id].placed.is_before(completed_at) {
                Some(is_before) => count += usize::from(open && !is_before),
                None => return,
            }
        }
        self.equal(shown, &json!(count), "newSectionsSinceCompletion");
    }
}

impl Learner {
    /// What must become of an event, and what it does.
    fn judge(&mut self, event: &Value) -> String {
        let id: Uuid = event["eventId"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        if self.ledger.contains_key(&id) {
            return "duplicate".to_owned();
        }
        let occurred_at = time(&event["occurredAt"]).expect("a time");
        if !self.is_active() && self.was_active(occurred_at) != Some(true) {
            return "not_enrolled".to_owned();
        }
        if self.reset.is_some_and(|reset| reset.is_before(occurred_at) != Some(true)) {
            return "before_reset".to_owned();
        }
        self.ledger.insert(id, event.clone());
        let section = event["sectionId"].as_str().expect("an id").to_owned();
        let done = self.done.entry(section).or_default();
        done.time_spent += event["timeSpent"].as_i64().expect("seconds");
        done.last_at = done.last_at.max(occurred_at);
        if event["completed"] == true {
            done.completed_at = Some(done.completed_at.map_or(occurred_at, |earlier| earlier.min(occurred_at)));
        }
        "recorded".to_owned()
    }
}

fn time(value: &Value) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(value.as_str()?).expect("a time").to_utc())
}
