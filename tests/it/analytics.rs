//! A course's figures: what they mean, when they are refreshed, what stands in the way.

use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::analytics;

use crate::support::{Course, Lectern, deadline, event, seconds_ago};

const OK: StatusCode = StatusCode::OK;
const DAY: i64 = 86_400;

async fn figures(lectern: &Lectern, course: &Course) -> Value {
    lectern.teacher("teacher").get(&format!("/courses/{}/analytics", course.id)).await.expect(OK)
}

async fn refresh(lectern: &Lectern) -> Value {
    lectern.invoke("refresh-analytics", json!({})).await
}

/// Enrols learners with the times of their enrolment, so many seconds ago.
async fn enrol(lectern: &Lectern, course: &Course, learners: &[(&str, i64)]) {
    let rows: Vec<Value> =
        learners.iter().map(|(user, ago)| json!({"userId": user, "enrolledAt": seconds_ago(*ago)})).collect();
    let path = format!("/courses/{}/enrollments", course.id);
    let answer = lectern.service().post(&path, &json!({ "enrollments": rows })).await.expect(OK);
    assert!(answer["results"].as_array().unwrap().iter().all(|row| row["status"] == "enrolled"), "{answer}");
}

/// Completes a one-section course, so many seconds ago.
async fn complete(lectern: &Lectern, course: &Course, user: &str, seconds: u32, ago: i64) {
    let mut event = event(&course.sections[0], seconds, true);
    event["userId"] = user.into();
    event["occurredAt"] = seconds_ago(ago).into();
    assert_eq!(lectern.service().record(&[event]).await.expect(OK)["recorded"], 1);
}

#[tokio::test]
async fn before_the_first_refresh_every_figure_is_null() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let expected = json!({
        "courseId": course.id, "totalEnrollments": null, "activeLearners": null, "completedEnrollments": null,
        "completionRate": null, "avgCompletionTime": null, "medianCompletionTime": null, "p25CompletionTime": null,
        "p75CompletionTime": null, "avgTimeSpent": null, "asOf": null, "windowDays": 30,
    });
    assert_eq!(figures(&lectern, &course).await, expected);
}

#[tokio::test]
async fn figures_mean_what_the_specification_says() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let learners = [("a", 1_000), ("b", 1_000), ("c", 1_000), ("d", 1_000), ("idle", 1_000), ("gone", 1_000)];
    enrol(&lectern, &course, &learners).await;
    for (user, ago) in [("a", 900), ("b", 800), ("c", 600), ("gone", 500)] {
        complete(&lectern, &course, user, 10, ago).await;
    }
    let mut opened = event(&course.sections[0], 50, false);
    opened["userId"] = "d".into();
    lectern.service().record(&[opened]).await.expect(OK);
    lectern.learner("gone").delete(&format!("/courses/{}/enrollment", course.id)).await.expect(StatusCode::NO_CONTENT);

    assert_eq!(refresh(&lectern).await["refreshed"], 1);

    let figures = figures(&lectern, &course).await;
    assert_eq!(figures["totalEnrollments"], 5);
    assert_eq!(figures["activeLearners"], 4);
    assert_eq!(figures["completedEnrollments"], 3);
    assert_eq!(figures["completionRate"], 60.0);
    // Times between two calls of the clock: the requests for enrolment and for completion are a moment apart.
    let near = |name: &str, expected: i64| {
        let value = figures[name].as_i64().unwrap();
        assert!((value - expected).abs() <= 30, "{name}: {value}");
    };
    near("avgCompletionTime", 233);
    near("medianCompletionTime", 200);
    near("p25CompletionTime", 150);
    near("p75CompletionTime", 300);
    assert_eq!(figures["avgTimeSpent"], 10);
    assert_ne!(figures["asOf"], Value::Null);
    let listed = lectern.anyone().get("/courses").await.expect(OK);
    assert_eq!(listed["courses"][0]["enrollmentCount"], 5);
}

#[tokio::test]
async fn a_rate_is_rounded_down_and_null_without_enrollments() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    refresh(&lectern).await;
    let empty = figures(&lectern, &course).await;
    assert_eq!((&empty["totalEnrollments"], &empty["completionRate"]), (&json!(0), &Value::Null));
    enrol(&lectern, &course, &[("a", 100), ("b", 100), ("c", 100)]).await;
    complete(&lectern, &course, "a", 1, 10).await;
    complete(&lectern, &course, "b", 1, 10).await;
    refresh(&lectern).await;
    assert_eq!(figures(&lectern, &course).await["completionRate"], 66.66);
}

#[tokio::test]
async fn a_refresh_touches_the_changed_courses_only() {
    let lectern = Lectern::start().await;
    let courses = [lectern.course("teacher", &[1]).await, lectern.course("teacher", &[1]).await];
    assert_eq!(refresh(&lectern).await["refreshed"], 2);
    assert_eq!(refresh(&lectern).await["refreshed"], 0);
    let before = figures(&lectern, &courses[1]).await;
    enrol(&lectern, &courses[0], &[("a", 10)]).await;
    let answer = refresh(&lectern).await;
    assert_eq!((&answer["refreshed"], &answer["failed"], &answer["remaining"]), (&json!(1), &json!(0), &json!(0)));
    assert_eq!(figures(&lectern, &courses[1]).await, before);
}

