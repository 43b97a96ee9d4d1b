//! A course's tree changes while people learn from it. What is refused as bad input is tested in `hostile`, and all of it
//! at random in `model`.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Caller, Course, Lectern, course_body, event, seconds_ago};

/// Enrollments that an edit does not settle by itself any more.
const MANY: usize = 251;

/// The tree of a course as `PUT` takes it, all of it as it is.
pub(crate) fn tree_of(outline: &Value) -> Value {
    let section = |section: &Value| {
        json!({
            "id": section["id"], "title": section["title"], "type": section["type"], "order": section["order"],
            "duration": section["duration"],
        })
    };
    let lesson = |lesson: &Value| {
        let sections: Vec<Value> = lesson["sections"].as_array().expect("sections").iter().map(section).collect();
        json!({"id": lesson["id"], "title": lesson["title"], "order": lesson["order"], "sections": sections})
    };
    json!({"lessons": outline["lessons"].as_array().expect("lessons").iter().map(lesson).collect::<Vec<_>>()})
}

/// `PUT …/content` of a version.
pub(crate) async fn put(teacher: &Caller<'_>, course: &str, version: i64, tree: &Value) -> Answer {
    let request = teacher.request(Method::PUT, &format!("/courses/{course}/content"));
    Answer::of(request.header("if-match", format!("\"v{version}\"")).json(tree)).await
}

/// `POST …/lessons`.
pub(crate) async fn append(teacher: &Caller<'_>, course: &str, key: &str, lessons: &Value) -> Answer {
    let request = teacher.request(Method::POST, &format!("/courses/{course}/lessons"));
    Answer::of(request.header("idempotency-key", key).json(&json!({ "lessons": lessons }))).await
}

async fn outline(caller: &Caller<'_>, course: &Course) -> Value {
    caller.get(&format!("/me/courses/{}", course.id)).await.expect(StatusCode::OK)
}

/// Retires a section by leaving it out, and answers the course.
async fn retire(teacher: &Caller<'_>, course: &Course, section: &str) -> Value {
    let now = outline(teacher, course).await;
    let mut tree = tree_of(&now);
    for lesson in tree["lessons"].as_array_mut().expect("lessons") {
        lesson["sections"].as_array_mut().expect("sections").retain(|held| held["id"] != section);
    }
    put(teacher, &course.id, now["version"].as_i64().expect("a version"), &tree).await.expect(StatusCode::OK)
}

/// Enrols so many more learners.
pub(crate) async fn crowd(lectern: &Lectern, course: &str, count: usize) {
    let entries: Vec<Value> = (0..count).map(|number| json!({"userId": format!("crowd-{number}")})).collect();
    for entries in entries.chunks(500) {
        let path = format!("/courses/{course}/enrollments");
        lectern.service().post(&path, &json!({ "enrollments": entries })).await.expect(StatusCode::OK);
    }
}

async fn completed(learner: &Caller<'_>, sections: &[&String]) {
    let events: Vec<Value> = sections.iter().map(|section| event(section, 10, true)).collect();
    assert_eq!(learner.record(&events).await.expect(StatusCode::OK)["recorded"], sections.len());
}

