//! The roster of a course: its order and pages, its filters, as JSON and as CSV, and who may see it.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::support::{Answer, Caller, Course, Lectern, course_body, event, seconds_ago};

const OK: StatusCode = StatusCode::OK;
const CSV: &str = "text/csv; charset=utf-8; header=present";
const BUCKETS: [(&str, f64, f64); 6] = [
    ("0", 0.0, 0.0),
    ("1-25", 0.01, 25.0),
    ("26-50", 25.01, 50.0),
    ("51-75", 50.01, 75.0),
    ("76-99", 75.01, 99.99),
    ("100", 100.0, 100.0),
];

fn path(course: &Course, query: &str) -> String {
    format!("/courses/{}/enrollments?{query}", course.id)
}

/// Enrols learners with the times of their enrolment, so many seconds ago.
async fn enrol(lectern: &Lectern, course: &Course, learners: &[(&str, i64)]) {
    let rows: Vec<Value> =
        learners.iter().map(|(user, ago)| json!({"userId": user, "enrolledAt": seconds_ago(*ago)})).collect();
    let answer = lectern.service().post(&path(course, ""), &json!({ "enrollments": rows })).await.expect(OK);
    assert!(answer["results"].as_array().unwrap().iter().all(|row| row["status"] == "enrolled"), "{answer}");
}

/// Records that a learner did something in these sections, so many seconds ago, and completed them.
async fn complete(lectern: &Lectern, user: &str, sections: &[String], ago: i64) {
    let events: Vec<Value> = sections
        .iter()
        .map(|section| {
            let mut event = event(section, 10, true);
            event["userId"] = user.into();
            event["occurredAt"] = seconds_ago(ago).into();
            event
        })
        .collect();
    assert_eq!(lectern.service().record(&events).await.expect(OK)["recorded"], events.len());
}

/// Enrols so many learners by SQL; `completed` and `status` are expressions over their number `n`, from 1 on.
async fn enrol_many(lectern: &Lectern, course: &Course, count: usize, completed: &str, status: &str) {
    let insert = format!(
        "insert into enrollments (user_id, course_id, status, enrolled_at, last_activity_at, completed_sections, tree_version)
        select 'user-' || n, courses.id, {status}, now() - interval '100 days',
            case when n % 3 > 0 then now() - (n % 7) * interval '1 day' end, {completed}, courses.tree_version
        from courses cross join generate_series(1, {count}) as n
        where courses.id = '{}'",
        course.id
    );
    lectern.sql(&insert).await;
}

fn rows(page: &Value) -> Vec<Value> {
    page["enrollments"].as_array().expect("a page").clone()
}

fn users(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["userId"].as_str().expect("a user").to_owned()).collect()
}

