//! The measurements: rounds in which each call stands beside its floors.

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::Value;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::{
    Fallible, Servers,
    calls::{AUTHOR, Call, Facts, VARIANTS, Work},
    failed,
    journey::{self, Step},
    pgbench::{self, Pgbench, Script, new_ids, renewed},
    recorder::{Recorder, Sent},
    runtime::Function,
    sample::{Rounds, percentile},
    say,
    scale::{self, Scale},
    table,
};

/// So many rounds, in each of which every call is measured once.
const ROUNDS: usize = 11;
/// The same of what takes seconds, and of starts.
const SLOW_ROUNDS: usize = 7;
/// So many requests of a round go to one function before it is another's turn.
const TURN: usize = 50;
/// Requests after which an environment's memory is looked at.
const LONG_LIFE: usize = 10_000;
/// One that PostgreSQL answers stands for all of those.
const LARGEST_READ: &str = "GET /me/courses/{courseId}";
/// The same for the largest batches.
const LONG_LIFE_OF_BATCHES: usize = 300;
/// Above so many courses nobody waits for all figures in one statement.
const MOST_NAIVE: u32 = 2_000;
/// How the table names what is compared between databases.
pub(crate) const REFRESH: &str = "refresh of 10 changed courses";
/// As `REFRESH` says.
const CHANGED: i64 = 10;

/// A course summary without stored counts, as one would write it: the sections and their progress, counted at each read.
const COUNTED_SUMMARY: &str = "select
        courses.id, courses.title, count(distinct sections.id) as total_sections,
        count(distinct progress.section_id) as completed_sections,
        coalesce(sum(progress.time_spent), 0) as total_time_spent,
        round(count(distinct progress.section_id)::decimal / count(distinct sections.id) * 100, 2)
    from courses
    join lessons on lessons.course_id = courses.id
    join sections on sections.lesson_id = lessons.id
    left join progress on progress.section_id = sections.id and progress.course_id = courses.id
        and progress.user_id = $2
    where courses.id = $1
    group by courses.id, courses.title";

/// All figures of all courses, computed from progress as if nothing had been kept.
const NAIVE_REFRESH: &str = "select courses.id, count(standings.user_id), count(standings.completed_at),
        count(*) filter (where standings.last_at > now() - interval '30 days'),
        avg(extract(epoch from standings.completed_at - standings.enrolled_at)),
        percentile_cont(array[0.25, 0.5, 0.75]) within group (
            order by extract(epoch from standings.completed_at - standings.enrolled_at)),
        avg(standings.time_spent) filter (where standings.completed_at is not null)
    from courses
    left join (
        select enrollments.course_id, enrollments.user_id, enrollments.enrolled_at, max(progress.last_at) as last_at,
            sum(progress.time_spent) as time_spent,
            case when count(progress.completed_at) = sections.count then max(progress.completed_at) end as completed_at
        from enrollments
        join (select course_id, count(*) as count from sections group by course_id) as sections
            on sections.course_id = enrollments.course_id
        left join progress on progress.user_id = enrollments.user_id and progress.course_id = enrollments.course_id
        where enrollments.status <> 'cancelled'
        group by enrollments.course_id, enrollments.user_id, enrollments.enrolled_at, sections.count
    ) as standings on standings.course_id = courses.id
    group by courses.id";

/// What is written about the course of 1 000 sections, as it is before the first run: sections done for the first time
/// cost more than the same ones again.
const KEEP: &str = "
    create table if not exists bench.kept_at as select clock_timestamp() as moment;
    create table if not exists bench.kept_enrollments as
        select enrollments.* from enrollments join bench.courses on courses.id = course_id where number = 2;
    create table if not exists bench.kept_progress as
        select progress.* from progress join bench.courses on courses.id = course_id where number = 2";

/// The same as it was, and nobody new anywhere.
const RESTORE: &str = "
    delete from progress where course_id = (select id from bench.courses where number = 2);
    delete from enrollments where enrolled_at > (select moment from bench.kept_at);
    delete from progress_events where recorded_at > (select moment from bench.kept_at);
    delete from enrollments where course_id = (select id from bench.courses where number = 2);
    insert into enrollments select * from bench.kept_enrollments;
    insert into progress select * from bench.kept_progress";