// ---- Replacing ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_tree_is_changed_by_its_ids_in_every_way_at_once() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[3, 2, 1]).await;
    let (teacher, learner) = (lectern.teacher("ada"), lectern.learner("lena"));
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    let [a, b, c, d, e, f] = [0, 1, 2, 3, 4, 5].map(|index| &course.sections[index]);
    completed(&learner, &[a, b, d, f]).await;

    // Lesson 1 swaps its first two, gets a new one and loses its third to lesson 2, which comes first now; of lesson 2
    // one is retired and one changed; lesson 3 is retired with its section; a lesson is new.
    let tree = json!({"lessons": [
        {"id": course.lessons[1], "title": "First now", "order": 1, "sections": [
            {"id": e, "title": "Renamed", "type": "quiz", "order": 1, "duration": 77},
            {"id": c, "title": "Moved", "type": "text", "order": 2, "content": "Moved and rewritten"},
        ]},
        {"id": course.lessons[0], "title": "Lesson 1", "order": 2, "sections": [
            {"id": b, "title": "Section 2", "type": "text", "order": 1},
            {"title": "New", "content": "All new", "type": "text", "order": 3},
            {"id": a, "title": "Section 1", "type": "text", "order": 2},
        ]},
        {"title": "A new lesson", "order": 9, "sections": []},
    ]});
    let changed = put(&teacher, &course.id, course.version, &tree).await.expect(StatusCode::OK);

    assert_eq!(
        (&changed["version"], &changed["lessonCount"], &changed["sectionCount"]),
        (&2.into(), &3.into(), &5.into())
    );
    let titles = |outline: &Value| -> Vec<String> {
        let lessons = outline["lessons"].as_array().expect("lessons").iter();
        lessons
            .flat_map(|lesson| {
                let sections = lesson["sections"].as_array().expect("sections").iter();
                std::iter::once(&lesson["title"]).chain(sections.map(|section| &section["title"]))
            })
            .map(|title| title.as_str().expect("a title").to_owned())
            .collect()
    };
    let expected = ["First now", "Renamed", "Moved", "Lesson 1", "Section 2", "Section 1", "New", "A new lesson"];
    assert_eq!(titles(&changed), expected);
    assert_eq!(titles(&outline(&learner, &course).await), expected);
    assert_eq!(
        titles(&lectern.anyone().get(&format!("/courses/{}", course.id)).await.expect(StatusCode::OK)),
        expected
    );
    // Progress stays with its section, wherever that is; what is retired counts no more, but its time does.
    let summary = learner.summary(&course).await;
    assert_eq!((&summary["completedSections"], &summary["totalSections"]), (&2.into(), &5.into()));
    assert_eq!((&summary["completionPercentage"], &summary["totalTimeSpent"]), (&40.into(), &40.into()));
    assert_eq!(summary["resume"]["nextSectionId"], **e);
    // Contents: one rewritten, one kept though it was moved, one new.
    let content = async |section: &str| {
        learner.get(&format!("/sections/{section}")).await.expect(StatusCode::OK)["content"].take()
    };
    assert_eq!(content(c).await, "Moved and rewritten");
    assert_eq!(content(a).await, "Content 1");
    assert_eq!(content(changed["lessons"][1]["sections"][2]["id"].as_str().expect("an id")).await, "All new");
    for (caller, gone) in [(&learner, d), (&teacher, d), (&learner, f)] {
        caller.get(&format!("/sections/{gone}")).await.problem(404, "section_not_found");
    }
    learner.get(&format!("/lessons/{}/progress", course.lessons[2])).await.problem(404, "lesson_not_found");

    // A late event on a retired section is recorded, and moves nothing but the time.
    completed(&learner, &[d]).await;
    let late = learner.summary(&course).await;
    assert_eq!((&late["completedSections"], &late["totalTimeSpent"]), (&2.into(), &50.into()));
    assert_ne!(late["resume"]["lastSectionId"], **d);

    // What is restored finds its progress again.
    let mut back = tree_of(&changed);
    let third = json!({"id": course.lessons[2], "title": "Back", "order": 3, "sections": [
        {"id": f, "title": "Back", "type": "text", "order": 1},
    ]});
    back["lessons"].as_array_mut().expect("lessons").push(third);
    put(&teacher, &course.id, 2, &back).await.expect(StatusCode::OK);
    let summary = learner.summary(&course).await;
    assert_eq!((&summary["completedSections"], &summary["totalSections"]), (&3.into(), &6.into()));
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn the_second_of_two_editors_is_told_what_the_first_has_changed() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[2]).await;
    let (one, two) = (lectern.teacher("ada"), lectern.caller("root", &["admin"]));
    let before = outline(&one, &course).await;
    let mut first = tree_of(&before);
    first["lessons"][0]["sections"][1]["title"] = "Better".into();
    put(&one, &course.id, 1, &first).await.expect(StatusCode::OK);
    one.patch(&format!("/courses/{}", course.id), 2, &json!({"title": "T", "estimatedHours": 3}))
        .await
        .expect(StatusCode::OK);

    let mut second = tree_of(&before);
    second["lessons"][0]["sections"].as_array_mut().expect("sections").pop();
    let problem = put(&two, &course.id, 1, &second).await.problem(412, "stale_version");

    assert_eq!(problem["currentVersion"], 3);
    let changes = problem["changes"].as_array().expect("changes");
    assert_eq!(changes.iter().map(|change| &change["version"]).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(changes[0]["change"], json!({"fields": ["title", "estimatedHours"]}));
    assert_eq!(changes[1]["change"]["sections"]["changed"], json!({"count": 1, "ids": [course.sections[1]]}));
    assert!(changes[1]["editedAt"].is_string());
    // The first edit stands.
    let now = outline(&one, &course).await;
    assert_eq!((&now["lessons"][0]["sections"][1]["title"], &now["sectionCount"]), (&"Better".into(), &2.into()));
    // A change of the description is told of the same way, and who sends no version is told to.
    let path = format!("/courses/{}", course.id);
    let problem = two.patch(&path, 2, &json!({"title": "U"})).await.problem(412, "stale_version");
    assert_eq!(problem["changes"].as_array().map(Vec::len), Some(1));
    let request = one.request(Method::PUT, &format!("{path}/content")).json(&first);
    Answer::of(request).await.problem(428, "if_match_required");
}

#[tokio::test]
async fn two_editors_at_once_come_one_after_the_other() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[4]).await;
    let teacher = lectern.teacher("ada");
    let tree = tree_of(&outline(&teacher, &course).await);
    let edits = (0..6).map(|number| {
        let (mut tree, teacher, course) = (tree.clone(), &teacher, &course);
        tree["lessons"][0]["title"] = format!("Editor {number}").into();
        async move { put(teacher, &course.id, 1, &tree).await }
    });
    let answers = join_all(edits).await;
    let good: Vec<&Answer> = answers.iter().filter(|answer| answer.status == StatusCode::OK).collect();
    assert_eq!(good.len(), 1);
    for answer in answers.iter().filter(|answer| answer.status != StatusCode::OK) {
        let problem = answer.problem(412, "stale_version");
        // Those who waited for the first are told of it, too.
        assert_eq!((&problem["currentVersion"], &problem["changes"][0]["version"]), (&2.into(), &2.into()));
    }
    assert_eq!(
        outline(&teacher, &course).await["lessons"][0]["title"],
        good[0].expect(StatusCode::OK)["lessons"][0]["title"]
    );
}