/// All rows of a roster, page by page.
async fn walk(caller: &Caller<'_>, course: &Course, query: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = caller.get(&path(course, &format!("{query}{cursor}"))).await.expect(OK);
        all.extend(rows(&page));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// Every combination of the filters yields exactly those rows of the whole roster that it says, in the same order.
async fn filters_agree(caller: &Caller<'_>, course: &Course, limit: usize) -> Vec<Value> {
    let all = walk(caller, course, "limit=100").await;
    for status in [None, Some("active"), Some("cancelled")] {
        let of_status = |row: &&Value| status.is_none_or(|status| row["status"] == status);
        let status_query = status.map(|status| format!("&status={status}")).unwrap_or_default();
        let expected: Vec<&Value> = all.iter().filter(of_status).collect();
        let found = walk(caller, course, &format!("limit={limit}{status_query}")).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{status:?}");
        for (bucket, least, most) in BUCKETS {
            let holds =
                |row: &&Value| row["completionPercentage"].as_f64().is_some_and(|it| (least..=most).contains(&it));
            let expected: Vec<&Value> = all.iter().filter(of_status).filter(holds).collect();
            let found = walk(caller, course, &format!("limit={limit}&progress={bucket}{status_query}")).await;
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{status:?} {bucket}");
        }
    }
    all
}

// ---- Order and pages ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_last_active_come_first_with_their_figures() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[2, 1]).await;
    enrol(&lectern, &course, &[("early", 9_000), ("idle", 500), ("busy", 9_000), ("done", 9_000)]).await;
    let times = [seconds_ago(9_000), seconds_ago(1_000)];
    lectern.sql(&format!("update enrollments set enrolled_at = '{}'", times[0])).await;
    lectern.sql("update enrollments set enrolled_at = now() - interval '500 seconds' where user_id = 'idle'").await;
    complete(&lectern, "busy", &course.sections[..1], 100).await;
    let mut batch: Vec<Value> = course.sections.iter().map(|section| event(section, 20, true)).collect();
    for event in &mut batch {
        event["userId"] = "done".into();
        event["occurredAt"] = times[1].clone().into();
    }
    lectern.service().record(&batch).await.expect(OK);
    lectern.learner("early").delete(&format!("/courses/{}/enrollment", course.id)).await.expect(StatusCode::NO_CONTENT);

    let answer = lectern.teacher("ada").get(&path(&course, "")).await;

    let page = answer.expect(OK);
    assert_eq!(users(&rows(&page)), ["busy", "idle", "done", "early"]);
    let done = json!({
        "userId": "done", "status": "active", "enrolledAt": times[0], "completedAt": times[1],
        "lastActivityAt": times[1], "completedSections": 3, "totalSections": 3, "totalTimeSpent": 60,
        "completionPercentage": 100,
    });
    let early = json!({
        "userId": "early", "status": "cancelled", "enrolledAt": times[0], "completedAt": null,
        "lastActivityAt": null, "completedSections": 0, "totalSections": 3, "totalTimeSpent": 0,
        "completionPercentage": 0,
    });
    assert_eq!(page["enrollments"][2], done);
    assert_eq!(page["enrollments"][3], early);
    assert_eq!(page["enrollments"][0]["completionPercentage"], 33.33);
    assert_eq!((&page["nextCursor"], answer.header("link")), (&Value::Null, ""));
    assert_eq!(answer.header("cache-control"), "private, no-cache");
    assert_eq!(answer.header("x-cache"), "bypass");
    assert_eq!(answer.header("vary"), "accept, accept-encoding");
}

#[tokio::test]
async fn an_empty_roster_is_an_empty_page() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[]).await;
    for query in ["", "status=cancelled", "progress=0", "progress=100&status=active"] {
        let answer = lectern.teacher("ada").get(&path(&course, query)).await;
        assert_eq!(answer.expect(OK), json!({"enrollments": [], "nextCursor": null}), "{query}");
    }
}

#[tokio::test]
async fn who_was_active_at_the_same_moment_is_listed_once_whatever_the_page() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    enrol_many(&lectern, &course, 230, "0", "'active'").await;
    let teacher = lectern.teacher("ada");
    let all = users(&walk(&teacher, &course, "limit=100").await);
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (230, 230));
    for limit in [1, 7, 99] {
        assert_eq!(users(&walk(&teacher, &course, &format!("limit={limit}")).await), all, "{limit}");
    }
    let expected = format!(
        "select string_agg(user_id, ' ' order by coalesce(last_activity_at, enrolled_at) desc, user_id desc)
        from enrollments where course_id = '{}'",
        course.id
    );
    assert_eq!(all.join(" "), lectern.fetch(&expected).await);
}

#[tokio::test]
async fn learners_who_become_active_between_pages_shift_nobody() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[2]).await;
    let names: Vec<String> = (0..30).map(|index| format!("user-{index:02}")).collect();
    let learners: Vec<(&str, i64)> =
        names.iter().enumerate().map(|(index, name)| (name.as_str(), 10_000 + 100 * index as i64)).collect();
    enrol(&lectern, &course, &learners).await;
    let teacher = lectern.teacher("ada");
    let (mut met, mut moved, mut cursor) = (Vec::new(), BTreeSet::new(), String::new());
    for turn in 0.. {
        let page = teacher.get(&path(&course, &format!("limit=4{cursor}"))).await.expect(OK);
        met.extend(users(&rows(&page)));
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        // One who has been met, the last on the page, from which the next one goes on, and one who would be next.
        let last = met.len() - 1;
        for index in [turn, last, last + 2] {
            if let Some(name) = names.get(index) {
                complete(&lectern, name, &course.sections[turn % 2..=turn % 2], 50).await;
                moved.insert(name.clone());
            }
        }
    }
    assert_eq!(met.iter().collect::<BTreeSet<_>>().len(), met.len(), "nobody twice: {met:?}");
    let still: Vec<&String> = names.iter().filter(|name| !moved.contains(*name)).collect();
    let met_still: Vec<&String> = met.iter().filter(|name| !moved.contains(*name)).collect();
    assert_eq!(met_still, still, "nobody left out who stayed where they were");
    assert_eq!(walk(&teacher, &course, "limit=4").await.len(), 30);
}

