//! The cache changes nothing: what is read with it is what is read without it, at every step of a long random life.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use local::authorizer::Grant;
use reqwest::{
    Method, RequestBuilder, StatusCode,
    header::{ACCEPT_ENCODING, IF_NONE_MATCH},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    editing::tree_of,
    support::{Answer, Course, Lectern, course_body, environment, event},
};

const OK: StatusCode = StatusCode::OK;
/// Another life is lived with `LECTERN_TEST_SEED`.
const SEED: u64 = 4;
const STEPS: usize = 5_200;
/// More courses than this only make it less likely that two steps meet.
const MOST_COURSES: usize = 9;
const DIFFICULTIES: [&str; 3] = ["beginner", "intermediate", "advanced"];
/// The last steps that a failure tells.
const REMEMBERED: usize = 25;

/// Everybody who takes part. There are two of the name of alice: one of them is an admin and sees more.
const PEOPLE: [(&str, &[&str]); 6] = [
    ("alice", &[]),
    ("bob", &[]),
    ("teacher", &["instructor"]),
    ("other", &["instructor"]),
    ("alice", &["admin"]),
    ("root", &["admin"]),
];
const ANYONE: usize = PEOPLE.len();
const TEACHER: usize = 2;
const ROOT: usize = 5;

/// `SplitMix64`: the same numbers from the same seed on every machine, whatever becomes of any library.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }

    /// Whether something that happens once in so many times happens now.
    fn once_in(&mut self, times: usize) -> bool {
        self.roll(times) == 0
    }
}

/// What is cached, and with it everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    List,
    Outline,
    Summary,
    Uncached,
}

#[derive(Debug, Clone)]
struct Question {
    kind: Kind,
    who: usize,
    path: String,
}

struct Life {
    seed: u64,
    dice: Dice,
    /// All writes go through these.
    cached: [Lectern; 2],
    /// Only reads.
    plain: Lectern,
    tokens: Vec<String>,
    service: String,
    courses: Vec<Course>,
    /// What was asked lately: it is asked again, as people do.
    questions: VecDeque<Question>,
    /// Pages that lists have pointed at.
    pages: VecDeque<String>,
    etags: HashMap<String, String>,
    /// An event that may be sent again.
    sent: Option<(usize, Value)>,
    steps: VecDeque<String>,
    /// How often each kind was answered with which `X-Cache`.
    sources: HashMap<(Kind, String), usize>,
    statuses: HashMap<u16, usize>,
}

impl Life {
    async fn begin(seed: u64) -> Self {
        // What is compared are answers, not a busy machine's patience.
        let first = Lectern::start_with(|config| config.database_budget = Duration::from_secs(30)).await;
        let second = first.another().await;
        let config = first.app().config.clone();
        let plain = Lectern::start_with(|fresh| {
            *fresh = config;
            fresh.redis = None;
        })
        .await;
        // Made once, because to sign is slow.
        let tokens = PEOPLE.iter().map(|(user, groups)| first.token(&Grant::new(user, groups))).collect();
        let service = first.token(&Grant::service("loader"));
        let mut life = Self {
            seed,
            dice: Dice(seed),
            cached: [first, second],
            plain,
            tokens,
            service,
            courses: Vec::new(),
            questions: VecDeque::new(),
            pages: VecDeque::new(),
            etags: HashMap::new(),
            sent: None,
            steps: VecDeque::new(),
            sources: HashMap::new(),
            statuses: HashMap::new(),
        };
        for _ in 0..3 {
            life.create().await;
        }
        life
    }

    /// Where it happened, for whoever has to find out why.
    fn place(&self) -> String {
        let steps: Vec<_> = self.steps.iter().map(String::as_str).collect();
        format!("LECTERN_TEST_SEED={}; the last steps:\n{}", self.seed, steps.join("\n"))
    }

    fn note(&mut self, step: String) {
        if self.steps.len() == REMEMBERED {
            self.steps.pop_front();
        }
        self.steps.push_back(step);
    }