#[tokio::test]
async fn a_tree_that_changes_nothing_makes_no_version() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[2, 1]).await;
    let teacher = lectern.teacher("ada");
    let before = outline(&teacher, &course).await;
    let mut tree = tree_of(&before);
    tree["lessons"][0]["sections"][1]["content"] = "Content 2".into();
    let same = put(&teacher, &course.id, 1, &tree).await.expect(StatusCode::OK);
    assert_eq!((&same["version"], &same["updatedAt"]), (&before["version"], &before["updatedAt"]));
    // A content alone is a change.
    tree["lessons"][0]["sections"][1]["content"] = "Other".into();
    assert_eq!(put(&teacher, &course.id, 1, &tree).await.expect(StatusCode::OK)["version"], 2);
}

#[tokio::test]
async fn ids_of_another_course_or_twice_in_the_tree_are_refused_with_their_places() {
    let lectern = Lectern::start().await;
    let (course, other) = (lectern.course("ada", &[2]).await, lectern.course("ada", &[1]).await);
    let section = |id: &str, order: i32| json!({"id": id, "title": "S", "type": "text", "order": order});
    let own = &course.sections[0];
    let tree = json!({"lessons": [
        {"id": course.lessons[0], "title": "L", "order": 1, "sections": [section(own, 1), section(own, 2)]},
        {"id": other.lessons[0], "title": "L", "order": 2, "sections": [section(&other.sections[0], 1)]},
        {"title": "L", "order": 3, "sections": [section(&Uuid::now_v7().to_string(), 1), section(&course.lessons[0], 2)]},
    ]});
    let problem = put(&lectern.teacher("ada"), &course.id, 1, &tree).await.problem(400, "invalid_body");
    let pointers: Vec<&str> =
        problem["errors"].as_array().expect("faults").iter().filter_map(|fault| fault["pointer"].as_str()).collect();
    let expected = [
        "/lessons/0/sections/1/id",
        "/lessons/1/id",
        "/lessons/1/sections/0/id",
        "/lessons/2/sections/0/id",
        "/lessons/2/sections/1/id",
    ];
    assert_eq!(pointers, expected);
    assert_eq!(outline(&lectern.teacher("ada"), &course).await["version"], 1);
}

#[tokio::test]
async fn one_section_of_thousands_is_edited_by_writing_one_row() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[100; 34]).await;
    let teacher = lectern.teacher("ada");
    crowd(&lectern, &course.id, MANY).await;
    let mut tree = tree_of(&outline(&teacher, &course).await);
    tree["lessons"][20]["sections"][50]["content"] = "Corrected".into();

    put(&teacher, &course.id, 1, &tree).await.expect(StatusCode::OK);

    // Rows of the transaction that made the version.
    let written = async |table: &str| {
        let edit = format!("select courses.xmin from courses where courses.id = '{}'", course.id);
        lectern.fetch(&format!("select count(*) from {table} where xmin = ({edit})")).await
    };
    assert_eq!(written("sections").await, "1");
    assert_eq!(written("lessons").await, "0");
    assert_eq!(written("enrollments").await, "0");
    // The same where a section is retired from under many learners: they are left for later.
    tree["lessons"][20]["sections"].as_array_mut().expect("sections").remove(50);
    put(&teacher, &course.id, 2, &tree).await.expect(StatusCode::OK);
    assert_eq!(written("sections").await, "1");
    assert_eq!(written("enrollments").await, "0");
}

// ---- Learners of a course that changes ------------------------------------------------------------------------------

#[tokio::test]
async fn who_has_completed_all_that_remains_is_completed() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[3]).await;
    let (teacher, learner) = (lectern.teacher("ada"), lectern.learner("lena"));
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    let mut events: Vec<Value> = course.sections[..2].iter().map(|section| event(section, 10, true)).collect();
    events[0]["occurredAt"] = seconds_ago(500).into();
    events[1]["occurredAt"] = seconds_ago(300).into();
    learner.record(&events).await.expect(StatusCode::OK);
    assert_eq!(learner.summary(&course).await["completedAt"], Value::Null);

    retire(&teacher, &course, &course.sections[2]).await;

    let summary = learner.summary(&course).await;
    assert_eq!((&summary["completionPercentage"], &summary["newSectionsSinceCompletion"]), (&100.into(), &0.into()));
    assert_eq!(summary["completedAt"], events[1]["occurredAt"]);
    lectern.invoke("refresh-analytics", json!({})).await;
    let figures = teacher.get(&format!("/courses/{}/analytics", course.id)).await.expect(StatusCode::OK);
    assert_eq!((&figures["completedEnrollments"], &figures["completionRate"]), (&1.into(), &100.0.into()));

    // Nothing that is edited later takes it back or moves it: not a section more, not one less.
    let now = outline(&teacher, &course).await;
    let mut tree = tree_of(&now);
    let new = json!({"title": "New", "content": "", "type": "text", "order": 9});
    tree["lessons"][0]["sections"].as_array_mut().expect("sections").push(new);
    put(&teacher, &course.id, 3, &tree).await.problem(412, "stale_version");
    put(&teacher, &course.id, 2, &tree).await.expect(StatusCode::OK);
    let summary = learner.summary(&course).await;
    assert_eq!((&summary["completionPercentage"], &summary["newSectionsSinceCompletion"]), (&66.66.into(), &1.into()));
    assert_eq!(summary["completedAt"], events[1]["occurredAt"]);
    retire(&teacher, &course, &course.sections[1]).await;
    learner.record(&[event(&course.sections[0], 5, false)]).await.expect(StatusCode::OK);
    assert_eq!(learner.summary(&course).await["completedAt"], events[1]["occurredAt"]);
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn a_section_that_comes_back_after_completion_is_a_new_one() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[2]).await;
    let (teacher, learner) = (lectern.teacher("ada"), lectern.learner("lena"));
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    let before = outline(&teacher, &course).await;
    retire(&teacher, &course, &course.sections[1]).await;
    completed(&learner, &[&course.sections[0]]).await;

    put(&teacher, &course.id, 2, &tree_of(&before)).await.expect(StatusCode::OK);

    let summary = learner.summary(&course).await;
    assert_eq!((&summary["completionPercentage"], &summary["newSectionsSinceCompletion"]), (&50.into(), &1.into()));
    assert!(summary["completedAt"].is_string());
}

