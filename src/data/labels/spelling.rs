//! One genre, one name: aliases, spellings, and names that look like several.

use std::collections::{HashMap, HashSet};

use super::separator::GenreSeparator;
use super::warning::{Merged, Warning};
use crate::data::films::Film;
use crate::data::genres::{each_once, spelling_key};

/// The genres of `rows` in the order of their first row, and how many rows have each.
fn counted(rows: &[Film]) -> Vec<(&str, usize)> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut genres: Vec<(&str, usize)> = Vec::new();
    for genre in rows.iter().flat_map(|film| &film.genres) {
        let place = *places.entry(genre).or_insert(genres.len());
        match genres.get_mut(place) {
            Some((_, rows)) => *rows += 1,
            None => genres.push((genre, 1)),
        }
    }
    genres
}

/// Gives every genre of `rows` the most frequent of its spellings, of equally frequent ones the first.
pub(super) fn merge(rows: &mut [Film]) -> Option<Warning> {
    let mut groups: HashMap<String, usize> = HashMap::new();
    let mut spellings: Vec<Vec<(String, usize)>> = Vec::new();
    for (genre, rows) in counted(rows) {
        let group = *groups.entry(spelling_key(genre)).or_insert(spellings.len());
        if group == spellings.len() {
            spellings.push(Vec::new());
        }
        spellings[group].push((genre.to_owned(), rows));
    }
    let mut renamed: HashMap<String, String> = HashMap::new();
    let mut merged = Vec::new();
    for mut spellings in spellings.into_iter().filter(|spellings| spellings.len() > 1) {
        // `max_by_key` would take the last of equals.
        let most = spellings.iter().map(|(_, rows)| *rows).max().unwrap_or_default();
        let winner = spellings.iter().position(|(_, rows)| *rows == most).unwrap_or_default();
        let (genre, _) = spellings.remove(winner);
        renamed.extend(spellings.iter().map(|(spelling, _)| (spelling.clone(), genre.clone())));
        merged.push(Merged { genre, spellings });
    }
    if merged.is_empty() {
        return None;
    }
    rename(rows, |genre| renamed.get(genre));
    Some(Warning::Merged(merged))
}

/// Gives genres the names that `to` has for them.
pub(super) fn rename<'a>(rows: &mut [Film], to: impl Fn(&str) -> Option<&'a String>) {
    for film in rows {
        for genre in &mut film.genres {
            if let Some(name) = to(genre) {
                genre.clone_from(name);
            }
        }
        each_once(&mut film.genres);
    }
}

/// The genres that a bar, comma, semicolon or slash divides into names of other genres.
pub(super) fn may_be_several(rows: &[Film]) -> Option<Warning> {
    let genres = counted(rows);
    let known: HashSet<String> = genres.iter().map(|(genre, _)| spelling_key(genre)).collect();
    let dividers = ['|', ',', ';', '/'].map(GenreSeparator::of);
    let several = |genre: &str| {
        dividers.iter().any(|divider| {
            let parts: Vec<String> = divider.split(genre).map(spelling_key).collect();
            parts.len() > 1 && parts.iter().all(|part| known.contains(part))
        })
    };
    let found: Vec<(String, usize)> =
        genres.iter().filter(|(genre, _)| several(genre)).map(|&(genre, rows)| (genre.to_owned(), rows)).collect();
    (!found.is_empty()).then_some(Warning::MayBeSeveral(found))
}