/// What was measured of one call.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// The call's name.
    pub(crate) name: String,
    /// As the table names it.
    pub(crate) title: String,
    /// Whether Redis answered.
    pub(crate) cached: bool,
    /// The kind of work, which decides on the limit.
    pub(crate) is_write: bool,
    /// Milliseconds of each round: the function's median and 99th percentile, the empty function's median, the floor's.
    pub(crate) handler: Rounds,
    /// The 99th percentile.
    pub(crate) worst: Rounds,
    /// The empty function.
    pub(crate) empty: Rounds,
    /// The same statement under pgbench, or the same bytes out of Redis.
    pub(crate) floor: Rounds,
    /// The same statement by our own driver, prepared by name.
    pub(crate) prepared: Rounds,
    /// Of each round, (function − empty function) ÷ floor; cached: processor time ÷ that of the floor.
    pub(crate) ratio: Rounds,
    /// Processor time of one invocation, in microseconds.
    pub(crate) cpu: Rounds,
    /// Processor time of the floor, where it is a function too.
    pub(crate) floor_cpu: Rounds,
    /// Megabytes.
    pub(crate) resident: f64,
}

/// All that was measured on one database.
pub(crate) struct Report {
    /// Of which size.
    pub(crate) scale: Scale,
    /// Call by call.
    pub(crate) calls: Vec<Measured>,
    /// Calls that have no floor.
    pub(crate) journey: Vec<(&'static str, Step)>,
    /// Other ratios with their limits.
    pub(crate) others: Vec<(String, Rounds, f64)>,
    /// Milliseconds of work that follows a schedule.
    pub(crate) scheduled: Vec<(String, Rounds)>,
    /// Megabytes after a long life: what, how much, the limit.
    pub(crate) memory: Vec<(String, f64, f64)>,
    /// Milliseconds from the start to the first `/next`, and to the first answer.
    pub(crate) starts: Vec<(String, Rounds, Rounds)>,
}

/// Measures on each of the databases and prints the table.
pub(crate) async fn run(servers: &Servers, scales: &[Scale]) -> Fallible<()> {
    let mut reports = Vec::new();
    for scale in scales {
        reports.push(Bench::on(servers, *scale).await?.measure().await?);
    }
    table::print(&reports);
    Ok(())
}

/// The database of one scale, and all that is measured with.
pub(crate) struct Bench {
    servers: Servers,
    scale: Scale,
    /// The database.
    pub(crate) url: String,
    pub(crate) client: Client,
    pgbench: Pgbench,
    /// What is in it.
    pub(crate) facts: Facts,
    /// Where the functions lie.
    pub(crate) programs: PathBuf,
}

impl Bench {
    /// On the database of a scale, which is filled if it has to be.
    pub(crate) async fn on(servers: &Servers, scale: Scale) -> Fallible<Self> {
        let server = servers.database.as_str();
        if !scale::is_filled(server, scale).await? {
            say(&format!("filling {}", scale.database()));
            scale::fill(server, scale).await?;
        }
        let url = scale::sibling(server, &scale.database());
        scale::migrate(&url).await?;
        Self::new(servers, scale, url).await
    }

    async fn new(servers: &Servers, scale: Scale, url: String) -> Fallible<Self> {
        let client = scale::connect(&url).await?;
        let programs = std::env::current_exe()?;
        let programs = programs.parent().ok_or_else(|| failed("this program is nowhere"))?.to_owned();
        let (pgbench, facts) = (Pgbench::find(&url).await?, Facts::of(&client).await?);
        let mut bench = Self { servers: servers.clone(), scale, url, client, pgbench, facts, programs };
        bench.client.batch_execute(KEEP).await?;
        bench.clean_up().await?;
        bench.refresh_all().await?;
        bench.find_last_page().await?;
        Ok(bench)
    }

