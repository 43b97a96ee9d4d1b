//! All that is kept under one user id: handed out whole, and erased without a trace, whoever is at work meanwhile.

use std::{collections::BTreeMap, io::Read, time::Duration};

use chrono::Utc;
use local::authorizer::Grant;
use redis::cmd;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::{
    cache::{Cache, Coding, Document, Generation, Slot},
    config::Config,
    error::Error,
    http::user_segment,
    ids, learning, parking,
};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    log::Log,
    redis_servers,
    support::{
        Answer, Caller, Course, Kind, Lectern, NOWHERE, course_body, event, on_a_node_and_on_a_cluster, seconds_ago,
    },
};

const OK: StatusCode = StatusCode::OK;
const CREATED: StatusCode = StatusCode::CREATED;
const NO_CONTENT: StatusCode = StatusCode::NO_CONTENT;
/// What Lectern may answer at the most.
const MOST_BYTES: usize = 4 * 1024 * 1024;
const LISTS: [&str; 5] = ["enrollments", "progress", "events", "submissions", "authoredCourses"];

on_a_node_and_on_a_cluster! {
    nothing_is_left_of_who_was_erased_and_nothing_of_others_is_touched,
    whoever_loaded_before_an_erasure_stores_nothing_after_it,
    whoever_asks_for_a_course_of_others_leaves_no_key,
}

fn data(user: &str) -> String {
    format!("/learners/{}/data", user_segment(user))
}

fn admin(lectern: &Lectern) -> Caller<'_> {
    lectern.caller("root", &["admin"])
}

async fn erase(lectern: &Lectern, user: &str) {
    admin(lectern).delete(&data(user)).await.expect(NO_CONTENT);
}

async fn replay(lectern: &Lectern) -> Value {
    lectern.invoke("replay-parked", json!({})).await
}

fn for_user(user: &str, section: &str) -> Value {
    let mut event = event(section, 3, true);
    event["userId"] = user.into();
    event
}

/// A course of somebody else's, and two users who did all that can be done, each by themselves and by a service.
struct World {
    lectern: Lectern,
    cut_off: Lectern,
    course: Course,
    other: Course,
    /// The ids of all events that were sent for each.
    sent: BTreeMap<String, Vec<String>>,
}

impl World {
    async fn of(kind: Kind, users: &[&str]) -> Self {
        let lectern = Lectern::start_on(kind).await;
        let course = lectern.course("teacher", &[2, 2]).await;
        let other = lectern.course("teacher", &[1]).await;
        let cut_off = lectern.cut_off().await;
        let mut world = Self { lectern, cut_off, course, other, sent: BTreeMap::new() };
        for user in users {
            world.learn(user).await;
            world.author(user).await;
        }
        world.park(users).await;
        replay(&world.lectern).await;
        world.park(users).await;
        for user in users {
            world.fill_the_cache(user).await;
        }
        world
    }

    fn note(&mut self, user: &str, events: &[Value]) {
        let ids = events.iter().map(|event| event["eventId"].as_str().unwrap().to_owned());
        self.sent.entry(user.to_owned()).or_default().extend(ids);
    }

    async fn learn(&mut self, user: &str) {
        let (course, other) = (self.course.clone(), self.other.clone());
        let learner = self.lectern.learner(user);
        learner.enrol(&course).await.expect(CREATED);
        learner.enrol(&other).await.expect(CREATED);
        let mut first = event(&course.sections[0], 7, true);
        first["occurredAt"] = seconds_ago(3_600).into();
        let events = [first, event(&course.sections[1], 5, false), event(&other.sections[0], 9, true)];
        learner.record(&events).await.expect(OK);
        learner.delete(&format!("/courses/{}/progress", other.id)).await.expect(NO_CONTENT);
        learner.delete(&format!("/courses/{}/enrollment", other.id)).await.expect(NO_CONTENT);
        self.note(user, &events);
    }

    async fn author(&self, user: &str) {
        let body = course_body("Of their own", &[1], true);
        self.lectern.teacher(user).create_with_key(&format!("key-{}", Uuid::now_v7()), &body).await.expect(CREATED);
        let add = "insert into lesson_additions (user_id, idempotency_key, request_hash, body)
            values ($user$, 'more', sha256('x'), '{}')";
        self.lectern.sql(&add.replace("$user$", &literal(user))).await;
    }

    /// Batches of each alone and of all together, such that count and such that cannot.
    async fn park(&mut self, users: &[&str]) {
        let nowhere = Uuid::now_v7().to_string();
        let there = self.course.sections[2].clone();
        for sections in [vec![there.clone()], vec![there, nowhere]] {
            let mut all = Vec::new();
            for user in users {
                let own: Vec<Value> = sections.iter().map(|section| event(section, 2, true)).collect();
                self.cut_off.learner(user).record(&own).await.expect(StatusCode::ACCEPTED);
                self.note(user, &own);
                let others: Vec<Value> = sections.iter().map(|section| for_user(user, section)).collect();
                self.note(user, &others);
                self.cut_off.service().record(&others).await.expect(StatusCode::ACCEPTED);
                let together: Vec<Value> = sections.iter().map(|section| for_user(user, section)).collect();
                self.note(user, &together);
                all.extend(together);
            }
            self.cut_off.service().record(&all).await.expect(StatusCode::ACCEPTED);
        }
    }

