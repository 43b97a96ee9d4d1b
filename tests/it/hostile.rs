//! Bad input: whatever comes, the answer is a stable code, tells nothing of our insides, and nothing has changed. Bad
//! callers are tested in `security`, what good input does elsewhere.

use std::{collections::BTreeSet, iter};

use chrono::DateTime;
use local::{authorizer::Grant, template::Route};
use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderValue};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    editing::{append, put},
    requests::{base64url, contents, good_body, names_a_thing, not_found_code, ready, refused, routes},
    support::{Answer, Caller, Course, Lectern, course_body, event, seconds_ago},
};

// ---- Bodies ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_body_that_is_no_json_is_malformed() {
    let world = World::new().await;
    let before = world.contents().await;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(200), close.repeat(200)).into_bytes();
    let bodies: Vec<Vec<u8>> = [
        &b""[..],
        b" \n",
        b"{",
        b"{}{}",
        b"nul",
        b"NaN",
        b"[1e400]",
        b"{'title':1}",
        b"{\"title\":1,}",
        b"{\"title\":1}//",
        b"{\"title\" 1}",
        b"[01]",
        b"\"line\nbreak\"",
        b"\"\0\"",
        b"\"\\x41\"",
        b"\"\\ud83d\"",
        b"\"\\udd80\\ud83e\"",
        b"\xef\xbb\xbf{}",
        b"\"\xff\"",
        b"\"\xe2\x82\"",
        b"\"\xed\xa0\x80\"",
        b"{\x00}",
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .chain([deep("[", "]"), deep("{\"a\":", "}"), deep("[{\"events\":", "}]")])
    .collect();
    for route in &world.body_routes() {
        for body in &bodies {
            let answer = route.send(body.clone()).await;
            let problem = refused(&answer, 400, "malformed_json");
            assert_eq!(pointers(&problem), [""], "{} {}", route.name, String::from_utf8_lossy(body));
        }
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn a_body_is_json_by_its_content_type_or_refused() {
    let world = World::new().await;
    let before = world.contents().await;
    for route in &world.body_routes() {
        let body = route.good.to_string();
        let answer = Answer::of(route.request().body(body.clone())).await;
        refused(&answer, 415, "unsupported_media_type");
        for kind in [
            "text/plain",
            "text/json",
            "application/jsonx",
            "application/problem+json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=application/json",
            "application/octet-stream",
            "application",
            "*/*",
            ";application/json",
        ] {
            let answer = Answer::of(route.request().header("content-type", kind).body(body.clone())).await;
            refused(&answer, 415, "unsupported_media_type");
        }
        let latin = HeaderValue::from_bytes(b"application/json\xe9").expect("a header");
        refused(
            &Answer::of(route.request().header("content-type", latin).body(body)).await,
            415,
            "unsupported_media_type",
        );
        // Case and parameters do not matter, and then it is the body that is wrong.
        for kind in ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"] {
            let answer = Answer::of(route.request().header("content-type", kind).body("7")).await;
            refused(&answer, 400, "invalid_body");
        }
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn a_body_of_another_shape_is_refused_as_a_whole() {
    let world = World::new().await;
    let before = world.contents().await;
    for route in &world.body_routes() {
        for body in [json!(null), json!(true), json!(7), json!("text"), json!([]), json!([[]]), json!([null])] {
            let answer = route.send_json(&body).await;
            assert!(!pointers(&refused(&answer, 400, "invalid_body")).is_empty(), "{} {body}", route.name);
        }
        let required: BTreeSet<&str> = route
            .fields
            .iter()
            .filter(|field| field.required && field.depth() == 1)
            .map(|field| field.pointer)
            .collect();
        if !required.is_empty() {
            let problem = refused(&route.send_json(&json!({})).await, 400, "invalid_body");
            assert_eq!(pointers(&problem), required.into_iter().collect::<Vec<_>>(), "{}", route.name);
        }
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn whatever_is_wrong_in_a_body_is_told_with_its_pointer() {
    let world = World::new().await;
    let before = world.contents().await;
    for route in &world.body_routes() {
        for (pointer, body) in route.bad_bodies() {
            let problem = refused(&route.send_json(&body).await, 400, "invalid_body");
            assert_eq!(pointers(&problem), [pointer], "{} {body}", route.name);
        }
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn all_that_is_wrong_in_a_body_is_told_at_once() {
    let world = World::new().await;
    let before = world.contents().await;
    for route in &world.body_routes() {
        // The innermost places only: a list that is no list has no items to be wrong.
        let leaves: Vec<&Field> =
            route.fields.iter().filter(|field| !matches!(field.kind, Kind::List | Kind::Object)).collect();
        let mut body = route.good.clone();
        for field in &leaves {
            *body.pointer_mut(field.pointer).expect("a place") = json!({"nested": true});
        }
        let problem = refused(&route.send_json(&body).await, 400, "invalid_body");
        let expected: BTreeSet<&str> = leaves.iter().map(|field| field.pointer).collect();
        assert_eq!(pointers(&problem), expected.into_iter().collect::<Vec<_>>(), "{}", route.name);
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn half_a_surrogate_pair_is_no_text_anywhere() {
    let world = World::new().await;
    let before = world.contents().await;
    for route in &world.body_routes() {
        for field in route.fields.iter().filter(|field| field.kind.is_text()) {
            for half in [r"\ud83e", r"\udd80", r"\udd80\ud83e", r"a\ud83eb"] {
                let mut body = route.good.clone();
                *body.pointer_mut(field.pointer).expect("a place") = json!("@here@");
                let text = body.to_string().replace("@here@", half);
                assert!(text.contains(half));
                refused(&route.send(text).await, 400, "malformed_json");
            }
        }
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn every_body_route_of_the_template_is_tested_with_bad_bodies() {
    let world = World::new().await;
    let tested: BTreeSet<String> = world.body_routes().iter().map(|route| route.name.to_owned()).collect();
    let taking: BTreeSet<String> =
        routes().iter().filter(|route| good_body(route, &world.course).is_some()).map(Route::key).collect();
    assert_eq!(tested, taking);
}

#[tokio::test]
async fn siblings_with_one_order_are_refused_each_by_its_pointer() {
    let world = World::new().await;
    let before = world.contents().await;
    let teacher = world.lectern.teacher("ada");
    let mut body = course_body("Orders", &[3, 1, 2], true);
    body["lessons"][2]["order"] = json!(1);
    body["lessons"][0]["sections"][1]["order"] = json!(1);
    body["lessons"][0]["sections"][2]["order"] = json!(1);
    let expected =
        ["/lessons/0/sections/1/order", "/lessons/0/sections/2/order", "/lessons/2/order"].map(str::to_owned).to_vec();
    assert_eq!(pointers(&refused(&teacher.create(&body).await, 400, "invalid_body")), expected);
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn an_order_that_is_taken_is_told_beside_whatever_else_is_wrong() {
    let world = World::new().await;
    let before = world.contents().await;
    let mut body = course_body("Orders", &[3, 1], true);
    body["lessons"][1]["order"] = json!(1);
    body["lessons"][0]["sections"][1]["order"] = json!(1);
    body["lessons"][0]["sections"][2]["title"] = json!("");
    let answer = world.lectern.teacher("ada").create(&body).await;
    assert_eq!(
        pointers(&refused(&answer, 400, "invalid_body")),
        ["/lessons/0/sections/1/order", "/lessons/0/sections/2/title", "/lessons/1/order"]
    );
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn a_batch_has_one_to_five_hundred_items() {
    let world = World::new().await;
    let (lectern, section) = (&world.lectern, &world.course.sections[0]);
    let before = world.contents().await;
    let learner = lectern.learner("lena");
    let events = |count: usize| (0..count).map(|_| event(section, 1, false)).collect::<Vec<Value>>();
    let ids = |count: usize| (0..count).map(|_| Uuid::now_v7()).collect::<Vec<Uuid>>();
    for (body, pointer) in [
        (json!({"events": []}), "/events"),
        (json!({"events": events(501)}), "/events"),
        (json!([]), ""),
        (json!(events(501)), ""),
        (json!({"sectionIds": [], "timeSpent": 1}), "/sectionIds"),
        (json!({"sectionIds": ids(501), "timeSpent": 1}), "/sectionIds"),
        (json!([{"sectionIds": ids(251), "timeSpent": 1}, {"sectionIds": ids(250), "timeSpent": 1}]), ""),
    ] {
        let request = learner.request(Method::POST, "/progress").header("idempotency-key", "batch").json(&body);
        let problem = refused(&Answer::of(request).await, 400, "invalid_body");
        assert_eq!(pointers(&problem), [pointer]);
    }
    let enrollments = format!("/courses/{}/enrollments", world.course.id);
    let entries = |count: usize| (0..count).map(|n| json!({"userId": format!("u{n}")})).collect::<Vec<Value>>();
    for count in [0, 501] {
        let answer = lectern.service().post(&enrollments, &json!({"enrollments": entries(count)})).await;
        assert_eq!(pointers(&refused(&answer, 400, "invalid_body")), ["/enrollments"]);
    }
    assert_eq!(world.contents().await, before);

    assert_eq!(learner.record(&events(500)).await.expect(StatusCode::OK)["recorded"], 500);
    let answer = lectern.service().post(&enrollments, &json!({"enrollments": entries(500)})).await;
    assert_eq!(answer.expect(StatusCode::OK)["results"].as_array().map(Vec::len), Some(500));
}

#[tokio::test]
async fn time_for_several_sections_needs_a_key_and_names_each_section_once() {
    let world = World::new().await;
    let before = world.contents().await;
    let learner = world.lectern.learner("lena");
    let [one, two] = [&world.course.sections[0], &world.course.sections[1]];
    let answer = learner.post("/progress", &json!({"sectionIds": [one, two], "timeSpent": 5})).await;
    assert_eq!(pointers(&refused(&answer, 400, "invalid_body")), ["/sectionIds"]);
    for (body, pointer) in [
        (json!({"sectionIds": [one, one], "timeSpent": 5}), "/sectionIds"),
        (json!({"sectionIds": [one, "two"], "timeSpent": 5}), "/sectionIds/1"),
        (json!({"sectionIds": one, "timeSpent": 5}), "/sectionIds"),
        (json!({"sectionIds": [one], "timeSpent": -5}), "/timeSpent"),
        (json!({"sectionIds": [one]}), "/timeSpent"),
        (json!([{"sectionIds": [one], "timeSpent": 5}, {"sectionIds": [two], "timeSpent": 1.5}]), "/1/timeSpent"),
    ] {
        let request = learner.request(Method::POST, "/progress").header("idempotency-key", "split").json(&body);
        let problem = refused(&Answer::of(request).await, 400, "invalid_body");
        assert_eq!(pointers(&problem), [pointer], "{body}");
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn only_a_service_records_for_others_and_it_says_for_whom() {
    let world = World::new().await;
    let before = world.contents().await;
    let foreign = |user: &str| {
        let mut event = event(&world.course.sections[0], 1, true);
        event["userId"] = json!(user);
        event
    };
    for caller in
        [world.lectern.learner("lena"), world.lectern.teacher("ada"), world.lectern.caller("root", &["admin"])]
    {
        refused(&caller.record(&[foreign("mallory")]).await, 403, "foreign_user");
    }
    // What has too many events is malformed, whoever it is of.
    let sections: Vec<String> = (0..300).map(|_| Uuid::now_v7().to_string()).collect();
    let split = json!({"userId": "mallory", "timeSpent": 1, "sectionIds": sections});
    let lena = world.lectern.learner("lena");
    let request =
        lena.request(Method::POST, "/progress").header("idempotency-key", "many").json(&json!([split, split]));
    refused(&Answer::of(request).await, 400, "invalid_body");
    // One event of one's own does not let another's through.
    let answer = world.lectern.learner("lena").record(&[foreign("lena"), foreign("mallory")]).await;
    refused(&answer, 403, "foreign_user");
    let nameless = event(&world.course.sections[0], 1, true);
    let answer = world.lectern.service().record(&[foreign("lena"), nameless]).await;
    assert_eq!(pointers(&refused(&answer, 400, "invalid_body")), ["/events/1/userId"]);
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn a_moment_that_is_taken_comes_back_as_the_same_moment() {
    let world = World::new().await;
    let path = format!("/courses/{}/enrollments", world.course.id);
    for (index, time) in [
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "0001-01-01T00:00:00Z",
        "1582-10-10T12:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "2016-12-31T23:59:60Z",
        "2020-02-29T12:00:00.123456-11:30",
    ]
    .into_iter()
    .enumerate()
    {
        let user = format!("user{index}");
        let body = json!({"enrollments": [{"userId": user, "enrolledAt": time}]});
        let answer = world.lectern.service().post(&path, &body).await;
        if answer.status == StatusCode::BAD_REQUEST {
            assert_eq!(pointers(&refused(&answer, 400, "invalid_body")), ["/enrollments/0/enrolledAt"], "{time}");
            continue;
        }
        let stored = world.lectern.learner(&user).enrol(&world.course).await.expect(StatusCode::OK);
        let moment = |text: &str| DateTime::parse_from_rfc3339(text).expect("a moment").timestamp_micros();
        assert_eq!(stored["enrolledAt"].as_str().map(moment), Some(moment(time)), "{time} came back as {stored}");
    }
}

// ---- Sizes ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_body_of_five_megabytes_is_too_large_for_the_function() {
    let world = World::new().await;
    let before = world.contents().await;
    for route in &world.body_routes() {
        let mut body = route.good.to_string().into_bytes();
        body.resize(5_000_000, b' ');
        refused(&route.send(body).await, 413, "request_too_large");
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn a_body_of_more_than_ten_megabytes_does_not_pass_the_gateway() {
    let world = World::new().await;
    let before = world.contents().await;
    for route in &world.body_routes() {
        let answer = route.send(vec![b' '; 10 * 1024 * 1024 + 1]).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", route.name);
        assert_eq!(answer.text, r#"{"message":"Request Entity Too Large"}"#);
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn the_largest_body_has_four_mebibytes_to_the_byte() {
    let world = World::new().await;
    let teacher = world.lectern.teacher("ada");
    let before = world.contents().await;
    refused(&teacher.create(&course_of_bytes(LIMIT + 1, 2, "x")).await, 413, "request_too_large");
    assert_eq!(world.contents().await, before);
    teacher.create(&course_of_bytes(LIMIT, 2, "x")).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_section_that_no_answer_could_hold_is_refused_before_it_is_written() {
    let world = World::new().await;
    let teacher = world.lectern.teacher("ada");
    let before = world.contents().await;
    for text in ["x", ESCAPED] {
        refused(&teacher.create(&course_of_bytes(LIMIT, 1, text)).await, 413, "answer_too_large");
    }
    assert_eq!(world.contents().await, before);
    for text in ["x", ESCAPED] {
        let course = teacher.create(&course_of_bytes(LIMIT - 10_000, 1, text)).await.expect(StatusCode::CREATED);
        let section = &Course::of(&course).sections[0];
        teacher.get(&format!("/sections/{section}")).await.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn a_course_whose_outline_no_answer_could_hold_is_refused_before_it_is_written() {
    let world = World::new().await;
    let before = world.contents().await;
    for (count, title) in [(36_000, "s".to_owned()), (2_010, ESCAPED.repeat(250))] {
        let section = |order: i32| json!({"title": title, "content": "", "type": "t", "order": order});
        let mut body = course_body("Wide", &[0], true);
        body["lessons"][0]["sections"] = (1..=count).map(section).collect();
        assert!(body.to_string().len() < LIMIT);
        refused(&world.lectern.teacher("ada").create(&body).await, 413, "answer_too_large");
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn what_was_small_enough_is_not_too_large_when_it_is_described_at_more_length() {
    let world = World::new().await;
    let teacher = world.lectern.teacher("ada");
    // Six bytes in JSON for each character.
    let long = |characters: usize| "\u{1}".repeat(characters);
    let url = format!("https://example.org/{}", "\"".repeat(1_980));
    let described =
        json!({"title": long(499) + "x", "description": long(20_000), "imageUrl": url, "status": "published"});

    let section = |order: i32| json!({"title": "x".repeat(471), "content": "", "type": "t", "order": order});
    let sections = |count: i32| (1..=count).map(section).collect::<Value>();
    let mut wide = course_body("Wide", &[0], false);
    wide["lessons"][0]["sections"] = sections(6_500);
    let id = Course::of(&teacher.create(&wide).await.expect(StatusCode::CREATED)).id;
    // As many more as there is room for.
    let mut more = 700;
    let answer = loop {
        let lesson = json!([{"title": "More", "order": 2, "sections": sections(more)}]);
        let answer = append(&teacher, &id, "key", &lesson).await;
        if answer.status != StatusCode::PAYLOAD_TOO_LARGE {
            break answer;
        }
        more -= 20;
    };
    answer.expect(StatusCode::CREATED);
    assert!(answer.text.len() > 4_040_000, "{more} leave room: {}", answer.text.len());
    let path = format!("/courses/{id}");
    teacher.patch(&path, 2, &described).await.expect(StatusCode::OK);
    world.lectern.anyone().get(&path).await.expect(StatusCode::OK);

    let deep = teacher.create(&course_of_bytes(LIMIT - 10_000, 1, "x")).await.expect(StatusCode::CREATED);
    let mut tree = json!({"lessons": deep["lessons"]});
    let renamed = &mut tree["lessons"][0]["sections"][0];
    (renamed["title"], renamed["type"]) = (json!(long(499) + "x"), json!(long(49) + "x"));
    put(&teacher, &Course::of(&deep).id, 1, &tree).await.expect(StatusCode::OK);
    teacher.get(&format!("/sections/{}", Course::of(&deep).sections[0])).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_body_of_more_values_than_a_route_can_use_is_too_large() {
    let world = World::new().await;
    let before = world.contents().await;
    for route in &world.body_routes() {
        let many = format!("[{}0]", "0,".repeat(1_000_000));
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        for body in [many, deep] {
            refused(&route.send(body).await, 413, "too_many_values");
        }
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn an_answer_that_lambda_has_to_escape_arrives_whole() {
    let world = World::new().await;
    let section = &world.course.sections[0];
    world
        .lectern
        .sql(&format!(
            "insert into courses (id, owner_id, title, description, difficulty, status, created_at, updated_at, published_at)
                select gen_random_uuid(), 'ada', 'Quotes', repeat('\"', 20000), 'beginner', 'published', now(), now(), now()
                from generate_series(1, 99);
            update sections set content = repeat('\"', 2000000) where id = '{section}'"
        ))
        .await;
    // Each has less than 4 MiB, and nearly twice as much once its quotes are escaped in Lambda's own JSON.
    let learner = world.lectern.learner("lena");
    let page = learner.get("/courses?limit=100").await.expect(StatusCode::OK);
    let courses = page["courses"].as_array().expect("courses").iter();
    let whole = courses.filter(|course| course["description"] == "\"".repeat(20_000)).count();
    assert_eq!(whole, 99);
    let content = learner.get(&format!("/sections/{section}")).await.expect(StatusCode::OK)["content"].clone();
    assert!(content == "\"".repeat(2_000_000), "the content is not whole");
}

#[tokio::test]
async fn the_largest_texts_and_numbers_fit_into_everything() {
    let lectern = Lectern::start().await;
    // Four bytes each and no two alike, so that no index can compress them.
    let long = |most: u32| {
        (0..most).filter_map(|index| char::from_u32(0x2_0000 + index * 7_919 % 0x9_0000)).collect::<String>()
    };
    let (user, key) = (long(255), "k".repeat(255));
    let teacher = lectern.teacher(&user);
    let mut body = course_body(&long(500), &[1], true);
    body["courseData"]["description"] = json!(long(20_000));
    body["courseData"]["imageUrl"] = json!(format!("https://{}", long(1_992)));
    body["courseData"]["estimatedHours"] = json!(10_000);
    body["lessons"][0]["title"] = json!(long(500));
    body["lessons"][0]["order"] = json!(1_000_000);
    body["lessons"][0]["sections"][0] =
        json!({"title": long(500), "content": "", "type": long(50), "order": 1_000_000, "duration": i32::MAX});
    let created = teacher.create_with_key(&key, &body).await.expect(StatusCode::CREATED);
    for field in ["title", "description", "imageUrl"] {
        assert_eq!(created[field], body["courseData"][field]);
    }
    assert_eq!(created["lessons"][0]["sections"][0]["type"], body["lessons"][0]["sections"][0]["type"]);
    let again = teacher.create_with_key(&key, &body).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (StatusCode::CREATED, "true"));
    let course = Course::of(&created);
    teacher.enrol(&course).await.expect(StatusCode::CREATED);
    let mut event = event(&course.sections[0], 86_400, true);
    event["userId"] = json!(user);
    teacher.record(&[event]).await.expect(StatusCode::OK);
    assert_eq!(teacher.summary(&course).await["totalTimeSpent"], 86_400);

    // A title is also the key of a cursor.
    lectern.course("ada", &[]).await;
    body["courseData"]["title"] = json!(format!("{}z", long(499)));
    teacher.create(&body).await.expect(StatusCode::CREATED);
    let mut path = "/courses?sort=title&limit=1".to_owned();
    let mut seen = 0;
    while !path.is_empty() {
        let page = lectern.anyone().get(&path).await.expect(StatusCode::OK);
        seen += 1;
        let next = page["nextCursor"].as_str();
        path = next.map(|cursor| format!("/courses?sort=title&limit=1&cursor={cursor}")).unwrap_or_default();
    }
    assert_eq!(seen, 3);
}

// ---- Headers and parameters -----------------------------------------------------------------------------------------

#[tokio::test]
async fn if_match_names_a_version_and_nothing_else() {
    let world = World::new().await;
    let before = world.contents().await;
    let (teacher, path) = (world.lectern.teacher("ada"), format!("/courses/{}", world.course.id));
    let change = json!({"title": "Changed"});
    let answer = Answer::of(teacher.request(Method::PATCH, &path).json(&change)).await;
    refused(&answer, 428, "if_match_required");
    for bad in [
        "",
        "*",
        "1",
        "v1",
        "\"1\"",
        "\"v\"",
        "\"v1",
        "W/\"v1\"",
        "\"v1\", \"v2\"",
        "\"v-1\"",
        "\"v+1\"",
        "\"v 1\"",
        "\"v1.0\"",
        "\"v9223372036854775808\"",
        "\"V1\"",
    ] {
        for method in [Method::PATCH, Method::DELETE] {
            let answer = Answer::of(teacher.request(method, &path).header("if-match", bad).json(&change)).await;
            assert_eq!(pointers(&refused(&answer, 400, "invalid_header")), ["If-Match"], "{bad}");
        }
    }
    for stale in ["\"v0\"", "\"v2\"", "\"v9223372036854775807\""] {
        for method in [Method::PATCH, Method::DELETE] {
            let answer = Answer::of(teacher.request(method, &path).header("if-match", stale).json(&change)).await;
            refused(&answer, 412, "stale_version");
        }
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn an_idempotency_key_is_short_and_visible() {
    let world = World::new().await;
    let before = world.contents().await;
    let body = course_body("Keys", &[1], true);
    let events = json!([{"sectionId": world.course.sections[0], "timeSpent": 1, "completed": false}]);
    let (teacher, learner) = (world.lectern.teacher("ada"), world.lectern.learner("lena"));
    let long = "k".repeat(256);
    for bad in [&b""[..], b"a b", b"a\tb", b"key\xe9", b"\xf0\x9f\xa6\x80", long.as_bytes()] {
        for (caller, path, body) in [(&teacher, "/courses", &body), (&learner, "/progress", &events)] {
            let key = HeaderValue::from_bytes(bad).expect("a header");
            let answer = Answer::of(caller.request(Method::POST, path).header("idempotency-key", key).json(body)).await;
            assert_eq!(pointers(&refused(&answer, 400, "invalid_header")), ["Idempotency-Key"], "{path} {bad:?}");
        }
    }
    let answer = teacher.post("/courses", &body).await;
    assert_eq!(pointers(&refused(&answer, 400, "invalid_header")), ["Idempotency-Key"]);
    let answer = learner.post("/progress", &events).await;
    assert_eq!(pointers(&refused(&answer, 400, "invalid_body")), ["/0/eventId"]);
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn a_parameter_that_a_list_cannot_use_is_refused_by_its_name() {
    let world = World::new().await;
    let teacher = world.lectern.teacher("ada");
    let roster = format!("/courses/{}/enrollments", world.course.id);
    for list in ["/courses", "/me/authored-courses", "/me/courses", &roster] {
        for bad in
            ["0", "-1", "%2B5", "101", "1.5", "1e1", "ten", "0x10", "%20", "1%00", "%ff", "99999999999999999999", "1,2"]
        {
            let answer = teacher.get(&format!("{list}?limit={bad}")).await;
            assert_eq!(pointers(&refused(&answer, 400, "invalid_parameter")), ["?limit"], "{list} {bad}");
        }
    }
    for (list, name, bad) in [
        ("/courses", "sort", "oldest"),
        ("/courses", "sort", "Newest"),
        ("/courses", "sort", "newest%00"),
        ("/courses", "sort", "title;drop%20table%20courses"),
        ("/courses", "difficulty", "hard"),
        ("/courses", "difficulty", "BEGINNER"),
        ("/courses", "difficulty", "beginner,advanced"),
        ("/courses", "difficulty", "'%20or%201=1--"),
        ("/me/authored-courses", "status", "deleted"),
        ("/me/authored-courses", "status", "draft%00"),
        (&roster, "status", "draft"),
        (&roster, "status", "'%20or%201=1--"),
        (&roster, "progress", "50"),
        (&roster, "progress", "1-25;drop%20table%20enrollments"),
    ] {
        let answer = teacher.get(&format!("{list}?{name}={bad}")).await;
        assert_eq!(pointers(&refused(&answer, 400, "invalid_parameter")), [format!("?{name}")], "{list} {bad}");
    }
}

#[tokio::test]
async fn a_cursor_serves_its_own_list_and_no_other() {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("ada");
    let mut rosters = <[String; 3]>::default();
    for _ in 0..2 {
        let course = lectern.course("ada", &[1]).await;
        teacher.enrol(&course).await.expect(StatusCode::CREATED);
        lectern.learner("lena").enrol(&course).await.expect(StatusCode::CREATED);
        rosters = ["", "&status=active", "&progress=0"]
            .map(|filter| format!("/courses/{}/enrollments?limit=1{filter}", course.id));
    }
    let lists = [
        "/courses?limit=1",
        "/courses?limit=1&sort=title",
        "/courses?limit=1&sort=popular",
        "/courses?limit=1&difficulty=beginner",
        "/courses?limit=1&difficulty=beginner&sort=title",
        "/me/authored-courses?limit=1",
        "/me/authored-courses?limit=1&status=published",
        "/me/courses?limit=1",
        &rosters[0],
        &rosters[1],
        &rosters[2],
    ];
    let mut cursors = Vec::new();
    for list in lists {
        let page = teacher.get(list).await.expect(StatusCode::OK);
        cursors.push(page["nextCursor"].as_str().expect("a second page").to_owned());
    }
    for (of, list) in lists.iter().enumerate() {
        for (from, cursor) in cursors.iter().enumerate() {
            let answer = teacher.get(&format!("{list}&cursor={cursor}")).await;
            if of == from {
                assert_eq!(answer.expect(StatusCode::OK)["nextCursor"], Value::Null);
            } else {
                assert_eq!(pointers(&refused(&answer, 400, "invalid_cursor")), ["?cursor"], "{list} {}", lists[from]);
            }
        }
    }
}

#[tokio::test]
async fn a_forged_cursor_is_refused_or_is_a_place_in_the_list() {
    let world = World::new().await;
    let teacher = world.lectern.teacher("ada");
    let id = Uuid::nil().to_string();
    let course = &world.course.id;
    let roster = format!("/courses/{course}/enrollments?");
    let names = ["*", "0"].map(|progress| format!("roster/{course}/*/{progress}"));
    let with_progress = format!("{roster}progress=0&");
    let lists = [
        ("/courses?", "newest/*"),
        ("/courses?sort=title&", "title/*"),
        ("/courses?sort=popular&", "popular/*"),
        ("/me/authored-courses?", "authored/*"),
        ("/me/courses?", "me/courses"),
        (&roster, &names[0]),
        (&with_progress, &names[1]),
    ];
    let keys = [
        json!(null),
        json!([]),
        json!({}),
        json!(true),
        json!("\0"),
        json!("'; drop table courses; --"),
        json!(1.5),
        json!(1e300),
        json!(0),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(i64::MIN / 100),
        json!(i64::MAX / 100),
    ];
    for (list, name) in lists {
        let mut texts: Vec<String> = ["@", "AAAA", "W10", "e30", "%00", "%ff", "null", "=", "W10=", "%2B%2F"]
            .into_iter()
            .map(str::to_owned)
            .collect();
        for forged in [
            json!([2, name]),
            json!([2, name, null, null]),
            json!([0, name, 0, id]),
            // As it was once.
            json!([1, name, 0, id]),
            json!([3, name, 0, id]),
            json!(["2", name, 0, id]),
            json!([2, [name], 0, id]),
            json!([2, name, 0, if name.starts_with("roster") { "\0" } else { "no-id" }]),
            json!([2, name, 0, 7]),
        ] {
            texts.push(base64url(forged.to_string().as_bytes()));
        }
        for text in texts {
            let answer = teacher.get(&format!("{list}cursor={text}")).await;
            assert_eq!(pointers(&refused(&answer, 400, "invalid_cursor")), ["?cursor"], "{list} {text}");
        }
        for key in &keys {
            let cursor = base64url(json!([2, name, key, id]).to_string().as_bytes());
            let answer = teacher.get(&format!("{list}cursor={cursor}")).await;
            if answer.status != StatusCode::OK {
                assert_eq!(pointers(&refused(&answer, 400, "invalid_cursor")), ["?cursor"], "{list} {key}");
            }
        }
    }
}

#[tokio::test]
async fn headers_that_nobody_asked_for_do_no_harm() {
    let world = World::new().await;
    let path = format!("/courses/{}", world.course.id);
    let plain = world.lectern.anyone().get(&path).await;
    let odd = |bytes: &[u8]| HeaderValue::from_bytes(bytes).expect("a header");
    for (name, value) in [
        ("x-name", odd(b"\xff\xfe")),
        ("x-name", odd("ünïcode".as_bytes())),
        ("accept-encoding", odd(b"gzip;q=x, \xff")),
        ("accept", odd(b"text/html")),
        ("cookie", odd(b"a=b; \xff")),
        ("x-forwarded-for", odd(b"' or 1=1")),
        ("x-forwarded-proto", odd(b"gopher:")),
        ("x-amzn-trace-id", odd(b"Root=0")),
        ("x-lectern-user", odd(b"root")),
        ("x-http-method-override", odd(b"DELETE")),
    ] {
        let answer = Answer::of(world.lectern.anyone().request(Method::GET, &path).header(name, value)).await;
        assert_eq!((answer.status, answer.text), (plain.status, plain.text.clone()), "{name}");
    }
}

#[tokio::test]
async fn no_byte_in_a_path_or_a_query_does_harm() {
    let world = World::new().await;
    let visitor = world.lectern.anyone();
    world.lectern.course("ada", &[]).await;
    for byte in 0..=255_u8 {
        let answer = visitor.get(&format!("/courses?limit=1&x%{byte:02x}=%{byte:02X}")).await;
        answer.expect(StatusCode::OK);
        let link = answer.header("link");
        let next = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\"")).expect("a link");
        let second = visitor.get(next).await.expect(StatusCode::OK);
        assert_eq!(
            (&second["courses"][0]["id"], &second["nextCursor"]),
            (&json!(world.course.id), &Value::Null),
            "{byte:02x}"
        );
        let answer = visitor.get(&format!("/courses/%{byte:02x}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{byte:02x}");
    }
    // However a cursor is written, the link to the next page has none but its own.
    for cursor in ["cursor", "cursor=", "%63ursor=", "cursor=&%63ursor"] {
        let answer = visitor.get(&format!("/courses?{cursor}&limit=1")).await;
        let next = answer.expect(StatusCode::OK)["nextCursor"].clone();
        let link = format!("</courses?limit=1&cursor={}>; rel=\"next\"", next.as_str().expect("a cursor"));
        assert_eq!(answer.header("link"), link, "{cursor}");
    }
}

// ---- Things that are not there --------------------------------------------------------------------------------------

#[tokio::test]
async fn an_id_that_names_nothing_is_not_found_on_any_route() {
    let world = World::new().await;
    let (lectern, before) = (&world.lectern, world.contents().await);
    let known = &world.course.id;
    let ids = [
        Uuid::now_v7().to_string(),
        Uuid::nil().to_string(),
        "1".to_owned(),
        "not-an-id".to_owned(),
        known.replace('-', ""),
        format!("%7B{known}%7D"),
        format!("urn:uuid:{known}"),
        format!("{known}%20"),
        format!("{known}%00"),
        format!("{known}'--"),
        "%00".to_owned(),
        "%ff".to_owned(),
        "%F0%9F%A6%80".to_owned(),
        "..%5C..%5Cetc".to_owned(),
        "x".repeat(2_000),
    ];
    let everything = lectern
        .token(&Grant { scope: Some("lectern/service".to_owned()), ..Grant::new("root", &["admin", "instructor"]) });
    let caller = lectern.bearer(&everything);
    let mut tried = 0;
    for route in routes().iter().filter(|route| names_a_thing(route)) {
        for id in &ids {
            let nowhere = Course { id: id.clone(), version: 1, lessons: vec![id.clone()], sections: vec![id.clone()] };
            let answer = Answer::of(ready(&caller, route, &nowhere)).await;
            refused(&answer, 404, not_found_code(route));
            tried += 1;
        }
    }
    assert!(tried > 0);
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn the_id_of_a_thing_of_another_kind_names_nothing() {
    let world = World::new().await;
    let before = world.contents().await;
    let admin = world.lectern.caller("root", &["admin", "instructor"]);
    let course = &world.course;
    let swapped = Course {
        id: course.sections[0].clone(),
        version: 1,
        lessons: vec![course.id.clone()],
        sections: vec![course.lessons[0].clone()],
    };
    for route in routes().iter().filter(|route| names_a_thing(route)) {
        refused(&Answer::of(ready(&admin, route, &swapped)).await, 404, not_found_code(route));
    }
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn a_route_that_does_not_exist_is_answered_by_the_gateway() {
    let world = World::new().await;
    let before = world.contents().await;
    let (admin, id) = (world.lectern.caller("root", &["admin", "instructor"]), &world.course.id);
    for (method, path) in [
        (Method::GET, "/nothing".to_owned()),
        (Method::GET, "/courses/".to_owned()),
        (Method::GET, "//courses".to_owned()),
        (Method::GET, "/Courses".to_owned()),
        (Method::GET, format!("/courses/{id}/")),
        (Method::GET, format!("/courses/{id}/enrollment/x")),
        (Method::GET, format!("/courses/{id}%2Fanalytics%2F")),
        (Method::HEAD, "/courses".to_owned()),
        (Method::PUT, format!("/courses/{id}")),
        (Method::POST, format!("/courses/{id}")),
        (Method::DELETE, "/courses".to_owned()),
        (Method::TRACE, "/courses".to_owned()),
        (Method::OPTIONS, "/courses".to_owned()),
    ] {
        let answer = Answer::of(admin.request(method.clone(), &path)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
        let body = if method == Method::HEAD { "" } else { r#"{"message":"Not Found"}"# };
        assert_eq!(answer.text, body, "{method} {path}");
    }
    assert_eq!(world.contents().await, before);
}

// ---- Courses of others ----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_draft_of_somebody_else_exists_on_no_route() {
    let world = World::new().await;
    let lectern = &world.lectern;
    let draft = lectern.teacher("ada").create(&course_body("Secret", &[2], false)).await.expect(StatusCode::CREATED);
    let draft = Course::of(&draft);
    let before = world.contents().await;
    let mut named = 0;
    for route in routes().iter().filter(|route| names_a_thing(route)) {
        named += 1;
        for stranger in [lectern.learner("lena"), lectern.teacher("eve"), lectern.service()] {
            let answer = Answer::of(ready(&stranger, route, &draft)).await;
            if route.key() == "POST /courses/{courseId}/enrollments" {
                // Only a service may call it at all, and it is told row by row.
                if answer.status == StatusCode::OK {
                    let results = answer.expect(StatusCode::OK)["results"].clone();
                    assert_eq!(results, json!([{"userId": "zoe", "status": "rejected", "code": "not_published"}]));
                } else {
                    refused(&answer, 403, "forbidden");
                }
                continue;
            }
            refused(&answer, 404, not_found_code(route));
        }
    }
    assert!(named > 0);
    for stranger in [lectern.learner("lena"), lectern.teacher("eve")] {
        let answer = stranger.record(&[event(&draft.sections[0], 1, true)]).await.expect(StatusCode::OK);
        assert_eq!(answer["results"][0]["code"], "unknown_section");
        let answer = stranger.get("/me/courses").await;
        assert!(!answer.text.contains(&draft.id), "{}", answer.text);
    }
    for list in ["/courses", "/courses?sort=title", "/courses?sort=popular", "/courses?difficulty=beginner"] {
        let answer = lectern.anyone().get(list).await;
        assert!(answer.text.contains(&world.course.id) && !answer.text.contains(&draft.id), "{}", answer.text);
    }
    let answer = lectern.teacher("eve").get("/me/authored-courses").await;
    assert!(!answer.text.contains(&draft.id), "{}", answer.text);
    assert_eq!(world.contents().await, before);
}

#[tokio::test]
async fn a_published_course_of_somebody_else_is_seen_and_not_touched() {
    let world = World::new().await;
    let (lectern, id) = (&world.lectern, &world.course.id);
    let before = world.contents().await;
    // An instructor, a service and a learner who is enrolled are all not its owner.
    for stranger in [lectern.teacher("eve"), lectern.service(), lectern.learner("lena")] {
        stranger.get(&format!("/me/courses/{id}")).await.expect(StatusCode::OK);
        let course = format!("/courses/{id}");
        for status in ["draft", "archived"] {
            refused(&stranger.patch(&course, 1, &json!({"status": status})).await, 403, "not_owner");
        }
        // Not even the version is told.
        refused(&stranger.patch(&course, 7, &json!({"title": "Mine"})).await, 403, "not_owner");
        refused(&stranger.delete(&course).await, 403, "not_owner");
        refused(&stranger.get(&format!("{course}/analytics")).await, 403, "not_owner");
        refused(&stranger.get(&format!("{course}/enrollments")).await, 403, "not_owner");
    }
    for stranger in [lectern.teacher("eve"), lectern.service()] {
        refused(&stranger.get(&format!("/sections/{}", world.course.sections[0])).await, 403, "not_enrolled");
        refused(&stranger.get(&format!("/courses/{id}/progress")).await, 404, "not_enrolled");
        refused(&stranger.get(&format!("/lessons/{}/progress", world.course.lessons[0])).await, 404, "not_enrolled");
        refused(&stranger.delete(&format!("/courses/{id}/progress")).await, 404, "not_enrolled");
    }
    assert_eq!(world.contents().await, before);
}

// ---- Texts ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn text_that_looks_like_code_is_text() {
    let world = World::new().await;
    let (lectern, nasty) = (&world.lectern, r#"'; drop table courses; -- " \ $1 {0} %s ${jndi:x} <script> 🦀"#);
    let mut body = course_body(nasty, &[1], true);
    body["courseData"]["description"] = json!(nasty);
    body["lessons"][0]["title"] = json!(nasty);
    for field in ["title", "content"] {
        body["lessons"][0]["sections"][0][field] = json!(nasty);
    }
    body["lessons"][0]["sections"][0]["type"] = json!("'; drop --");
    let created = lectern.teacher(nasty).create(&body).await.expect(StatusCode::CREATED);
    let course = Course::of(&created);
    assert_eq!((&created["title"], &created["lessons"][0]["title"]), (&json!(nasty), &json!(nasty)));
    // The learner's name goes into keys of the cache and into arrays of statements.
    let learner = lectern.learner(nasty);
    assert_eq!(learner.enrol(&course).await.expect(StatusCode::CREATED)["userId"], nasty);
    learner.record(&[event(&course.sections[0], 5, true)]).await.expect(StatusCode::OK);
    assert_eq!(learner.summary(&course).await["completionPercentage"], 100.0);
    let section = learner.get(&format!("/sections/{}", course.sections[0])).await.expect(StatusCode::OK);
    assert_eq!((&section["content"], &section["type"]), (&json!(nasty), &json!("'; drop --")));
    let answer = lectern
        .service()
        .post(&format!("/courses/{}/enrollments", world.course.id), &json!({"enrollments": [{"userId": nasty}]}))
        .await;
    assert_eq!(answer.expect(StatusCode::OK)["results"][0]["userId"], nasty);
}

// ---- What the tests stand on ----------------------------------------------------------------------------------------

/// The largest body there is.
const LIMIT: usize = 4 * 1024 * 1024;

/// What has two characters, and eight bytes as JSON.
const ESCAPED: &str = "\u{1}\"";

/// A course whose body has so many bytes, nearly all of them a text repeated in the contents of its sections.
fn course_of_bytes(size: usize, sections: usize, text: &str) -> Value {
    let mut body = course_body("Large", &[sections], false);
    let contents = |body: &mut Value, content: &str| {
        for section in body["lessons"][0]["sections"].as_array_mut().expect("sections") {
            section["content"] = json!(content);
        }
    };
    contents(&mut body, "");
    let room = (size - body.to_string().len()) / sections;
    contents(&mut body, &text.repeat(room / (json!(text).to_string().len() - 2)));
    let rest = size - body.to_string().len();
    body["courseData"]["title"] = json!(format!("Large{}", "!".repeat(rest)));
    assert_eq!(body.to_string().len(), size);
    body
}

/// A Lectern with a published course of ada's, in which lena is enrolled.
struct World {
    lectern: Lectern,
    course: Course,
}

impl World {
    async fn new() -> Self {
        let lectern = Lectern::start().await;
        let course = lectern.course("ada", &[2, 1]).await;
        lectern.learner("lena").enrol(&course).await.expect(StatusCode::CREATED);
        Self { lectern, course }
    }

    async fn contents(&self) -> String {
        contents(&self.lectern).await
    }

    /// Every route that takes a body, with somebody who may call it.
    fn body_routes(&self) -> Vec<BodyRoute<'_>> {
        let (lectern, course) = (&self.lectern, &self.course);
        let section =
            |index: usize| json!({"title": "S", "content": "C", "type": "text", "order": index, "duration": 60});
        let occurred = |seconds: i64| {
            let mut event = event(&course.sections[0], 1, false);
            event["occurredAt"] = json!(seconds_ago(seconds));
            event["userId"] = json!("lena");
            event
        };
        let mut known = section(2);
        known["id"] = json!(course.sections[2]);
        let title = Kind::Text { most: 500, blank: false };
        let description = Kind::Text { most: 20_000, blank: true };
        let content = Kind::Text { most: usize::MAX, blank: true };
        vec![
            BodyRoute {
                name: "POST /courses",
                caller: lectern.teacher("ada"),
                method: Method::POST,
                path: "/courses".to_owned(),
                headers: &[("idempotency-key", "bodies")],
                good: json!({
                    "courseData": {
                        "title": "T", "description": "D", "difficulty": "beginner", "imageUrl": "https://example.org/x",
                        "estimatedHours": 1.5, "isPublished": true,
                    },
                    "lessons": [
                        {"title": "L", "order": 1, "sections": []},
                        {"title": "L", "order": 2, "sections": [section(1), section(2)]},
                    ],
                }),
                fields: [
                    Field::required("/courseData", Kind::Object),
                    Field::required("/courseData/title", title),
                    Field::required("/courseData/description", description),
                    Field::required("/courseData/difficulty", Kind::Word),
                    Field::optional("/courseData/imageUrl", Kind::Url),
                    Field::optional("/courseData/estimatedHours", Kind::Number),
                    Field::optional("/courseData/isPublished", Kind::Boolean),
                    Field::required("/lessons/1/sections/1/content", content),
                ]
                .into_iter()
                .chain(tree_fields())
                .collect(),
            },
            BodyRoute {
                name: "PUT /courses/{courseId}/content",
                caller: lectern.teacher("ada"),
                method: Method::PUT,
                path: format!("/courses/{}/content", course.id),
                headers: &[("if-match", "\"v1\"")],
                good: json!({"lessons": [
                    {"title": "L", "order": 1, "sections": []},
                    {"id": course.lessons[1], "title": "L", "order": 2, "sections": [section(1), known]},
                ]}),
                fields: [
                    Field::optional("/lessons/1/id", Kind::Id),
                    Field::optional("/lessons/1/sections/1/id", Kind::Id),
                    Field::optional("/lessons/1/sections/1/content", content),
                ]
                .into_iter()
                .chain(tree_fields())
                .collect(),
            },
            BodyRoute {
                name: "POST /courses/{courseId}/lessons",
                caller: lectern.teacher("ada"),
                method: Method::POST,
                path: format!("/courses/{}/lessons", course.id),
                headers: &[("idempotency-key", "bodies")],
                good: json!({"lessons": [
                    {"title": "L", "order": 11, "sections": []},
                    {"title": "L", "order": 12, "sections": [section(1), section(2)]},
                ]}),
                fields: iter::once(Field::required("/lessons/1/sections/1/content", content))
                    .chain(tree_fields())
                    .collect(),
            },
            BodyRoute {
                name: "PATCH /courses/{courseId}",
                caller: lectern.teacher("ada"),
                method: Method::PATCH,
                path: format!("/courses/{}", course.id),
                headers: &[("if-match", "\"v1\"")],
                good: json!({
                    "title": "T", "description": "D", "difficulty": "beginner", "imageUrl": "https://example.org/x",
                    "estimatedHours": 1.5, "analyticsEnabled": true, "status": "published",
                }),
                fields: vec![
                    Field::kept("/title", title),
                    Field::kept("/description", description),
                    Field::kept("/difficulty", Kind::Word),
                    Field::optional("/imageUrl", Kind::Url),
                    Field::optional("/estimatedHours", Kind::Number),
                    Field::kept("/analyticsEnabled", Kind::Boolean),
                    Field::kept("/status", Kind::Word),
                ],
            },
            BodyRoute {
                name: "POST /courses/{courseId}/enrollments",
                caller: lectern.service(),
                method: Method::POST,
                path: format!("/courses/{}/enrollments", course.id),
                headers: &[],
                good: json!({"enrollments": [{"userId": "u1"}, {"userId": "u2", "enrolledAt": seconds_ago(60)}]}),
                fields: vec![
                    Field::required("/enrollments", Kind::List),
                    Field::item("/enrollments/1", Kind::Object),
                    Field::required("/enrollments/1/userId", Kind::User),
                    Field::optional("/enrollments/1/enrolledAt", Kind::Time),
                ],
            },
            BodyRoute {
                name: "POST /progress",
                caller: lectern.learner("lena"),
                method: Method::POST,
                path: "/progress".to_owned(),
                headers: &[],
                good: json!({"events": [occurred(30), occurred(20)]}),
                fields: vec![
                    Field::required("/events", Kind::List),
                    Field::item("/events/1", Kind::Object),
                    Field::required("/events/1/eventId", Kind::Id),
                    Field::required("/events/1/sectionId", Kind::Id),
                    Field::required("/events/1/timeSpent", Kind::Whole { least: 0, most: 86_400 }),
                    Field::required("/events/1/completed", Kind::Boolean),
                    Field::optional("/events/1/occurredAt", Kind::Time),
                    Field::optional("/events/1/userId", Kind::User),
                ],
            },
        ]
    }
}

/// What a tree's fields may be, whoever sends it; contents are a case of their own.
fn tree_fields() -> [Field; 10] {
    let title = Kind::Text { most: 500, blank: false };
    let order = Kind::Whole { least: 1, most: 1_000_000 };
    [
        Field::required("/lessons", Kind::List),
        Field::item("/lessons/1", Kind::Object),
        Field::required("/lessons/1/title", title),
        Field::required("/lessons/1/order", order),
        Field::required("/lessons/1/sections", Kind::List),
        Field::item("/lessons/1/sections/1", Kind::Object),
        Field::required("/lessons/1/sections/1/title", title),
        Field::required("/lessons/1/sections/1/type", Kind::Text { most: 50, blank: false }),
        Field::required("/lessons/1/sections/1/order", order),
        Field::optional("/lessons/1/sections/1/duration", Kind::Whole { least: 0, most: i32::MAX.into() }),
    ]
}

/// A route that takes a body, a body that it would take, and what the fields of that body may be.
struct BodyRoute<'a> {
    name: &'static str,
    caller: Caller<'a>,
    method: Method,
    path: String,
    headers: &'static [(&'static str, &'static str)],
    good: Value,
    fields: Vec<Field>,
}

impl BodyRoute<'_> {
    fn request(&self) -> RequestBuilder {
        let request = self.caller.request(self.method.clone(), &self.path);
        self.headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    }

    async fn send(&self, body: impl Into<reqwest::Body>) -> Answer {
        Answer::of(self.request().header("content-type", "application/json").body(body)).await
    }

    async fn send_json(&self, body: &Value) -> Answer {
        self.send(body.to_string()).await
    }

    /// The good body with one thing wrong each, and where.
    fn bad_bodies(&self) -> Vec<(&'static str, Value)> {
        let mut bodies = Vec::new();
        for field in &self.fields {
            for bad in field.bad_values() {
                let mut body = self.good.clone();
                *body.pointer_mut(field.pointer).expect("a place") = bad;
                bodies.push((field.pointer, body));
            }
            if field.required {
                let (parent, name) = field.pointer.rsplit_once('/').expect("a pointer");
                let mut body = self.good.clone();
                body.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object").remove(name);
                bodies.push((field.pointer, body));
            }
        }
        bodies
    }
}

/// A field of a body.
struct Field {
    pointer: &'static str,
    kind: Kind,
    required: bool,
    nullable: bool,
}

impl Field {
    fn required(pointer: &'static str, kind: Kind) -> Self {
        Self { pointer, kind, required: true, nullable: false }
    }

    /// May be absent or null.
    fn optional(pointer: &'static str, kind: Kind) -> Self {
        Self { pointer, kind, required: false, nullable: true }
    }

    /// May be absent, which keeps what is there.
    fn kept(pointer: &'static str, kind: Kind) -> Self {
        Self { pointer, kind, required: false, nullable: false }
    }

    /// An item of a list.
    fn item(pointer: &'static str, kind: Kind) -> Self {
        Self::kept(pointer, kind)
    }

    fn depth(&self) -> usize {
        self.pointer.matches('/').count()
    }

    fn bad_values(&self) -> Vec<Value> {
        let others = [json!(true), json!(7), json!(1.5), json!("word"), json!([]), json!({})];
        let mut bad: Vec<Value> = others.into_iter().filter(|value| !self.kind.is_of(value)).collect();
        if !self.nullable {
            bad.push(Value::Null);
        }
        bad.extend(self.kind.bad_values());
        bad
    }
}

/// What a field may be.
#[derive(Clone, Copy)]
enum Kind {
    Object,
    List,
    Boolean,
    Number,
    Whole { least: i64, most: i64 },
    Text { most: usize, blank: bool },
    User,
    Word,
    Url,
    Id,
    Time,
}

impl Kind {
    fn is_text(self) -> bool {
        matches!(self, Self::Text { .. } | Self::User | Self::Word | Self::Url | Self::Id | Self::Time)
    }

    /// Whether JSON itself would tell no difference.
    fn is_of(self, value: &Value) -> bool {
        match self {
            Self::Object => value.is_object(),
            Self::List => value.is_array(),
            Self::Boolean => value.is_boolean(),
            Self::Number => value.is_number(),
            Self::Whole { .. } => value.is_i64(),
            _ => value.is_string(),
        }
    }

    /// Values of the right type that cannot be used.
    fn bad_values(self) -> Vec<Value> {
        match self {
            Self::Object | Self::List | Self::Boolean => vec![],
            Self::Number => {
                vec![json!(-0.1), json!(-1), json!(10_000.1), json!(1e308), json!(i64::MIN), json!(u64::MAX)]
            }
            Self::Whole { least, most } => {
                vec![
                    json!(least - 1),
                    json!(most + 1),
                    json!(i64::MIN),
                    json!(i64::MAX),
                    json!(u64::MAX),
                    json!(1e300),
                    json!(2.5),
                ]
            }
            Self::Text { most, blank } => {
                let mut bad = vec![json!("\0"), json!("a\0b")];
                if !blank {
                    bad.extend([json!(""), json!(" "), json!("\t\r\n"), json!("\u{a0}\u{2003}\u{3000}")]);
                }
                if most < usize::MAX {
                    bad.extend([json!("x".repeat(most + 1)), json!("🦀".repeat(most + 1))]);
                }
                bad
            }
            Self::User => {
                let mut bad = Self::Text { most: 255, blank: true }.bad_values();
                bad.extend([json!(""), json!("a\nb"), json!("a\u{7f}"), json!("\u{85}a")]);
                bad
            }
            Self::Word => {
                vec![json!(""), json!("Beginner"), json!(" beginner"), json!("beginner\0"), json!("published ")]
            }
            Self::Url => vec![
                json!(""),
                json!("http://example.org/x"),
                json!("https://"),
                json!("https:///x"),
                json!("https://a b"),
                json!("https://a\0"),
                json!("//example.org"),
                json!("javascript:alert(1)//https://"),
                json!(" https://example.org"),
                json!(format!("https://{}", "x".repeat(2_000))),
            ],
            Self::Id => {
                let id = Uuid::now_v7();
                vec![
                    json!(""),
                    json!("1"),
                    json!(id.simple().to_string()),
                    json!(id.braced().to_string()),
                    json!(id.urn().to_string()),
                    json!(format!("{id} ")),
                    json!(format!("{id}\0")),
                ]
            }
            Self::Time => [
                "",
                "now",
                "2026-01-31",
                "2026-01-31T12:00:00",
                "2026-02-30T12:00:00Z",
                "2026-01-31T25:00:00Z",
                "2026-01-31T12:00:00Z\0",
                "2026-01-31T12:00:00+25:00",
                "20260131T120000Z",
                "1700000000",
                "+12026-01-31T12:00:00Z",
            ]
            .map(Value::from)
            .to_vec(),
        }
    }
}

/// Where a problem says that something is wrong, sorted.
fn pointers(problem: &Value) -> Vec<String> {
    let faults = problem["errors"].as_array().expect("faults").iter();
    let mut pointers: Vec<String> = faults
        .map(|fault| {
            assert!(fault["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{fault}");
            fault["pointer"].as_str().expect("a pointer").to_owned()
        })
        .collect();
    pointers.sort();
    pointers
}