    async fn measure(&self) -> Fallible<Report> {
        let mut report = Report {
            scale: self.scale,
            calls: Vec::new(),
            journey: Vec::new(),
            others: Vec::new(),
            scheduled: Vec::new(),
            memory: Vec::new(),
            starts: Vec::new(),
        };
        let calls = self.facts.calls()?;
        let mut subjects = Vec::new();
        for call in &calls {
            subjects.push(Subject::prepare(self, call).await?);
            report.calls.push(Measured {
                name: call.name.clone(),
                title: call.title(),
                cached: call.cached,
                is_write: !matches!(call.work, Work::Read(_)),
                ..Measured::default()
            });
        }
        let mut empty = self.start("empty", &[]).await?;
        let mut counted = Rounds::default();
        for round in 0..ROUNDS {
            say(&format!("{}: round {} of {ROUNDS}", self.scale.database(), round + 1));
            for (subject, measured) in subjects.iter_mut().zip(&mut report.calls) {
                let round = subject.round(self, &mut empty, measured).await;
                round.map_err(|error| failed(format!("{}: {error}", measured.name)))?;
            }
            let summary =
                report.calls.iter().find(|call| call.name == "GET /courses/{courseId}/progress" && !call.cached);
            if let Some(summary) = summary.and_then(|call| call.handler.0.last().zip(call.empty.0.last())) {
                counted.0.push((summary.0 - summary.1) / self.counted_summary().await?);
            }
        }
        for (subject, measured) in subjects.iter().zip(&mut report.calls) {
            measured.resident = subject.function.resident()? as f64 / 1e6;
        }
        drop(subjects);
        report.others.push(("course summary ÷ counting it at each read".to_owned(), counted, 1.0));
        if let (Some(first), Some(last)) = (
            report.calls.iter().find(|call| call.name == "GET /courses" && !call.cached),
            report.calls.iter().find(|call| call.name == "GET /courses, last page"),
        ) {
            let ratio = first.handler.0.iter().zip(&last.handler.0).map(|(first, last)| last / first);
            report.others.push(("last list page ÷ first".to_owned(), Rounds(ratio.collect()), 1.1));
        }
        let (refresh, naive) = self.refresh().await?;
        let ratio = refresh.0.iter().zip(&naive.0).map(|(refresh, naive)| refresh / naive).collect();
        report.others.push((format!("{REFRESH} ÷ full naive recomputation"), Rounds(ratio), 1.0 / 200.0));
        report.scheduled.push((REFRESH.to_owned(), refresh));
        report.scheduled.push(("all figures from progress, in one statement".to_owned(), naive));
        report.scheduled.push((
            "refresh of the largest course, of whose window somebody falls out".to_owned(),
            self.expiry().await?,
        ));
        report.scheduled.push(("reconcile".to_owned(), self.reconcile().await?));
        report.memory = self.long_lives(&calls).await?;
        report.starts = self.starts(&calls).await?;
        report.journey = journey::measure(self).await?;
        self.clean_up().await?;
        Ok(report)
    }

    /// Starts a program on its database.
    pub(crate) async fn start(&self, program: &str, more: &[(&str, &str)]) -> Fallible<Function> {
        let environment: Vec<_> =
            [("DATABASE_URL", self.url.as_str())].into_iter().chain(more.iter().copied()).collect();
        Function::start(&[], &self.programs.join(program), &environment).await
    }

    async fn start_for(&self, call: &Call, url: &str) -> Fallible<Function> {
        Function::start(&[], &self.programs.join(call.function), &self.environment(call, url)).await
    }

    /// The settings of a call's function: with a cache only where that is to answer.
    pub(crate) fn environment<'a>(&'a self, call: &Call, url: &'a str) -> Vec<(&'static str, &'a str)> {
        let redis = call.cached.then_some(("REDIS_URL", self.servers.redis.as_str()));
        [("DATABASE_URL", url)].into_iter().chain(redis).collect()
    }