    async fn fill_the_cache(&self, user: &str) {
        for caller in [self.lectern.learner(user), self.lectern.caller(user, &["admin"])] {
            for course in [&self.course, &self.other] {
                caller.summary(course).await;
            }
        }
    }

    /// Where anything of a user still stands.
    async fn traces(&self, user: &str) -> Vec<String> {
        let mut needles = names(user);
        needles.extend(self.sent.get(user).into_iter().flatten().map(|id| id.clone().into_bytes()));
        traces(&self.lectern, &needles).await
    }
}

/// A text as SQL has it.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name in every form in which it could be kept.
fn names(user: &str) -> Vec<Vec<u8>> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let escaped = Value::from(user).to_string();
    let ascii: String = escaped
        .trim_matches('"')
        .chars()
        .map(|c| match u32::from(c) {
            0..128 => c.to_string(),
            code => format!("\\u{code:04x}"),
        })
        .collect();
    let twice = user_segment(user);
    let once = twice.replace("%25", "%");
    let digest = ids::fingerprint(user.as_bytes());
    let texts = [
        escaped.trim_matches('"').to_owned(),
        ascii,
        twice,
        once,
        hex(user.as_bytes()),
        ids::hashed(user),
        hex(&digest),
    ];
    texts.into_iter().map(String::into_bytes).chain([user.as_bytes().to_vec(), digest]).collect()
}

fn holds(bytes: &[u8], needles: &[Vec<u8>]) -> bool {
    needles.iter().any(|needle| bytes.windows(needle.len()).any(|part| part == needle.as_slice()))
}

/// Everywhere that one of these stands: in any row, under any key, in any item.
async fn traces(lectern: &Lectern, needles: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    for (table, rows) in tables(lectern, "true").await {
        found.extend(rows.lines().filter(|row| holds(row.as_bytes(), needles)).map(|row| format!("{table}: {row}")));
    }
    for (key, value) in keys(lectern).await {
        if holds(&key, needles) || holds(&value, needles) {
            found.push(format!("redis: {}", String::from_utf8_lossy(&key)));
        }
    }
    for item in items(lectern).await {
        if item.values().any(|value| holds(value, needles)) {
            found.push(format!("dynamodb: {}", String::from_utf8_lossy(&item["pk"])));
        }
    }
    found
}

/// The rows of every table as JSON, a line for each, of those that satisfy a condition where they can.
async fn tables(lectern: &Lectern, condition: &str) -> BTreeMap<String, String> {
    let names = "select string_agg(distinct table_name, ' ' order by table_name)
        from information_schema.columns
        join information_schema.tables using (table_schema, table_name)
        where table_schema = 'public' and table_type = 'BASE TABLE'";
    let mut tables = BTreeMap::new();
    for table in lectern.fetch(names).await.split(' ') {
        let rows = format!(
            "select string_agg(entry::text, e'\\n' order by entry::text) from (
            select to_jsonb(t) as entry from {table} t
        ) as rows where {condition}"
        );
        tables.insert(table.to_owned(), lectern.fetch(&rows).await);
    }
    tables
}

async fn keys(lectern: &Lectern) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let settings = lectern.app().config.redis.clone().unwrap();
    let mut found = BTreeMap::new();
    for mut node in redis_servers::nodes(&settings).await {
        let keys: Vec<Vec<u8>> =
            cmd("KEYS").arg(format!("{}:*", settings.prefix)).query_async(&mut node).await.unwrap();
        for key in keys {
            // Another may hold it by now, and it may be gone.
            let value: Option<Vec<u8>> = cmd("GET").arg(&key).query_async(&mut node).await.unwrap_or_default();
            found.insert(key, value.unwrap_or_default());
        }
    }
    found
}

/// Every item of the table, each attribute as bytes, unpacked where it was packed.
async fn items(lectern: &Lectern) -> Vec<BTreeMap<String, Vec<u8>>> {
    let settings = lectern.app().config.parking.clone().unwrap();
    let client = parking::connect(&settings).await;
    let (mut found, mut start) = (Vec::new(), None);
    loop {
        let scan = client.scan().table_name(&settings.table).consistent_read(true).set_exclusive_start_key(start);
        let answer = scan.send().await.unwrap();
        for item in answer.items.unwrap_or_default() {
            let bytes = item.into_iter().map(|(name, value)| {
                let bytes = match (value.as_s(), value.as_n(), value.as_b()) {
                    (Ok(text), ..) => text.clone().into_bytes(),
                    (_, Ok(number), _) => number.clone().into_bytes(),
                    (.., Ok(blob)) => unpacked(blob.as_ref()),
                    _ => panic!("{value:?}"),
                };
                (name, bytes)
            });
            found.push(bytes.collect());
        }
        start = answer.last_evaluated_key;
        if start.is_none() {
            return found;
        }
    }
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain) {
        Ok(_) => plain,
        Err(_) => bytes.to_vec(),
    }
}

