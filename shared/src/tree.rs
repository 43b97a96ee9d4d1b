//! A course's lessons and sections as clients send them: how they are read, what they may be, and the arrays in which
//! new ones go to PostgreSQL.

use uuid::Uuid;

use crate::{
    body::{HTTPS_URL, Node, Text},
    error::{Error, reason},
    generation::DESCRIPTION,
    http::MOST_BYTES,
    ids,
};

/// A title of anything.
pub const TITLE: Text = Text::filled(500);
/// The author's word for what a section is.
const SECTION_TYPE: Text = Text::filled(50);
/// Bounded by the size of a request alone.
const CONTENT: Text = Text { most: MOST_BYTES, may_be_blank: true };
/// Places among siblings.
const ORDER: std::ops::RangeInclusive<i32> = 1..=1_000_000;

/// A lesson as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson {
    /// `None` for a new one.
    pub id: Option<Uuid>,
    pub(crate) title: String,
    pub(crate) order: i32,
    pub(crate) sections: Vec<Section>,
}

/// A section as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// `None` for a new one.
    pub id: Option<Uuid>,
    pub(crate) title: String,
    /// `None` where a section that is known keeps its own.
    pub(crate) content: Option<String>,
    pub(crate) kind: String,
    pub(crate) order: i32,
    pub(crate) duration: Option<i32>,
}

/// Where the ids of a tree come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// All of it is new, and every section has a content.
    Made,
    /// What has an `id` is known; what has none is new.
    Kept,
}

/// Reads the array of a course's lessons.
pub fn lessons(node: &Node<'_>, ids: Ids) -> Option<Vec<Lesson>> {
    let lessons = node.items(0..=usize::MAX, |node| lesson(node, ids));
    node.refuse_repeated("order");
    lessons
}

fn lesson(node: &Node<'_>, ids: Ids) -> Option<Lesson> {
    let node = node.object()?;
    let id = id(node, ids);
    let title = node.field("title").text(TITLE);
    let order = node.field("order").whole(ORDER);
    let sections = node.field("sections").items(0..=usize::MAX, |node| section(node, ids));
    node.field("sections").refuse_repeated("order");
    Some(Lesson { id: id?, title: title?.to_owned(), order: order?, sections: sections? })
}

fn section(node: &Node<'_>, ids: Ids) -> Option<Section> {
    let node = node.object()?;
    let id = id(node, ids);
    let title = node.field("title").text(TITLE);
    let content = node.field("content");
    let content = match id {
        Some(Some(_)) => content.optional_or(|node| node.text(CONTENT)),
        _ => content.text(CONTENT).map(Some),
    };
    let kind = node.field("type").text(SECTION_TYPE);
    let order = node.field("order").whole(ORDER);
    let duration = node.field("duration").optional_or(|node| node.whole(0..=i32::MAX));
    Some(Section {
        id: id?,
        title: title?.to_owned(),
        content: content?.map(str::to_owned),
        kind: kind?.to_owned(),
        order: order?,
        duration: duration?,
    })
}

fn id(node: &Node<'_>, ids: Ids) -> Option<Option<Uuid>> {
    match ids {
        Ids::Made => Some(None),
        Ids::Kept => node.field("id").optional_or(|node| node.id()),
    }
}

/// Refuses a tree whose outline, or one of whose sections, no answer could hold: now, or when another title and another
/// description have been given to it, which nobody should be refused for the size of what is there already.
pub(crate) fn fit(lessons: &[Lesson]) -> Result<(), Error> {
    if outline_size(lessons) > MOST_BYTES - MOST_DESCRIBED || largest_section(lessons) > MOST_BYTES {
        return Err(Error::TooLarge(reason::ANSWER_TOO_LARGE));
    }
    Ok(())
}

/// About how many bytes these take in an outline, never less by more than a few hundred.
fn outline_size(lessons: &[Lesson]) -> usize {
    let sections = lessons.iter().flat_map(|lesson| &lesson.sections);
    let in_sections: usize = sections.map(|section| 130 + escaped(&section.title) + escaped(&section.kind)).sum();
    let in_lessons: usize = lessons.iter().map(|lesson| 130 + escaped(&lesson.title)).sum();
    in_sections + in_lessons
}

/// How many bytes the answer to `GET /sections/{sectionId}` will have at the most, whatever its title will be.
fn largest_section(lessons: &[Lesson]) -> usize {
    const BESIDE: usize = 300 + MOST_ESCAPED * (TITLE.most + SECTION_TYPE.most);
    let size = |section: &Section| {
        let content = section.content.as_deref().unwrap_or_default();
        // Of nearly all no byte has to be looked at.
        let most = BESIDE + MOST_ESCAPED * content.len();
        if most <= MOST_BYTES { most } else { BESIDE + escaped(content) }
    };
    lessons.iter().flat_map(|lesson| &lesson.sections).map(size).max().unwrap_or_default()
}

/// What a character becomes inside a JSON string at the most: `\u001f`.
const MOST_ESCAPED: usize = 6;
/// What a course has in its outline beside its tree: texts as long as they may be, and all the rest.
pub(crate) const MOST_DESCRIBED: usize = MOST_ESCAPED * (TITLE.most + DESCRIPTION.most + HTTPS_URL.most) + 1_000;

/// Bytes of a text inside a JSON string, as PostgreSQL writes it.
fn escaped(text: &str) -> usize {
    let bytes = |byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => MOST_ESCAPED,
        _ => 1,
    };
    text.bytes().map(bytes).sum()
}

/// Lessons and sections as the parallel arrays that `unnest` takes.
#[derive(Debug, Default)]
pub(crate) struct Rows<'a> {
    pub(crate) lesson_ids: Vec<Uuid>,
    pub(crate) lesson_titles: Vec<&'a str>,
    pub(crate) lesson_orders: Vec<i32>,
    pub(crate) section_ids: Vec<Uuid>,
    pub(crate) section_lessons: Vec<Uuid>,
    pub(crate) section_titles: Vec<&'a str>,
    pub(crate) section_contents: Vec<&'a str>,
    pub(crate) section_kinds: Vec<&'a str>,
    pub(crate) section_orders: Vec<i32>,
    pub(crate) section_durations: Vec<Option<i32>>,
}

impl<'a> Rows<'a> {
    /// All of a tree, under new ids.
    pub(crate) fn of(lessons: &'a [Lesson]) -> Self {
        let mut rows = Self::default();
        for lesson in lessons {
            let id = ids::new_id();
            rows.add_lesson(id, lesson);
            for section in &lesson.sections {
                rows.add_section(ids::new_id(), id, section);
            }
        }
        rows
    }

    pub(crate) fn add_lesson(&mut self, id: Uuid, lesson: &'a Lesson) {
        self.lesson_ids.push(id);
        self.lesson_titles.push(&lesson.title);
        self.lesson_orders.push(lesson.order);
    }

    pub(crate) fn add_section(&mut self, id: Uuid, lesson: Uuid, section: &'a Section) {
        self.section_ids.push(id);
        self.section_lessons.push(lesson);
        self.section_titles.push(&section.title);
        self.section_contents.push(section.content.as_deref().unwrap_or_default());
        self.section_kinds.push(&section.kind);
        self.section_orders.push(section.order);
        self.section_durations.push(section.duration);
    }
}
