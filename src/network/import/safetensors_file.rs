//! A safetensors file opened for reading a tensor at a time.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::ImportError;
use super::compare::Comparison;
use crate::network::NamedShape;

/// Largest header read. A checkpoint's is about 100 KB; parsed, a header takes some ten times its length.
const MAX_HEADER: u64 = 2 << 20;

/// An open file with its header read and checked: no holes, no overlaps, every length as its shape says.
pub(super) struct SafetensorsFile {
    path: PathBuf,
    file: File,
    header: Metadata,
    /// Where the tensors' bytes begin.
    data_start: u64,
}

impl SafetensorsFile {
    pub(super) fn open(path: &Path, mut file: File) -> Result<SafetensorsFile, ImportError> {
        let io = |source| ImportError::Io { path: path.to_owned(), source };
        let damaged = |reason| ImportError::Damaged { path: path.to_owned(), reason };
        file.rewind().map_err(io)?;
        let length = file.metadata().map_err(io)?.len();

        let mut prefix = [0; 8];
        file.read_exact(&mut prefix).map_err(io)?;
        let header_length = u64::from_le_bytes(prefix);
        if header_length > MAX_HEADER || header_length > length.saturating_sub(8) {
            return Err(damaged(format!("its header claims {header_length} bytes, in a file of {length}")));
        }
        let mut json = vec![0; header_length as usize];
        file.read_exact(&mut json).map_err(io)?;
        let header: Metadata =
            serde_json::from_slice(&json).map_err(|e| damaged(format!("its header is wrong: {e}")))?;

        let data_start = 8 + header_length;
        let expected = data_start.saturating_add(header.data_len() as u64);
        if expected != length {
            return Err(damaged(format!("it is {length} bytes long, its header promises {expected}")));
        }
        Ok(SafetensorsFile { path: path.to_owned(), file, header, data_start })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// All tensors, in the file's order.
    pub(super) fn tensors(&self) -> Vec<NamedShape> {
        let shape = |name: &str| self.shape(name).unwrap_or_default().to_vec();
        self.header.offset_keys().into_iter().map(|name| (name.clone(), shape(&name))).collect()
    }

    /// A tensor's shape.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.info(name).map(|info| info.shape.as_slice())
    }

    /// The elements of tensor `name`, which must be in the file and have this shape.
    pub(super) fn read(
        &mut self,
        name: &str,
        shape: &[usize],
        comparison: &Comparison<'_>,
    ) -> Result<Vec<f32>, ImportError> {
        let path = || self.path.clone();
        let Some(TensorInfo { dtype, shape: found, data_offsets: (start, end) }) = self.header.info(name) else {
            let reason = format!("it lacks {name}");
            return Err(ImportError::Damaged { path: path(), reason });
        };
        comparison.shape(name, shape, &found.iter().map(|&extent| extent as u64).collect::<Vec<_>>())?;
        if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            let found = format!("{dtype:?}");
            return Err(ImportError::ElementType { path: path(), tensor: name.to_owned(), found });
        }
        let dtype = *dtype;
        let mut bytes = vec![0; end - start];
        let at = SeekFrom::Start(self.data_start + *start as u64);
        let io = |source| ImportError::Io { path: self.path.clone(), source };
        self.file.seek(at).map_err(io)?;
        self.file.read_exact(&mut bytes).map_err(io)?;

        let (halves, _) = bytes.as_chunks::<2>();
        let (words, _) = bytes.as_chunks::<4>();
        Ok(match dtype {
            Dtype::F16 => halves.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => halves.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            _ => words.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        })
    }
}