#[tokio::test]
async fn a_course_that_goes_quiet_loses_its_active_learners_on_time() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    enrol(&lectern, &course, &[("early", 40 * DAY), ("late", 40 * DAY)]).await;
    complete(&lectern, &course, "early", 1, 20 * DAY).await;
    complete(&lectern, &course, "late", 1, 5 * DAY).await;
    let app = lectern.app();
    for (days, active, refreshed) in [(0, 2, 1), (9, 2, 0), (11, 1, 1), (24, 1, 0), (26, 0, 1), (90, 0, 0)] {
        let answer = analytics::refresh(app, Utc::now() + TimeDelta::days(days), deadline()).await.unwrap();
        assert_eq!(answer.refreshed, refreshed, "after {days} days");
        assert_eq!(figures(&lectern, &course).await["activeLearners"], active, "after {days} days");
    }
}

#[tokio::test]
async fn what_leaves_the_window_is_counted_without_the_rest_which_a_reconciliation_checks() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let learners =
        [("early", 40 * DAY), ("also", 40 * DAY), ("late", 40 * DAY), ("idle", 15 * DAY), ("gone", 40 * DAY)];
    enrol(&lectern, &course, &learners).await;
    for (user, ago) in [("early", 20 * DAY), ("also", 19 * DAY), ("gone", 19 * DAY), ("late", 5 * DAY)] {
        complete(&lectern, &course, user, 1, ago).await;
    }
    lectern.learner("gone").delete(&format!("/courses/{}/enrollment", course.id)).await.expect(StatusCode::NO_CONTENT);
    refresh(&lectern).await;
    assert_eq!(figures(&lectern, &course).await["activeLearners"], 3);
    // Nobody writes so: it shows what is computed again, and what is not.
    lectern.sql("update course_analytics set avg_time_spent = 777").await;
    let app = lectern.app();
    let shown = async |days: i64| {
        analytics::refresh(app, Utc::now() + TimeDelta::days(days), deadline()).await.unwrap();
        let figures = figures(&lectern, &course).await;
        (figures["activeLearners"].clone(), figures["avgTimeSpent"].clone())
    };
    assert_eq!(shown(12).await, (json!(1), json!(777)));
    assert_eq!(shown(13).await, (json!(1), json!(777)));
    assert_eq!(shown(26).await, (json!(0), json!(777)));
    let reconciled = analytics::reconcile(app, Utc::now() + TimeDelta::days(27), deadline()).await.unwrap();
    assert_eq!(reconciled.drift, Some(1));
    assert_eq!(shown(28).await, (json!(0), json!(1)));
    // A write marks its course, and then all is counted.
    lectern.sql("update course_analytics set avg_time_spent = 777").await;
    complete(&lectern, &course, "idle", 9, 0).await;
    assert_eq!(shown(29).await, (json!(1), json!(3)));
}

#[tokio::test]
async fn figures_that_are_switched_off_stay_as_they_were_and_catch_up_when_switched_on() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    refresh(&lectern).await;
    let (path, teacher) = (format!("/courses/{}", course.id), lectern.teacher("teacher"));
    let off = teacher.patch(&path, course.version, &json!({"analyticsEnabled": false})).await.expect(OK);
    let before = figures(&lectern, &course).await;
    enrol(&lectern, &course, &[("a", 10)]).await;
    let answer = refresh(&lectern).await;
    assert_eq!((&answer["failed"], &answer["remaining"]), (&json!(0), &json!(0)));
    assert_eq!(figures(&lectern, &course).await, before);
    teacher.patch(&path, off["version"].as_i64().unwrap(), &json!({"analyticsEnabled": true})).await.expect(OK);
    refresh(&lectern).await;
    assert_eq!(figures(&lectern, &course).await["totalEnrollments"], 1);
}