    fn request(&self, lectern: &Lectern, who: usize, method: Method, path: &str) -> RequestBuilder {
        match self.tokens.get(who) {
            Some(token) => lectern.bearer(token).request(method, path),
            None => lectern.anyone().request(method, path),
        }
    }

    /// A course that exists, mostly one of the newest.
    fn course(&mut self) -> Course {
        let hot = self.courses.len().min(3);
        let back = if self.dice.once_in(4) { self.dice.roll(self.courses.len()) } else { self.dice.roll(hot) };
        self.courses[self.courses.len() - 1 - back].clone()
    }

    async fn write(&mut self) {
        let who = self.dice.roll(PEOPLE.len());
        let course = self.course();
        let path = format!("/courses/{}", course.id);
        match self.dice.roll(100) {
            0..36 => self.record(who, &course).await,
            36..52 => self.send(who, Method::PUT, &format!("{path}/enrollment"), None).await,
            52..60 => self.send(who, Method::DELETE, &format!("{path}/enrollment"), None).await,
            60..66 => self.send(who, Method::DELETE, &format!("{path}/progress"), None).await,
            66..86 => self.change(&course).await,
            86..88 => {
                let manager = self.manager();
                self.send(manager, Method::DELETE, &path, None).await;
            }
            88..90 if self.courses.len() < MOST_COURSES => self.create().await,
            90..95 => self.load_a_class(&course).await,
            _ => self.run().await,
        }
    }

