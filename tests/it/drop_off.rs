//! Where learners stop: how many completed each section, and how they are spread over the percentages.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    editing::{put, tree_of},
    support::{Answer, Course, Lectern, event},
};

const OK: StatusCode = StatusCode::OK;
const NO_CONTENT: StatusCode = StatusCode::NO_CONTENT;

async fn refresh(lectern: &Lectern) {
    let answer = lectern.invoke("refresh-analytics", json!({})).await;
    assert_eq!((&answer["failed"], &answer["remaining"]), (&json!(0), &json!(0)));
}

async fn detail(lectern: &Lectern, course: &Course) -> Value {
    lectern.teacher("teacher").get(&format!("/courses/{}/analytics?detail=sections", course.id)).await.expect(OK)
}

/// How many completed each section, in the order of the course, and how many learners are in each range.
fn numbers(detail: &Value) -> (Vec<i64>, Vec<i64>) {
    let read = |list: &str, key: &str| {
        let list = detail[list].as_array().expect("a list");
        list.iter().map(|entry| entry[key].as_i64().expect("a number")).collect()
    };
    (read("sections", "completed"), read("progress", "learners"))
}

/// The numbers after a refresh, which must not differ from what they are made of.
async fn refreshed(lectern: &Lectern, course: &Course) -> (Vec<i64>, Vec<i64>) {
    refresh(lectern).await;
    let numbers = numbers(&detail(lectern, course).await);
    assert_eq!(lectern.drift().await, 0);
    assert_eq!(self::numbers(&detail(lectern, course).await), numbers, "after a reconciliation");
    numbers
}

/// Completes the first sections of a course.
async fn complete(lectern: &Lectern, course: &Course, user: &str, sections: usize) {
    let events: Vec<Value> = course.sections.iter().take(sections).map(|section| event(section, 1, true)).collect();
    if !events.is_empty() {
        assert_eq!(lectern.learner(user).record(&events).await.expect(OK)["recorded"], events.len());
    }
}

async fn course_with(lectern: &Lectern, lessons: &[usize], learners: &[(&str, usize)]) -> Course {
    let course = lectern.course("teacher", lessons).await;
    for (user, sections) in learners {
        lectern.learner(user).enrol(&course).await.expect(StatusCode::CREATED);
        complete(lectern, &course, user, *sections).await;
    }
    course
}