#[tokio::test]
async fn the_link_leads_to_the_next_page_with_its_filters() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    enrol_many(&lectern, &course, 5, "0", "'active'").await;
    let teacher = lectern.teacher("ada");
    let first = teacher.get(&path(&course, "limit=2&status=active&progress=0")).await;
    let cursor = first.expect(OK)["nextCursor"].as_str().unwrap().to_owned();
    let next = path(&course, &format!("limit=2&status=active&progress=0&cursor={cursor}"));
    assert_eq!(first.header("link"), format!("<{next}>; rel=\"next\""));
    assert_eq!(rows(&teacher.get(&next).await.expect(OK)).len(), 2);
}

#[tokio::test]
async fn a_cursor_of_another_roster_or_filter_is_refused() {
    let lectern = Lectern::start().await;
    let (course, other) = (lectern.course("ada", &[1]).await, lectern.course("ada", &[1]).await);
    for course in [&course, &other] {
        enrol_many(&lectern, course, 3, "0", "'active'").await;
    }
    let teacher = lectern.teacher("ada");
    let lists: Vec<String> = ["", "&status=active", "&progress=0", "&status=active&progress=0"]
        .into_iter()
        .flat_map(|filter| [&course, &other].map(|course| path(course, &format!("limit=1{filter}"))))
        .collect();
    for (from, list) in lists.iter().enumerate() {
        let cursor = teacher.get(list).await.expect(OK)["nextCursor"].as_str().unwrap().to_owned();
        for (to, list) in lists.iter().enumerate() {
            let answer = teacher.get(&format!("{list}&cursor={cursor}")).await;
            if from == to {
                assert_eq!(rows(&answer.expect(OK)).len(), 1);
            } else {
                answer.problem(400, "invalid_cursor");
            }
        }
    }
    for bad in ["x", "W10", "WzIsIm1lL2NvdXJzZXMiLDAsIjAiXQ"] {
        teacher.get(&path(&course, &format!("cursor={bad}"))).await.problem(400, "invalid_cursor");
    }
}

// ---- Filters --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_bucket_ends_where_the_percentage_shown_does() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    // Hundredths of a per cent, so that each of them is somebody's.
    lectern.sql("update courses set section_count = 10000").await;
    let counts = [0, 1, 2_499, 2_500, 2_501, 5_000, 5_001, 7_500, 7_501, 9_999, 10_000];
    let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
    enrol_many(&lectern, &course, 11, &format!("(array[{}])[n]", counts.join(",")), "'active'").await;
    let teacher = lectern.teacher("ada");
    for (bucket, expected) in [
        ("0", &[0.0][..]),
        ("1-25", &[0.01, 24.99, 25.0]),
        ("26-50", &[25.01, 50.0]),
        ("51-75", &[50.01, 75.0]),
        ("76-99", &[75.01, 99.99]),
        ("100", &[100.0]),
    ] {
        let found = walk(&teacher, &course, &format!("limit=1&progress={bucket}")).await;
        let mut found: Vec<f64> = found.iter().map(|row| row["completionPercentage"].as_f64().unwrap()).collect();
        found.sort_by(f64::total_cmp);
        assert_eq!(found, expected, "{bucket}");
    }
}

#[tokio::test]
async fn filters_pick_what_they_say_whatever_the_number_of_sections() {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("ada");
    for sections in [1, 2, 3, 4, 7, 20, 99, 1_000, 40_000] {
        let course = lectern.course("ada", &[1]).await;
        lectern.sql(&format!("update courses set section_count = {sections} where id = '{}'", course.id)).await;
        // Few and many sections, in steps that meet all quarters, none and all of them.
        let completed = format!("least({sections}, (n - 1) * greatest(1, {sections} / 40)) % ({sections} + 1)");
        enrol_many(&lectern, &course, 60, &completed, "case when n % 5 = 0 then 'cancelled' else 'active' end").await;
        assert_eq!(filters_agree(&teacher, &course, 9).await.len(), 60);
    }
}

#[tokio::test]
async fn a_section_in_forty_thousand_is_shown_as_nothing_and_counts_as_that() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    lectern.sql("update courses set section_count = 40000").await;
    enrol_many(&lectern, &course, 5, "n", "'active'").await;
    let found = walk(&lectern.teacher("ada"), &course, "progress=0").await;
    assert_eq!(
        users(&found).into_iter().collect::<BTreeSet<_>>(),
        ["user-1", "user-2", "user-3"].map(String::from).into()
    );
}

