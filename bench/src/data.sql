-- A database as some years of use leave it, of the size that the settings bench.courses, bench.enrollments and
-- bench.learners say. Only for an empty, freshly migrated one.
--
-- * Courses have 6 to 14 lessons of 8 sections, 80 sections on average, each with 4 kB of text; one has 50 × 20.
-- * Courses are as popular as in life: the first one has a fifth of all enrollments, the next ones less and less.
-- * Learners enrol over a year, and learn for up to sixty days: most of them little, some a course to its end. On
--   average that makes twenty sections each.
-- * What occurred in the last 35 days still stands in the ledger.
--
-- All of it follows from the numbers alone, so that two databases of one size are the same but for the day.

-- Loaded in bulk: what foreign keys and triggers would see to holds by the way it is made.
set session_replication_role = replica;
set synchronous_commit = off;
set work_mem = '256MB';
set maintenance_work_mem = '512MB';
set jit = off;

create schema bench;

-- A UUIDv7 of a moment, the same for the same name.
create function bench.id(moment timestamptz, name text) returns uuid
language sql immutable
return (
    lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0')
    || '7' || substr(md5(name), 1, 3) || '8' || substr(md5(name), 4, 15)
)::uuid;

-- The `sub` of a learner.
create function bench.learner(number bigint) returns text
language sql immutable
return md5('learner ' || number)::uuid::text;

-- A number from 0 to 1, the same for the same name.
create function bench.chance(name text) returns double precision
language sql immutable
return ('x' || substr(md5(name), 1, 8))::bit(32)::bigint / 4294967296.0;

-- Texts of 4 kB that compress as prose does: of 900 words, which are as unevenly frequent as in a language.
create table bench.texts as
select text.number, substr(string_agg(word.text, ' ' order by place.number), 1, 4096) as text
from generate_series(0, 199) as text (number)
cross join generate_series(1, 900) as place (number)
cross join lateral (
    select substr(
        translate(md5('word ' || rank.number), '0123456789', 'ghijklmnop'),
        1, 2 + ('x' || substr(md5('length ' || rank.number), 1, 4))::bit(16)::integer % 9
    ) as text
    from (
        select floor(900 * power(bench.chance(text.number || '/' || place.number), 5)) as number
    ) as rank
) as word
group by text.number;
alter table bench.texts add primary key (number);

-- How many enrollments each course has: a fifth of all the first one, the others by their rank.
create table bench.courses as
with weights as (
    select number, case when number > 2 then power(number, -0.7) else 0 end as weight
    from generate_series(1, current_setting('bench.courses')::integer) as course (number)
)
select
    weights.number,
    bench.id(now() - interval '2 years' + make_interval(secs => weights.number * 3600), 'course ' || weights.number)
        as id,
    now() - interval '2 years' + make_interval(secs => weights.number * 3600) as created_at,
    case when weights.number = 2 then 50 else 6 + weights.number % 9 end as lesson_count,
    case when weights.number = 2 then 20 else 8 end as sections_a_lesson,
    case
        when weights.number = 1 then current_setting('bench.enrollments')::bigint / 5
        when weights.number = 2 then current_setting('bench.enrollments')::bigint / 300
        else floor(
            current_setting('bench.enrollments')::bigint * 0.8 * weights.weight / (select sum(weight) from weights)
        )::bigint
    end as enrollments
from weights;
alter table bench.courses add primary key (number);

insert into courses (
    id, owner_id, title, description, difficulty, estimated_hours, status, lesson_count, section_count, created_at,
    updated_at, published_at, words
)
select
    made.id, 'teacher-' || made.number % 100, made.title, made.description,
    (array['beginner', 'intermediate', 'advanced'])[1 + made.number % 3], 10 + made.number % 90, 'published',
    made.lesson_count, made.lesson_count * made.sections_a_lesson, made.created_at, made.created_at, made.created_at,
    course_words_v1(made.title, made.description)
from (
    select courses.*, initcap(substr(texts.text, 1, 40)) || ' ' || courses.number as title,
        substr(texts.text, 41, 300) as description
    from bench.courses
    join bench.texts on texts.number = courses.number % 200
) as made;

insert into lessons (id, course_id, title, position, created_at)
select
    bench.id(courses.created_at, 'lesson ' || courses.number || '/' || lesson.number), courses.id,
    'Lesson ' || lesson.number, lesson.number, courses.created_at