#[tokio::test]
async fn a_course_without_sections_has_no_percentage_and_completes_nobody() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let learner = lectern.learner("lena");
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    learner.record(&[event(&course.sections[0], 10, false)]).await.expect(StatusCode::OK);

    put(&lectern.teacher("ada"), &course.id, 1, &json!({"lessons": []})).await.expect(StatusCode::OK);

    let summary = learner.summary(&course).await;
    assert_eq!((&summary["completionPercentage"], &summary["completedAt"]), (&Value::Null, &Value::Null));
    assert_eq!((&summary["totalSections"], &summary["resume"]["nextSectionId"]), (&0.into(), &Value::Null));
    completed(&learner, &[&course.sections[0]]).await;
    assert_eq!(learner.summary(&course).await["completedAt"], Value::Null);
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn where_many_are_enrolled_all_reads_are_right_at_once_and_the_rows_follow() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[3]).await;
    let teacher = lectern.teacher("ada");
    crowd(&lectern, &course.id, MANY).await;
    let [first, second, third] = ["lena", "luis", "lars"].map(|name| lectern.learner(name));
    for learner in [&first, &second, &third] {
        learner.enrol(&course).await.expect(StatusCode::CREATED);
    }
    completed(&first, &[&course.sections[0], &course.sections[1]]).await;
    completed(&second, &[&course.sections[0], &course.sections[2]]).await;
    completed(&third, &[&course.sections[0], &course.sections[1]]).await;
    lectern.invoke("refresh-analytics", json!({})).await;

    retire(&teacher, &course, &course.sections[2]).await;
    let behind = "select count(*) from enrollments where tree_version = 1";
    assert_eq!(lectern.fetch(behind).await, (MANY + 3).to_string());

    let of = async |learner: &Caller<'_>| {
        let summary = learner.summary(&course).await;
        let home = learner.get("/me/courses").await.expect(StatusCode::OK);
        let outline = outline(learner, &course).await;
        for key in ["completedSections", "completionPercentage", "completedAt"] {
            assert_eq!(home["enrollments"][0][key], summary[key], "{key}");
            assert_eq!(outline["progress"][key], summary[key], "{key}");
        }
        (summary["completionPercentage"].clone(), summary["completedAt"].is_string())
    };
    assert_eq!(of(&first).await, (100.into(), true));
    assert_eq!(of(&second).await, (50.into(), false));
    let enrolled = first.enrol(&course).await.expect(StatusCode::OK);
    assert!(enrolled["completedAt"].is_string());
    // A section more before their turn: who was complete in between stays so.
    let now = outline(&teacher, &course).await;
    let mut tree = tree_of(&now);
    let new = json!({"title": "New", "content": "", "type": "text", "order": 9});
    tree["lessons"][0]["sections"].as_array_mut().expect("sections").push(new);
    put(&teacher, &course.id, 2, &tree).await.expect(StatusCode::OK);
    assert_eq!(of(&first).await, (66.66.into(), true));
    assert_eq!(of(&second).await, (33.33.into(), false));
    // Whoever records is put right by that, before the event counts.
    third.record(&[event(&course.sections[0], 1, false)]).await.expect(StatusCode::OK);
    assert_eq!(of(&third).await, (66.66.into(), true));
    assert_eq!(lectern.fetch(behind).await, (MANY + 2).to_string());

    let refreshed = lectern.invoke("refresh-analytics", json!({})).await;

    assert_eq!(refreshed["recounted"], json!({"settled": MANY + 2, "remaining": 0}), "{refreshed}");
    assert_eq!(lectern.fetch(behind).await, "0");
    assert_eq!(lectern.fetch("select count(*) from course_recounts").await, "0");
    assert_eq!(of(&first).await, (66.66.into(), true));
    let figures = teacher.get(&format!("/courses/{}/analytics", course.id)).await.expect(StatusCode::OK);
    assert_eq!(figures["completedEnrollments"], 2);
    assert_eq!(lectern.drift().await, 0);
    assert_eq!(lectern.invoke("refresh-analytics", json!({})).await["recounted"], Value::Null);
}