#[tokio::test]
async fn a_course_without_sections_has_its_learners_in_no_bucket() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[]).await;
    enrol(&lectern, &course, &[("a", 10), ("b", 20)]).await;
    let teacher = lectern.teacher("ada");
    let all = filters_agree(&teacher, &course, 1).await;
    assert_eq!(users(&all), ["a", "b"]);
    assert!(all.iter().all(|row| row["completionPercentage"].is_null()), "{all:?}");
}

#[tokio::test]
async fn learners_behind_an_edited_tree_are_counted_by_todays() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[3, 2]).await;
    let teacher = lectern.teacher("ada");
    // Each set of the five sections is somebody's.
    let learners: Vec<String> = (0..32).map(|set| format!("set-{set:02}")).collect();
    enrol(&lectern, &course, &learners.iter().map(|user| (user.as_str(), 9_000)).collect::<Vec<_>>()).await;
    let sections_of = |set: usize| -> Vec<String> {
        (0..5).filter(|index| set >> index & 1 == 1).map(|index| course.sections[index].clone()).collect()
    };
    for (set, user) in learners.iter().enumerate().skip(1) {
        complete(&lectern, user, &sections_of(set), 1_000 + set as i64).await;
    }
    let cancel = "update enrollments set status = 'cancelled', active_during = closed_v1(active_during, now())
        where user_id like 'set-%4'";
    lectern.sql(cancel).await;
    let edit = async |change: &str, sections: &str, by: i64| {
        let edit = format!(
            "update sections set {change} where id in ({sections});
            update courses set tree_version = tree_version + 1, section_count = section_count + {by}"
        );
        lectern.sql(&edit).await;
    };
    let (first, last) = (format!("'{}'", course.sections[0]), format!("'{}'", course.sections[4]));
    let agree = async |current: &[usize]| {
        let behind =
            lectern.fetch("select count(*) from enrollments where tree_version < (select tree_version from courses)");
        assert_ne!(behind.await, "0");
        let all = filters_agree(&teacher, &course, 3).await;
        assert_eq!(all.len(), 32);
        for row in all {
            let set: usize = row["userId"].as_str().unwrap()[4..].parse().unwrap();
            let completed = current.iter().filter(|index| set >> **index & 1 == 1).count();
            let shown = (&row["completedSections"], &row["totalSections"]);
            assert_eq!(shown, (&json!(completed), &json!(current.len())), "{row}");
            let percentage = row["completionPercentage"].as_f64().unwrap();
            assert!(percentage <= 100.0, "{row}");
            assert_eq!(percentage >= 100.0, completed == current.len(), "{row}");
            if completed == current.len() {
                assert!(row["completedAt"].is_string(), "{row}");
            }
        }
    };

    edit("position = null", &first, -1).await;
    agree(&[1, 2, 3, 4]).await;

    // Some are put right by what they do, the others stay behind.
    for set in [2, 6, 31] {
        complete(&lectern, &learners[set], &sections_of(set)[..1], 400).await;
    }
    edit("position = null", &last, -1).await;
    agree(&[1, 2, 3]).await;

    for set in [4, 7, 30] {
        complete(&lectern, &learners[set], &sections_of(set)[..1], 300).await;
    }
    edit("position = 9, restored_at = now()", &first, 1).await;
    agree(&[0, 1, 2, 3]).await;
}

#[tokio::test]
async fn a_filter_that_is_none_is_refused() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    for (name, bad) in [
        ("status", "draft"),
        ("status", "Active"),
        ("status", "active,cancelled"),
        ("status", "active%00"),
        ("progress", "1"),
        ("progress", "0-25"),
        ("progress", "25"),
        ("progress", "1%2D25%20"),
        ("progress", "100%25"),
        ("progress", "76-100"),
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "ten"),
    ] {
        for format in ["application/json", "text/csv"] {
            let request = lectern.teacher("ada").request(Method::GET, &path(&course, &format!("{name}={bad}")));
            let problem = Answer::of(request.header("accept", format)).await.problem(400, "invalid_parameter");
            assert_eq!(problem["errors"][0]["pointer"], format!("?{name}"), "{bad}");
        }
    }
}

// ---- CSV ------------------------------------------------------------------------------------------------------------