from bench.courses
cross join lateral generate_series(1, courses.lesson_count) as lesson (number)
order by courses.number, lesson.number;

-- The sections with their place in the whole course.
create table bench.sections as
select
    courses.number as course, (lesson.number - 1) * courses.sections_a_lesson + section.number as place,
    bench.id(courses.created_at, 'section ' || courses.number || '/' || lesson.number || '/' || section.number) as id,
    bench.id(courses.created_at, 'lesson ' || courses.number || '/' || lesson.number) as lesson_id,
    section.number as position
from bench.courses
cross join lateral generate_series(1, courses.lesson_count) as lesson (number)
cross join lateral generate_series(1, courses.sections_a_lesson) as section (number);
create unique index on bench.sections (course, place) include (id);

insert into sections (id, lesson_id, course_id, title, content, type, position, duration, created_at)
select
    sections.id, sections.lesson_id, courses.id, 'Section ' || sections.place,
    sections.place || ' ' || texts.text, (array['text', 'video', 'quiz'])[1 + sections.place % 3], sections.position,
    60 * (1 + sections.place % 20), courses.created_at
from bench.sections
join bench.courses on courses.number = sections.course
join bench.texts on texts.number = (sections.course * 31 + sections.place * 7) % 200
order by sections.course, sections.place;

-- Who is enrolled where, how many of the sections they have done, and when.
create unlogged table bench.enrollments as
select
    courses.number as course, courses.id as course_id,
    bench.learner((courses.number * 7919 + member.number) % current_setting('bench.learners')::bigint) as user_id,
    started.at as enrolled_at, least(started.at + interval '60 days', now()) - started.at as span,
    case
        when luck.done > 0.95 then courses.lesson_count * courses.sections_a_lesson
        else floor(courses.lesson_count * courses.sections_a_lesson * power(luck.done / 0.95, 4))::integer
    end as done
from bench.courses
cross join lateral generate_series(1, courses.enrollments) as member (number)
cross join lateral (
    select bench.chance('done ' || courses.number || '/' || member.number) as done,
        bench.chance('started ' || courses.number || '/' || member.number) as started
) as luck
cross join lateral (select now() - make_interval(secs => 365 * 86400 * luck.started) as at) as started;

insert into enrollments (
    user_id, course_id, enrolled_at, completed_at, last_activity_at, completed_sections, time_spent,
    last_section_id, next_section_id, resume_version, resume_xact
)
select
    enrollments.user_id, enrollments.course_id, enrollments.enrolled_at,
    case when enrollments.done = courses.lesson_count * courses.sections_a_lesson
        then enrollments.enrolled_at + enrollments.span end,
    case when enrollments.done > 0 then enrollments.enrolled_at + enrollments.span end,
    enrollments.done, enrollments.done * 300,
    -- As recording would have left them.
    last.id, next.id, 1, pg_current_xact_id()
from bench.enrollments
join bench.courses on courses.number = enrollments.course
left join bench.sections as last on last.course = enrollments.course and last.place = enrollments.done
left join bench.sections as next on next.course = enrollments.course and next.place = enrollments.done + 1
order by enrollments.user_id, enrollments.course_id;

insert into progress (user_id, course_id, section_id, time_spent, completed_at, first_at, last_at)
select
    enrollments.user_id, enrollments.course_id, sections.id, 300, moment.at, moment.at, moment.at
from bench.enrollments
cross join lateral generate_series(1, enrollments.done) as done (number)
join bench.sections on sections.course = enrollments.course and sections.place = done.number
cross join lateral (
    select enrollments.enrolled_at + enrollments.span * (done.number::double precision / enrollments.done) as at
) as moment
order by enrollments.user_id, enrollments.course_id, sections.id;

insert into progress_events (
    user_id, event_id, course_id, section_id, time_spent, completed, occurred_at, recorded_at, attempt
)
select
    progress.user_id,
    bench.id(progress.last_at, 'event ' || progress.user_id || progress.section_id),
    progress.course_id, progress.section_id, 300, true, progress.last_at, progress.last_at, 1
from progress
where progress.last_at > now() - interval '35 days'
order by 1, 2;

-- No figure is known yet. Triggers have not run, so completions are counted once.
select mend_section_completions_v1();
insert into course_changes (course_id) select id from courses;

update ledger_horizon set pruned_before = now() - interval '35 days';

drop table bench.enrollments;
drop table bench.texts;
set session_replication_role = origin;