#[tokio::test]
async fn edits_and_progress_at_once_hinder_and_lose_nothing() {
    const LEARNERS: usize = 6;
    for many in [false, true] {
        let lectern = Lectern::start().await;
        let course = lectern.course("ada", &[4, 4]).await;
        if many {
            crowd(&lectern, &course.id, MANY).await;
        }
        let all = outline(&lectern.teacher("ada"), &course).await;
        let learn = (0..LEARNERS).map(|number| {
            let (lectern, course) = (&lectern, &course);
            async move {
                let learner = lectern.learner(&format!("learner-{number}"));
                learner.enrol(course).await.expect(StatusCode::CREATED);
                for round in 0..20 {
                    let sections = [round % 8, (round + number) % 8].map(|index| &course.sections[index]);
                    let events = sections.map(|section| event(section, 1, true));
                    let answer = learner.record(&events).await.expect(StatusCode::OK);
                    assert_eq!(answer["recorded"], 2);
                    for course in answer["courses"].as_array().expect("courses") {
                        assert!(course["completedSections"].as_i64() <= course["totalSections"].as_i64(), "{course}");
                    }
                    let summary = learner.summary(course).await;
                    assert!(summary["completionPercentage"].as_f64() <= Some(100.0), "{summary}");
                    assert!(summary["completedSections"].as_i64() <= summary["totalSections"].as_i64(), "{summary}");
                }
            }
        });
        let edit = async {
            let (teacher, mut version) = (lectern.teacher("ada"), 1);
            for round in 0..20 {
                // One lesson is turned around, and one section after the other goes and comes back.
                let mut tree = tree_of(&all);
                tree["lessons"][round % 2]["sections"].as_array_mut().expect("sections").remove(round % 4);
                let sections = tree["lessons"][(round + 1) % 2]["sections"].as_array_mut().expect("sections");
                let orders = if round % 2 == 0 { [4, 3, 2, 1] } else { [1, 2, 3, 4] };
                sections.iter_mut().zip(orders).for_each(|(section, order)| section["order"] = order.into());
                let edited = put(&teacher, &course.id, version, &tree).await.expect(StatusCode::OK);
                version = edited["version"].as_i64().expect("a version");
            }
        };
        tokio::join!(join_all(learn), edit);

        assert_eq!(lectern.fetch("select count(*) from progress_events").await, (LEARNERS * 40).to_string());
        assert_eq!(lectern.fetch("select sum(time_spent) from progress").await, (LEARNERS * 40).to_string());
        lectern.invoke("refresh-analytics", json!({})).await;
        assert_eq!(lectern.drift().await, 0);
        let behind = "select count(*) from enrollments e join courses c on c.id = course_id
            where e.tree_version < c.tree_version and completed_sections > 0";
        assert_eq!(lectern.fetch(behind).await, "0");
    }
}

#[tokio::test]
async fn a_late_earlier_event_moves_a_completion_by_the_sections_that_were_counted_for_it() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[2]).await;
    let teacher = lectern.teacher("ada");
    let at = |section: &str, seconds: i64| {
        let mut event = event(section, 1, true);
        event["occurredAt"] = seconds_ago(seconds).into();
        event
    };
    let [one, two] = ["one", "two"].map(|name| lectern.learner(name));
    let first = [at(&course.sections[0], 900), at(&course.sections[1], 800)];
    for learner in [&one, &two] {
        learner.enrol(&course).await.expect(StatusCode::CREATED);
        learner.record(&first).await.expect(StatusCode::OK);
    }
    let appended =
        append(&teacher, &course.id, "key", &json!([lesson("More", 2, 1)])).await.expect(StatusCode::CREATED);
    let third = appended["lessons"][1]["sections"][0]["id"].as_str().expect("an id");
    let (late, new) = (at(&course.sections[1], 950), at(third, 700));
    // In either order the same: the new section has nothing to do with it.
    for event in [&late, &new] {
        one.record(std::slice::from_ref(event)).await.expect(StatusCode::OK);
    }
    for event in [&new, &late] {
        two.record(std::slice::from_ref(event)).await.expect(StatusCode::OK);
    }
    let [one, two] = [one.summary(&course).await, two.summary(&course).await];
    assert_eq!(one["completedAt"], two["completedAt"]);
    assert_eq!(one["completedAt"], first[0]["occurredAt"]);
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn whoever_enrols_and_records_while_an_edit_is_written_is_found_by_the_refresh() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[2]).await;
    let learner = lectern.learner("lena");
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    completed(&learner, &[&course.sections[0]]).await;
    retire(&lectern.teacher("ada"), &course, &course.sections[1]).await;
    // As one that was inserted and recorded by the tree of before, after the edit had looked for who was behind.
    lectern
        .sql("update enrollments set tree_version = 1, completed_at = null, counted_version = null, completed_sections = 1")
        .await;
    assert!(learner.summary(&course).await["completedAt"].is_string());
    let refreshed = lectern.invoke("refresh-analytics", json!({})).await;
    assert_eq!(refreshed["recounted"], json!({"settled": 1, "remaining": 0}));
    assert_eq!(lectern.fetch("select completed_at is not null and counted_version = 2 from enrollments").await, "true");
}

