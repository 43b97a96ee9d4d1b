-- What the catalogue is searched by: the words of title and description, kept beside them by a trigger, so that binaries
-- of before keep it too.
--
-- The words are folded: lower case, without accents, and what is joined by a sign counts as several. There is no
-- stemming, because courses come in every language. No extension is needed.

set local lock_timeout = '1s';
set local statement_timeout = '60s';

-- lower() knows the letters of the database's locale, and where that is "C" those of ASCII: the others that have two
-- cases are named.
create function folded_v1(words text) returns text
language sql immutable parallel safe
return translate(
    lower(regexp_replace(regexp_replace(normalize(words, nfkd), '[\u0300-\u036f]', '', 'g'), '[-_/.:@]', ' ', 'g')),
    'ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩςАБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯЄІЂЃЅЈЉЊЋЏҐØÆŒÞÐŁ',
    'αβγδεζηθικλμνξοπρστυφχψωσабвгдежзиклмнопрстуфхцчшщъыьэюяєіђѓѕјљњћџґøæœþðł'
);

create function course_words_v1(title text, description text) returns tsvector
language sql immutable parallel safe
return setweight(to_tsvector('simple', folded_v1(title)), 'A')
    || setweight(to_tsvector('simple', folded_v1(description)), 'B');

-- What somebody typed: every word has to be there, of the last at least the beginning. Null where there is no word.
create function words_query_v1(typed text) returns tsquery
language sql immutable parallel safe
return (nullif(plainto_tsquery('simple', folded_v1(typed))::text, '') || ':*')::tsquery;

alter table courses add column words tsvector;

create function keep_course_words_v1() returns trigger
language plpgsql
as $$
begin
    new.words := course_words_v1(new.title, new.description);
    return new;
end;
$$;

create trigger courses_words before insert or update of title, description on courses
for each row execute function keep_course_words_v1();
