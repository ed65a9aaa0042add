//! Settings that are kept in TOML as they are typed.

use crate::network::Trainable;
use crate::ops::pool::Pooling;
use std::fmt;
use std::str::FromStr;

/// `all`, or `last:N` counted over the base's layers.
impl fmt::Display for Trainable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trainable::All => f.write_str("all"),
            Trainable::Last(layers) => write!(f, "last:{layers}"),
        }
    }
}

impl FromStr for Trainable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let last = text.strip_prefix("last:").and_then(|layers| layers.parse().ok());
        match (text, last) {
            ("all", _) => Ok(Trainable::All),
            (_, Some(layers)) => Ok(Trainable::Last(layers)),
            _ => Err(format!("`{text}` is neither `all` nor `last:N`, as in last:40")),
        }
    }
}

/// `avg` or `max`, as Keras writes it.
impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pooling::Average => "avg",
            Pooling::Max => "max",
        })
    }
}

impl FromStr for Pooling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "avg" => Ok(Pooling::Average),
            "max" => Ok(Pooling::Max),
            _ => Err(format!("`{text}` is neither `avg` nor `max`")),
        }
    }
}

/// Keeps a value in TOML as it is typed.
pub(in crate::training) mod as_typed {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trainable_reads_what_it_prints_and_nothing_else() {
        for text in ["all", "last:0", "last:40", "last:1000"] {
            assert_eq!(text.parse::<Trainable>().unwrap().to_string(), text);
        }
        for text in ["", "last", "last:", "last:-1", "last:1.5", "some"] {
            assert!(text.parse::<Trainable>().is_err(), "{text}");
        }
    }
}