#[tokio::test]
async fn a_course_that_cannot_be_refreshed_stops_no_other_and_is_tried_again() {
    let lectern = Lectern::start().await;
    let (good, bad) = (lectern.course("teacher", &[1]).await, lectern.course("teacher", &[1]).await);
    let poison = format!(
        "create function poison() returns trigger language plpgsql as $$ begin
            if new.course_id = '{}' then raise exception 'poisoned'; end if; return new; end $$;
        create trigger poison before update on course_analytics for each row execute function poison()",
        bad.id
    );
    lectern.sql(&poison).await;
    let answer = refresh(&lectern).await;
    assert_eq!((&answer["refreshed"], &answer["failed"], &answer["remaining"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(figures(&lectern, &good).await["totalEnrollments"], 0);
    assert_eq!(figures(&lectern, &bad).await["asOf"], Value::Null);
    lectern.sql("drop trigger poison on course_analytics").await;
    let answer = refresh(&lectern).await;
    assert_eq!((&answer["refreshed"], &answer["remaining"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn a_refresh_without_time_left_says_what_remains() {
    let lectern = Lectern::start().await;
    lectern.course("teacher", &[1]).await;
    let answer = analytics::refresh(lectern.app(), Utc::now(), Instant::now()).await.unwrap();
    assert_eq!((answer.refreshed, answer.remaining), (0, 1));
}

#[tokio::test]
async fn a_run_that_began_earlier_does_not_take_figures_back_in_time() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let alice = lectern.learner("alice");
    alice.enrol(&course).await.expect(StatusCode::CREATED);
    alice.record(&[event(&course.sections[0], 1, true)]).await.expect(OK);
    let (before, after) = (Utc::now() + TimeDelta::days(29), Utc::now() + TimeDelta::days(31));
    analytics::refresh(lectern.app(), before, deadline()).await.unwrap();
    assert_eq!(figures(&lectern, &course).await["activeLearners"], 1);
    analytics::refresh(lectern.app(), after, deadline()).await.unwrap();
    let gone = figures(&lectern, &course).await;
    assert_eq!(gone["activeLearners"], 0);
    // One was late, and goes over all courses.
    let late = analytics::reconcile(lectern.app(), before, deadline()).await.unwrap();
    assert_eq!(late.drift, Some(0));
    assert_eq!(figures(&lectern, &course).await, gone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshes_that_overlap_with_each_other_and_with_writers_lose_nothing() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let users: Vec<String> = (0..40).map(|index| format!("user-{index}")).collect();
    let enrolling = futures_util::future::join_all(users.iter().map(|user| {
        let (lectern, course) = (&lectern, &course);
        async move { lectern.learner(user).enrol(course).await.expect(StatusCode::CREATED) }
    }));
    let refreshing = futures_util::future::join_all((0..20).map(|_| refresh(&lectern)));
    let (_, answers) = tokio::join!(enrolling, refreshing);
    assert!(answers.iter().all(|answer| answer["failed"] == 0), "{answers:?}");
    refresh(&lectern).await;
    assert_eq!(figures(&lectern, &course).await["totalEnrollments"], 40);
    assert_eq!(lectern.fetch("select count(*) from course_changes").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_work_are_no_drift() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[3]).await;
    let writing = futures_util::future::join_all((0..6).map(|writer| {
        let (lectern, course) = (&lectern, &course);
        async move {
            for turn in 0..10 {
                let learner = lectern.learner(&format!("user-{writer}-{turn}"));
                learner.enrol(course).await.expect(StatusCode::CREATED);
                learner.record(&[event(&course.sections[turn % 3], 1, true)]).await.expect(OK);
            }
        }
    }));
    let reconciling = async {
        for _ in 0..10 {
            assert_eq!(lectern.drift().await, 0);
        }
    };
    tokio::join!(writing, reconciling);
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn a_reconciliation_counts_what_does_not_agree() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[2]).await;
    enrol(&lectern, &course, &[("a", 100), ("b", 100)]).await;
    complete(&lectern, &course, "a", 5, 10).await;
    assert_eq!(lectern.drift().await, 0);
    for (damage, drift) in [
        ("update progress set time_spent = 6", 2),
        ("update enrollments set time_spent = 6 where user_id = 'a'", 1),
        ("update progress_events set time_spent = 6", 0),
        ("delete from progress_events", 1),
    ] {
        lectern.sql(damage).await;
        assert_eq!(lectern.drift().await, drift, "{damage}");
    }
    // Whatever figures were stored are computed again, and then agree.
    lectern.sql("update course_analytics set total_enrollments = 7").await;
    assert_eq!(lectern.drift().await, 2);
    assert_eq!(lectern.drift().await, 1);
    assert_eq!(figures(&lectern, &course).await["totalEnrollments"], 2);
}

#[tokio::test]
async fn only_who_manages_a_course_sees_its_figures() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let path = format!("/courses/{}/analytics", course.id);
    lectern.teacher("other").get(&path).await.problem(403, "not_owner");
    lectern.learner("alice").get(&path).await.problem(403, "not_owner");
    lectern.caller("root", &["admin"]).get(&path).await.expect(OK);
    let draft = lectern.teacher("teacher").create(&crate::support::course_body("Draft", &[], false)).await;
    let draft = Course::of(&draft.expect(StatusCode::CREATED));
    let path = format!("/courses/{}/analytics", draft.id);
    lectern.teacher("other").get(&path).await.problem(404, "course_not_found");
    lectern.teacher("teacher").get(&path).await.expect(OK);
}

#[tokio::test]
async fn a_refresh_of_many_courses_takes_them_in_batches() {
    let lectern = Lectern::start().await;
    lectern
        .sql(
            "with made as (
                insert into courses (id, owner_id, title, description, difficulty, created_at, updated_at)
                select gen_random_uuid(), 'teacher', 'Many', '', 'beginner', now(), now() from generate_series(1, 230)
                returning id
            )
            insert into course_changes (course_id) select id from made",
        )
        .await;
    let started = Instant::now();
    let answer = refresh(&lectern).await;
    assert_eq!((&answer["refreshed"], &answer["remaining"]), (&json!(230), &json!(0)));
    // No measure of speed: only that nothing waited for a lock of its own.
    assert!(started.elapsed() < Duration::from_secs(20));
}