#[tokio::test]
async fn figures_know_of_whoever_was_put_right_by_a_batch_in_which_nothing_was_new() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[2]).await;
    let (teacher, learner) = (lectern.teacher("ada"), lectern.learner("lena"));
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    let first = event(&course.sections[0], 5, true);
    learner.record(std::slice::from_ref(&first)).await.expect(StatusCode::OK);
    retire(&teacher, &course, &course.sections[1]).await;
    // As one whom neither the edit nor the refresh has come to, while the course was refreshed.
    lectern
        .sql("update enrollments set tree_version = 1, completed_at = null, counted_version = null; delete from course_recounts")
        .await;
    lectern.invoke("refresh-analytics", json!({})).await;
    let path = format!("/courses/{}/analytics", course.id);
    let completed = async || teacher.get(&path).await.expect(StatusCode::OK)["completedEnrollments"].clone();
    assert_eq!(completed().await, 0);
    let again = learner.record(&[first]).await.expect(StatusCode::OK);
    assert_eq!((&again["recorded"], &again["duplicates"]), (&json!(0), &json!(1)));
    assert_eq!(lectern.fetch("select completed_at is not null from enrollments").await, "true");
    lectern.invoke("refresh-analytics", json!({})).await;
    assert_eq!(completed().await, 1);
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn binaries_of_before_do_no_damage_to_an_edited_course() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[3]).await;
    let (teacher, learner) = (lectern.teacher("ada"), lectern.learner("lena"));
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    completed(&learner, &[&course.sections[0]]).await;
    retire(&teacher, &course, &course.sections[0]).await;
    // They call the functions of their time, which count by today's rules.
    for (version, section, last) in [(1, 1, ""), (2, 2, ", false")] {
        let answer = lectern
            .fetch(&format!(
                "select answer::json -> 'courses' -> 0 ->> 'completedSections' from record_progress_v{version}(
                    array['lena'], array[gen_random_uuid()], array['{}'::uuid], array[5], array[true],
                    array[null::timestamptz], now(), now() - interval '30 days', now() + interval '5 minutes', false{last}
                )",
                course.sections[section],
            ))
            .await;
        assert_eq!(answer, version.to_string());
    }
    assert_eq!(lectern.drift().await, 0);
    // They enrol, cancel, publish and unpublish without keeping periods: what these say then is not believed.
    let path = format!("/courses/{}", course.id);
    lectern.sql("update courses set status = 'draft'; update enrollments set status = 'cancelled'").await;
    let rejected = |code: &str| ("rejected".to_owned(), Value::from(code));
    assert_eq!(judged(&learner, &course.sections[1], Some(seconds_ago(0))).await, rejected("not_published"));
    lectern.sql("update courses set status = 'published'").await;
    assert_eq!(judged(&learner, &course.sections[1], Some(seconds_ago(0))).await, rejected("not_enrolled"));
    lectern
        .sql("update courses set open_during = '{}'; update enrollments set active_during = '{}', status = 'active'")
        .await;
    let away = lectern.cut_off().await;
    let parked = away.learner("lena").record(&[event(&course.sections[1], 1, false)]).await;
    let parked = parked.expect(StatusCode::ACCEPTED)["submissionId"].as_str().expect("an id").to_owned();
    lectern.invoke("replay-parked", json!({})).await;
    let status = learner.get(&format!("/progress/submissions/{parked}")).await.expect(StatusCode::OK);
    assert_eq!(status["status"], "applied", "{status}");
    // The next change of the state keeps count again.
    teacher.patch(&path, 2, &json!({"status": "draft"})).await.expect(StatusCode::OK);
    learner.delete(&format!("{path}/enrollment")).await.expect(StatusCode::NO_CONTENT);
    let kept = "select not upper_inf(open_during) and not upper_inf(active_during) and not isempty(open_during)
        from courses, enrollments";
    assert_eq!(lectern.fetch(kept).await, "true");
}

// ---- Appending ------------------------------------------------------------------------------------------------------

fn lesson(title: &str, order: i32, sections: usize) -> Value {
    let mut lesson = course_body("", &[sections], false)["lessons"][0].take();
    lesson["title"] = title.into();
    lesson["order"] = order.into();
    lesson
}

