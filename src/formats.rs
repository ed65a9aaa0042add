//! What a file is, told from its bytes: a file name proves nothing.

use crate::files::quoted;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// A kind of file that somebody may give where weights, a model or posters are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// HDF5, in which Keras keeps weights.
    Hdf5,
    /// Safetensors: what this program writes, and what other programs' weights are converted to.
    Safetensors,
    /// A pickle, or a zip archive around one, as `torch.save` writes it. Loading it can run code, so it is never read.
    Pickle,
    /// Keras 3's zip archive of a whole model.
    KerasArchive,
    /// None of these.
    Unknown,
}

/// Recognises the file; where it is read from next is for the caller to say.
///
/// # Errors
/// The system's.
pub fn recognise(file: &mut File) -> io::Result<Format> {
    file.seek(SeekFrom::Start(0))?;
    let mut start = Vec::new();
    file.take(4096).read_to_end(&mut start)?;
    if start.starts_with(b"\x89HDF\r\n\x1a\n") {
        return Ok(Format::Hdf5);
    }
    if start.starts_with(b"PK\x03\x04") {
        // A zip archive lists its files at the end: `data.pkl` is PyTorch's, `model.weights.h5` is Keras's.
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(65_536)))?;
        let mut end = Vec::new();
        file.take(65_536).read_to_end(&mut end)?;
        let lists = |name: &[u8]| [&start, &end].iter().any(|part| part.windows(name.len()).any(|w| w == name));
        return Ok(if lists(b"model.weights.h5") {
            Format::KerasArchive
        } else if lists(b".pkl") {
            Format::Pickle
        } else {
            Format::Unknown
        });
    }
    // Safetensors begins with its header's length, eight bytes, and the header is a JSON object. A length can look like the
    // beginning of a pickle, which is the opcode PROTO and its version; a pickle has no such zeros behind that.
    let (is_json, is_pickle) = (start.get(8) == Some(&b'{'), matches!(start[..], [0x80, 0..=5, ..]));
    Ok(match is_json {
        true if start[4..8] == [0; 4] || !is_pickle => Format::Safetensors,
        _ if is_pickle => Format::Pickle,
        _ => Format::Unknown,
    })
}

/// The command that turns the pickle at `path` into safetensors beside it, without running what is in it.
pub fn pickle_conversion(path: &Path) -> String {
    let other = ["safetensors", "converted.safetensors"].map(|extension| path.with_extension(extension));
    let target = other.iter().find(|other| *other != path).unwrap_or(&other[1]);
    format!(
        "python -c \"import sys, torch, safetensors.torch as s; \
         s.save_file(torch.load(sys.argv[1], map_location='cpu', weights_only=True), sys.argv[2])\" {} {}",
        quoted(path),
        quoted(target)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversion_never_writes_over_what_it_reads() {
        let of = |path: &str| pickle_conversion(Path::new(path));
        assert!(of("a/w.pth").ends_with(" a/w.pth a/w.safetensors"));
        assert!(of("w.safetensors").ends_with(" w.safetensors w.converted.safetensors"));
    }

    use std::io::Write;

    fn recognised(bytes: &[u8]) -> Format {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        recognise(&mut file).unwrap()
    }

    #[test]
    fn a_safetensors_header_of_any_length_is_no_pickle() {
        for length in (8u64..4000).chain([0x01_0380, 0x7f_0580]) {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend(b"{\"a\":{\"dtype\"");
            assert_eq!(recognised(&bytes), Format::Safetensors, "{length}");
        }
    }

    #[test]
    fn pickles_of_every_protocol_are_known() {
        for version in 0..=5 {
            assert_eq!(recognised(&[0x80, version, b'}', b'q', 0, b'.']), Format::Pickle);
            assert_eq!(recognised(&[0x80, version, b'}', b'q', 1, b'(', b'X', 1, b'{', b'.']), Format::Pickle);
        }
        assert_eq!(recognised(b"PK\x03\x04 archive/data.pkl"), Format::Pickle);
        assert_eq!(recognised(b"PK\x03\x04 model.weights.h5"), Format::KerasArchive);
        for junk in [&b""[..], b"{", b"PK\x03\x04", b"\xff\xd8\xff\xe0 a JPEG"] {
            assert_eq!(recognised(junk), Format::Unknown);
        }
    }
}
