//! How a poster becomes the square of pixels that the network sees: choices made once for a set of posters.

use std::collections::BTreeMap;
use std::str::FromStr;

/// How a poster is scaled. The whole poster is kept: its sides are scaled each by its own factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Every pixel is a weighted mean over the area it covers in the poster.
    ///
    /// The weights fall off in a triangle two target pixels wide (Pillow's `BILINEAR` when shrinking). A plain box would be
    /// the obvious choice, but at these small factors (182 to 150 pixels) it takes one source pixel here and two there,
    /// which breaks fine lines such as the small print of a poster.
    Area,
    /// Every pixel is one pixel of the poster, as in Keras's `load_img`, which is what the paper's network saw.
    Nearest,
}

/// What becomes of the orientation that a camera or a scanner noted beside the pixels, in the file's EXIF data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exif {
    /// The poster is turned as it says, as viewers show it.
    Apply,
    /// The pixels stay as they are stored, as in Keras's `load_img`.
    Ignore,
}

/// What becomes of transparent pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpha {
    /// They have the colour that is stored below the transparency, as in Keras's `load_img`.
    Drop,
    /// They are laid over white, as viewers show them.
    White,
}

/// A choice and its names, for options, for the tensor file's provenance and back.
macro_rules! names {
    ($choice:ident { $($value:ident $name:literal),+ }) => {
        impl $choice {
            /// The name of the choice, in options and in files.
            pub fn name(self) -> &'static str {
                match self { $($choice::$value => $name),+ }
            }
        }

        impl FromStr for $choice {
            type Err = UnknownName;

            fn from_str(name: &str) -> Result<Self, UnknownName> {
                match name {
                    $($name => Ok($choice::$value),)+
                    _ => Err(UnknownName { name: name.to_owned(), known: &[$($name),+] }),
                }
            }
        }
    };
}

names!(Resize { Area "area", Nearest "nearest" });
names!(Exif { Apply "apply", Ignore "ignore" });
names!(Alpha { Drop "drop", White "white" });

/// No choice has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is neither {}", known.join(" nor "))]
pub struct UnknownName {
    name: String,
    known: &'static [&'static str],
}

/// A file tells of a choice that this program does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its posters were made square in a way unknown here: for `{key}`, {cause}; update onesheet")]
pub struct UnknownSquaring {
    key: &'static str,
    cause: UnknownName,
}

/// All that settles which pixels a poster's file stands for. Training and inference must agree in it, so the tensor file
/// records it, and the checkpoint hands it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Squaring {
    /// The side of the square, in pixels.
    pub size: usize,
    /// How the poster is scaled.
    pub resize: Resize,
    /// What becomes of a noted orientation.
    pub exif: Exif,
    /// What becomes of transparency.
    pub alpha: Alpha,
}

impl Squaring {
    /// The choices as a tensor file records them, beside the size, which has its own place there.
    pub fn provenance(&self) -> BTreeMap<String, String> {
        let entries = [("resize", self.resize.name()), ("exif", self.exif.name()), ("alpha", self.alpha.name())];
        entries.into_iter().map(|(key, name)| (key.to_owned(), name.to_owned())).collect()
    }

    /// The choices that a file records. One that it says nothing of is what it was before there was a choice.
    ///
    /// # Errors
    /// [`UnknownSquaring`]
    pub fn from_provenance(size: usize, provenance: &BTreeMap<String, String>) -> Result<Squaring, UnknownSquaring> {
        fn choice<T: FromStr<Err = UnknownName>>(
            provenance: &BTreeMap<String, String>,
            key: &'static str,
            before: T,
        ) -> Result<T, UnknownSquaring> {
            let name = provenance.get(key).map(|name| name.parse().map_err(|cause| UnknownSquaring { key, cause }));
            name.unwrap_or(Ok(before))
        }
        Ok(Squaring {
            size,
            resize: choice(provenance, "resize", Resize::Area)?,
            exif: choice(provenance, "exif", Exif::Ignore)?,
            alpha: choice(provenance, "alpha", Alpha::Drop)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_records_is_what_it_was_made_with() {
        for resize in [Resize::Area, Resize::Nearest] {
            for exif in [Exif::Apply, Exif::Ignore] {
                for alpha in [Alpha::Drop, Alpha::White] {
                    let squaring = Squaring { size: 9, resize, exif, alpha };
                    assert_eq!(Squaring::from_provenance(9, &squaring.provenance()), Ok(squaring));
                }
            }
        }
        // Files from before the choice.
        let before = Squaring { size: 9, resize: Resize::Area, exif: Exif::Ignore, alpha: Alpha::Drop };
        assert_eq!(Squaring::from_provenance(9, &BTreeMap::new()), Ok(before));
        // Files from after it.
        let later = BTreeMap::from([("alpha".to_owned(), "black".to_owned())]);
        let error = Squaring::from_provenance(9, &later).unwrap_err().to_string();
        assert!(error.contains("`alpha`, `black` is neither drop nor white"), "{error}");
    }
}
