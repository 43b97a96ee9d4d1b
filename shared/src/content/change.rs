//! The way from the tree that a course has to the one that was sent. Writes nothing.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    body,
    error::{Error, Fault, reason},
    ids,
    tree::{self, Lesson, Rows},
};

/// Ids of one kind that a note of an edit names at the most.
const MOST_NOTED: usize = 100;

/// What a course has, by id, the retired included.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) lessons: HashMap<Uuid, HeldLesson>,
    pub(super) sections: HashMap<Uuid, HeldSection>,
}

#[derive(Debug)]
pub(super) struct HeldLesson {
    pub(super) title: String,
    pub(super) order: Option<i32>,
}

#[derive(Debug)]
pub(super) struct HeldSection {
    pub(super) lesson: Uuid,
    pub(super) title: String,
    pub(super) kind: String,
    pub(super) order: Option<i32>,
    pub(super) duration: Option<i32>,
}

/// What happens to the lessons, or to the sections, of a tree.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fates {
    pub(super) added: Vec<Uuid>,
    pub(super) changed: Vec<Uuid>,
    pub(super) retired: Vec<Uuid>,
    pub(super) restored: Vec<Uuid>,
    /// Those of the changed whose places have to be free before others are given.
    pub(super) moved: Vec<Uuid>,
}

impl Fates {
    fn is_nothing(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.retired.is_empty() && self.restored.is_empty()
    }

    /// One that stays or comes back: how its place changes, and whether anything about it does.
    fn keep(&mut self, id: Uuid, place: Place, is_changed: bool) {
        match place {
            Place::Restored => self.restored.push(id),
            Place::Moved => {
                self.changed.push(id);
                self.moved.push(id);
            }
            Place::Same if is_changed => self.changed.push(id),
            Place::Same => {}
        }
    }

    /// Those that have a place and are not in the tree any more.
    fn retire(&mut self, placed: impl Iterator<Item = Uuid>, kept: &HashSet<Uuid>) {
        self.retired.extend(placed.filter(|id| !kept.contains(id)));
        // The same edit says the same, whatever the order of the map.
        self.retired.sort();
    }

    fn to_json(&self) -> Value {
        json!({
            "added": noted(&self.added),
            "changed": noted(&self.changed),
            "retired": noted(&self.retired),
            "restored": noted(&self.restored),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Same,
    Moved,
    Restored,
}

/// The way from the tree that a course has to the one that was sent.
#[derive(Debug, Default)]
pub(super) struct Change<'a> {
    pub(super) lessons: Fates,
    pub(super) sections: Fates,
    pub(super) new: Rows<'a>,
    /// Stored rows that get other values. Their contents come separately.
    pub(super) stored: Rows<'a>,
    pub(super) are_restored: Vec<bool>,
    pub(super) content_ids: Vec<Uuid>,
    pub(super) contents: Vec<&'a str>,
}

impl<'a> Change<'a> {
    /// Finds out what has to be done; ids that the course does not have, or that stand twice, refuse the tree.
    pub(super) fn between(held: &Held, lessons: &'a [Lesson]) -> Result<Self, Error> {
        let mut change = Self::default();
        let mut faults = Vec::new();
        let mut kept = HashSet::new();
        for (index, lesson) in lessons.iter().enumerate() {
            let pointer = format!("/lessons/{index}");
            let known = known(lesson.id, &held.lessons, &mut kept, &pointer, "lesson", &mut faults);
            let id = change.lesson(lesson, known);
            for (index, section) in lesson.sections.iter().enumerate() {
                let pointer = format!("{pointer}/sections/{index}");
                let known = self::known(section.id, &held.sections, &mut kept, &pointer, "section", &mut faults);
                change.section(section, id, known);
            }
        }
        if !faults.is_empty() {
            return Err(Error::Invalid { reason: reason::INVALID_BODY, faults });
        }
        let placed = held.lessons.iter().filter_map(|(id, lesson)| lesson.order.map(|_| *id));
        change.lessons.retire(placed, &kept);
        let placed = held.sections.iter().filter_map(|(id, section)| section.order.map(|_| *id));
        change.sections.retire(placed, &kept);
        Ok(change)
    }

    /// One lesson; answers under which id it stands.
    fn lesson(&mut self, sent: &'a Lesson, known: Option<(Uuid, &HeldLesson)>) -> Uuid {
        let Some((id, held)) = known else {
            let id = ids::new_id();
            self.lessons.added.push(id);
            self.new.add_lesson(id, sent);
            return id;
        };
        let place = place(held.order, sent.order, false);
        let is_changed = held.title != sent.title;
        self.lessons.keep(id, place, is_changed);
        if place != Place::Same || is_changed {
            self.stored.add_lesson(id, sent);
        }
        id
    }

    fn section(&mut self, sent: &'a tree::Section, lesson: Uuid, known: Option<(Uuid, &HeldSection)>) {
        let Some((id, held)) = known else {
            let id = ids::new_id();
            self.sections.added.push(id);
            self.new.add_section(id, lesson, sent);
            return;
        };
        let place = place(held.order, sent.order, held.lesson != lesson);
        let is_changed = held.title != sent.title || held.kind != sent.kind || held.duration != sent.duration;
        self.sections.keep(id, place, is_changed);
        if place != Place::Same || is_changed {
            self.stored.add_section(id, lesson, sent);
            self.are_restored.push(place == Place::Restored);
        }
        if let Some(content) = &sent.content {
            self.content_ids.push(id);
            self.contents.push(content);
        }
    }

    /// Whether the course has this tree already.
    pub(super) fn is_nothing(&self) -> bool {
        self.lessons.is_nothing() && self.sections.is_nothing()
    }

    /// Whether sections that learners may have completed come or go.
    pub(super) fn moves_counts(&self) -> bool {
        !self.sections.retired.is_empty() || !self.sections.restored.is_empty()
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "lessons": self.lessons.to_json(), "sections": self.sections.to_json() })
    }
}

