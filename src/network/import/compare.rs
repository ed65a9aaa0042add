//! A file's tensors beside those that a model wants: what is missing, what is too many, and what has another shape.
//!
//! A file can hold every tensor of a network, names and shapes alike, and be another one's all the same: a ResNet-101's has all that
//! a ResNet-50 has, and so has an SE-ResNet-50's. So tensors too many are refused as well, but for those that are no part of the
//! network: another head, the optimiser's state, counters.

use std::collections::HashSet;
use std::path::Path;

use super::looks::looks_like;
use super::{ImportError, Wanted, automatic};
use crate::network::{NETWORKS, NamedShape};

/// The comparison of one file.
pub(super) struct Comparison<'a> {
    pub path: &'a Path,
    pub wanted: &'a Wanted,
    /// What else the file seems to be than what is wanted, for the end of a sentence.
    looks_like: Option<String>,
}

impl<'a> Comparison<'a> {
    /// With what the file holds, under its own names or today's of Keras.
    pub fn new(path: &'a Path, wanted: &'a Wanted, held: &[NamedShape]) -> Self {
        let other = looks_like(held).filter(|found| looks_like(&wanted.base).as_ref() != Some(found));
        let looks_like = other.map(|found| match NETWORKS.iter().find(|network| network.title == found) {
            Some(network) => format!("{found}, which --network {network} chooses"),
            None => found,
        });
        Comparison { path, wanted, looks_like }
    }

    /// Refuses the file if it lacks these of the tensors looked for, `of` in all; `there` is one that it does have.
    pub fn missing(&self, names: Vec<String>, of: usize, there: Option<String>) -> Result<(), ImportError> {
        if names.is_empty() {
            return Ok(());
        }
        let count = names.len();
        let seems = match (&self.looks_like, there.filter(|_| count == of)) {
            (Some(looks_like), _) => format!("it looks like {looks_like}"),
            (None, Some(there)) => {
                format!(
                    "what it has is called like {}: no names of Keras's, torchvision's or timm's",
                    shortened(&there)
                )
            }
            (None, None) => format!("is it a {}?", self.wanted.network.title),
        };
        Err(ImportError::Missing {
            path: self.path.to_owned(),
            network: self.wanted.network.title,
            first: names.into_iter().take(4).collect(),
            count,
            of,
            seems,
        })
    }

    /// Refuses the first of `held` that is not in `ours`. Both are names of the network's own tensors in one way of naming them, of
    /// which `block` gives the residual block: `layer3.5` of `layer3.5.conv1.weight`.
    pub fn surplus<'b>(
        &self,
        held: impl Iterator<Item = &'b str>,
        ours: &HashSet<String>,
        block: fn(&str) -> Option<&str>,
    ) -> Result<(), ImportError> {
        let mut held = held.filter(|name| !ours.contains(*name));
        let Some(tensor) = held.next() else { return Ok(()) };
        let our_blocks: HashSet<&str> = ours.iter().filter_map(|name| block(name)).collect();
        let seems = match (&self.looks_like, block(tensor)) {
            (Some(looks_like), _) => format!("it looks like {looks_like}"),
            (None, Some(block)) if !our_blocks.contains(block) => "a block too many".to_owned(),
            (None, Some(_)) => "a layer too many in its block".to_owned(),
            (None, None) => "a layer too many outside its blocks".to_owned(),
        };
        let (path, network) = (self.path.to_owned(), self.wanted.network.title);
        Err(ImportError::OtherNetwork { path, network, tensor: shortened(tensor), seems })
    }

    /// Refuses a tensor that has another shape in the file than is `expected`, in the file's layout.
    pub fn shape(&self, tensor: &str, expected: &[usize], found: &[u64]) -> Result<(), ImportError> {
        if expected.iter().map(|&extent| extent as u64).eq(found.iter().copied()) {
            return Ok(());
        }
        Err(ImportError::Shape {
            path: self.path.to_owned(),
            network: self.wanted.network.title,
            tensor: tensor.to_owned(),
            expected: expected.into(),
            found: found.into(),
            seems: self
                .looks_like
                .clone()
                .map_or("it is of another network".into(), |it| format!("it looks like {it}")),
        })
    }

    /// Refuses tensors too many among `held`, which are Keras's names of today.
    pub fn keras_surplus<'b>(&self, held: impl Iterator<Item = &'b str>) -> Result<(), ImportError> {
        let ours: HashSet<String> = self.wanted.base.iter().map(|(name, _)| name.clone()).collect();
        let family = Family::of(&self.wanted.base);
        self.surplus(held.filter(|name| family.has(name)), &ours, keras_block)
    }
}

/// How a network begins the names of its base's layers, by Keras's names of today: `conv#_` for ResNet's.
///
/// Layers of a head begin otherwise, and so do layers that Keras numbers by itself (`conv2d_3`), unless a network has such: those too many
/// come from whatever else is in a file.
pub(super) struct Family(HashSet<String>);

impl Family {
    pub fn of(base: &[NamedShape]) -> Self {
        let layer = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
        let named = base.iter().filter(|(name, _)| !automatic::is_automatic(&layer(name)));
        Family(named.map(|(name, _)| beginning(name)).collect())
    }

    /// Whether a tensor belongs to a network whose layers are called so.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(&beginning(name))
    }
}

/// A name up to its first underscore or slash, each number in it a `#`.
fn beginning(name: &str) -> String {
    let end = name.find(['_', '/']).map_or(name.len(), |at| at + 1);
    let mut beginning = String::new();
    for character in name[..end].chars() {
        match character.is_ascii_digit() {
            true if beginning.ends_with('#') => {}
            true => beginning.push('#'),
            false => beginning.push(character),
        }
    }
    beginning
}

/// The block of a tensor under Keras's names of today: `conv4_block7` of `conv4_block7_1_conv/kernel`.
fn keras_block(name: &str) -> Option<&str> {
    let (stage, rest) = name.split_once("_block")?;
    let number = rest.split(['_', '/']).next()?;
    Some(&name[..stage.len() + "_block".len() + number.len()])
}

/// A name from a file, for a message: not too long, and without line breaks.
fn shortened(name: &str) -> String {
    name.chars().take(100).flat_map(char::escape_debug).collect()
}
