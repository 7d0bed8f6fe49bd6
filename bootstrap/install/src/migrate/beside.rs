//! What lies beside STATE: a folder for each format, with whole files and a list of where they belong.
//!
//! Nothing of a folder counts before its list is there. Files go to their places by other names for the same content, so
//! that there is always room for it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sys::System;

use super::files::may_change;
use super::{Files, Form, MigrateError};

/// In STATE.
pub(super) const FOLDER: &str = ".formats";
const LIST: &str = "list.json";
/// More is no list.
const LIST_BYTES: usize = 1 << 20;

/// Where a file belongs.
#[derive(Serialize, Deserialize)]
struct Row {
    /// Below STATE.
    path: String,
    /// Its name in the folder; none if this format has no such file.
    file: Option<String>,
}

fn folder(state: &Path, format: u32) -> PathBuf {
    state.join(FOLDER).join(format.to_string())
}

/// Puts what makes STATE one of this format beside it.
pub(super) fn put(system: &dyn System, state: &Path, format: u32, files: &Files) -> Result<(), MigrateError> {
    let folder = begin(system, state, format)?;
    let mut rows = Vec::new();
    for (number, (path, file)) in files.iter().enumerate() {
        let name = number.to_string();
        if let Some(file) = file {
            system.replace(&folder.join(&name), &file.content, file.mode)?;
        }
        rows.push(Row { path: path.clone(), file: file.is_some().then_some(name) });
    }
    store(system, &folder, &rows)
}

/// Keeps what STATE has in the place of what lies beside it of another format, and moves to that.
pub(super) fn exchange(system: &dyn System, state: &Path, (from, to): (u32, u32)) -> Result<(), MigrateError> {
    let rows = load(system, &folder(state, to))?;
    let kept = begin(system, state, from)?;
    let mut former = Vec::new();
    for (number, row) in rows.into_iter().enumerate() {
        let name = number.to_string();
        let place = state.join(&row.path);
        let is_there = system.exists(&place);
        if is_there {
            system.hard_link(&place, &kept.join(&name))?;
        }
        former.push(Row { path: row.path, file: is_there.then_some(name) });
    }
    store(system, &kept, &former)?;
    Form::Moving { from, to }.store(system, state)?;
    finish(system, state, (from, to))
}

/// Goes on with what was begun. What is no more beside has come to its place already.
pub(super) fn finish(system: &dyn System, state: &Path, (from, to): (u32, u32)) -> Result<(), MigrateError> {
    let folder = folder(state, to);
    for Row { path, file } in load(system, &folder)? {
        let place = state.join(&path);
        match file.map(|name| folder.join(name)) {
            Some(file) if system.exists(&file) => {
                if let Some(parent) = place.parent() {
                    system.make_dir(parent, 0o700)?;
                }
                system.rename(&file, &place)?;
            }
            Some(_) => {}
            None => system.remove_file(&place)?,
        }
    }
    Form::Kept { format: to, former: from }.store(system, state)
}

/// Removes all that lies beside STATE.
pub(super) fn clear(system: &dyn System, state: &Path) -> Result<(), MigrateError> {
    let all = state.join(FOLDER);
    if !system.exists(&all) {
        return Ok(());
    }
    for name in system.list(&all)? {
        remove(system, &all.join(name))?;
    }
    Ok(system.remove_dir(&all)?)
}

/// An empty folder for a format.
fn begin(system: &dyn System, state: &Path, format: u32) -> Result<PathBuf, MigrateError> {
    let folder = folder(state, format);
    if system.exists(&folder) {
        remove(system, &folder)?;
    }
    system.make_dir(&state.join(FOLDER), 0o700)?;
    system.make_dir(&folder, 0o700)?;
    Ok(folder)
}

/// The list first, so that what is left does not count.
fn remove(system: &dyn System, folder: &Path) -> Result<(), MigrateError> {
    system.remove_file(&folder.join(LIST))?;
    for name in system.list(folder).unwrap_or_default() {
        system.remove_file(&folder.join(name))?;
    }
    Ok(system.remove_dir(folder)?)
}

fn load(system: &dyn System, folder: &Path) -> Result<Vec<Row>, MigrateError> {
    let path = folder.join(LIST);
    let text = system.read_at(&path, 0, LIST_BYTES)?;
    let rows: Vec<Row> =
        serde_json::from_slice(&text).map_err(|source| MigrateError::Record { path: path.clone(), source })?;
    // It may come from another release, but never leads out of STATE.
    let is_name = |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let bad = rows.iter().find(|row| !may_change(&row.path) || !row.file.iter().all(is_name));
    match bad {
        Some(row) => Err(MigrateError::Path { path: row.path.clone() }),
        None => Ok(rows),
    }
}

fn store(system: &dyn System, folder: &Path, rows: &[Row]) -> Result<(), MigrateError> {
    let path = folder.join(LIST);
    let text = serde_json::to_vec(rows).map_err(|source| MigrateError::Record { path: path.clone(), source })?;
    Ok(system.replace(&path, &text, 0o600)?)
}