fn place(held: Option<i32>, sent: i32, is_elsewhere: bool) -> Place {
    match held {
        None => Place::Restored,
        Some(held) if held != sent || is_elsewhere => Place::Moved,
        Some(_) => Place::Same,
    }
}

/// What the course has under the id that was sent, or the fault that it has none or that it was there before.
fn known<'a, T>(
    id: Option<Uuid>,
    held: &'a HashMap<Uuid, T>,
    kept: &mut HashSet<Uuid>,
    pointer: &str,
    what: &str,
    faults: &mut Vec<Fault>,
) -> Option<(Uuid, &'a T)> {
    let id = id?;
    let detail = match held.get(&id) {
        None => format!("is no {what} of this course"),
        Some(_) if !kept.insert(id) => "stands in the tree twice".to_owned(),
        Some(held) => return Some((id, held)),
    };
    if faults.len() < body::MOST_FAULTS {
        faults.push(Fault { pointer: format!("{pointer}/id"), detail });
    }
    None
}

/// The first ids of many, and how many there are.
pub(super) fn noted(ids: &[Uuid]) -> Value {
    json!({ "count": ids.len(), "ids": ids.get(..MOST_NOTED).unwrap_or(ids) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::parse_tree;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// Lesson 1 with sections 11 and 12, lesson 2 with 21; lesson 3 with 31 is retired.
    fn held() -> Held {
        let mut held = Held::default();
        for (number, order) in [(1, Some(1)), (2, Some(2)), (3, None)] {
            held.lessons.insert(id(number), HeldLesson { title: "L".into(), order });
        }
        for (number, lesson, order) in [(11, 1, Some(1)), (12, 1, Some(2)), (21, 2, Some(1)), (31, 3, None)] {
            let (lesson, title, kind) = (id(lesson), "S".to_owned(), "text".to_owned());
            held.sections.insert(id(number), HeldSection { lesson, title, kind, order, duration: None });
        }
        held
    }

    fn tree(lessons: &[(u128, &[u128])]) -> Value {
        let sections = |ids: &[u128]| -> Vec<Value> {
            let places = ids.iter().zip(1..);
            places
                .map(|(number, order)| json!({"id": id(*number), "title": "S", "type": "text", "order": order}))
                .collect()
        };
        let lessons: Vec<Value> = lessons
            .iter()
            .zip(1..)
            .map(|((number, ids), order)| json!({"id": id(*number), "title": "L", "order": order, "sections": sections(ids)}))
            .collect();
        json!({ "lessons": lessons })
    }

    #[test]
    fn the_same_tree_changes_nothing() {
        let lessons = parse_tree(&tree(&[(1, &[11, 12]), (2, &[21])])).unwrap();
        let change = Change::between(&held(), &lessons).unwrap();
        assert!(change.is_nothing() && !change.moves_counts());
        assert!(change.stored.section_ids.is_empty() && change.lessons.moved.is_empty());
    }

    #[test]
    fn what_moves_is_lifted_and_what_is_missing_is_retired() {
        let lessons = parse_tree(&tree(&[(2, &[21, 11]), (3, &[31])])).unwrap();
        let change = Change::between(&held(), &lessons).unwrap();
        assert_eq!(change.lessons.retired, [id(1)]);
        assert_eq!(change.lessons.changed, [id(2)]);
        assert_eq!(change.lessons.restored, [id(3)]);
        assert_eq!(change.sections.changed, [id(11)]);
        assert_eq!(change.sections.retired, [id(12)]);
        assert_eq!(change.sections.restored, [id(31)]);
        assert_eq!(change.sections.moved, [id(11)]);
        assert!(change.moves_counts());
    }

    #[test]
    fn ids_that_are_foreign_or_repeated_are_all_told() {
        let lessons = parse_tree(&tree(&[(1, &[11, 11, 99]), (1, &[21]), (12, &[])])).unwrap();
        let Err(Error::Invalid { faults, .. }) = Change::between(&held(), &lessons) else { panic!("not refused") };
        let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            ["/lessons/0/sections/1/id", "/lessons/0/sections/2/id", "/lessons/1/id", "/lessons/2/id"]
        );
    }

    #[test]
    fn only_a_known_section_may_come_without_its_content() {
        let mut body = tree(&[(1, &[11, 12])]);
        body["lessons"][0]["sections"][1]["id"] = Value::Null;
        assert!(parse_tree(&body).is_err());
        body["lessons"][0]["sections"][1]["content"] = "new".into();
        let lessons = parse_tree(&body).unwrap();
        assert_eq!(Change::between(&held(), &lessons).unwrap().sections.added.len(), 1);
    }
}
