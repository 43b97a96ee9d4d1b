-- What came to the samples before while V12 was the latest migration: a batch of the scheduled recount.

select settle_standings_v1(
    '00000000-0000-7000-8000-0000000000c1',
    array(
        select enrollments.user_id from enrollments
        where enrollments.course_id = '00000000-0000-7000-8000-0000000000c1'
        order by enrollments.user_id
        for no key update
    )
);