#[tokio::test]
async fn lessons_are_appended_once_under_their_key() {
    let lectern = Lectern::start().await;
    let (course, other) = (lectern.course("ada", &[2]).await, lectern.course("ada", &[1]).await);
    let (teacher, learner) = (lectern.teacher("ada"), lectern.learner("lena"));
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    completed(&learner, &[&course.sections[0], &course.sections[1]]).await;
    let completed_at = learner.summary(&course).await["completedAt"].clone();
    let lessons = json!([lesson("Two", 2, 1), lesson("Five", 5, 2)]);

    let copies = (0..5).map(|_| append(&teacher, &course.id, "key", &lessons));
    let answers = join_all(copies).await;

    let first = answers[0].expect(StatusCode::CREATED);
    assert_eq!((&first["version"], &first["lessonCount"], &first["sectionCount"]), (&2.into(), &3.into(), &5.into()));
    assert!(answers.iter().all(|answer| answer.text == answers[0].text));
    assert_eq!(answers.iter().filter(|answer| answer.header("idempotent-replayed") == "true").count(), 4);
    assert_eq!(answers[0].header("location"), format!("/courses/{}", course.id));
    let summary = learner.summary(&course).await;
    assert_eq!((&summary["completionPercentage"], &summary["newSectionsSinceCompletion"]), (&40.into(), &3.into()));
    assert_eq!(summary["completedAt"], completed_at);
    // The first answer again, whatever has become of the course since.
    retire(&teacher, &course, &course.sections[0]).await;
    assert_eq!(append(&teacher, &course.id, "key", &lessons).await.text, answers[0].text);
    // The key belongs to this course, this body and this caller.
    append(&teacher, &course.id, "key", &json!([lesson("Other", 8, 0)])).await.problem(422, "idempotency_key_reused");
    append(&teacher, &other.id, "key", &lessons).await.problem(422, "idempotency_key_reused");
    let admin = lectern.caller("root", &["admin"]);
    append(&admin, &other.id, "key", &lessons).await.expect(StatusCode::CREATED);
    let request = teacher.request(Method::POST, &format!("/courses/{}/lessons", course.id));
    Answer::of(request.json(&json!({ "lessons": lessons }))).await.problem(400, "invalid_header");
}

#[tokio::test]
async fn a_place_that_is_taken_refuses_the_lessons_and_burns_no_key() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1, 1]).await;
    let teacher = lectern.teacher("ada");
    append(&teacher, &course.id, "key", &json!([lesson("L", 3, 1), lesson("L", 2, 1)]))
        .await
        .problem(409, "order_taken");
    append(&teacher, &course.id, "key", &json!([])).await.problem(400, "invalid_body");
    let appended = append(&teacher, &course.id, "key", &json!([lesson("L", 3, 1)])).await.expect(StatusCode::CREATED);
    assert_eq!((&appended["version"], &appended["lessonCount"]), (&2.into(), &3.into()));
    // A retired lesson's place is free.
    let mut tree = tree_of(&appended);
    tree["lessons"].as_array_mut().expect("lessons").remove(0);
    put(&teacher, &course.id, 2, &tree).await.expect(StatusCode::OK);
    append(&teacher, &course.id, "again", &json!([lesson("L", 1, 1)])).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_course_of_sixteen_thousand_sections_is_built_in_steps_and_learned_from() {
    const STEPS: usize = 8;
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[0]).await;
    let (teacher, learner) = (lectern.teacher("ada"), lectern.learner("lena"));
    let content = "x".repeat(1_900);
    let mut answer = Value::Null;
    for step in 0..STEPS {
        let lessons: Vec<Value> = (0..20)
            .map(|number| {
                let mut lesson = lesson("L", 2 + i32::try_from(step * 20 + number).expect("a place"), 100);
                for section in lesson["sections"].as_array_mut().expect("sections") {
                    section["content"] = content.as_str().into();
                }
                lesson
            })
            .collect();
        let appended = append(&teacher, &course.id, &format!("step-{step}"), &json!(lessons)).await;
        answer = appended.expect(StatusCode::CREATED);
    }
    assert_eq!((&answer["lessonCount"], &answer["sectionCount"]), (&161.into(), &16_000.into()));
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    let section = answer["lessons"][160]["sections"][99]["id"].as_str().expect("an id").to_owned();
    completed(&learner, &[&section]).await;
    assert_eq!(learner.summary(&course).await["completionPercentage"], 0);
    let mine = outline(&learner, &course).await;
    assert_eq!(mine["lessons"][160]["sections"][99]["progress"]["completed"], true);
    // One word of it is changed by sending the tree without its contents.
    let mut tree = tree_of(&answer);
    tree["lessons"][80]["title"] = "The middle".into();
    let version = answer["version"].as_i64().expect("a version");
    let edited = put(&teacher, &course.id, version, &tree).await.expect(StatusCode::OK);
    assert_eq!((&edited["sectionCount"], &edited["lessons"][80]["title"]), (&16_000.into(), &"The middle".into()));
    // More than an answer can hold is refused before it is kept.
    let lessons: Vec<Value> = (0..100).map(|number| lesson("L", 1_000 + number, 200)).collect();
    append(&teacher, &course.id, "too-much", &json!(lessons)).await.problem(413, "answer_too_large");
    assert_eq!(outline(&teacher, &course).await["version"], edited["version"]);
}

// ---- States in time -------------------------------------------------------------------------------------------------

/// What became of one event: its status and code.
async fn judged(learner: &Caller<'_>, section: &str, occurred_at: Option<String>) -> (String, Value) {
    let mut event = event(section, 1, false);
    event["occurredAt"] = occurred_at.into();
    let answer = learner.record(&[event]).await.expect(StatusCode::OK);
    let result = &answer["results"][0];
    (result["status"].as_str().expect("a status").to_owned(), result["code"].clone())
}

/// Shifts everything that was noted about states so far into the past.
async fn an_hour_passes(lectern: &Lectern) {
    let shift = |column: &str| {
        format!(
            "{column} = (select range_agg(tstzrange(lower(r) - interval '1 hour', upper(r) - interval '1 hour'))
             from unnest({column}) as r)"
        )
    };
    lectern
        .sql(&format!(
            "update courses set {}, published_at = published_at - interval '1 hour';
             update enrollments set {}, enrolled_at = enrolled_at - interval '1 hour'",
            shift("open_during"),
            shift("active_during")
        ))
        .await;
}

