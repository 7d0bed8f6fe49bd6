//! Texts made of stored objects, kept for who reads the same again.
//!
//! What nobody reads goes: forms are young first and old after a while, an old one that is read is young again, and the
//! old ones are dropped when the young take their place. So the memory is used while it saves work, and no longer.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use lifecycle::Shutdown;
use parking_lot::Mutex;

/// Bytes that all forms of a sort may take: who lists in one way takes no room from those who list in another.
const MAX_BYTES: usize = 48 << 20;
/// What an entry takes beside its text.
const ENTRY_BYTES: usize = 128;
/// After this time what is young is old.
const YOUTH: Duration = Duration::from_secs(30);

/// What a form shows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sort {
    /// All, as JSON without type names.
    Json,
    /// Cells and metadata, as a row of a Table.
    Row,
}

impl Sort {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Json, Self::Row];
}

/// What a form is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Index of the storage.
    pub storage: usize,
    /// Message of the version that is shown.
    pub message: usize,
    /// Revision of the object.
    pub revision: i64,
    /// What is shown.
    pub sort: Sort,
}

/// A text, in which ages may be left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// JSON.
    pub text: Bytes,
    /// Places in the text, and the times in nanoseconds since 1970 whose ages belong there.
    pub ages: Box<[(usize, i64)]>,
}

impl Form {
    /// A text with nothing left open.
    #[must_use]
    pub fn whole(text: Bytes) -> Self {
        Self { text, ages: Box::default() }
    }

    fn size(&self) -> usize {
        self.text.len() + size_of_val(&*self.ages) + ENTRY_BYTES
    }
}

/// The forms of objects that were read lately.
#[derive(Default)]
pub struct Forms {
    json: Mutex<Kept>,
    rows: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    forms: HashMap<Key, Form>,
    bytes: usize,
}

impl Generation {
    fn put(&mut self, key: Key, form: Form) {
        self.bytes += form.size();
        if let Some(before) = self.forms.insert(key, form) {
            self.bytes -= before.size();
        }
    }

    fn take(&mut self, key: &Key) -> Option<Form> {
        let form = self.forms.remove(key)?;
        self.bytes -= form.size();
        Some(form)
    }
}

impl Kept {
    fn get(&mut self, key: &Key) -> Option<&Form> {
        if let Some(form) = self.old.take(key) {
            self.young.put(*key, form);
        }
        self.young.forms.get(key)
    }

    fn has_room(&self, form: &Form) -> bool {
        self.young.bytes + self.old.bytes + form.size() <= MAX_BYTES
    }

    /// Returns what nobody has read for long.
    fn grow_old(&mut self) -> Generation {
        std::mem::replace(&mut self.old, std::mem::take(&mut self.young))
    }
}

impl Forms {
    fn of(&self, sort: Sort) -> &Mutex<Kept> {
        match sort {
            Sort::Json => &self.json,
            Sort::Row => &self.rows,
        }
    }

    /// What `read` makes of a form that is kept.
    pub fn read<R>(&self, key: &Key, read: impl FnOnce(&Form) -> R) -> Option<R> {
        self.of(key.sort).lock().get(key).map(read)
    }

    /// Keeps a form, at the cost of those that were not read for the longest time.
    pub fn keep(&self, key: Key, form: Form) {
        let kept = &mut *self.of(key.sort).lock();
        while !kept.has_room(&form) && kept.young.bytes + kept.old.bytes > 0 {
            kept.grow_old();
        }
        if kept.has_room(&form) {
            kept.young.put(key, form);
        }
    }

    /// Keeps a form if there is room. For lists: one that is larger than all that is kept would drive out what others
    /// read, and find nothing of its own the next time.
    pub fn keep_beside(&self, key: Key, form: impl FnOnce() -> Form) {
        let is_full = |kept: &Kept| kept.young.bytes + kept.old.bytes >= MAX_BYTES;
        if is_full(&self.of(key.sort).lock()) {
            return;
        }
        // Made without keeping others from reading.
        let form = form();
        let kept = &mut *self.of(key.sort).lock();
        if kept.has_room(&form) {
            kept.young.put(key, form);
        }
    }

    /// Forgets the form of an object that is another one by now: it would take room from those that are read.
    pub fn forget(&self, key: &Key) {
        let kept = &mut *self.of(key.sort).lock();
        drop(kept.young.take(key).or_else(|| kept.old.take(key)));
    }

    /// Lets forms grow old, until shutdown.
    pub async fn run(&self, shutdown: &Shutdown) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(YOUTH) => {}
                () = shutdown.wait() => return,
            }
            for kept in [&self.json, &self.rows] {
                let gone = kept.lock().grow_old();
                // Not while others wait for the lock.
                drop(gone);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(revision: i64) -> Key {
        Key { storage: 0, message: 0, revision, sort: Sort::Json }
    }

    fn form(len: usize) -> Form {
        Form::whole(vec![b'x'; len].into())
    }

    fn has(forms: &Forms, revision: i64) -> bool {
        forms.read(&key(revision), |_| ()).is_some()
    }

    #[test]
    fn what_is_read_stays_and_what_is_not_goes() {
        let forms = Forms::default();
        forms.keep(key(1), form(10));
        forms.keep_beside(key(2), || form(10));
        forms.json.lock().grow_old();
        assert!(has(&forms, 1));
        forms.json.lock().grow_old();
        assert!(has(&forms, 1) && !has(&forms, 2));
        assert!(forms.read(&Key { sort: Sort::Row, ..key(1) }, |_| ()).is_none());
        forms.keep(key(3), form(10));
        [1, 3].iter().for_each(|revision| forms.forget(&key(*revision)));
        assert!(!has(&forms, 1) && !has(&forms, 3));
        let kept = forms.json.lock();
        assert_eq!((kept.young.bytes, kept.old.bytes), (0, 0));
    }

    #[test]
    fn one_read_makes_room_and_a_list_takes_what_is_free() {
        let forms = Forms::default();
        let third = MAX_BYTES / 3;
        for revision in 1..=2 {
            forms.keep_beside(key(revision), || form(third));
        }
        forms.keep_beside(key(3), || form(third));
        assert!(has(&forms, 1) && has(&forms, 2) && !has(&forms, 3));
        forms.json.lock().grow_old();
        assert!(has(&forms, 2));
        let row = Key { sort: Sort::Row, ..key(3) };
        forms.keep_beside(row, || form(third));
        assert!(forms.read(&row, |_| ()).is_some(), "rows have room of their own");
        forms.keep(key(4), form(third));
        assert!(!has(&forms, 1) && has(&forms, 2) && has(&forms, 4));
        forms.keep(key(5), form(MAX_BYTES));
        assert!(!has(&forms, 5), "larger than all that may be kept");
        let kept = forms.json.lock();
        assert_eq!((kept.young.bytes, kept.old.bytes), (0, 0));
    }

    #[test]
    fn a_form_that_is_kept_twice_counts_once() {
        let forms = Forms::default();
        forms.keep(key(1), form(10));
        forms.keep(key(1), form(20));
        assert_eq!(forms.json.lock().young.bytes, 20 + ENTRY_BYTES);
    }
}