    /// The settings of a function that parks progress, or looks for what is parked.
    pub(crate) fn parking(&self) -> [(&'static str, &str); 2] {
        [("AWS_ENDPOINT_URL_DYNAMODB", &self.servers.dynamodb), ("PARKING_TABLE", &self.servers.parking_table)]
    }

    /// What earlier runs have left.
    async fn clean_up(&self) -> Fallible<()> {
        let tables = self
            .client
            .query("select tablename from pg_tables where schemaname = 'bench' and tablename like 'replay%'", &[]);
        for row in tables.await? {
            self.client.batch_execute(&format!("drop table bench.{}", row.try_get::<_, &str>(0)?)).await?;
        }
        let ours = format!("(select id from courses where owner_id = '{AUTHOR}')");
        // Before those are gone who made it.
        self.client.batch_execute(&format!("delete from progress where course_id in {ours}")).await?;
        // A large course takes minutes; where nobody has written, nothing is to be done.
        let written = "select exists (select from progress_events where recorded_at > kept_at.moment)
                or exists (select from enrollments where enrolled_at > kept_at.moment)
            from bench.kept_at";
        if self.client.query_one(written, &[]).await?.try_get(0)? {
            self.client.batch_execute(RESTORE).await?;
        }
        for table in [
            "course_creation_answers",
            "course_creations",
            "course_analytics",
            "course_changes",
            "course_edits",
            "course_recounts",
            "enrollments",
            "section_completions",
            "section_completion_changes",
            "sections",
            "lessons",
        ] {
            self.client.batch_execute(&format!("delete from {table} where course_id in {ours}")).await?;
        }
        self.client.batch_execute(&format!("delete from courses where owner_id = '{AUTHOR}'")).await?;
        self.client.batch_execute("vacuum analyze").await?;
        Ok(())
    }

    /// The figures as they are after the refreshes of a usual day: known, and nothing marked.
    async fn refresh_all(&self) -> Fallible<()> {
        let mut refresh = self.start("refresh-analytics", &[]).await?;
        loop {
            let answer = refresh.invoke(&Bytes::from_static(b"{}")).await?;
            let answer: Value = serde_json::from_slice(&answer.payload)?;
            if answer["remaining"] == 0 {
                break;
            }
            say(&format!("refreshing figures: {answer}"));
        }
        self.client.batch_execute("vacuum analyze course_analytics, course_changes, courses").await?;
        Ok(())
    }

    async fn find_last_page(&mut self) -> Fallible<()> {
        let mut list = self.start("list-courses", &[]).await?;
        let mut cursor: Option<String> = None;
        loop {
            let payload = list.invoke(&self.facts.list(cursor.as_deref())?).await?.payload;
            let body: Value =
                serde_json::from_str(serde_json::from_slice::<Value>(&payload)?["body"].as_str().unwrap_or_default())?;
            match body["nextCursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        self.facts.set_last_cursor(cursor.ok_or_else(|| failed("the catalogue has one page only"))?);
        Ok(())
    }

    async fn counted_summary(&self) -> Fallible<f64> {
        let statements: Vec<Sent> = self.facts.summaries(COUNTED_SUMMARY);
        let script = Script::replay(&self.client, &statements).await?;
        Ok(milliseconds(percentile(&self.pgbench.run(&script).await?, 0.5)))
    }

    /// The function, as its role has it.
    async fn refresher(&self) -> Fallible<Function> {
        let url = format!("{}?options=-c%20jit%3Doff%20-c%20work_mem%3D32MB", self.url);
        Function::start(&[], &self.programs.join("refresh-analytics"), &[("DATABASE_URL", &url)]).await
    }

    /// Milliseconds of a refresh of a few changed courses, and of computing all from the ground.
    async fn refresh(&self) -> Fallible<(Rounds, Rounds)> {
        let mut refresh = self.refresher().await?;
        let (mut few, mut all) = (Rounds::default(), Rounds::default());
        for _ in 0..SLOW_ROUNDS {
            let mark = format!(
                "insert into course_changes (course_id) select id from bench.courses
                where number > 2 order by md5(number || '{}') limit {CHANGED}",
                Uuid::now_v7()
            );
            let mut took = Vec::new();
            for _ in 0..5 {
                self.client.batch_execute(&mark).await?;
                took.push(refresh.invoke(&Bytes::from_static(b"{}")).await?.took);
            }
            few.0.push(milliseconds(percentile(&took, 0.5)));
            if self.scale.courses > MOST_NAIVE {
                continue;
            }
            let naive = self.pgbench.run(&Script::repeat(NAIVE_REFRESH, 1)).await?;
            all.0.push(milliseconds(percentile(&naive, 0.5)));
        }
        Ok((few, all))
    }

    /// Milliseconds of a refresh of the course with a fifth of all enrollments, which nobody has touched, an hour after
    /// its figures were computed.
    async fn expiry(&self) -> Fallible<Rounds> {
        let mut refresh = self.refresher().await?;
        let mut rounds = Rounds::default();
        for _ in 0..SLOW_ROUNDS {
            let due = "update course_analytics set due_at = now(), as_of = as_of - interval '1 hour'
                where course_id = (select id from bench.courses where number = 1)";
            self.client.batch_execute(due).await?;
            rounds.0.push(milliseconds(refresh.invoke(&Bytes::from_static(b"{}")).await?.took));
        }
        // What was taken off for an hour that had been taken off before.
        self.client
            .batch_execute("insert into course_changes (course_id) select id from bench.courses where number = 1")
            .await?;
        refresh.invoke(&Bytes::from_static(b"{}")).await?;
        Ok(rounds)
    }

    /// Milliseconds of computing everything again from the ground, in which nothing may differ.
    async fn reconcile(&self) -> Fallible<Rounds> {
        let mut refresh = self.refresher().await?;
        let answer = refresh.invoke(&Bytes::from_static(br#"{"mode": "reconcile"}"#)).await?;
        say(&format!("reconcile: {}", String::from_utf8_lossy(&answer.payload)));
        Ok(Rounds(vec![milliseconds(answer.took)]))
    }

    async fn long_lives(&self, calls: &[Call]) -> Fallible<Vec<(String, f64, f64)>> {
        let mut memory = Vec::new();
        for call in calls {
            let (times, limit) = match call.work {
                Work::Read(_) if call.cached || call.name == LARGEST_READ => (LONG_LIFE, 15.0),
                Work::Record(500) => (LONG_LIFE_OF_BATCHES, 40.0),
                Work::Create => (20, 40.0),
                _ => continue,
            };
            let mut function = self.start_for(call, &self.url).await?;
            for turn in 0..times {
                function.invoke(&self.facts.next(call, turn)?.0).await?;
            }
            memory.push((format!("{}, {times} requests", call.title()), function.resident()? as f64 / 1e6, limit));
        }
        Ok(memory)
    }

    async fn starts(&self, calls: &[Call]) -> Fallible<Vec<(String, Rounds, Rounds)>> {
        let mut starts: Vec<(String, Rounds, Rounds)> = Vec::new();
        for call in calls.iter().filter(|call| !call.cached) {
            if starts.iter().any(|(name, ..)| name == call.function) {
                continue;
            }
            let (mut ready, mut answered) = (Rounds::default(), Rounds::default());
            for turn in 0..SLOW_ROUNDS {
                let mut function = self.start_for(call, &self.url).await?;
                ready.0.push(milliseconds(function.started_in));
                let answer = function.invoke(&self.facts.next(call, turn)?.0).await?;
                answered.0.push(milliseconds(function.started_in + answer.took));
            }
            starts.push((call.function.to_owned(), ready, answered));
        }
        let mut ready = Rounds::default();
        for _ in 0..SLOW_ROUNDS {
            ready.0.push(milliseconds(self.start("empty", &[]).await?.started_in));
        }
        starts.insert(0, ("an empty function".to_owned(), ready, Rounds::default()));
        Ok(starts)
    }
}

/// A call with what it is compared with.
struct Subject<'a> {
    call: &'a Call,
    function: Function,
    recorded: Vec<Sent>,
    /// Ids and keys in what was recorded that a repetition must not use again; nothing for reads.
    used: Vec<Uuid>,
    floor: Option<Script>,
    prepared: Option<Statement>,
    cached_floor: Option<(Function, String, redis::Client)>,
    turn: usize,
}

impl<'a> Subject<'a> {
    async fn prepare(bench: &Bench, call: &'a Call) -> Fallible<Self> {
        let mut subject = Self {
            call,
            function: bench.start_for(call, &bench.url).await?,
            recorded: Vec::new(),
            used: Vec::new(),
            floor: None,
            prepared: None,
            cached_floor: None,
            turn: 0,
        };
        if call.cached {
            subject.prepare_cached(bench).await?;
            return Ok(subject);
        }
        // Once over a pipe that keeps a copy, and once more to see that a call is a single statement.
        let recorder = Recorder::of(host(&bench.url)).await?;
        let tapped = bench.url.replace(host(&bench.url), &recorder.address);
        let mut function = bench.start_for(call, &tapped).await?;
        let count = if matches!(call.work, Work::Read(_)) { VARIANTS } else { call.times };
        for turn in 0..count {
            let (event, used) = bench.facts.next(call, turn)?;
            expect_success(call, &function.invoke(&event).await?.payload)?;
            let mut sent = recorder.take();
            if sent.len() != 1 {
                return Err(failed(format!("{} takes {} statements", call.name, sent.len())));
            }
            subject.recorded.append(&mut sent);
            subject.used.extend(used);
        }
        if matches!(call.work, Work::Read(_)) {
            let all: Vec<Sent> = subject.recorded.iter().cycle().take(call.times).cloned().collect();
            subject.floor = Some(Script::replay(&bench.client, &all).await?);
            subject.prepared = Some(pgbench::prepare(&bench.client, &subject.recorded).await?);
        }
        Ok(subject)
    }

    /// A function that gets as many bytes from Redis as the answer has.
    async fn prepare_cached(&mut self, bench: &Bench) -> Fallible<()> {
        let mut size = 0;
        for turn in 0..VARIANTS {
            let answer = self.function.invoke(&bench.facts.next(self.call, turn)?.0).await?;
            expect_success(self.call, &answer.payload)?;
            let answer: Value = serde_json::from_slice(&answer.payload)?;
            size = answer["body"].as_str().unwrap_or_default().len();
        }
        let client = redis::Client::open(bench.servers.redis.as_str())?;
        let key = format!("floor:{}", self.call.name);
        let mut connection = client.get_connection()?;
        // Text as the answers are, quotes included, which have to be escaped on the way out.
        let text: String = "{\"id\":\"0192f1c4-8a00-7000-8000-000000000001\"},".chars().cycle().take(size).collect();
        redis::cmd("SET").arg(&key).arg(text).exec(&mut connection)?;
        let floor = bench.start("one_get", &[("REDIS_URL", &bench.servers.redis), ("FLOOR_KEY", &key)]).await?;
        self.cached_floor = Some((floor, key, client));
        Ok(())
    }

    async fn round(&mut self, bench: &Bench, empty: &mut Function, measured: &mut Measured) -> Fallible<()> {
        let mut events = Vec::new();
        for _ in 0..self.call.times {
            events.push(bench.facts.next(self.call, self.turn)?.0);
            self.turn = (self.turn + 1) % bench.facts.turns(self.call);
        }
        let (mut own, mut nothing, mut one_get) = (Series::default(), Series::default(), Series::default());
        // By turns, so that what else the machine does falls upon all of them.
        for events in events.chunks(TURN) {
            own.go_on(&mut self.function, events, Some(self.call)).await?;
            nothing.go_on(empty, events, None).await?;
            if let Some((floor, ..)) = &mut self.cached_floor {
                one_get.go_on(floor, events, None).await?;
            }
        }
        let (handler, empty) = (own.percentile(0.5), nothing.percentile(0.5));
        measured.handler.0.push(handler);
        measured.worst.0.push(own.percentile(0.99));
        measured.empty.0.push(empty);
        measured.cpu.0.push(own.cpu());
        if let Some((_, key, client)) = &self.cached_floor {
            measured.floor_cpu.0.push(one_get.cpu());
            measured.ratio.0.push(own.cpu() / one_get.cpu());
            measured.floor.0.push(milliseconds(bare_gets(client, key, self.call.times)?));
            return Ok(());
        }
        let fresh;
        let script = match &self.floor {
            Some(script) => script,
            None => {
                fresh = Script::replay(&bench.client, &self.renewed()).await?;
                &fresh
            }
        };
        let floor = milliseconds(percentile(&bench.pgbench.run(script).await?, 0.5));
        measured.floor.0.push(floor);
        if let Some(prepared) = &self.prepared {
            measured.prepared.0.push(milliseconds(percentile(&self.ask(bench, prepared).await?, 0.5)));
        }
        measured.ratio.0.push((handler - empty) / floor);
        Ok(())
    }

    /// What was recorded, by its name.
    async fn ask(&self, bench: &Bench, prepared: &Statement) -> Fallible<Vec<Duration>> {
        let mut took = Vec::new();
        for sent in self.recorded.iter().cycle().take(self.call.times) {
            let began = Instant::now();
            pgbench::run(&bench.client, prepared, sent).await?;
            took.push(began.elapsed());
        }
        Ok(took)
    }

    /// The recorded writes, about new things.
    fn renewed(&self) -> Vec<Sent> {
        let given: HashMap<Vec<u8>, Vec<u8>> = self
            .used
            .iter()
            .flat_map(|id| {
                let new = Uuid::now_v7();
                [
                    (id.as_bytes().to_vec(), new.as_bytes().to_vec()),
                    (id.to_string().into_bytes(), new.to_string().into_bytes()),
                ]
            })
            .collect();
        let renew = |sent: &Sent| match self.call.work {
            Work::Create => {
                let mut all = new_ids(sent);
                all.extend(given.clone());
                renewed(sent, &all)
            }
            _ => renewed(sent, &given),
        };
        self.recorded.iter().map(renew).collect()
    }
}

/// What one function took for the requests of a round.
#[derive(Default)]
pub(crate) struct Series {
    took: Vec<Duration>,
    used: Duration,
}

impl Series {
    async fn go_on(&mut self, function: &mut Function, events: &[Bytes], expected: Option<&Call>) -> Fallible<()> {
        let before = function.cpu()?;
        for event in events {
            let answer = function.invoke(event).await?;
            self.took.push(answer.took);
            if let Some(call) = expected {
                expect_success(call, &answer.payload)?;
            }
        }
        self.used += function.cpu()?.saturating_sub(before);
        Ok(())
    }

    /// The same with a single one, whose answer somebody wants.
    pub(crate) async fn one(&mut self, function: &mut Function, event: &Bytes) -> Fallible<Bytes> {
        let before = function.cpu()?;
        let answer = function.invoke(event).await?;
        self.took.push(answer.took);
        self.used += function.cpu()?.saturating_sub(before);
        Ok(answer.payload)
    }

    /// Milliseconds.
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        milliseconds(percentile(&self.took, part))
    }

    /// Microseconds of processor time for one.
    pub(crate) fn cpu(&self) -> f64 {
        self.used.as_secs_f64() * 1e6 / self.took.len() as f64
    }
}

/// Whether an answer is what the call is measured for.
pub(crate) fn expect_success(call: &Call, payload: &[u8]) -> Fallible<()> {
    // `statusCode` comes first, so a large body need not be read.
    let head = String::from_utf8_lossy(payload.get(..40).unwrap_or(payload)).into_owned();
    if head.starts_with("{\"statusCode\":20") { Ok(()) } else { Err(failed(format!("{} answers {head}", call.name))) }
}

/// Whether it came out of the cache.
pub(crate) fn is_hit(payload: &[u8]) -> bool {
    // The headers come before the body.
    String::from_utf8_lossy(payload.get(..600).unwrap_or(payload)).contains("\"x-cache\":\"hit\"")
}

/// The same bytes by a client that does nothing else.
fn bare_gets(client: &redis::Client, key: &str, times: usize) -> Fallible<Duration> {
    let mut connection = client.get_connection()?;
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        let _: Vec<u8> = redis::cmd("GET").arg(key).query(&mut connection)?;
        took.push(began.elapsed());
    }
    Ok(percentile(&took, 0.5))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn host(url: &str) -> &str {
    url.rsplit_once('@').and_then(|(_, rest)| rest.split_once('/')).map_or(url, |(host, _)| host)
}