#[tokio::test]
async fn a_late_event_is_judged_by_the_states_at_its_time() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let (teacher, learner, section) = (lectern.teacher("ada"), lectern.learner("lena"), &course.sections[0]);
    let enrollment = format!("/courses/{}/enrollment", course.id);
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    an_hour_passes(&lectern).await;
    learner.delete(&enrollment).await.expect(StatusCode::NO_CONTENT);
    let recorded = ("recorded".to_owned(), Value::Null);
    let rejected = |code: &str| ("rejected".to_owned(), code.into());

    // Cancelled now: what happened before is welcome still, and nothing else.
    assert_eq!(judged(&learner, section, None).await, rejected("not_enrolled"));
    assert_eq!(judged(&learner, section, Some(seconds_ago(1_800))).await, recorded);
    assert_eq!(judged(&learner, section, Some(seconds_ago(7_200))).await, rejected("not_enrolled"));
    // An hour later resumed: all of it is, also what happened while it was cancelled, because it arrives now.
    an_hour_passes(&lectern).await;
    learner.enrol(&course).await.expect(StatusCode::OK);
    assert_eq!(judged(&learner, section, Some(seconds_ago(1_800))).await, recorded);

    // The same of a course that is taken back.
    an_hour_passes(&lectern).await;
    let path = format!("/courses/{}", course.id);
    teacher.patch(&path, 1, &json!({"status": "draft"})).await.expect(StatusCode::OK);
    assert_eq!(judged(&learner, section, None).await, rejected("not_published"));
    assert_eq!(judged(&learner, section, Some(seconds_ago(1_800))).await, recorded);
    assert_eq!(judged(&learner, section, Some(seconds_ago(4 * 3_600))).await, rejected("not_published"));
    an_hour_passes(&lectern).await;
    teacher.patch(&path, 2, &json!({"status": "published"})).await.expect(StatusCode::OK);
    let periods = "select (select count(*) from unnest(open_during)) from courses";
    assert_eq!(lectern.fetch(periods).await, "2");
    // Archiving and coming back from it interrupts nothing.
    teacher.delete(&path).await.expect(StatusCode::NO_CONTENT);
    teacher.patch(&path, 4, &json!({"status": "published"})).await.expect(StatusCode::OK);
    assert_eq!(lectern.fetch(periods).await, "2");
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn a_parked_event_is_judged_by_the_states_at_its_acceptance() {
    let lectern = Lectern::start().await;
    let away = lectern.cut_off().await;
    let course = lectern.course("ada", &[1]).await;
    let (teacher, section) = (lectern.teacher("ada"), &course.sections[0]);
    let park = async |name: &str| {
        let answer = away.learner(name).record(&[event(section, 1, false)]).await;
        answer.expect(StatusCode::ACCEPTED)["submissionId"].as_str().expect("an id").to_owned()
    };
    let mut parked = BTreeMap::new();
    for name in ["stays", "leaves", "returns", "left"] {
        lectern.learner(name).enrol(&course).await.expect(StatusCode::CREATED);
    }
    let enrollment = format!("/courses/{}/enrollment", course.id);
    for name in ["returns", "left"] {
        lectern.learner(name).delete(&enrollment).await.expect(StatusCode::NO_CONTENT);
    }
    for name in ["stays", "leaves", "returns", "left", "comes"] {
        parked.insert(name, park(name).await);
    }
    lectern.learner("leaves").delete(&enrollment).await.expect(StatusCode::NO_CONTENT);
    for name in ["returns", "comes"] {
        lectern
            .learner(name)
            .enrol(&course)
            .await
            .expect(StatusCode::from_u16(if name == "comes" { 201 } else { 200 }).expect("a status"));
    }
    // Unpublished since: that was later, too.
    teacher.patch(&format!("/courses/{}", course.id), 1, &json!({"status": "draft"})).await.expect(StatusCode::OK);
    parked.insert("after", park("stays").await);

    lectern.invoke("replay-parked", json!({})).await;

    let code = async |name: &str| {
        let sender = if name == "after" { "stays" } else { name };
        let path = format!("/progress/submissions/{}", parked[name]);
        let status = lectern.learner(sender).get(&path).await.expect(StatusCode::OK);
        assert_ne!(status["status"], "parked", "{name}");
        status["results"][0]["code"].clone()
    };
    assert_eq!(code("stays").await, Value::Null);
    assert_eq!(code("leaves").await, Value::Null);
    assert_eq!(code("returns").await, "not_enrolled");
    assert_eq!(code("left").await, "not_enrolled");
    assert_eq!(code("comes").await, "not_enrolled");
    assert_eq!(code("after").await, "not_published");
}

#[tokio::test]
async fn whoever_switches_back_and_forth_keeps_a_small_row() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let learner = lectern.learner("lena");
    for _ in 0..120 {
        learner.enrol(&course).await;
        learner.delete(&format!("/courses/{}/enrollment", course.id)).await.expect(StatusCode::NO_CONTENT);
    }
    let periods = "select (select count(*) from unnest(active_during)) <= 100 and not upper_inf(active_during)
        from enrollments";
    assert_eq!(lectern.fetch(periods).await, "true");
}