async fn accepting(caller: &Caller<'_>, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = caller.request(Method::GET, path);
    Answer::of(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

/// Reads RFC 4180, and nothing that is not.
fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let (mut lines, mut fields, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut characters = text.chars().peekable();
    let (mut in_quotes, mut was_quoted) = (false, false);
    while let Some(character) = characters.next() {
        match character {
            '"' if in_quotes && characters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if in_quotes => in_quotes = false,
            any if in_quotes => field.push(any),
            '"' => {
                assert!(field.is_empty() && !was_quoted, "a quote within a field: {text}");
                (in_quotes, was_quoted) = (true, true);
            }
            ',' => {
                fields.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            '\r' => {
                assert_eq!(characters.next(), Some('\n'), "{text}");
                fields.push(std::mem::take(&mut field));
                lines.push(std::mem::take(&mut fields));
                was_quoted = false;
            }
            '\n' => panic!("a bare line feed: {text}"),
            any => {
                assert!(!was_quoted, "text behind a quoted field: {text}");
                field.push(any);
            }
        }
    }
    assert!(!in_quotes && fields.is_empty() && field.is_empty(), "the last line is not ended: {text}");
    lines
}

/// A JSON value as its field, formulas defused.
fn as_field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']) => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[tokio::test]
async fn a_page_is_the_same_in_csv_row_by_row() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[3]).await;
    let hostile = [
        "plain",
        "a,b",
        "say \"no\"",
        "\"",
        "\"\"\",\"",
        "=cmd|' /C calc'!A0",
        "=1+1",
        "+49 30",
        "-2",
        "@SUM(A1)",
        "＝1",
        "a;=1",
        "'quoted",
        " leading and trailing ",
        "\u{202e}drawkcab",
        "مرحبا",
        "👩‍🚀 e\u{301}",
        "0012",
        "1e5",
        "null",
        "\\",
    ];
    let learners: Vec<(&str, i64)> =
        hostile.iter().enumerate().map(|(index, user)| (*user, 5_000 + index as i64)).collect();
    enrol(&lectern, &course, &learners).await;
    complete(&lectern, "=1+1", &course.sections, 100).await;
    complete(&lectern, "a,b", &course.sections[..1], 200).await;
    let teacher = lectern.teacher("ada");
    let (mut seen, mut cursor) = (0, String::new());
    loop {
        let path = path(&course, &format!("limit=4{cursor}"));
        let plain = teacher.get(&path).await;
        let table = accepting(&teacher, &path, &[("accept", "text/csv")]).await;
        assert_eq!((table.status, table.header("content-type")), (OK, CSV));
        for name in ["link", "vary", "cache-control", "x-cache"] {
            assert_eq!(table.header(name), plain.header(name), "{name}");
        }
        assert_ne!(table.header("etag"), plain.header("etag"));
        let page = plain.expect(OK);
        let lines = parse_csv(&table.text);
        let keys: BTreeSet<&str> = lines[0].iter().map(String::as_str).collect();
        assert_eq!(lines.len() - 1, rows(&page).len());
        for (row, line) in rows(&page).iter().zip(&lines[1..]) {
            let row: &Map<String, Value> = row.as_object().unwrap();
            assert_eq!(row.keys().map(String::as_str).collect::<BTreeSet<_>>(), keys);
            let expected: Vec<String> = lines[0].iter().map(|key| as_field(&row[key])).collect();
            assert_eq!(*line, expected);
            seen += 1;
        }
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, hostile.len());
    let header = "userId,status,enrolledAt,completedAt,lastActivityAt,completedSections,totalSections,totalTimeSpent,completionPercentage\r\n";
    let none = accepting(&teacher, &path(&course, "status=cancelled"), &[("accept", "text/csv")]).await;
    assert_eq!((none.text.as_str(), none.header("link")), (header, ""));
}

#[tokio::test]
async fn csv_is_answered_to_who_prefers_it_and_problems_stay_problems() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let teacher = lectern.teacher("ada");
    for (accept, kind) in [
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("image/png", "application/json"),
        ("text/csv;q=0.3, application/json", "application/json"),
        ("text/csv;q=0", "application/json"),
        ("application/json;q=0.3, text/csv", CSV),
        ("Text/CSV", CSV),
        ("text/*", CSV),
    ] {
        let answer = accepting(&teacher, &path(&course, ""), &[("accept", accept)]).await;
        assert_eq!((answer.status, answer.header("content-type")), (OK, kind), "{accept}");
        assert_eq!(answer.header("vary"), "accept, accept-encoding", "{accept}");
    }
    let nowhere = format!("/courses/{}/enrollments", Uuid::now_v7());
    accepting(&teacher, &nowhere, &[("accept", "text/csv")]).await.problem(404, "course_not_found");
    let others = accepting(&lectern.teacher("eve"), &path(&course, ""), &[("accept", "text/csv")]).await;
    others.problem(403, "not_owner");
}

