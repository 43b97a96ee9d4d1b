//! Real input through HTTP: a large course comes back byte for byte, and a year of a real class comes to the figures
//! that were computed without Lectern.
//!
//! The input is not part of the repository: it is looked for in `LECTERN_DATA`, or in `../shared/data`, both from the
//! repository's root. Where it is absent, the tests say so on stderr, whatever the harness captures.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use chrono::{DateTime, SecondsFormat, SubsecRound, TimeDelta, Utc};
use flate2::read::GzDecoder;
use futures_util::{StreamExt, stream};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use shared::analytics;
use uuid::Uuid;

use crate::support::{Answer, Course, Lectern, deadline, environment};

/// Requests that are under way at once where their order does not matter.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_large_real_course_comes_back_byte_for_byte() {
    let Some(folder) = input() else { return };
    let body = json_file(&folder.join("courses/comprehensive-rust.json"));
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("teacher");
    let course = Course::of(&teacher.create(&body).await.expect(StatusCode::CREATED));
    let path = format!("/courses/{}", course.id);
    lectern.anyone().get(&path).await.problem(404, "course_not_found");
    teacher.patch(&path, course.version, &json!({"status": "published"})).await.expect(StatusCode::OK);

    let plain = lectern.anyone().get(&path).await;
    let outline = plain.expect(StatusCode::OK);
    for key in ["title", "description", "difficulty"] {
        assert_eq!(outline[key], body["courseData"][key]);
    }
    assert_eq!((&outline["lessonCount"], &outline["sectionCount"]), (&json!(84), &json!(561)));
    assert_eq!(outlined(&outline), outlined(&body));
    let durations = outlined(&outline).iter().flat_map(|lesson| list(lesson, "sections")).cloned().collect::<Vec<_>>();
    assert_eq!(durations.iter().filter(|section| section["duration"].is_u64()).count(), 324);
    assert_eq!(Course::of(&outline).sections, course.sections);

    let request = lectern.anyone().request(Method::GET, &path).header("accept-encoding", "gzip");
    let packed = request.send().await.expect("the server answers");
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let packed = packed.bytes().await.expect("a body");
    assert!(packed.len() * 2 < plain.text.len(), "{} of {} bytes", packed.len(), plain.text.len());
    let mut unpacked = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut unpacked).expect("gzip");
    assert_eq!((plain.header("content-encoding"), &unpacked), ("", &plain.text));

    let learner = lectern.learner("learner");
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    let get = |id: &String| learner.request(Method::GET, &format!("/sections/{id}"));
    let answers = all(course.sections.iter().map(get)).await;
    let sent = list(&body, "lessons").iter().zip(&course.lessons);
    let sent = sent.flat_map(|(lesson, id)| list(lesson, "sections").iter().map(move |section| (section, id)));
    let mut compared = 0;
    for ((answer, id), (section, lesson)) in answers.iter().zip(&course.sections).zip(sent) {
        let expected = json!({
            "id": id, "courseId": course.id, "lessonId": lesson, "title": section["title"], "type": section["type"],
            "order": section["order"], "duration": section["duration"], "content": section["content"],
        });
        assert_eq!(answer.expect(StatusCode::OK), expected);
        compared += 1;
    }
    assert_eq!(compared, 561);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_class_comes_to_the_true_figures_and_a_shuffled_replay_changes_nothing() {
    let Some(folder) = input() else { return };
    let class = Class::start(&folder).await;
    let (half, rest) = class.events_until(class.shifted("2014-02-12T00:00:00Z"));

    class.replay_in_order(&half).await;
    let mid_course = class.shifted("2014-02-12T00:00:00Z");
    assert_eq!(class.active_learners_at(mid_course).await, class.truth_of_window("mid_course:last_30_days"));
    class.replay_in_order(&rest).await;

    class.check_figures().await;
    class.check_learners().await;
    class.check_what_only_the_database_knows().await;

    let before = class.dump().await;
    let mut events = [half, rest].concat();
    shuffle(&mut events);
    assert_eq!(class.replay_in_any_order(&events).await, [0, 13_298, 0]);
    assert_eq!(class.lectern.fetch("select count(*) from course_changes").await, "0");
    class.lectern.invoke("refresh-analytics", json!({})).await;
    assert_eq!(class.dump().await, before);
    assert_eq!(class.lectern.drift().await, 0);

    // One learner was last seen 96 s within the window that ends with the course: the figure falls by itself then.
    let end = class.end();
    let active = class.truth_of_window("course_end:last_30_days");
    assert_eq!(class.active_learners_at(end).await, active);
    assert_eq!(class.active_learners_at(end + TimeDelta::seconds(95)).await, active);
    assert_eq!(class.active_learners_at(end + TimeDelta::seconds(96)).await, active - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_class_comes_to_the_same_in_any_order() {
    let Some(folder) = input() else { return };
    let class = Class::start(&folder).await;
    let (mut events, none) = class.events_until(class.end());
    assert_eq!(none, Vec::<Value>::new());
    shuffle(&mut events);

    assert_eq!(class.replay_in_any_order(&events).await, [13_298, 0, 0]);

    class.check_figures().await;
    class.check_learners().await;
    class.check_what_only_the_database_knows().await;
    assert_eq!(class.lectern.drift().await, 0);
}

/// Course AAA of the Open University in its presentation of 2013, with 60 of its students, all times shifted.
///
/// The truth counts who was active in the 30 days before the course's end, 2014-06-27; a refresh counts from the moment
/// at which it runs. So the end is put near the present: not onto it, because one student was last seen 96 s within that
/// window and would have left it when the refresh runs, but half a day ahead. Nothing lies in the future by that, for
/// the last event came a day before the end, and a run may take hours: see [`Class::check_figures`].
struct Class {
    lectern: Lectern,
    course: Course,
    folder: PathBuf,
    shift: TimeDelta,
    /// The course's sections in its order: the name in the truth, the id here.
    sections: Vec<(String, String)>,
    /// Who learns, and since when.
    enrolled: BTreeMap<String, DateTime<Utc>>,
    truth: Value,
}

impl Class {
    /// The course, published, with all its students and nothing learned yet.
    async fn start(folder: &Path) -> Self {
        let folder = folder.join("oulad-sample");
        let shift = Utc::now().trunc_subsecs(0) + TimeDelta::hours(12) - time("2014-06-27T00:00:00Z");
        let lectern = Lectern::start_with(|config| config.progress_max_event_age_days = 400).await;
        let mut body = json_file(&folder.join("courses/AAA_2013J.json"));
        body["courseData"]["isPublished"] = true.into();
        let outline = lectern.teacher("teacher").create(&body).await.expect(StatusCode::CREATED);
        let course = Course::of(&outline);
        // A section's name in the truth is the last word of its title.
        let titles = list(&outline, "lessons").iter().flat_map(|lesson| list(lesson, "sections"));
        let names = titles.map(|section| text(section, "title").rsplit(' ').next().expect("a word").to_owned());
        let sections = names.zip(course.sections.iter().cloned()).collect();
        let enrolled = table(&folder.join("enrollments.csv"), ["user", "enrolled_at"]);
        let enrolled: BTreeMap<_, _> = enrolled.into_iter().map(|[user, at]| (user, time(&at) + shift)).collect();
        let truth = json_file(&folder.join("truth_course.json"))["AAA_2013J"].take();

        let rows = enrolled.iter().map(|(user, at)| json!({"userId": user, "enrolledAt": written(*at)}));
        let rows = json!({ "enrollments": rows.collect::<Vec<Value>>() });
        let path = format!("/courses/{}/enrollments", course.id);
        let answer = lectern.service().post(&path, &rows).await.expect(StatusCode::OK);
        let result = |user| json!({"userId": user, "status": "enrolled", "code": null});
        assert_eq!(answer["results"], enrolled.keys().map(result).collect::<Value>());
        assert_eq!(enrolled.len(), 60);
        Self { lectern, course, folder, shift, sections, enrolled, truth }
    }

    /// A moment of the truth, here.
    fn shifted(&self, at: &str) -> DateTime<Utc> {
        time(at) + self.shift
    }

    /// The same as JSON, null where there is none.
    fn shown(&self, at: &str) -> Value {
        if at.is_empty() { Value::Null } else { written(self.shifted(at)).into() }
    }

    /// When the course ends, here.
    fn end(&self) -> DateTime<Utc> {
        self.shifted("2014-06-27T00:00:00Z")
    }

    fn truth_of_window(&self, name: &str) -> i64 {
        self.truth["active_learners_windows"][name].as_i64().expect("a number")
    }

    /// Everything that happened, as `POST /progress` takes it: until a moment, and after it.
    fn events_until(&self, moment: DateTime<Utc>) -> (Vec<Value>, Vec<Value>) {
        let ids: BTreeMap<_, _> = self.sections.iter().cloned().collect();
        let rows = table(&self.folder.join("events.csv"), ["seq", "at", "user", "section", "time_spent", "completed"]);
        let events = rows.into_iter().map(|[seq, at, user, section, time_spent, completed]| {
            let event = json!({
                "eventId": Uuid::new_v5(&Uuid::NAMESPACE_OID, seq.as_bytes()), "userId": user,
                "sectionId": ids[&section], "timeSpent": number(&time_spent), "completed": completed == "1",
                "occurredAt": written(self.shifted(&at)),
            });
            (self.shifted(&at) <= moment, event)
        });
        let (until, after): (Vec<_>, Vec<_>) = events.partition(|(until, _)| *until);
        let events = |part: Vec<(bool, Value)>| part.into_iter().map(|(_, event)| event).collect();
        (events(until), events(after))
    }

    /// Records events as a loader would: one batch after the other, as large as allowed.
    async fn replay_in_order(&self, events: &[Value]) {
        let service = self.lectern.service();
        for batch in events.chunks(500) {
            let answer = service.record(batch).await.expect(StatusCode::OK);
            assert_eq!(answer["recorded"], json!(batch.len()), "{answer}");
        }
    }

    /// Records events in batches of all sizes, several at once; tells how many were recorded, duplicate and rejected.
    async fn replay_in_any_order(&self, mut events: &[Value]) -> [i64; 3] {
        let service = self.lectern.service();
        let mut batches = Vec::new();
        for size in [500, 1, 137, 499, 2, 61].into_iter().cycle() {
            let (batch, rest) = events.split_at(size.min(events.len()));
            batches.push(service.request(Method::POST, "/progress").json(&json!({ "events": batch })));
            events = rest;
            if events.is_empty() {
                break;
            }
        }
        let mut sums = [0; 3];
        for answer in all(batches.into_iter()).await {
            let answer = answer.expect(StatusCode::OK);
            for (sum, name) in sums.iter_mut().zip(["recorded", "duplicates", "rejected"]) {
                *sum += answer[name].as_i64().expect("a number");
            }
        }
        sums
    }

    async fn analytics(&self) -> Value {
        let path = format!("/courses/{}/analytics", self.course.id);
        self.lectern.teacher("teacher").get(&path).await.expect(StatusCode::OK)
    }

    /// What the figures say after a refresh at some moment.
    async fn active_learners_at(&self, moment: DateTime<Utc>) -> i64 {
        analytics::refresh(self.lectern.app(), moment, deadline()).await.expect("a refresh");
        self.analytics().await["activeLearners"].as_i64().expect("a number")
    }

    /// Refreshes as the schedule does and compares the course's figures with the truth.
    async fn check_figures(&self) {
        let refreshed = self.lectern.invoke("refresh-analytics", json!({})).await;
        let counts = ["refreshed", "failed", "remaining"].map(|name| refreshed[name].as_i64());
        assert_eq!(counts, [Some(1), Some(0), Some(0)], "{refreshed}");
        let figures = self.analytics().await;
        let as_of = time(text(&figures, "asOf"));
        assert!((time(text(&refreshed, "asOf")) - as_of).abs() < TimeDelta::milliseconds(1), "{refreshed} {figures}");

        // The window that was counted and the truth's hold the same learners, and would for hours.
        let mut last_seen: BTreeMap<String, DateTime<Utc>> = BTreeMap::new();
        for [user, at] in table(&self.folder.join("events.csv"), ["user", "at"]) {
            last_seen.insert(user, self.shifted(&at));
        }
        for (edge, margin) in [(as_of, TimeDelta::hours(1)), (self.end(), TimeDelta::seconds(1))] {
            let edge = edge - TimeDelta::days(30);
            let near = last_seen.values().filter(|last| (**last - edge).abs() < margin).count();
            let inside = last_seen.values().filter(|last| **last > edge).count();
            assert_eq!((near, inside), (0, 45), "around {edge}");
        }

        let completions = table(&self.folder.join("truth_user_course.csv"), ["user", "course_completed_at"]);
        let mut seconds: Vec<i64> = completions
            .iter()
            .filter(|[_, at]| !at.is_empty())
            .map(|[user, at]| (self.shifted(at) - self.enrolled[user]).num_seconds())
            .collect();
        seconds.sort_unstable();
        let expected = json!({
            "courseId": self.course.id,
            "totalEnrollments": 60,
            "activeLearners": 45,
            "completedEnrollments": 15,
            "completionRate": 25.00,
            "avgCompletionTime": 22_700_222,
            "medianCompletionTime": percentile(&seconds, 0.5),
            "p25CompletionTime": percentile(&seconds, 0.25),
            "p75CompletionTime": percentile(&seconds, 0.75),
            "avgTimeSpent": 49_116,
            "asOf": figures["asOf"],
            "windowDays": 30,
        });
        assert_eq!(figures, expected);
        let outline = self.lectern.anyone().get(&format!("/courses/{}", self.course.id)).await.expect(StatusCode::OK);
        assert_eq!(outline["enrollmentCount"], json!(60));
    }

    /// Compares what every learner sees of the course and of each of its lessons with the truth.
    async fn check_learners(&self) {
        let touched = self.true_sections();
        let lessons = self.true_lessons();
        let columns = [
            "user",
            "total_sections",
            "completed_sections",
            "touched_sections",
            "time_spent",
            "pct",
            "course_completed_at",
        ];
        let mut in_all = 0;
        let rows = table(&self.folder.join("truth_user_course.csv"), columns);
        assert_eq!(rows.len(), 60);
        for [user, total, completed, touched_sections, time_spent, percentage, completed_at] in rows {
            let learner = self.lectern.learner(&user);
            let paths = self.course.lessons.iter().map(|lesson| format!("/lessons/{lesson}/progress"));
            let paths =
                ["/me/courses".to_owned(), format!("/courses/{}/progress", self.course.id)].into_iter().chain(paths);
            let answers = all(paths.map(|path| learner.request(Method::GET, &path))).await;
            let mut answers = answers.iter().map(|answer| answer.expect(StatusCode::OK));

            let home = answers.next().expect("a home page");
            assert_eq!(home["enrollments"].as_array().map(Vec::len), Some(1), "{home}");
            assert_eq!(home["enrollments"][0]["enrolledAt"], json!(written(self.enrolled[&user])), "{user}");
            let own = touched.get(&user).cloned().unwrap_or_default();
            let last = own.iter().max_by_key(|(id, progress)| (text(progress, "updatedAt"), id.as_str()));
            let is_open = |id: &&String| own.get(*id).is_none_or(|progress| progress["completed"] == json!(false));
            let mut summary = answers.next().expect("a summary");
            // A whole number comes as one, and is the same number all the same.
            assert_eq!(summary["completionPercentage"].take().as_f64(), percentage.parse().ok(), "{user}");
            let expected = json!({
                "courseId": self.course.id, "courseTitle": "OULAD AAA_2013J",
                "totalSections": number(&total), "completedSections": number(&completed),
                "totalTimeSpent": number(&time_spent), "completionPercentage": null,
                "completedAt": self.shown(&completed_at),
                "lastActivityAt": last.map(|(_, progress)| &progress["updatedAt"]),
                "newSectionsSinceCompletion": if completed_at.is_empty() { Value::Null } else { 0.into() },
                "resume": {
                    "lastSectionId": last.map(|(id, _)| id),
                    "nextSectionId": self.course.sections.iter().find(is_open),
                },
            });
            assert_eq!(summary, expected, "{user}");
            in_all += number(&time_spent);

            let mut seen = 0;
            for (answer, order) in answers.zip(1..) {
                let sections = list(&answer, "sections");
                let spent: i64 = sections.iter().filter_map(|section| section["progress"]["timeSpent"].as_i64()).sum();
                let found = [&answer["sectionCount"], &answer["completedSections"], &json!(spent)]
                    .map(|value| value.as_i64().expect("a number"));
                // The truth leaves out what a learner never touched.
                let untouched = [found[0], 0, 0];
                let expected = lessons.get(&(user.clone(), order)).unwrap_or(&untouched);
                assert_eq!((&answer["order"], &found), (&json!(order), expected), "{user}");
                for section in sections {
                    let expected = own.get(text(section, "id")).unwrap_or(&Value::Null);
                    assert_eq!(&section["progress"], expected, "{user}: {section}");
                    seen += i64::from(!expected.is_null());
                }
            }
            assert_eq!(seen, number(&touched_sections), "{user}");
        }
        assert_eq!(in_all, 1_499_280);
    }

    /// What every learner must see on every section that they touched, by learner and section.
    fn true_sections(&self) -> BTreeMap<String, BTreeMap<String, Value>> {
        let ids: BTreeMap<_, _> = self.sections.iter().cloned().collect();
        let columns = ["user", "section", "time_spent", "completed", "last_at", "completed_at"];
        let rows = table(&self.folder.join("truth_user_section.csv"), columns);
        assert_eq!(rows.len(), 1_069);
        let mut sections: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
        for [user, section, time_spent, completed, last_at, completed_at] in rows {
            let progress = json!({
                "completed": completed == "1", "completedAt": self.shown(&completed_at),
                "timeSpent": number(&time_spent), "updatedAt": self.shown(&last_at),
            });
            sections.entry(user).or_default().insert(ids[&section].clone(), progress);
        }
        sections
    }

    /// Sections, completed sections and seconds of every lesson that a learner touched, by learner and order.
    fn true_lessons(&self) -> BTreeMap<(String, i64), [i64; 3]> {
        let columns = ["user", "lesson_order", "sections", "completed", "time_spent"];
        let rows = table(&self.folder.join("truth_lesson.csv"), columns);
        assert_eq!(rows.len(), 455);
        rows.into_iter()
            .map(|[user, order, rest @ ..]| ((user, number(&order)), rest.map(|value| number(&value))))
            .collect()
    }

    /// Compares what no answer shows with the truth: when a learner first came to a section, and how often.
    async fn check_what_only_the_database_knows(&self) {
        let names: BTreeMap<_, _> = self.sections.iter().map(|(name, id)| (id.as_str(), name.as_str())).collect();
        let found = self
            .lectern
            .fetch(
                "select string_agg(concat_ws(',', user_id, section_id, first_at, events), E'\\n')
                from (
                    select user_id, section_id, rfc3339_v1(first_at) as first_at, (
                        select count(*) from progress_events
                        where progress_events.user_id = progress.user_id
                            and progress_events.section_id = progress.section_id
                    ) as events
                    from progress
                ) as touched",
            )
            .await;
        let mut found: Vec<String> = found
            .lines()
            .map(|line| names.iter().fold(line.to_owned(), |line, (id, name)| line.replace(id, name)))
            .collect();
        let columns = ["user", "section", "first_at", "events"];
        let rows = table(&self.folder.join("truth_user_section.csv"), columns);
        let mut expected: Vec<String> = rows
            .into_iter()
            .map(|[user, section, at, events]| format!("{user},{section},{},{events}", written(self.shifted(&at))))
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }

    /// All that learners and figures are made of, as one text each.
    async fn dump(&self) -> Vec<String> {
        let mut dump = vec![self.analytics().await.to_string()];
        for table in ["enrollments", "progress", "progress_events", "course_analytics"] {
            let rows = format!("select string_agg(stored::text, E'\\n' order by stored::text) from {table} as stored");
            dump.push(self.lectern.fetch(&rows).await);
        }
        dump
    }
}

/// Where the real input is, if it is anywhere.
fn input() -> Option<PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let folder = root.join(environment("LECTERN_DATA").unwrap_or_else(|| "../shared/data".to_owned()));
    if folder.is_dir() {
        return Some(folder);
    }
    // Not by `eprintln!`: of a test that passes, the harness shows nothing that goes that way.
    let line = "*".repeat(100);
    let told = writeln!(
        std::io::stderr(),
        "\n{line}\nTHE REAL INPUTS WERE NOT TESTED: there is no folder {}\n\
        Set LECTERN_DATA to the folder that holds courses/ and oulad-sample/.\n{line}",
        folder.display()
    );
    told.expect("stderr can be written to");
    None
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json_file(path: &Path) -> Value {
    serde_json::from_str(&read(path)).expect("JSON")
}

/// Some columns of a CSV file without quotes.
fn table<const COLUMNS: usize>(path: &Path, columns: [&str; COLUMNS]) -> Vec<[String; COLUMNS]> {
    let file = read(path);
    let mut lines = file.lines();
    let names: Vec<&str> = lines.next().expect("a heading").split(',').collect();
    let places = columns.map(|column| names.iter().position(|name| *name == column).expect(column));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            assert_eq!(fields.len(), names.len(), "{line}");
            places.map(|place| fields[place].to_owned())
        })
        .collect()
}