/// All that belongs to a user, to be compared: rows, keys, items of their own, and their part of a service's.
async fn belongings(lectern: &Lectern, user: &str, sent: &[String]) -> (BTreeMap<String, String>, Vec<Value>) {
    let mine = format!("coalesce(entry ->> 'user_id', entry ->> 'owner_id') = {}", literal(user));
    let mut rows = tables(lectern, &mine).await;
    let hash = ids::hashed(user);
    for (key, value) in keys(lectern).await {
        let key = String::from_utf8(key).unwrap();
        if key.contains(&hash) {
            rows.insert(key, String::from_utf8(value).unwrap());
        }
    }
    let mut parked = Vec::new();
    for item in items(lectern).await {
        let mut of_body = |name: &str, list: &str| {
            let Some(bytes) = item.get(name) else { return };
            let json: Value = serde_json::from_slice(bytes).unwrap();
            let list = if list.is_empty() { &json } else { &json[list] };
            let mine = |entry: &&Value| sent.iter().any(|id| entry["eventId"] == id.as_str());
            let pk = String::from_utf8(item["pk"].clone()).unwrap();
            parked.extend(list.as_array().unwrap().iter().filter(mine).map(|entry| json!([pk, name, entry])));
        };
        of_body("body", "events");
        of_body("results", "");
    }
    parked.sort_by_key(Value::to_string);
    (rows, parked)
}

async fn nothing_is_left_of_who_was_erased_and_nothing_of_others_is_touched(kind: Kind) {
    let world = World::of(kind, &["ada-lovelace", "bob-kahn"]).await;
    let lectern = &world.lectern;
    let found = world.traces("ada-lovelace").await.join("\n");
    for place in [
        "enrollments: ",
        "progress: ",
        "progress_events: ",
        "courses: ",
        "course_creations: ",
        "lesson_additions: ",
        "redis: ",
        "dynamodb: pending",
        "dynamodb: finished",
    ] {
        assert!(found.contains(place), "{place} in {found}");
    }
    let before = belongings(lectern, "bob-kahn", &world.sent["bob-kahn"]).await;
    assert!(before.1.len() > 10, "{before:?}");
    let waiting = items(lectern).await.iter().filter(|item| item["pk"].starts_with(b"pending")).count();

    erase(lectern, "ada-lovelace").await;

    assert_eq!(world.traces("ada-lovelace").await, [""; 0]);
    assert_eq!(belongings(lectern, "bob-kahn", &world.sent["bob-kahn"]).await, before);
    let left = items(lectern).await.iter().filter(|item| item["pk"].starts_with(b"pending")).count();
    // Two of hers and two that a service sent for her alone, and what is left has bob's part.
    assert_eq!(left, waiting - 4);
    // What it tells of it, and what it does not.
    let counts = "select concat_ws(' ', enrollments, progress, events, courses, idempotency_keys, submissions)
        from erasures where finished_at >= began_at";
    assert_eq!(lectern.fetch(counts).await, "2 3 9 1 2 12");

    // Again, there is nothing to be done.
    let done = tables(lectern, "not entry ? 'finished_at'").await;
    erase(lectern, "ada-lovelace").await;
    assert_eq!(tables(lectern, "not entry ? 'finished_at'").await, done);
    assert_eq!(lectern.fetch("select count(*) from erasures").await, "2");
    assert_eq!(lectern.fetch("select sum(submissions) from erasures").await, "12");

    // Nothing comes back, bob's part counts, and the figures are right.
    let replayed = replay(lectern).await;
    assert_eq!((&replayed["applied"], &replayed["remaining"]), (&json!(6), &json!(0)), "{replayed}");
    assert_eq!(world.traces("ada-lovelace").await, [""; 0]);
    assert_eq!(lectern.learner("bob-kahn").summary(&world.course).await["completedSections"], 2);
    lectern.invoke("refresh-analytics", json!({})).await;
    assert_eq!(lectern.drift().await, 0);
    let analytics = format!("/courses/{}/analytics", world.course.id);
    assert_eq!(lectern.teacher("teacher").get(&analytics).await.expect(OK)["totalEnrollments"], 1);
    let empty = admin(lectern).get(&data("ada-lovelace")).await.expect(OK);
    assert!(LISTS.iter().all(|list| empty[list] == json!([])), "{empty}");
}

async fn whoever_loaded_before_an_erasure_stores_nothing_after_it(kind: Kind) {
    let lectern = Lectern::start_on(kind).await;
    let course = lectern.course("teacher", &[1]).await;
    lectern.learner("ada-lovelace").enrol(&course).await.expect(CREATED);
    let cache = Cache::new(lectern.app().config.redis.as_ref()).unwrap();
    let id = course.id.parse().unwrap();
    let keys = learning::keys("ada-lovelace", id);
    let generation = keys[0].clone();
    let [summary, as_admin] =
        ["summary", "summary:admin"].map(|end| keys.iter().rfind(|key| key.ends_with(end)).unwrap());
    let slot = |key: &str| Slot {
        key: key.to_owned(),
        coding: Coding::Identity,
        generations: vec![Generation(generation.clone())],
        visibility: Generation(format!("v1:{{course:{id}}}:visibility")),
        fresh_for: Duration::from_secs(60),
        is_shared: false,
        own: Some(Generation(generation.clone())),
    };
    for key in [summary, as_admin] {
        // Both with a generation that is there and with one that the reader has to make.
        for there in [true, false] {
            if there {
                lectern.learner("ada-lovelace").summary(&course).await;
            } else {
                cache.erase(std::slice::from_ref(&generation)).await.unwrap();
            }
            let slow = async {
                erase(&lectern, "ada-lovelace").await;
                Ok::<_, Error>(Document::from("{\"old\":\"ada-lovelace\"}".to_owned()))
            };
            cache.read_through(&slot(key), slow).await.unwrap();
            assert_eq!(traces(&lectern, &names("ada-lovelace")).await, [""; 0], "{key} {there}");
            lectern.learner("ada-lovelace").enrol(&course).await.expect(CREATED);
        }
    }
}