    /// Sends a write to either environment. Whether it is refused is its own affair, but it must be judged.
    async fn send(&mut self, who: usize, method: Method, path: &str, body: Option<&Value>) {
        let environment = self.dice.roll(self.cached.len());
        let request = self.request(&self.cached[environment], who, method.clone(), path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        self.answered(environment, who, &method, path, request).await;
    }

    async fn answered(
        &mut self,
        environment: usize,
        who: usize,
        method: &Method,
        path: &str,
        request: RequestBuilder,
    ) -> Answer {
        let answer = Answer::of(request).await;
        self.note(format!("{method} {path} as {who} in {environment}: {}", answer.status));
        let is_judged = !answer.status.is_server_error() && answer.status != StatusCode::ACCEPTED;
        assert!(is_judged, "{}\n{}", answer.text, self.place());
        answer
    }

    async fn record(&mut self, who: usize, course: &Course) {
        let again = self.sent.clone().filter(|_| self.dice.once_in(6));
        let (who, event) = again.unwrap_or_else(|| {
            let section = course.sections[self.dice.roll(course.sections.len())].as_str();
            (who, event(section, self.dice.roll(100) as u32, self.dice.once_in(2)))
        });
        self.send(who, Method::POST, "/progress", Some(&json!({ "events": [&event] }))).await;
        self.sent = Some((who, event));
    }

    /// Somebody who may change courses, mostly.
    fn manager(&mut self) -> usize {
        if self.dice.once_in(8) { self.dice.roll(PEOPLE.len()) } else { self.dice.pick(&[TEACHER, ROOT]) }
    }

    async fn change(&mut self, course: &Course) {
        let who = self.manager();
        let path = format!("/courses/{}", course.id);
        let known = Answer::of(self.request(&self.plain, ROOT, Method::GET, &format!("/me{path}"))).await;
        let known = known.expect(OK);
        // Sometimes somebody else was faster.
        let version = known["version"].as_i64().unwrap() - i64::from(self.dice.once_in(10));
        if self.dice.once_in(3) {
            return self.edit(who, course, &known, version).await;
        }
        let body = match self.dice.roll(10) {
            0..4 => json!({"title": format!("Title {}", self.dice.roll(1_000))}),
            4..6 => json!({"difficulty": self.dice.pick(&DIFFICULTIES)}),
            _ => json!({"status": self.dice.pick(&["published", "published", "published", "draft", "archived"])}),
        };
        let environment = self.dice.roll(self.cached.len());
        let request = self.request(&self.cached[environment], who, Method::PATCH, &path).json(&body);
        let request = request.header("if-match", format!("\"v{version}\""));
        self.answered(environment, who, &Method::PATCH, &path, request).await;
        self.note(format!("  with {body}"));
    }

    /// Gives the course another tree: a lesson with another name, a section less, or all that it began with.
    async fn edit(&mut self, who: usize, course: &Course, known: &Value, version: i64) {
        let mut tree = tree_of(known);
        let lessons = tree["lessons"].as_array_mut().unwrap();
        match self.dice.roll(3) {
            0 => lessons.iter_mut().for_each(|lesson| lesson["title"] = format!("Version {version}").into()),
            1 => lessons.iter_mut().for_each(|lesson| _ = lesson["sections"].as_array_mut().unwrap().pop()),
            _ => {
                let section = |(index, id)| json!({"id": id, "title": "S", "type": "text", "order": index + 1});
                let sections: Vec<Value> = course.sections.iter().enumerate().map(section).collect();
                tree = json!({"lessons": [{"id": course.lessons[0], "title": "L", "order": 1, "sections": sections}]});
            }
        }
        let path = format!("/courses/{}/content", course.id);
        let environment = self.dice.roll(self.cached.len());
        let request = self.request(&self.cached[environment], who, Method::PUT, &path).json(&tree);
        let request = request.header("if-match", format!("\"v{version}\""));
        self.answered(environment, who, &Method::PUT, &path, request).await;
    }

    async fn create(&mut self) {
        let is_published = !self.dice.once_in(3);
        let mut body = course_body(&format!("Course {}", self.courses.len()), &[2, 1], is_published);
        body["courseData"]["difficulty"] = self.dice.pick(&DIFFICULTIES).into();
        let environment = self.dice.roll(self.cached.len());
        let request = self.request(&self.cached[environment], TEACHER, Method::POST, "/courses").json(&body);
        let request = request.header("idempotency-key", Uuid::now_v7().to_string());
        let answer = self.answered(environment, TEACHER, &Method::POST, "/courses", request).await;
        self.courses.push(Course::of(&answer.expect(StatusCode::CREATED)));
    }

    async fn load_a_class(&mut self, course: &Course) {
        let environment = self.dice.roll(self.cached.len());
        let path = format!("/courses/{}/enrollments", course.id);
        let rows: Vec<Value> = ["alice", "bob", "carol"].iter().map(|user| json!({ "userId": user })).collect();
        let request = self.cached[environment].bearer(&self.service).request(Method::POST, &path);
        let request = request.json(&json!({ "enrollments": rows }));
        self.answered(environment, ANYONE, &Method::POST, &path, request).await;
    }

    /// What is done by the clock.
    async fn run(&mut self) {
        let function = self.dice.pick(&["refresh-analytics", "refresh-analytics", "replay-parked"]);
        let environment = self.dice.roll(self.cached.len());
        let answer = self.cached[environment].invoke(function, json!({})).await;
        self.note(format!("{function} in {environment}: {answer}"));
    }

    fn question(&mut self) -> Question {
        if !self.questions.is_empty() && !self.dice.once_in(3) {
            let again = self.dice.roll(self.questions.len());
            return self.questions[again].clone();
        }
        let course = self.course();
        let (kind, path) = match self.dice.roll(20) {
            0..2 => (Kind::List, "/courses".to_owned()),
            2..5 => (Kind::List, self.list()),
            5..7 => match self.dice.roll(self.pages.len().max(1)) {
                page if page < self.pages.len() => (Kind::List, self.pages[page].clone()),
                _ => (Kind::List, "/courses?limit=1".to_owned()),
            },
            7..12 => (Kind::Outline, format!("/courses/{}", course.id)),
            12..18 => (Kind::Summary, format!("/courses/{}/progress", course.id)),
            18 => (Kind::Uncached, format!("/me/courses/{}", course.id)),
            _ => {
                (Kind::Uncached, self.dice.pick(&["/me/courses", "/courses?sort=none", "/courses?cursor=x"]).to_owned())
            }
        };
        let who = match kind {
            Kind::List | Kind::Outline => self.dice.pick(&[ANYONE, ANYONE, 0, TEACHER, ROOT]),
            Kind::Summary | Kind::Uncached => self.dice.roll(PEOPLE.len()),
        };
        let question = Question { kind, who, path };
        if self.questions.len() == 8 {
            self.questions.pop_front();
        }
        self.questions.push_back(question.clone());
        question
    }

    fn list(&mut self) -> String {
        let sort = self.dice.pick(&["newest", "title", "popular"]);
        let filter =
            if self.dice.once_in(2) { String::new() } else { format!("&difficulty={}", self.dice.pick(&DIFFICULTIES)) };
        format!("/courses?sort={sort}&limit={}{filter}", self.dice.pick(&[1, 2, 20]))
    }

    /// Asks an environment with the cache and the one without.
    async fn read(&mut self) {
        let question = self.question();
        let Question { kind, who, path } = &question;
        let environment = self.dice.roll(self.cached.len());
        let is_packed = self.dice.once_in(4);
        let known = if self.dice.once_in(3) { self.etags.get(path).cloned() } else { None };
        let ask = |lectern: &Lectern| {
            let mut request = self.request(lectern, *who, Method::GET, path);
            if is_packed {
                request = request.header(ACCEPT_ENCODING, "gzip");
            }
            if let Some(known) = &known {
                request = request.header(IF_NONE_MATCH, known);
            }
            Answer::of(request)
        };
        let (with, without) = tokio::join!(ask(&self.cached[environment]), ask(&self.plain));
        let source = with.header("x-cache").to_owned();
        self.note(format!("GET {path} as {who} in {environment}: {} {source} ({known:?})", with.status));
        assert_eq!(shown(&with), shown(&without), "{}", self.place());
        *self.statuses.entry(with.status.as_u16()).or_default() += 1;
        if with.status == OK || with.status == StatusCode::NOT_MODIFIED {
            assert_eq!(without.header("x-cache"), "bypass", "{}", self.place());
            *self.sources.entry((*kind, source)).or_default() += 1;
            self.etags.insert(path.clone(), with.header("etag").to_owned());
        }
        if with.status == OK && !is_packed && *kind == Kind::List {
            self.turn_over(&with);
        }
    }

    /// Remembers the page behind one.
    fn turn_over(&mut self, page: &Answer) {
        let next = page.header("link").split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        let Some((next, _)) = next else { return };
        let path = next.find("/courses").map_or(next, |start| &next[start..]).to_owned();
        if !self.pages.contains(&path) {
            if self.pages.len() == 4 {
                self.pages.pop_front();
            }
            self.pages.push_back(path);
        }
    }

    fn count(&self, kind: Kind, source: &str) -> usize {
        self.sources.get(&(kind, source.to_owned())).copied().unwrap_or_default()
    }
}

/// All of an answer that a client acts on. The id of a request is its own.
fn shown(answer: &Answer) -> (StatusCode, [String; 5], String) {
    let headers = ["etag", "link", "cache-control", "content-type", "content-encoding"];
    let mut body = answer.text.clone();
    if answer.status.is_client_error() {
        let mut problem: Value = serde_json::from_str(&body).unwrap();
        problem.as_object_mut().unwrap().remove("requestId");
        body = problem.to_string();
    }
    (answer.status, headers.map(|name| answer.header(name).to_owned()), body)
}

#[tokio::test]
async fn whatever_is_written_reads_are_the_same_with_the_cache_and_without_it() {
    let seed = environment("LECTERN_TEST_SEED").map_or(SEED, |seed| seed.parse().expect("a number"));
    let mut life = Life::begin(seed).await;
    for _ in 0..STEPS {
        if life.dice.once_in(7) { life.write().await } else { life.read().await }
    }
    // It was the cache that answered, and not only once: much was read, voided and read again.
    for kind in [Kind::List, Kind::Outline, Kind::Summary] {
        let (hits, misses) = (life.count(kind, "hit"), life.count(kind, "miss"));
        assert!(hits > misses && misses > 50, "{kind:?}: {hits} hits, {misses} misses; {}", life.place());
    }
    for status in [200, 304, 400, 404] {
        assert!(life.statuses.get(&status).is_some_and(|count| *count > 20), "{:?}; {}", life.statuses, life.place());
    }
    assert_eq!(life.plain.drift().await, 0);
}