#[tokio::test]
async fn each_format_has_its_etag_compressed_or_not() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    enrol_many(&lectern, &course, 30, "0", "'active'").await;
    let (teacher, path) = (lectern.teacher("ada"), path(&course, "limit=100"));
    let mut tags = BTreeSet::new();
    for format in ["application/json", "text/csv"] {
        for coding in ["identity", "gzip"] {
            let headers = [("accept", format), ("accept-encoding", coding)];
            let answer = accepting(&teacher, &path, &headers).await;
            assert_eq!(answer.status, OK);
            assert_eq!(answer.header("content-encoding"), if coding == "gzip" { coding } else { "" });
            assert_eq!(answer.header("vary"), "accept, accept-encoding");
            let tag = answer.header("etag").to_owned();
            let [format, coding] = headers;
            let again = accepting(&teacher, &path, &[format, coding, ("if-none-match", &tag)]).await;
            assert_eq!((again.status, again.text.as_str()), (StatusCode::NOT_MODIFIED, ""));
            assert_eq!((again.header("etag"), again.header("vary")), (tag.as_str(), "accept, accept-encoding"));
            tags.insert(tag);
        }
    }
    assert_eq!(tags.len(), 4);
    let plain = teacher.get(&path).await;
    let other = accepting(&teacher, &path, &[("accept", "text/csv"), ("if-none-match", plain.header("etag"))]).await;
    assert_eq!((other.status, other.header("content-type")), (OK, CSV));
    complete(&lectern, "user-1", &course.sections, 1).await;
    let moved = accepting(&teacher, &path, &[("if-none-match", plain.header("etag"))]).await;
    let moved = rows(&moved.expect(OK));
    assert_eq!(moved.iter().find(|row| row["userId"] == "user-1").unwrap()["completionPercentage"], 100);
}

// ---- Who may see it -------------------------------------------------------------------------------------------------

#[tokio::test]
async fn only_who_manages_a_course_sees_its_roster() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    enrol(&lectern, &course, &[("lena", 100), ("left", 100)]).await;
    lectern.learner("left").delete(&format!("/courses/{}/enrollment", course.id)).await.expect(StatusCode::NO_CONTENT);
    let draft = lectern.teacher("ada").create(&course_body("Draft", &[1], false)).await.expect(StatusCode::CREATED);
    let draft = Course::of(&draft);
    let archived = lectern.course("ada", &[1]).await;
    enrol(&lectern, &archived, &[("lena", 100), ("left", 100)]).await;
    lectern
        .learner("left")
        .delete(&format!("/courses/{}/enrollment", archived.id))
        .await
        .expect(StatusCode::NO_CONTENT);
    lectern.teacher("ada").delete(&format!("/courses/{}", archived.id)).await.expect(StatusCode::NO_CONTENT);
    let callers = [
        (lectern.learner("nobody"), "a learner"),
        (lectern.learner("lena"), "an enrolled learner"),
        (lectern.learner("left"), "who has cancelled"),
        (lectern.teacher("eve"), "another instructor"),
        (lectern.service(), "a service"),
        (lectern.teacher("ada"), "the owner"),
        (lectern.caller("root", &["admin"]), "an admin"),
    ];
    for (caller, who) in callers {
        let manages = ["the owner", "an admin"].contains(&who);
        for query in ["", "status=active", "progress=0", "progress=100&status=cancelled"] {
            for (course, seen) in [
                (&course, true),
                (&draft, false),
                // Whoever is enrolled in an archived course still sees it.
                (&archived, who == "an enrolled learner"),
            ] {
                let answer = caller.get(&path(course, query)).await;
                match (manages, seen) {
                    (true, _) => drop(answer.expect(OK)),
                    (false, true) => drop(answer.problem(403, "not_owner")),
                    (false, false) => drop(answer.problem(404, "course_not_found")),
                }
            }
            let nowhere = format!("/courses/{}/enrollments?{query}", Uuid::now_v7());
            caller.get(&nowhere).await.problem(404, "course_not_found");
            caller.get("/courses/1/enrollments").await.problem(404, "course_not_found");
        }
    }
    assert_eq!(lectern.anyone().get(&path(&course, "")).await.status, StatusCode::UNAUTHORIZED);
}