async fn whoever_asks_for_a_course_of_others_leaves_no_key(kind: Kind) {
    let lectern = Lectern::start_on(kind).await;
    let course = lectern.course("teacher", &[1]).await;
    for id in [&course.id, &Uuid::now_v7().to_string()] {
        let answer = lectern.learner("ada-lovelace").get(&format!("/courses/{id}/progress")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(traces(&lectern, &names("ada-lovelace")).await, [""; 0]);
    // Who has something still gets it from the cache.
    lectern.learner("ada-lovelace").enrol(&course).await.expect(CREATED);
    let path = format!("/courses/{}/progress", course.id);
    lectern.learner("ada-lovelace").get(&path).await.expect(OK);
    assert_eq!(lectern.learner("ada-lovelace").get(&path).await.header("x-cache"), "hit");
}

/// All pages of a document, put together.
async fn document(lectern: &Lectern, user: &str, limit: usize) -> (Value, usize) {
    let (mut whole, mut pages): (BTreeMap<&str, Vec<Value>>, _) = (BTreeMap::new(), 0);
    let mut path = format!("{}?limit={limit}", data(user));
    loop {
        let answer = admin(lectern).get(&path).await;
        assert!(answer.text.len() <= MOST_BYTES);
        let page = answer.expect(OK);
        assert_eq!(page["userId"], user);
        assert_eq!(page.as_object().unwrap().len(), LISTS.len() + 2);
        let rows = LISTS.iter().map(|list| page[list].as_array().unwrap().len()).sum::<usize>();
        assert!(rows <= limit);
        for list in LISTS {
            whole.entry(list).or_default().extend(page[list].as_array().unwrap().iter().cloned());
        }
        pages += 1;
        let Some(cursor) = page["nextCursor"].as_str() else {
            assert_eq!(answer.header("link"), "");
            return (json!(whole), pages);
        };
        path = format!("{}?limit={limit}&cursor={cursor}", data(user));
        assert_eq!(answer.header("link"), format!("<{path}>; rel=\"next\""));
    }
}

#[tokio::test]
async fn an_export_shows_what_the_api_shows() {
    let world = World::of(Kind::Node, &["ada-lovelace", "bob-kahn"]).await;
    let lectern = &world.lectern;
    let answer = admin(lectern).get(&data("ada-lovelace")).await;
    let page = answer.expect(OK);
    assert_eq!((answer.header("cache-control"), answer.header("x-cache")), ("private, no-store", "bypass"));
    assert!(!answer.header("etag").is_empty());
    assert!(!answer.text.contains("bob-kahn"), "{}", answer.text);
    assert_eq!((&page["userId"], &page["nextCursor"]), (&json!("ada-lovelace"), &Value::Null));

    let learner = lectern.learner("ada-lovelace");
    let enrollments = page["enrollments"].as_array().unwrap();
    assert_eq!(enrollments.len(), 2);
    for shown in enrollments {
        let course = if shown["courseId"] == world.course.id.as_str() { &world.course } else { &world.other };
        let summary = learner.summary(course).await;
        for key in ["completedSections", "totalSections", "totalTimeSpent", "completionPercentage", "completedAt"] {
            assert_eq!(shown[key], summary[key], "{key}");
        }
        assert_eq!(
            (&shown["courseTitle"], &shown["lastActivityAt"]),
            (&summary["courseTitle"], &summary["lastActivityAt"])
        );
        let is_other = course.id == world.other.id;
        assert_eq!(shown["status"], if is_other { "cancelled" } else { "active" });
        assert_eq!(
            (shown["attempt"].as_i64(), shown["resetAt"].is_string()),
            (Some(1 + i64::from(is_other)), is_other)
        );
        let periods = shown["activeDuring"].as_array().unwrap();
        assert_eq!((periods.len(), periods[0]["until"].is_string()), (1, is_other));
    }
    let lesson = learner.get(&format!("/lessons/{}/progress", world.course.lessons[0])).await.expect(OK);
    let progress = page["progress"].as_array().unwrap();
    assert_eq!(progress.len(), 3);
    for section in lesson["sections"].as_array().unwrap() {
        let shown = progress.iter().find(|row| row["sectionId"] == section["id"]).unwrap();
        assert_eq!(shown["timeSpent"], section["progress"]["timeSpent"]);
        assert_eq!(shown["completedAt"], section["progress"]["completedAt"]);
    }
    let mut shown: Vec<&str> =
        page["events"].as_array().unwrap().iter().map(|row| row["eventId"].as_str().unwrap()).collect();
    shown.sort_unstable();
    assert_eq!(shown.len(), 3 + 6);
    assert!(shown.iter().all(|id| world.sent["ada-lovelace"].iter().any(|sent| sent == id)));

    // Of her own as their sender sees them; of a service's, her part.
    let submissions = page["submissions"].as_array().unwrap();
    assert_eq!(submissions.len(), 12);
    let mut own = 0;
    for shown in submissions {
        let place = format!("/progress/submissions/{}", shown["submissionId"].as_str().unwrap());
        let answer = learner.get(&place).await;
        if answer.status == OK {
            own += 1;
            let status = answer.expect(OK);
            for key in ["status", "acceptedAt", "results"] {
                assert_eq!(shown[key], status[key], "{key}");
            }
        }
        let parts = [&shown["events"], &shown["results"]].map(|list| list.as_array());
        assert!(parts.iter().any(Option::is_some), "{shown}");
        for entry in parts.into_iter().flatten().flatten() {
            let id = entry["eventId"].as_str().unwrap();
            assert!(world.sent["ada-lovelace"].iter().any(|sent| sent == id), "{shown}");
        }
    }
    assert_eq!(own, 4);
    let authored = lectern.teacher("ada-lovelace").get("/me/authored-courses").await.expect(OK)["courses"].clone();
    let shown = page["authoredCourses"].as_array().unwrap();
    assert_eq!(shown.len(), 1);
    for (key, value) in authored[0].as_object().unwrap() {
        assert_eq!(shown[0][key], *value, "{key}");
    }
}

#[tokio::test]
async fn pages_add_up_whatever_their_size() {
    let world = World::of(Kind::Node, &["ada-lovelace", "bob-kahn"]).await;
    let (whole, pages) = document(&world.lectern, "ada-lovelace", 1_000).await;
    assert_eq!(pages, 1);
    let rows: usize = LISTS.iter().map(|list| whole[list].as_array().unwrap().len()).sum();
    assert_eq!(rows, 2 + 3 + 9 + 12 + 1);
    for limit in [1, 2, 3, 5, 7, 14, 26, 27] {
        let (parts, pages) = document(&world.lectern, "ada-lovelace", limit).await;
        assert_eq!(parts, whole, "{limit}");
        assert!(pages >= rows.div_ceil(limit), "{limit}");
    }
    // A cursor is for one learner and for this list.
    let first = admin(&world.lectern).get(&format!("{}?limit=1", data("ada-lovelace"))).await.expect(OK);
    let cursor = first["nextCursor"].as_str().unwrap();
    let foreign = format!("{}?cursor={cursor}", data("bob-kahn"));
    admin(&world.lectern).get(&foreign).await.problem(400, "invalid_cursor");
    for limit in ["0", "1001", "x", "-1"] {
        let path = format!("{}?limit={limit}", data("ada-lovelace"));
        admin(&world.lectern).get(&path).await.problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn the_longest_rows_come_in_more_pages_and_each_once() {
    let lectern = Lectern::start().await;
    lectern
        .sql(
            "insert into courses (id, owner_id, title, description, difficulty, created_at, updated_at)
            select gen_random_uuid(), 'ada', 'T', repeat('🦀', 20000), 'beginner', now() - make_interval(secs => n / 7), now()
            from generate_series(1, 120) as n",
        )
        .await;
    let (whole, pages) = document(&lectern, "ada", 1_000).await;
    let ids: std::collections::BTreeSet<&str> =
        whole["authoredCourses"].as_array().unwrap().iter().map(|course| course["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), whole["authoredCourses"].as_array().unwrap().len()), (120, 120));
    assert!((4..=6).contains(&pages), "{pages}");
}

#[tokio::test]
async fn figures_of_an_export_are_counted_by_the_tree_of_today() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[2]).await;
    let ada = lectern.learner("ada");
    ada.enrol(&course).await.expect(CREATED);
    ada.record(&[event(&course.sections[0], 1, true)]).await.expect(OK);
    lectern
        .sql(&format!(
            "update sections set position = null where id = '{}';
            update courses set section_count = 1, tree_version = tree_version + 1",
            course.sections[0]
        ))
        .await;
    let page = admin(&lectern).get(&data("ada")).await.expect(OK);
    let shown = &page["enrollments"][0];
    assert_eq!((&shown["completedSections"], &shown["completionPercentage"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn nobody_but_an_admin_may_and_a_bad_id_is_refused() {
    let lectern = Lectern::start().await;
    let path = data("ada");
    for caller in [lectern.learner("ada"), lectern.teacher("ada"), lectern.service()] {
        caller.get(&path).await.problem(403, "forbidden");
        caller.delete(&path).await.problem(403, "forbidden");
    }
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(Answer::of(lectern.anyone().request(method, &path)).await.status, StatusCode::UNAUTHORIZED);
    }
    for bad in ["a\u{7}b", "\n", "x\u{85}", &"x".repeat(256), "%01"] {
        let path = if bad == "%01" { "/learners/%01/data".to_owned() } else { data(bad) };
        admin(&lectern).get(&path).await.problem(400, "invalid_user_id");
        admin(&lectern).delete(&path).await.problem(400, "invalid_user_id");
    }
    assert_eq!(lectern.fetch("select count(*) from erasures").await, "0");
    let unknown = admin(&lectern).get(&data("nobody")).await.expect(OK);
    assert!(LISTS.iter().all(|list| unknown[list] == json!([])), "{unknown}");
    erase(&lectern, "nobody").await;
}

#[tokio::test]
async fn an_odd_name_is_found_and_erased_like_any_other_and_no_other_is() {
    let odd = [
        "auth0|0001",
        "a/b-0002/c",
        "Ünal 😀 0003",
        "O'Neil \"0004\"",
        "100%-0005",
        "%41-0006",
        "x%2Fy-0007",
        "x/y-0007",
        "a+b-0008@example.org",
        "?q=0009#x",
        "..",
        "\\0010\\",
        "%%25-0011",
        "{0012}:u:*",
    ];
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let section = &course.sections[0];
    for user in odd {
        let learner = lectern.learner(user);
        learner.enrol(&course).await.expect(CREATED);
        learner.record(&[event(section, 1, true)]).await.expect(OK);
        learner.summary(&course).await;
    }
    let cut_off = lectern.cut_off().await;
    let all: Vec<Value> = odd.iter().map(|user| for_user(user, section)).collect();
    cut_off.service().record(&all).await.expect(StatusCode::ACCEPTED);
    for (index, user) in odd.into_iter().enumerate() {
        let page = admin(&lectern).get(&data(user)).await.expect(OK);
        assert_eq!(page["userId"], user);
        let counts = LISTS.map(|list| page[list].as_array().unwrap().len());
        assert_eq!(counts, [1, 1, 1, 1, 0], "{user}");
        erase(&lectern, user).await;
        let left = lectern.fetch("select string_agg(user_id, ' ' order by user_id) from enrollments").await;
        assert_eq!(
            lectern.fetch("select count(*) from enrollments").await,
            (odd.len() - index - 1).to_string(),
            "{left}"
        );
        // Two dots stand in more than a name.
        if user != ".." {
            assert_eq!(traces(&lectern, &names(user)).await, [""; 0], "{user}");
        }
    }
    assert_eq!(items(&lectern).await.len(), 0);
}

#[tokio::test]
async fn what_needs_no_second_encoding_is_understood_without() {
    let lectern = Lectern::start().await;
    for (path, user) in [
        ("auth0%7C1", "auth0|1"),
        ("auth0|1", "auth0|1"),
        ("%C3%9Cnal%20x", "Ünal x"),
        ("100%25", "100%"),
        ("a+b", "a+b"),
        ("a%2Bb", "a+b"),
        ("a%252Bb", "a+b"),
        ("a%252Fb", "a/b"),
        ("%2541", "%41"),
        ("%252541", "%41"),
    ] {
        let page = admin(&lectern).get(&format!("/learners/{path}/data")).await.expect(OK);
        assert_eq!(page["userId"], user, "{path}");
    }
}

#[tokio::test]
async fn the_course_of_an_erased_author_goes_on_in_the_hands_of_admins() {
    let lectern = Lectern::start().await;
    let body = course_body("Left behind", &[1], true);
    let created = lectern.teacher("ada").create_with_key("key", &body).await.expect(CREATED);
    let course = Course::of(&created);
    let draft = lectern.teacher("ada").create(&course_body("A draft", &[1], false)).await.expect(CREATED);
    let draft = Course::of(&draft);
    lectern.learner("lena").enrol(&course).await.expect(CREATED);
    let path = format!("/courses/{}", course.id);
    let outline = lectern.anyone().get(&path).await.text;

    erase(&lectern, "ada").await;

    assert_eq!(lectern.fetch("select count(*) from courses where owner_id is null").await, "2");
    assert_eq!(lectern.anyone().get(&path).await.text, outline);
    let learner = lectern.learner("lena");
    learner.record(&[event(&course.sections[0], 5, true)]).await.expect(OK);
    assert_eq!(learner.summary(&course).await["completionPercentage"], 100.0);
    learner.get("/me/courses").await.expect(OK);
    learner.get(&format!("/me{path}")).await.expect(OK);
    learner.get(&format!("/lessons/{}/progress", course.lessons[0])).await.expect(OK);
    // The same token has no right any more, nor has any other.
    for stranger in [lectern.teacher("ada"), lectern.teacher("eve"), learner, lectern.service()] {
        stranger.patch(&path, 1, &json!({"title": "Mine"})).await.problem(403, "not_owner");
        stranger.delete(&path).await.problem(403, "not_owner");
        stranger.get(&format!("{path}/analytics")).await.problem(403, "not_owner");
        let unseen = stranger.get(&format!("/me/courses/{}", draft.id)).await;
        unseen.problem(404, "course_not_found");
        let refused = stranger.record(&[event(&draft.sections[0], 1, true)]).await;
        if refused.status == OK {
            assert_eq!(refused.expect(OK)["results"][0]["code"], "unknown_section");
        }
        stranger.delete(&format!("/courses/{}/progress", draft.id)).await.problem(404, "course_not_found");
    }
    lectern.teacher("ada").get(&format!("/sections/{}", course.sections[0])).await.problem(403, "not_enrolled");
    let authored = lectern.teacher("ada").get("/me/authored-courses").await.expect(OK);
    assert_eq!(authored["courses"], json!([]));
    let root = admin(&lectern);
    root.get(&format!("/me/courses/{}", draft.id)).await.expect(OK);
    root.patch(&path, 1, &json!({"title": "Kept"})).await.expect(OK);
    let figures = root.get(&format!("{path}/analytics")).await;
    figures.expect(OK);
    // The key is free, because nothing is known of it.
    let again = lectern.teacher("ada").create_with_key("key", &body).await;
    assert_ne!(again.expect(CREATED)["id"], course.id.as_str());
    assert_eq!(again.header("idempotent-replayed"), "");
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn a_busy_life_is_erased_part_by_part_and_a_part_is_no_drift() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    for user in ["ada-lovelace", "bob"] {
        lectern.learner(user).enrol(&course).await.expect(CREATED);
        lectern.learner(user).record(&[event(&course.sections[0], 1, true)]).await.expect(OK);
    }
    let more = format!(
        "insert into progress_events
        select 'ada-lovelace', gen_random_uuid(), '{}', '{}', 0, false, null, now(), 1 from generate_series(1, 23000);
        insert into courses (id, owner_id, title, description, difficulty, status, published_at, created_at, updated_at)
        select gen_random_uuid(), 'x', 'T', '', 'beginner', 'published', now(), now(), now() from generate_series(1, 450);
        insert into enrollments (user_id, course_id, enrolled_at)
        select 'ada-lovelace', id, now() from courses where owner_id = 'x'",
        course.id, course.sections[0]
    );
    lectern.sql(&more).await;
    lectern.invoke("refresh-analytics", json!({})).await;
    // Cut short after each of the first parts.
    for _ in 0..25 {
        let part = "select erase_learner_v1('ada-lovelace', '019a9b1e-5a00-7000-8000-000000000001', now(), 20, 1000)";
        assert_ne!(lectern.fetch(part).await, "0");
        assert_eq!(lectern.fetch("select count(*) from progress_events where user_id = 'bob'").await, "1");
    }
    assert_eq!(lectern.drift().await, 0);
    erase(&lectern, "ada-lovelace").await;
    assert_eq!(traces(&lectern, &names("ada-lovelace")).await, [""; 0]);
    assert_eq!(lectern.fetch("select sum(events) || ' ' || sum(enrollments) from erasures").await, "23001 451");
    assert_eq!(lectern.fetch("select count(*) from erasures where finished_at is null").await, "1");
    assert_eq!(lectern.drift().await, 0);
    assert_eq!(lectern.learner("bob").summary(&course).await["completedSections"], 1);
}

#[tokio::test]
async fn a_drainer_that_read_a_batch_before_the_erasure_brings_nothing_back() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[2]).await;
    for user in ["ada-lovelace", "bob-kahn"] {
        lectern.learner(user).enrol(&course).await.expect(CREATED);
    }
    let cut_off = lectern.cut_off().await;
    let section = &course.sections[0];
    cut_off.learner("ada-lovelace").record(&[event(section, 1, true)]).await.expect(StatusCode::ACCEPTED);
    let both = [for_user("ada-lovelace", section), for_user("bob-kahn", section)];
    cut_off.service().record(&both).await.expect(StatusCode::ACCEPTED);
    // A service whose own name is to go.
    let robot = lectern.token(&Grant::service("robot-0001"));
    let for_bob = json!({"events": [for_user("bob-kahn", section)]});
    cut_off.bearer(&robot).post("/progress", &for_bob).await.expect(StatusCode::ACCEPTED);
    let parking = lectern.app().parking.as_ref().unwrap();
    let mut read = Vec::new();
    for shard in 0..parking::SHARDS {
        read.extend(parking.pending(shard, None, 10).await.unwrap().submissions);
    }
    assert_eq!(read.len(), 3);

    erase(&lectern, "ada-lovelace").await;
    erase(&lectern, "robot-0001").await;

    let rejected = parking::End {
        outcome: parking::Outcome::Rejected,
        results: b"[]",
        keep: chrono::TimeDelta::days(1),
        keeps_body: true,
    };
    for submission in &read {
        parking.finish(submission, &rejected, Utc::now()).await.unwrap();
    }
    for user in ["ada-lovelace", "robot-0001"] {
        assert_eq!(traces(&lectern, &names(user)).await, [""; 0]);
    }
    // What others were promised is kept.
    assert_eq!(replay(&lectern).await, json!({"applied": 2, "rejected": 0, "remaining": 0}));
    assert_eq!(lectern.learner("bob-kahn").summary(&course).await["totalTimeSpent"], 6);
}

#[tokio::test]
async fn two_who_stand_in_the_same_batches_are_erased_at_the_same_time() {
    let users = ["ada-lovelace", "bob-kahn", "cleo-0003"];
    let world = World::of(Kind::Node, &users).await;
    // What became of a batch whose body was not kept is for its sender alone, and goes with them.
    let kept = async || {
        let (rows, mut parked) = belongings(&world.lectern, "cleo-0003", &world.sent["cleo-0003"]).await;
        parked.retain(|entry| entry[1] == "body");
        (rows, parked)
    };
    let before = kept().await;
    assert!(before.1.len() > 5);
    // And the service that sent for them.
    tokio::join!(erase(&world.lectern, users[0]), erase(&world.lectern, users[1]), erase(&world.lectern, "loader"));
    for user in [users[0], users[1], "loader"] {
        assert_eq!(world.traces(user).await, [""; 0]);
    }
    assert_eq!(kept().await, before);
    assert_eq!(world.lectern.drift().await, 0);
}

#[tokio::test]
async fn who_goes_on_learning_while_they_are_erased_leaves_nothing_and_disturbs_nobody() {
    let users = ["ada-lovelace", "bob-kahn"];
    let world = World::of(Kind::Node, &users).await;
    let (lectern, other) = (&world.lectern, world.lectern.another().await);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let is_over = || stop.load(std::sync::atomic::Ordering::Relaxed);
    let sections = &world.course.sections;
    let alone = async |user: &str| {
        while !is_over() {
            let batch: Vec<Value> = sections.iter().map(|section| event(section, 1, true)).collect();
            lectern.learner(user).record(&batch).await.expect(OK);
            lectern.learner(user).get(&format!("/courses/{}/progress", world.course.id)).await;
        }
    };
    let together = async || {
        while !is_over() {
            let batch: Vec<Value> =
                users.iter().flat_map(|user| sections.iter().map(|section| for_user(user, section))).collect();
            other.service().record(&batch).await.expect(OK);
        }
    };
    let parking = async || {
        while !is_over() {
            let batch: Vec<Value> = users.iter().map(|user| for_user(user, &sections[3])).collect();
            world.cut_off.service().record(&batch).await.expect(StatusCode::ACCEPTED);
            sleep(Duration::from_millis(50)).await;
        }
    };
    let draining = async || {
        while !is_over() {
            replay(&other).await;
            other.invoke("refresh-analytics", json!({})).await;
        }
    };
    let erasing = async || {
        sleep(Duration::from_millis(300)).await;
        erase(lectern, "ada-lovelace").await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(alone("ada-lovelace"), alone("bob-kahn"), together(), parking(), draining(), erasing());
    // What was accepted after the last look was sent for somebody who was no learner any more.
    let rows = tables(lectern, "true").await;
    let found: Vec<_> = rows.iter().filter(|(_, rows)| holds(rows.as_bytes(), &names("ada-lovelace"))).collect();
    assert_eq!(found, []);
    let redis: Vec<_> =
        traces(lectern, &names("ada-lovelace")).await.into_iter().filter(|at| at.starts_with("redis")).collect();
    assert_eq!(redis, [""; 0]);
    replay(lectern).await;
    erase(lectern, "ada-lovelace").await;
    assert_eq!(traces(lectern, &names("ada-lovelace")).await, [""; 0]);
    assert_eq!(lectern.drift().await, 0);
    let recorded = "select count(*) from progress_events where user_id = 'bob-kahn'";
    assert!(lectern.fetch(recorded).await.parse::<u32>().unwrap() > 20);
}

#[tokio::test]
async fn where_a_server_is_away_it_is_told_and_the_next_request_ends_it() {
    type Change = fn(&mut Config);
    let away: [(&str, Change); 3] = [
        ("PostgreSQL", |config| config.postgres.url = NOWHERE.to_owned()),
        ("DynamoDB", |config| config.parking.as_mut().unwrap().endpoint = Some("http://127.0.0.1:1".to_owned())),
        ("Redis", |config| config.redis.as_mut().unwrap().url = "redis://127.0.0.1:1/0".to_owned()),
    ];
    for (server, change) in away {
        let world = World::of(Kind::Node, &["ada-lovelace", "bob-kahn"]).await;
        let config = world.lectern.app().config.clone();
        let without = Lectern::start_with(|fresh| {
            *fresh = config;
            change(fresh);
        })
        .await;
        let answer = admin(&without).delete(&data("ada-lovelace")).await;
        answer.problem(503, "unavailable");
        assert!(!answer.header("retry-after").is_empty(), "{server}");
        assert_ne!(world.traces("ada-lovelace").await, [""; 0], "{server}");
        // An export needs no cache, and is not whole without the others.
        let answer = admin(&without).get(&data("ada-lovelace")).await;
        assert_eq!(answer.status.as_u16(), if server == "Redis" { 200 } else { 503 }, "{server}");

        erase(&world.lectern, "ada-lovelace").await;
        assert_eq!(world.traces("ada-lovelace").await, [""; 0], "{server}");
        assert_eq!(world.lectern.drift().await, 0);
    }
}

#[tokio::test]
async fn no_log_line_names_who_was_exported_or_erased() {
    let log = Log::listen();
    let world = World::of(Kind::Node, &["ada-lovelace"]).await;
    let without_redis = world.lectern.app().config.clone();
    let without_redis = Lectern::start_with(|fresh| {
        *fresh = without_redis;
        fresh.redis.as_mut().unwrap().url = "redis://127.0.0.1:1/0".to_owned();
    })
    .await;
    for lectern in [&world.lectern, &without_redis, &world.cut_off] {
        admin(lectern).get(&data("ada-lovelace")).await;
        admin(lectern).delete(&data("ada-lovelace")).await;
    }
    let text = log.text();
    for route in ["GET /learners/{userId}/data", "DELETE /learners/{userId}/data"] {
        assert!(text.contains(route), "{text}");
    }
    assert!(text.contains("request failed"), "{text}");
    assert!(!holds(text.as_bytes(), &names("ada-lovelace")), "{text}");
}

#[tokio::test]
async fn where_there_is_no_cache_and_no_table_there_is_nothing_in_them() {
    let lectern = Lectern::start_with(|config| {
        config.redis = None;
        config.parking = None;
    })
    .await;
    let course = lectern.course("teacher", &[1]).await;
    lectern.learner("ada").enrol(&course).await.expect(CREATED);
    assert_eq!(admin(&lectern).get(&data("ada")).await.expect(OK)["submissions"], json!([]));
    erase(&lectern, "ada").await;
    assert_eq!(lectern.fetch("select count(*) from enrollments").await, "0");
}

#[tokio::test]
async fn of_two_erasures_at_once_neither_says_that_it_is_done_while_there_is_more() {
    let lectern = Lectern::start().await;
    // More than one statement erases.
    lectern
        .sql(
            "insert into progress_events (
                user_id, event_id, course_id, section_id, time_spent, completed, recorded_at, attempt
            )
            select 'ada-lovelace', gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, false, now(), 1
            from generate_series(1, 17000)",
        )
        .await;
    let erasures = [erase(&lectern, "ada-lovelace"), erase(&lectern, "ada-lovelace")];
    let (_, _, other) = futures_util::future::select_all(erasures.map(Box::pin)).await;
    assert_eq!(lectern.fetch("select count(*) from progress_events").await, "0");
    futures_util::future::join_all(other).await;
}