#[tokio::test]
async fn each_section_says_how_many_have_completed_it_in_the_order_of_the_course() {
    let lectern = Lectern::start().await;
    let learners = [("ann", 3), ("bob", 2), ("cem", 1), ("dai", 0)];
    let course = course_with(&lectern, &[2, 1], &learners).await;
    // Time alone completes nothing, and what was completed once is not completed twice.
    lectern.learner("dai").record(&[event(&course.sections[2], 9, false)]).await.expect(OK);
    lectern.learner("ann").record(&[event(&course.sections[0], 9, true)]).await.expect(OK);
    refresh(&lectern).await;

    let detail = detail(&lectern, &course).await;
    let section = |index: usize, title: &str, order: i64, lesson: usize, completed: i64| {
        json!({
            "sectionId": course.sections[index], "title": title, "order": order, "lessonId": course.lessons[lesson],
            "lessonTitle": format!("Lesson {}", lesson + 1), "lessonOrder": lesson + 1, "completed": completed,
        })
    };
    let expected =
        json!([section(0, "Section 1", 1, 0, 3), section(1, "Section 2", 2, 0, 2), section(2, "Section 1", 1, 1, 1)]);
    assert_eq!(detail["sections"], expected);
    let ranges = [("0", 1), ("1-25", 0), ("26-50", 1), ("51-75", 1), ("76-99", 0), ("100", 1)];
    let expected: Vec<Value> =
        ranges.iter().map(|(range, learners)| json!({"range": range, "learners": learners})).collect();
    assert_eq!(detail["progress"], json!(expected));

    // Everything else is as without it.
    let path = format!("/courses/{}/analytics", course.id);
    let plain = lectern.teacher("teacher").get(&path).await.expect(OK);
    let mut rest = detail.clone();
    for key in ["sections", "progress"] {
        assert_eq!(plain.get(key), None);
        rest.as_object_mut().expect("an object").remove(key);
    }
    assert_eq!(rest, plain);
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn before_the_first_refresh_there_is_no_detail_and_afterwards_it_is_of_that_moment() {
    let lectern = Lectern::start().await;
    let course = course_with(&lectern, &[2], &[("ann", 1)]).await;
    let before = detail(&lectern, &course).await;
    assert_eq!((&before["sections"], &before["progress"]), (&Value::Null, &Value::Null));
    assert_eq!(refreshed(&lectern, &course).await, (vec![1, 0], vec![0, 0, 1, 0, 0, 0]));
    complete(&lectern, &course, "ann", 2).await;
    assert_eq!(numbers(&detail(&lectern, &course).await), (vec![1, 0], vec![0, 0, 1, 0, 0, 0]));
    assert_eq!(refreshed(&lectern, &course).await, (vec![1, 1], vec![0, 0, 0, 0, 0, 1]));
}

#[tokio::test]
async fn a_course_without_sections_or_learners_has_empty_detail() {
    let lectern = Lectern::start().await;
    let course = course_with(&lectern, &[], &[("ann", 0)]).await;
    // A percentage of nothing is none, and none is in no range.
    assert_eq!(refreshed(&lectern, &course).await, (vec![], vec![0; 6]));
    let course = course_with(&lectern, &[1], &[]).await;
    assert_eq!(refreshed(&lectern, &course).await, (vec![0], vec![0; 6]));
}

#[tokio::test]
async fn ranges_are_those_by_which_the_roster_is_filtered() {
    let lectern = Lectern::start().await;
    let learners: Vec<(String, usize)> = (0..=8).map(|sections| (format!("learner-{sections}"), sections)).collect();
    let learners: Vec<(&str, usize)> = learners.iter().map(|(user, sections)| (user.as_str(), *sections)).collect();
    let course = course_with(&lectern, &[8], &learners).await;
    refresh(&lectern).await;
    for range in detail(&lectern, &course).await["progress"].as_array().expect("ranges") {
        let path = format!("/courses/{}/enrollments?progress={}", course.id, range["range"].as_str().expect("a range"));
        let roster = lectern.teacher("teacher").get(&path).await.expect(OK);
        assert_eq!(roster["enrollments"].as_array().expect("learners").len(), range["learners"], "{range}");
    }
}

#[tokio::test]
async fn who_cancels_leaves_the_numbers_and_who_comes_back_brings_everything_along() {
    let lectern = Lectern::start().await;
    let course = course_with(&lectern, &[2], &[("ann", 1), ("bob", 2)]).await;
    let enrollment = format!("/courses/{}/enrollment", course.id);
    lectern.learner("ann").delete(&enrollment).await.expect(NO_CONTENT);
    assert_eq!(refreshed(&lectern, &course).await, (vec![1, 1], vec![0, 0, 0, 0, 0, 1]));
    // What occurred before is still recorded, for when they are back.
    let mut late = event(&course.sections[1], 1, true);
    let while_enrolled = "select rfc3339_v1(enrolled_at) from enrollments where user_id = 'ann'";
    late["occurredAt"] = lectern.fetch(while_enrolled).await.into();
    assert_eq!(lectern.learner("ann").record(&[late]).await.expect(OK)["recorded"], 1);
    assert_eq!(refreshed(&lectern, &course).await, (vec![1, 1], vec![0, 0, 0, 0, 0, 1]));
    for _ in 0..2 {
        lectern.learner("ann").enrol(&course).await.expect(OK);
    }
    assert_eq!(refreshed(&lectern, &course).await, (vec![2, 2], vec![0, 0, 0, 0, 0, 2]));
    for _ in 0..2 {
        lectern.learner("bob").delete(&enrollment).await.expect(NO_CONTENT);
    }
    // A class that is loaded brings back who had left.
    assert_eq!(refreshed(&lectern, &course).await, (vec![1, 1], vec![0, 0, 0, 0, 0, 1]));
    let path = format!("/courses/{}/enrollments", course.id);
    lectern.service().post(&path, &json!({"enrollments": [{"userId": "bob"}]})).await.expect(OK);
    assert_eq!(refreshed(&lectern, &course).await, (vec![2, 2], vec![0, 0, 0, 0, 0, 2]));
}

#[tokio::test]
async fn who_starts_over_or_is_erased_leaves_nothing_behind() {
    let lectern = Lectern::start().await;
    let course = course_with(&lectern, &[3], &[("ann", 3), ("bob", 2), ("cem", 1)]).await;
    assert_eq!(refreshed(&lectern, &course).await, (vec![3, 2, 1], vec![0, 0, 1, 1, 0, 1]));
    lectern.learner("ann").delete(&format!("/courses/{}/progress", course.id)).await.expect(NO_CONTENT);
    assert_eq!(refreshed(&lectern, &course).await, (vec![2, 1, 0], vec![1, 0, 1, 1, 0, 0]));
    complete(&lectern, &course, "ann", 1).await;
    lectern.caller("root", &["admin"]).delete("/learners/bob/data").await.expect(NO_CONTENT);
    assert_eq!(refreshed(&lectern, &course).await, (vec![2, 0, 0], vec![0, 0, 2, 0, 0, 0]));
}

#[tokio::test]
async fn sections_that_are_retired_leave_and_restored_ones_bring_their_learners_back() {
    let lectern = Lectern::start().await;
    let course = course_with(&lectern, &[2], &[("ann", 2), ("bob", 1)]).await;
    let teacher = lectern.teacher("teacher");
    let whole = tree_of(&teacher.get(&format!("/courses/{}", course.id)).await.expect(OK));
    let mut less = whole.clone();
    less["lessons"][0]["sections"].as_array_mut().expect("sections").remove(0);
    assert_eq!(refreshed(&lectern, &course).await, (vec![2, 1], vec![0, 0, 1, 0, 0, 1]));

    put(&teacher, &course.id, 1, &less).await.expect(OK);
    // The course is read as it is; the figures are those of the refresh.
    assert_eq!(numbers(&detail(&lectern, &course).await).0, [1]);
    assert_eq!(refreshed(&lectern, &course).await, (vec![1], vec![1, 0, 0, 0, 0, 1]));
    lectern.learner("cem").enrol(&course).await.expect(StatusCode::CREATED);
    complete(&lectern, &course, "cem", 1).await;

    put(&teacher, &course.id, 2, &whole).await.expect(OK);
    assert_eq!(refreshed(&lectern, &course).await, (vec![3, 1], vec![0, 0, 2, 0, 0, 1]));
}

#[tokio::test]
async fn detail_stays_as_it_was_while_analytics_are_off_and_nothing_piles_up() {
    let lectern = Lectern::start().await;
    let course = course_with(&lectern, &[2], &[("ann", 1)]).await;
    refresh(&lectern).await;
    let (path, teacher) = (format!("/courses/{}", course.id), lectern.teacher("teacher"));
    teacher.patch(&path, 1, &json!({"analyticsEnabled": false})).await.expect(OK);
    complete(&lectern, &course, "ann", 2).await;
    for _ in 0..2 {
        assert_eq!(refreshed(&lectern, &course).await, (vec![1, 0], vec![0, 0, 1, 0, 0, 0]));
        assert_eq!(lectern.fetch("select count(*) from section_completion_changes").await, "0");
    }
    teacher.patch(&path, 2, &json!({"analyticsEnabled": true})).await.expect(OK);
    assert_eq!(refreshed(&lectern, &course).await, (vec![1, 1], vec![0, 0, 0, 0, 0, 1]));
}

#[tokio::test]
async fn a_reconciliation_counts_sections_that_do_not_agree_and_puts_them_right() {
    let lectern = Lectern::start().await;
    let course = course_with(&lectern, &[3], &[("ann", 2), ("bob", 1)]).await;
    refresh(&lectern).await;
    for damage in [
        "update section_completions set counted = counted + 5",
        "delete from section_completions",
        "insert into section_completion_changes (course_id, section_id, difference)
            select course_id, section_id, -1 from section_completions",
    ] {
        lectern.sql(damage).await;
        assert_eq!(lectern.drift().await, 2, "{damage}");
        assert_eq!(numbers(&detail(&lectern, &course).await).0, [2, 1, 0], "{damage}");
        assert_eq!(lectern.drift().await, 0, "{damage}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn learners_at_work_and_refreshes_beside_them_lose_no_completion() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[3]).await;
    let working = futures_util::future::join_all((0..6).map(|number| {
        let (lectern, course) = (&lectern, &course);
        async move {
            let user = format!("user-{number}");
            let learner = lectern.learner(&user);
            learner.enrol(course).await.expect(StatusCode::CREATED);
            for turn in 0..12 {
                match turn % 4 {
                    0 | 1 => complete(lectern, course, &user, 1 + turn % 3).await,
                    2 => drop(learner.delete(&format!("/courses/{}/enrollment", course.id)).await.expect(NO_CONTENT)),
                    _ if number % 2 == 0 => drop(learner.enrol(course).await.expect(OK)),
                    _ => {
                        learner.delete(&format!("/courses/{}/progress", course.id)).await.expect(NO_CONTENT);
                        learner.enrol(course).await.expect(OK);
                    }
                }
            }
        }
    }));
    let refreshing = async {
        for turn in 0..20 {
            if turn % 4 == 3 {
                assert_eq!(lectern.drift().await, 0);
            } else {
                refresh_once(&lectern).await;
            }
        }
    };
    tokio::join!(working, refreshing);
    refresh(&lectern).await;
    assert_eq!(lectern.drift().await, 0);
}

/// Beside writers something may always remain.
async fn refresh_once(lectern: &Lectern) {
    assert_eq!(lectern.invoke("refresh-analytics", json!({})).await["failed"], 0);
}

#[tokio::test]
async fn only_who_manages_a_course_sees_its_detail_and_only_sections_are_detail() {
    let lectern = Lectern::start().await;
    let course = course_with(&lectern, &[1], &[("ann", 1)]).await;
    refresh(&lectern).await;
    let path = format!("/courses/{}/analytics?detail=", course.id);
    for stranger in [lectern.learner("ann"), lectern.teacher("other"), lectern.service()] {
        stranger.get(&format!("{path}sections")).await.problem(403, "not_owner");
    }
    let admin = lectern.caller("root", &["admin"]);
    let expected = detail(&lectern, &course).await;
    assert_eq!(admin.get(&format!("{path}sections")).await.expect(OK), expected);
    for other in ["lessons", "Sections", "sections,progress", "%00", "sections%20"] {
        let problem = admin.get(&format!("{path}{other}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["errors"][0]["pointer"], "?detail");
    }
    // An empty one counts as absent.
    assert_eq!(admin.get(&path).await.expect(OK).get("sections"), None);
    let nowhere = format!("/courses/{}/analytics?detail=sections", Uuid::now_v7());
    admin.get(&nowhere).await.problem(404, "course_not_found");

    let first = admin.get(&format!("{path}sections")).await;
    let again = admin.request(Method::GET, &format!("{path}sections")).header("if-none-match", first.header("etag"));
    assert_eq!(Answer::of(again).await.status, StatusCode::NOT_MODIFIED);
}