/// Sends requests, a few at a time, and gives their answers in the same order.
async fn all(requests: impl Iterator<Item = RequestBuilder>) -> Vec<Answer> {
    stream::iter(requests.map(Answer::of)).buffered(AT_ONCE).collect().await
}

/// The same other order each time.
fn shuffle(events: &mut [Value]) {
    events.sort_by_cached_key(|event| Uuid::new_v5(&Uuid::NAMESPACE_URL, text(event, "eventId").as_bytes()));
}

/// What an outline shares with the body that made it.
fn outlined(course: &Value) -> Vec<Value> {
    let section = |section: &Value| {
        json!({
            "title": section["title"], "type": section["type"], "order": section["order"],
            "duration": section["duration"],
        })
    };
    let sections = |lesson: &Value| list(lesson, "sections").iter().map(section).collect::<Vec<Value>>();
    let lesson =
        |lesson: &Value| json!({"title": lesson["title"], "order": lesson["order"], "sections": sections(lesson)});
    list(course, "lessons").iter().map(lesson).collect()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name].as_array().unwrap_or_else(|| panic!("{name} is no list: {value}"))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is no text: {value}"))
}

fn number(text: &str) -> i64 {
    text.parse().expect(text)
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().expect(text)
}

/// A whole second, as Lectern writes it.
fn written(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The continuous percentile of sorted values, in whole seconds.
fn percentile(sorted: &[i64], part: f64) -> i64 {
    let place = part * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize] as f64, sorted[place.ceil() as usize] as f64);
    (below + (above - below) * place.fract()).round() as i64
}
